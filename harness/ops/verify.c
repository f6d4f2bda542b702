#include "harness/ops/verify.h"

#include <stdio.h>

#include "harness/ops/session.h"
#include "harness/ops/way.h"

const char *qd_op_outcome_name(enum qd_op_outcome outcome)
{
    static const char *const names[] = {"passed", "wrong", "failed", "refused"};
    return names[outcome];
}

qd_status qd_op_judge(qd_status st, struct qd_op_result *result, char *err, size_t errlen)
{
    switch (st) {
    case QD_OK:
        if (!qd_op_error_passed(&result->error, result->text, sizeof result->text))
            result->outcome = QD_OP_WRONG;
        return QD_OK;
    case QD_ERR_UNSUPPORTED: result->outcome = QD_OP_REFUSED; return QD_OK;
    case QD_ERR_ENVIRONMENT:
    case QD_ERR_NO_MEMORY:
    case QD_ERR_ARGUMENT: return qd_fail(st, err, errlen, "%s", result->text);
    default: result->outcome = QD_OP_FAILED; return QD_OK;
    }
}

qd_status qd_op_verify(const struct qd_op_options *options, const struct qd_op_case *c,
                       struct qd_op_result *result, char *err, size_t errlen)
{
    qd_op_session_t *session;
    *result = (struct qd_op_result){.outcome = QD_OP_PASSED};
    qd_status st = qd_op_session_open(options, c, 1, &session, result->text, sizeof result->text);
    for (int i = 0; i < options->repeats && st == QD_OK; i++)
        st = qd_op_session_verify(session, options->seed + (uint64_t)i, &result->error, result->text,
                                  sizeof result->text);
    qd_op_session_close(session);
    return qd_op_judge(st, result, err, errlen);
}

/* ---- the small cases ---- */

/* Every dimension that tiles can split unevenly; a vocabulary whose last shard is short at TP 2 and empty
 * at 4. */
static const struct qd_model_shape shapes[] = {
    {.hidden_dim = 192,
     .ffn_dim = 200,
     .vocab_size = 157,
     .n_layers = 1,
     .n_heads = 6,
     .n_kv_heads = 2,
     .head_dim = 64},
    {.hidden_dim = 320,
     .ffn_dim = 96,
     .vocab_size = 1031,
     .n_layers = 1,
     .n_heads = 4,
     .n_kv_heads = 1,
     .head_dim = 128},
};

static const struct {
    int32_t n_tokens, context;
} sizes[] = {{1, 0}, {1, 300}, {7, 37}, {33, 16}};

struct listing {
    const struct qd_op_options *options;
    qd_op_verify_fn fn;
    void *user;
    char *err;
    size_t errlen;
};

static qd_status verify_one(const struct listing *l, const struct qd_op_case *c)
{
    struct qd_op_result result;
    QD_TRY(qd_op_verify(l->options, c, &result, l->err, l->errlen));
    l->fn(l->user, c, &result);
    return QD_OK;
}

/* All sizes of an op; only attention depends on the context. */
static qd_status verify_sizes(const struct listing *l, struct qd_op_case c)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        c.n_tokens = sizes[i].n_tokens;
        c.context = sizes[i].context;
        if (!qd_op_is_attention(c.op) && i > 0 && c.n_tokens == sizes[i - 1].n_tokens) continue;
        QD_TRY(verify_one(l, &c));
        if (c.op != QD_OP_REDUCE_ADD_RMSNORM || c.tp > 1) continue;
        c.n_slices = 3;
        QD_TRY(verify_one(l, &c));
        c.n_slices = 0;
    }
    return QD_OK;
}

/* On several ranks, every way that the op may go: small cases would never take some of them by themselves. */
static qd_status verify_ways(const struct listing *l, struct qd_op_case c)
{
    if (qd_op_ranks(&c) == 1) return QD_OK;
    for (int way = 0; way < QD_OP_N_WAYS; way++) {
        c.way = (enum qd_op_way)way;
        if (qd_op_has_way(l->options->ops, &c, c.way)) QD_TRY(verify_sizes(l, c));
    }
    return QD_OK;
}

qd_status qd_op_verify_all(const struct qd_op_options *options, int max_tp, qd_op_verify_fn fn, void *user,
                           char *err, size_t errlen)
{
    const struct listing l = {options, fn, user, err, errlen};
    for (int op = 0; op < QD_N_OPS; op++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            for (int numerics = QD_NUMERICS_FUSED; numerics <= QD_NUMERICS_HF; numerics++) {
                struct qd_op_case c = {.op = (enum qd_op)op,
                                       .shape = shapes[s],
                                       .tp = 1,
                                       .numerics = (enum qd_numerics)numerics};
                QD_TRY(verify_sizes(&l, c));
                for (c.tp = 2; c.tp <= max_tp && c.tp <= 4; c.tp *= 2) QD_TRY(verify_ways(&l, c));
            }
        }
    }
    return QD_OK;
}
