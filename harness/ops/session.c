#include "harness/ops/session.h"

#include <pthread.h>
#include <stdlib.h>

#include "harness/ops/check.h"
#include "harness/ops/way.h"
#include "kernels/group.h"

struct qd_op_session {
    const struct qd_device_ops *ops;
    struct qd_op_case c;
    int n_copies;
    qd_group_t *group;
    struct qd_step *step;
    qd_op_phase_fn phase; /* of the step in flight */
    void *arg;
};

/* One rank's state in the group. */
struct rank_state {
    struct qd_op_session *session;
    struct qd_op_rank rank;
};

static qd_status rank_open(void *user, int rank, struct qd_device device, void **state, char *err,
                           size_t errlen)
{
    struct qd_op_session *session = user;
    struct rank_state *s = calloc(1, sizeof *s);
    if (s == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a rank");
    s->session = session;
    qd_status st = qd_op_rank_init(&session->c, rank, device, session->n_copies, &s->rank, err, errlen);
    if (st != QD_OK) {
        free(s);
        return st;
    }
    *state = s;
    return QD_OK;
}

static qd_status rank_step(void *state, const struct qd_step *step, struct qd_step_output *out, char *err,
                           size_t errlen)
{
    struct rank_state *s = state;
    return s->session->phase(s->session->arg, &s->rank, step, out->ids, err, errlen);
}

static void rank_close(void *state)
{
    struct rank_state *s = state;
    if (s == NULL) return;
    qd_op_rank_free(&s->rank);
    free(s);
}

static struct qd_group_config group_config(const struct qd_op_options *options, struct qd_op_session *session)
{
    const struct qd_op_case *c = &session->c;
    struct qd_op_chunk longest = qd_op_chunk(c, 0);
    struct qd_group_config config = {
        .ops = options->ops,
        .tp = qd_op_ranks(c),
        .vocab_size = (int32_t)c->shape.vocab_size,
        .device = {.n_ranks = qd_op_ranks(c),
                   .n_threads = options->n_threads,
                   .cpu_isa = options->cpu_isa,
                   .numerics = c->numerics,
                   .shape = c->shape,
                   .limits = qd_op_limits(c),
                   .max_model_len = longest.prior + longest.q_len,
                   .enforce_eager = true},
        .program = {.user = session,
                    .rank_open = rank_open,
                    .rank_step = rank_step,
                    .rank_close = rank_close},
    };
    qd_op_way_configure(c->way, &config.device);
    return config;
}

static bool has_member(const struct qd_device_ops *ops, enum qd_op op)
{
    if (op == QD_OP_SILU_MUL) return ops->silu_mul != NULL;
    if (op == QD_OP_ALL_REDUCE) return ops->all_reduce != NULL;
    return op != QD_OP_ALL_GATHER || ops->all_gather != NULL;
}

qd_status qd_op_session_open(const struct qd_op_options *options, const struct qd_op_case *c, int n_copies,
                             qd_op_session_t **out, char *err, size_t errlen)
{
    *out = NULL;
    char why[QD_ERR_LEN] = "";
    if (!options->ops->executes)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "the device %s executes nothing", options->ops->name);
    if (!options->ops->supports(&c->shape, c->tp, c->numerics, why, sizeof why))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s", why);
    if (!has_member(options->ops, c->op))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "the device has no %s", qd_op_member(c->op));
    struct qd_op_session *session = calloc(1, sizeof *session);
    if (session == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a case");
    session->ops = options->ops;
    session->c = *c;
    session->n_copies = n_copies;
    struct qd_group_config config = group_config(options, session);
    session->step = calloc(1, qd_step_capacity(&config.device.limits));
    qd_status st = session->step != NULL ? qd_group_open(&config, &session->group, err, errlen)
                                         : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a step");
    if (st != QD_OK) {
        qd_op_session_close(session);
        /* There may be GPUs, but not one for each rank: the shape's fault, not the machine's. */
        return st == QD_ERR_ENVIRONMENT && config.tp > 1 ? QD_ERR_UNSUPPORTED : st;
    }
    *out = session;
    return QD_OK;
}

