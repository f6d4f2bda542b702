#include "harness/cli/kernels_cases.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/ops/way.h"
#include "harness/result/range.h"
#include "models/shard.h"

enum {
    MAX_TOKENS = 1 << 17,
    MAX_CONTEXT = 1 << 20,
    MAX_CASES = 100000,
    MAX_LOGIT_ROWS = 1024, /* fp32 logits are wanted of the last token of a sequence */
};

struct numbers {
    int64_t of[QD_RANGE_MAX_VALUES];
    size_t n;
};

/* The values of a list of whole numbers from min to max. */
static qd_status read_numbers(const char *option, const char *text, int64_t min, int64_t max,
                              struct numbers *out, char *err, size_t errlen)
{
    struct qd_range range;
    char reason[QD_ERR_LEN];
    qd_status st = qd_range_expand(text, &range, reason, sizeof reason);
    if (st != QD_OK) return qd_fail(st, err, errlen, "--%s: %s", option, reason);
    for (size_t i = 0; i < range.n && st == QD_OK; i++) {
        char *end;
        out->of[i] = strtoll(range.values[i], &end, 10);
        if (end == range.values[i] || *end != '\0' || out->of[i] < min || out->of[i] > max)
            st =
                qd_fail(QD_ERR_INPUT, err, errlen, "--%s: %s is no whole number from %" PRId64 " to %" PRId64,
                        option, range.values[i], min, max);
    }
    out->n = range.n;
    qd_range_free(&range);
    return st;
}

/* ---- ops ---- */

/* Marks the ops of a name: one op, or all of a member of the device table. */
static bool mark_ops(const char *name, size_t len, bool *wanted)
{
    bool found = false;
    for (int op = 0; op < QD_N_OPS; op++) {
        const char *names[] = {qd_op_name((enum qd_op)op), qd_op_member((enum qd_op)op)};
        for (int i = 0; i < 2; i++) {
            if (strlen(names[i]) != len || strncmp(names[i], name, len) != 0) continue;
            found = wanted[op] = true;
        }
    }
    return found;
}

static qd_status unknown_op(const char *name, size_t len, char *err, size_t errlen)
{
    char names[512] = "";
    size_t used = 0;
    for (int op = 0; op < QD_N_OPS; op++)
        used += (size_t)snprintf(names + used, sizeof names - used, ", %s", qd_op_name((enum qd_op)op));
    return qd_fail(QD_ERR_INPUT, err, errlen, "--op: \"%.*s\" is none of all, gemm_nt, attention%s", (int)len,
                   name, names);
}

static qd_status read_ops(const char *text, bool *wanted, char *err, size_t errlen)
{
    for (const char *at = text;; at++) {
        size_t len = strcspn(at, ",");
        bool all = len == 3 && strncmp(at, "all", 3) == 0;
        for (int op = 0; op < QD_N_OPS && all; op++) wanted[op] = true;
        if (!all && !mark_ops(at, len, wanted)) return unknown_op(at, len, err, errlen);
        at += len;
        if (*at == '\0') return QD_OK;
    }
}

/* ---- the model ---- */

static qd_status read_model(const char *model, struct qd_model_config *out, char *err, size_t errlen)
{
    struct stat info;
    if (stat(model, &info) == 0 && S_ISDIR(info.st_mode))
        return qd_model_config_read(model, out, err, errlen);
    char reason[QD_ERR_LEN];
    qd_status st = qd_model_config_preset(model, out, reason, sizeof reason);
    return st == QD_OK ? QD_OK : qd_fail(st, err, errlen, "--model: %s is no folder, and %s", model, reason);
}

/* ---- cases ---- */

struct lists {
    const struct qd_device_ops *device;
    bool ops[QD_N_OPS];
    struct numbers tp, tokens, context;
};

static qd_status read_lists(const struct qd_options *o, struct lists *out, char *err, size_t errlen)
{
    QD_TRY(read_ops(o->op, out->ops, err, errlen));
    QD_TRY(read_numbers("tensor-parallel-size", o->tp_list, 1, QD_MAX_TP, &out->tp, err, errlen));
    for (size_t i = 0; i < out->tp.n; i++)
        if ((out->tp.of[i] & (out->tp.of[i] - 1)) != 0)
            return qd_fail(QD_ERR_INPUT, err, errlen,
                           "--tensor-parallel-size: %" PRId64 " is none of 1, 2, 4, 8", out->tp.of[i]);
    QD_TRY(read_numbers("tokens", o->tokens_list, 1, MAX_TOKENS, &out->tokens, err, errlen));
    return read_numbers("context", o->context_list, 0, MAX_CONTEXT, &out->context, err, errlen);
}

/* Collectives alone are nothing on one rank; a mixed step is asked for by name. */
static bool is_left_out(const struct qd_op_case *c, size_t i_context)
{
    if ((c->op == QD_OP_ALL_REDUCE || c->op == QD_OP_ALL_GATHER) && c->tp == 1) return true;
    if (c->op == QD_OP_ATTENTION_PREFILL && c->n_tokens == 1) return true; /* the decode of one sequence */
    if (c->op == QD_OP_ATTENTION_MIXED && c->n_tokens == 1) return true;
    return !qd_op_is_attention(c->op) && i_context > 0;
}

