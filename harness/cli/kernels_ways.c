#include "harness/cli/kernels_ways.h"

#include <inttypes.h>
#include <stdlib.h>

#include "harness/result/json_put.h"

/* ---- rows beside each other ---- */

static bool is_same_op(const struct qd_op_case *a, const struct qd_op_case *b)
{
    return a->op == b->op && a->tp == b->tp && a->n_tokens == b->n_tokens && a->context == b->context;
}

/* The timed row of the same case that goes another way, or NULL. */
static const struct qd_kernels_row *find_way(const struct qd_kernels_row *rows, size_t n, size_t i,
                                             enum qd_op_way way)
{
    size_t begin = i >= QD_OP_N_WAYS ? i - QD_OP_N_WAYS : 0;
    for (size_t j = begin; j < n && j < i + QD_OP_N_WAYS; j++)
        if (rows[j].is_timed && rows[j].c.way == way && is_same_op(&rows[j].c, &rows[i].c)) return &rows[j];
    return NULL;
}

void qd_kernels_ways_mark(const struct qd_device_ops *ops, struct qd_kernels_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        enum qd_op_way way = rows[i].c.way;
        rows[i].is_chosen = way == qd_op_auto_way(ops, &rows[i].c);
        if (way == QD_OP_WAY_AUTO || way == QD_OP_WAY_NCCL) continue;
        const struct qd_kernels_row *nccl = find_way(rows, n, i, QD_OP_WAY_NCCL);
        rows[i].nccl_us = nccl != NULL ? nccl->timing.median_us : 0;
    }
}

/* ---- where ways change places ---- */

/* The way that `to` is held against, at this row's size. */
static enum qd_op_way way_before(const struct qd_device_ops *ops, const struct qd_op_case *c,
                                 enum qd_op_way to)
{
    return to == QD_OP_WAY_TWO_SHOT ? QD_OP_WAY_ONE_SHOT : qd_op_own_way(ops, c);
}

/* Both ways' times at every size of the op and TP of rows[i], of which that is the first row. */
static size_t collect_pairs(const struct qd_device_ops *ops, const struct qd_kernels_row *rows, size_t n,
                            size_t i, enum qd_op_way to, struct qd_op_pair *pairs)
{
    size_t n_pairs = 0;
    for (size_t j = i; j < n && rows[j].c.op == rows[i].c.op && rows[j].c.tp == rows[i].c.tp; j++) {
        if (!rows[j].is_timed || rows[j].c.way != to) continue;
        const struct qd_kernels_row *before = find_way(rows, n, j, way_before(ops, &rows[j].c, to));
        if (before == NULL) continue;
        pairs[n_pairs++] = (struct qd_op_pair){qd_op_message_bytes(&rows[j].c), before->timing.median_us,
                                               rows[j].timing.median_us};
    }
    return n_pairs;
}

static size_t limit_of(const struct qd_device_ops *ops, const struct qd_op_case *c, enum qd_op_way to)
{
    struct qd_sum_limits limits = ops->sum_limits(c->tp);
    if (c->op == QD_OP_ALL_GATHER) return SIZE_MAX;
    return to == QD_OP_WAY_TWO_SHOT ? limits.one_shot_bytes : limits.own_bytes;
}

static bool is_first(const struct qd_kernels_row *rows, size_t i)
{
    return i == 0 || rows[i - 1].c.op != rows[i].c.op || rows[i - 1].c.tp != rows[i].c.tp;
}

qd_status qd_kernels_switches_find(const struct qd_device_ops *ops, const struct qd_kernels_row *rows,
                                   size_t n, struct qd_kernels_switch **out, size_t *n_out, char *err,
                                   size_t errlen)
{
    static const enum qd_op_way to[] = {QD_OP_WAY_TWO_SHOT, QD_OP_WAY_NCCL};
    enum { N_TO = sizeof to / sizeof *to };
    *n_out = 0;
    *out = calloc(N_TO * n + 1, sizeof **out);
    struct qd_op_pair *pairs = calloc(n + 1, sizeof *pairs);
    if (*out == NULL || pairs == NULL) {
        free(pairs);
        free(*out);
        *out = NULL;
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory to set %zu rows beside each other", n);
    }
    for (size_t i = 0; i < n; i++)
        for (int t = 0; t < N_TO && is_first(rows, i); t++) {
            size_t n_pairs = collect_pairs(ops, rows, n, i, to[t], pairs);
            if (n_pairs == 0) continue;
            const struct qd_op_case *c = &rows[i].c;
            (*out)[(*n_out)++] = (struct qd_kernels_switch){.op = c->op,
                                                            .tp = c->tp,
                                                            .to = to[t],
                                                            .found = qd_op_crossover_find(pairs, n_pairs),
                                                            .limit = limit_of(ops, c, to[t])};
        }
    free(pairs);
    return QD_OK;
}

/* ---- output ---- */

void qd_kernels_switches_print(const struct qd_kernels_switch *switches, size_t n, FILE *out)
{
    for (size_t i = 0; i < n; i++) {
        const struct qd_kernels_switch *s = &switches[i];
        fprintf(out, "%s, TP %d: %s is faster than %s ", qd_op_name(s->op), s->tp, qd_op_way_name(s->to),
                s->to == QD_OP_WAY_TWO_SHOT ? "one_shot" : "own");
        if (s->found.from == SIZE_MAX)
            fprintf(out, "at none of the sizes up to %zu bytes", s->found.below);
        else if (s->found.below == 0)
            fprintf(out, "at every size, from %zu bytes on", s->found.from);
        else
            fprintf(out, "from %zu bytes on, not at %zu", s->found.from, s->found.below);
        const char *verdict = qd_op_crossover_agrees(s->found, s->limit) ? "agrees" : "does not agree";
        if (s->limit == SIZE_MAX)
            fprintf(out, "; that the device never takes it %s\n", verdict);
        else
            fprintf(out, "; the limit compiled in, %zu bytes, %s\n", s->limit, verdict);
    }
}

/* null for SIZE_MAX. */
static void put_size(cJSON *object, const char *key, size_t bytes, bool *ok)
{
    if (bytes == SIZE_MAX)
        qd_json_put_null(object, key, ok);
    else
        qd_json_put_int(object, key, (int64_t)bytes, ok);
}

cJSON *qd_kernels_switches_to_json(const struct qd_kernels_switch *switches, size_t n)
{
    cJSON *array = cJSON_CreateArray();
    bool ok = array != NULL;
    for (size_t i = 0; i < n && ok; i++) {
        const struct qd_kernels_switch *s = &switches[i];
        cJSON *object = cJSON_CreateObject();
        ok = object != NULL;
        qd_json_put_text(object, "op", qd_op_name(s->op), &ok);
        qd_json_put_int(object, "tp", s->tp, &ok);
        qd_json_put_text(object, "to", qd_op_way_name(s->to), &ok);
        put_size(object, "below_bytes", s->found.below, &ok);
        put_size(object, "from_bytes", s->found.from, &ok);
        put_size(object, "limit_bytes", s->limit, &ok);
        qd_json_put_bool(object, "agrees", qd_op_crossover_agrees(s->found, s->limit), &ok);
        qd_json_append_item(array, object, &ok);
    }
    if (ok) return array;
    cJSON_Delete(array);
    return NULL;
}