static void write_step(struct qd_op_session *session, struct qd_op_chunk *chunks, uint64_t seed, bool greedy)
{
    int32_t n = qd_op_n_chunks(&session->c);
    for (int32_t i = 0; i < n; i++) chunks[i] = qd_op_chunk(&session->c, i);
    qd_op_step_write(&session->c, chunks, n, seed, greedy, session->step);
}

qd_status qd_op_session_run(qd_op_session_t *session, qd_op_phase_fn phase, void *arg, uint64_t seed,
                            bool greedy, char *err, size_t errlen)
{
    struct qd_group_result result;
    struct qd_op_chunk *chunks = calloc((size_t)qd_op_n_chunks(&session->c), sizeof *chunks);
    if (chunks == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a step");
    write_step(session, chunks, seed, greedy);
    free(chunks);
    session->phase = phase;
    session->arg = arg;
    QD_TRY(qd_group_launch(session->group, session->step, err, errlen));
    return qd_group_wait(session->group, &result, err, errlen);
}

void qd_op_session_close(qd_op_session_t *session)
{
    if (session == NULL) return;
    qd_group_close(session->group);
    free(session->step);
    free(session);
}

int qd_op_session_ranks(const qd_op_session_t *session)
{
    return qd_op_ranks(&session->c);
}

int qd_op_session_copies(const qd_op_session_t *session)
{
    return session->n_copies;
}

const struct qd_device_ops *qd_op_session_ops(const qd_op_session_t *session)
{
    return session->ops;
}

/* ---- verification ---- */

struct verification {
    const struct qd_step *step; /* not the copy that the device was given */
    uint64_t seed;
    pthread_mutex_t mutex; /* of error */
    struct qd_op_error error;
};

/* Inputs to the device, one call, outputs to the host. */
static qd_status call_once(const struct verification *v, struct qd_op_rank *r, const struct qd_step *step,
                           int32_t *ids, struct qd_op_outputs *outputs, char *err, size_t errlen)
{
    const struct qd_step *launched;
    qd_op_operands_fill(&r->c, r->rank, v->seed, &r->operands);
    QD_TRY(qd_op_operands_upload(r->device, &r->operands, err, errlen));
    if (qd_op_is_attention(r->c.op)) QD_TRY(qd_op_fill_pool(r, v->seed, err, errlen));
    QD_TRY(qd_op_begin(r, step, &launched, err, errlen));
    qd_status st = qd_op_call(r, launched, 0, ids);
    if (st != QD_OK) return qd_fail(st, err, errlen, "%s", qd_device_error_text(r->device));
    QD_TRY(qd_op_read_back(r, outputs, err, errlen));
    st = qd_op_end(r, ids);
    outputs->ids = ids;
    return st == QD_OK ? QD_OK : qd_fail(st, err, errlen, "%s", qd_device_error_text(r->device));
}

static qd_status verify_rank(void *arg, struct qd_op_rank *r, const struct qd_step *step, int32_t *ids,
                             char *err, size_t errlen)
{
    struct verification *v = arg;
    struct qd_op_outputs outputs = {.ids = NULL};
    struct qd_op_error error = {.output = NULL};
    qd_status st = call_once(v, r, step, ids, &outputs, err, errlen);
    if (st == QD_OK) st = qd_op_check(r, v->step, v->seed, &outputs, &error, err, errlen);
    qd_op_outputs_free(&outputs);
    pthread_mutex_lock(&v->mutex);
    qd_op_error_merge(&v->error, &error);
    pthread_mutex_unlock(&v->mutex);
    return st;
}

qd_status qd_op_session_verify(qd_op_session_t *session, uint64_t seed, struct qd_op_error *error, char *err,
                               size_t errlen)
{
    struct verification v = {.step = session->step, .seed = seed, .mutex = PTHREAD_MUTEX_INITIALIZER};
    qd_status st = qd_op_session_run(session, verify_rank, &v, seed, false, err, errlen);
    qd_op_error_merge(error, &v.error);
    pthread_mutex_destroy(&v.mutex);
    return st;
}