static void refuse(struct qd_kernels_case *at, const struct qd_model_config *config)
{
    const struct qd_op_case *c = &at->c;
    int64_t len = (int64_t)c->context + (c->op == QD_OP_ATTENTION_DECODE ? 1 : c->n_tokens);
    bool has_logits = c->op == QD_OP_LM_HEAD || c->op == QD_OP_SAMPLE || c->op == QD_OP_ALL_GATHER;
    if (at->refusal[0] != '\0') return;
    if (has_logits && c->n_tokens > MAX_LOGIT_ROWS)
        snprintf(at->refusal, sizeof at->refusal,
                 "logits are wanted of the last token of each sequence, of %d at most", MAX_LOGIT_ROWS);
    else if (qd_op_is_attention(c->op) && len > config->max_context)
        snprintf(at->refusal, sizeof at->refusal,
                 "%" PRId64 " tokens in a sequence: the model's context is %" PRId64, len,
                 config->max_context);
}

/* The case's shape, or why the model does not divide so. */
static void set_shape(struct qd_kernels_case *at, const struct qd_model_config *config)
{
    struct qd_shard shard = {0};
    at->c.shape = (struct qd_model_shape){.hidden_dim = config->hidden_dim,
                                          .ffn_dim = config->ffn_dim,
                                          .vocab_size = config->vocab_size,
                                          .n_layers = config->n_layers,
                                          .n_heads = config->n_heads,
                                          .n_kv_heads = config->n_kv_heads,
                                          .head_dim = config->head_dim};
    if (qd_shard_make(config, at->c.tp, 0, &shard, at->refusal, sizeof at->refusal) == QD_OK)
        at->c.shape = qd_shard_shape(config, &shard);
}

/* One for each way that the op may go. */
static void add_ways(const struct lists *l, struct qd_kernels_case at, struct qd_kernels_cases *out)
{
    for (int way = 0; way < QD_OP_N_WAYS; way++) {
        at.c.way = (enum qd_op_way)way;
        if (!qd_op_has_way(l->device, &at.c, at.c.way)) continue;
        if (out->of != NULL) out->of[out->n] = at;
        out->n++;
    }
}

static void add_cases(const struct lists *l, const struct qd_model_config *config, struct qd_op_case c,
                      struct qd_kernels_cases *out)
{
    for (size_t tp = 0; tp < l->tp.n; tp++)
        for (size_t t = 0; t < l->tokens.n; t++)
            for (size_t i = 0; i < l->context.n; i++) {
                struct qd_kernels_case at = {.c = c};
                at.c.tp = (int)l->tp.of[tp];
                at.c.n_tokens = (int32_t)l->tokens.of[t];
                at.c.context = qd_op_is_attention(c.op) ? (int32_t)l->context.of[i] : 0;
                if (is_left_out(&at.c, i)) continue;
                set_shape(&at, config);
                refuse(&at, config);
                add_ways(l, at, out);
            }
}

static void list_cases(const struct lists *l, const struct qd_model_config *config, enum qd_numerics numerics,
                       struct qd_kernels_cases *out)
{
    out->n = 0;
    for (int op = 0; op < QD_N_OPS; op++) {
        struct qd_op_case c = {.op = (enum qd_op)op, .numerics = numerics};
        if (l->ops[op]) add_cases(l, config, c, out);
    }
}

qd_status qd_kernels_cases_make(const struct qd_options *o, const struct qd_device_ops *ops,
                                struct qd_kernels_cases *out, char *err, size_t errlen)
{
    struct qd_model_config config;
    *out = (struct qd_kernels_cases){.n = 0};
    struct lists *lists = calloc(1, sizeof *lists);
    if (lists == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for lists");
    lists->device = ops;
    qd_status st = read_lists(o, lists, err, errlen);
    if (st == QD_OK) st = read_model(o->model != NULL ? o->model : "8B", &config, err, errlen);
    if (st == QD_OK) {
        enum qd_numerics numerics = strcmp(o->numerics, "hf") == 0 ? QD_NUMERICS_HF : QD_NUMERICS_FUSED;
        snprintf(out->model, sizeof out->model, "%s", config.name);
        list_cases(lists, &config, numerics, out); /* counts */
        if (out->n == 0 || out->n > MAX_CASES)
            st = qd_fail(QD_ERR_INPUT, err, errlen, "these lists make %zu cases: it is 1 to %d", out->n,
                         MAX_CASES);
        else if ((out->of = calloc(out->n, sizeof *out->of)) == NULL)
            st = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for %zu cases", out->n);
        else
            list_cases(lists, &config, numerics, out);
    }
    free(lists);
    return st;
}

void qd_kernels_cases_free(struct qd_kernels_cases *cases)
{
    free(cases->of);
    *cases = (struct qd_kernels_cases){.n = 0};
}
