#include "harness/ops/alone.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/result/machine.h"
#include "models/json.h"
#include "models/step_cost.h"

enum { SCHEMA = 2, MAX_BYTES = 64 << 20, MAX_TOKENS = 1 << 20 };

void qd_alone_gpu_name(const struct qd_device_ops *ops, char *out, size_t len)
{
    struct qd_device_memory memory;
    const struct qd_device_config config = {.n_ranks = 1, .ranks_per_gpu = 1};
    char why[QD_ERR_LEN];
    out[0] = '\0';
    if (ops->memory != NULL && ops->memory(&config, &memory, why, sizeof why) == QD_OK)
        snprintf(out, len, "%s", memory.name);
}

/* ---- where the times are from ---- */

static qd_status check_text(const cJSON *object, const char *path, const char *key, const char *expected,
                            char *err, size_t errlen)
{
    const char *text;
    char reason[QD_ERR_LEN];
    if (qd_json_get_string(object, key, &text, reason, sizeof reason) != QD_OK)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s", path, reason);
    if (strcmp(text, expected) == 0) return QD_OK;
    return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: \"%s\", but the run's is \"%s\"", path, key, text,
                   expected);
}

static qd_status check_origin(const cJSON *tree, const char *path, const struct qd_alone_run *run, char *err,
                              size_t errlen)
{
    int64_t schema;
    char reason[QD_ERR_LEN], gpu[256];
    struct qd_machine machine;
    const cJSON *recorded = cJSON_GetObjectItemCaseSensitive(tree, "machine");
    if (!cJSON_IsObject(tree) || !cJSON_IsObject(recorded))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: it is no result of qdyno kernels --format json", path);
    if (qd_json_get_int(tree, "schema", SCHEMA, SCHEMA, &schema, reason, sizeof reason) != QD_OK)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s", path, reason);
    qd_machine_read(&machine);
    qd_alone_gpu_name(run->ops, gpu, sizeof gpu);
    QD_TRY(check_text(tree, path, "device", run->ops->name, err, errlen));
    QD_TRY(check_text(recorded, path, "cpu_model", machine.cpu_model, err, errlen));
    if (run->isa != NULL) QD_TRY(check_text(tree, path, "isa", run->isa, err, errlen));
    return gpu[0] != '\0' ? check_text(tree, path, "gpu", gpu, err, errlen) : QD_OK;
}

/* An op that runs on several ranks shares the threads among them. */
static qd_status check_threads(const cJSON *tree, const char *path, const struct qd_alone_run *run,
                               int n_ranks, char *err, size_t errlen)
{
    int64_t n_threads;
    char reason[QD_ERR_LEN];
    if (run->n_threads_per_rank == 0) return QD_OK;
    if (qd_json_get_int(tree, "n_threads", 1, 1 << 20, &n_threads, reason, sizeof reason) != QD_OK)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s", path, reason);
    int64_t per_rank = n_threads > n_ranks ? n_threads / n_ranks : 1;
    if (per_rank == run->n_threads_per_rank) return QD_OK;
    return qd_fail(QD_ERR_INPUT, err, errlen,
                   "%s: n_threads: %lld of an op alone, but %d of a rank of the run (see --threads)", path,
                   (long long)per_rank, run->n_threads_per_rank);
}

/* ---- rows ---- */

struct reader {
    const char *path;
    const struct qd_alone_run *run;
    const cJSON *tree;
    int index; /* of the row */
};

static qd_status bad_row(const struct reader *reader, const char *field, const char *reason, char *err,
                         size_t errlen)
{
    return qd_fail(QD_ERR_INPUT, err, errlen, "%s: rows/%d: %s: %s", reader->path, reader->index, field,
                   reason);
}

static qd_status get_count(const struct reader *reader, const cJSON *row, const char *key, int64_t min,
                           int32_t *out, char *err, size_t errlen)
{
    int64_t value;
    char reason[QD_ERR_LEN];
    if (qd_json_get_int(row, key, min, MAX_TOKENS, &value, reason, sizeof reason) != QD_OK)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: rows/%d: %s", reader->path, reader->index, reason);
    *out = (int32_t)value;
    return QD_OK;
}

static const char *text_of(const cJSON *row, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, key));
    return text != NULL ? text : "";
}

/* The case that a row is of; its shape is that of the run's model. */
static qd_status read_case(const struct reader *reader, const struct qd_alone *alone, const cJSON *row,
                           struct qd_op_case *out, char *err, size_t errlen)
{
    const char *name = text_of(row, "op");
    int op = 0;
    while (op < QD_N_OPS && strcmp(qd_op_name((enum qd_op)op), name) != 0) op++;
    if (op == QD_N_OPS) return bad_row(reader, "op", "it is none", err, errlen);
    *out = (struct qd_op_case){.op = (enum qd_op)op,
                               .shape = qd_shard_shape(&alone->config, &alone->shard),
                               .tp = reader->run->tp,
                               .numerics = reader->run->numerics};
    QD_TRY(get_count(reader, row, "tokens", 1, &out->n_tokens, err, errlen));
    if (qd_op_is_attention(out->op)) QD_TRY(get_count(reader, row, "context", 0, &out->context, err, errlen));
    char shape[128], reason[QD_ERR_LEN];
    qd_op_describe(out, shape, sizeof shape);
    snprintf(reason, sizeof reason, "\"%s\", but the run's model has \"%s\"", text_of(row, "shape"), shape);
    if (strcmp(text_of(row, "shape"), shape) != 0) return bad_row(reader, "shape", reason, err, errlen);
    const char *numerics = out->numerics == QD_NUMERICS_HF ? "hf" : "fused";
    snprintf(reason, sizeof reason, "\"%s\", but the run's are \"%s\"", text_of(row, "numerics"), numerics);
    if (strcmp(text_of(row, "numerics"), numerics) != 0)
        return bad_row(reader, "numerics", reason, err, errlen);
    return check_threads(reader->tree, reader->path, reader->run, qd_op_ranks(out), err, errlen);
}

static qd_status add_point(struct qd_alone *alone, enum qd_op op, struct qd_alone_point point, char *err,
                           size_t errlen)
{
    size_t n = alone->of[op].n;
    struct qd_alone_point *points = realloc(alone->of[op].points, (n + 1) * sizeof *points);
    if (points == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for times of kernels");
    points[n] = point;
    alone->of[op].points = points;
    alone->of[op].n = n + 1;
    return QD_OK;
}

/* Whether the row is of a way over ranks that the device does not choose by itself. */
static bool is_other_way(const cJSON *row)
{
    const cJSON *chosen = cJSON_GetObjectItemCaseSensitive(row, "chosen");
    return text_of(row, "way")[0] != '\0' && !(cJSON_IsNumber(chosen) && chosen->valuedouble == 1);
}

/* What the device or the model refuses is left out; other TP is of other runs. */
static qd_status read_row(const struct reader *reader, struct qd_alone *alone, const cJSON *row, char *err,
                          size_t errlen)
{
    struct qd_op_case c;
    int32_t tp = 0;
    double us;
    char reason[QD_ERR_LEN];
    QD_TRY(get_count(reader, row, "tp", 1, &tp, err, errlen));
    if (tp != reader->run->tp || strcmp(text_of(row, "status"), "refused") == 0 || is_other_way(row))
        return QD_OK;
    if (strcmp(text_of(row, "status"), "passed") != 0)
        return bad_row(reader, "status", "its kernel did not pass", err, errlen);
    QD_TRY(read_case(reader, alone, row, &c, err, errlen));
    qd_status st = qd_json_get_number(row, "median_us", &us, reason, sizeof reason);
    if (st == QD_ERR_NOT_FOUND) return bad_row(reader, "median_us", "the device has no times", err, errlen);
    if (st != QD_OK || !(us > 0)) return bad_row(reader, "median_us", "it is no time", err, errlen);
    struct qd_alone_point point = {.rows = (int32_t)qd_op_rows(&c), .context = c.context, .us = us};
    /* A chunk of one token is the decode of one sequence. */
    if (c.op == QD_OP_ATTENTION_DECODE && c.n_tokens == 1)
        QD_TRY(add_point(alone, QD_OP_ATTENTION_PREFILL, point, err, errlen));
    return add_point(alone, c.op, point, err, errlen);
}

static int compare_points(const void *a, const void *b)
{
    const struct qd_alone_point *p = a, *q = b;
    if (p->rows != q->rows) return p->rows < q->rows ? -1 : 1;
    return (p->context > q->context) - (p->context < q->context);
}

/* Sorted. Of one place measured twice (two numbers of tokens make as many rows of a last norm) one stays,
 * whichever it is. */
static void sort_points(struct qd_alone *alone, int op)
{
    struct qd_alone_point *points = alone->of[op].points;
    size_t n = 0;
    if (alone->of[op].n == 0) return;
    qsort(points, alone->of[op].n, sizeof *points, compare_points);
    for (size_t i = 0; i < alone->of[op].n; i++)
        if (n == 0 || compare_points(&points[n - 1], &points[i]) != 0) points[n++] = points[i];
    alone->of[op].n = n;
}

static qd_status check_complete(const struct reader *reader, struct qd_alone *alone, char *err, size_t errlen)
{
    static const enum qd_op needed[] = {QD_OP_EMBED,           QD_OP_RMSNORM, QD_OP_QKV,
                                        QD_OP_QK_NORM_ROPE_KV, QD_OP_O,       QD_OP_REDUCE_ADD_RMSNORM,
                                        QD_OP_GATE_UP,         QD_OP_DOWN,    QD_OP_SAMPLE,
                                        QD_OP_FINAL_NORM,      QD_OP_LM_HEAD, QD_OP_ATTENTION_DECODE};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (alone->of[needed[i]].n == 0)
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: rows: no time of %s at TP %d", reader->path,
                           qd_op_name(needed[i]), reader->run->tp);
    return QD_OK;
}

static qd_status read_rows(struct reader *reader, struct qd_alone *alone, char *err, size_t errlen)
{
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(reader->tree, "rows"), *row;
    if (!cJSON_IsArray(rows))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: rows: it is no array", reader->path);
    cJSON_ArrayForEach (row, rows) {
        QD_TRY(read_row(reader, alone, row, err, errlen));
        reader->index++;
    }
    for (int op = 0; op < QD_N_OPS; op++) sort_points(alone, op);
    return check_complete(reader, alone, err, errlen);
}

qd_status qd_alone_read(const char *path, const struct qd_alone_run *run, struct qd_alone *out, char *err,
                        size_t errlen)
{
    cJSON *tree;
    *out = (struct qd_alone){.config = *run->config, .sums.file = path};
    QD_TRY(qd_shard_make(run->config, run->tp, 0, &out->shard, err, errlen));
    QD_TRY(qd_json_read_file(path, MAX_BYTES, &tree, err, errlen));
    struct reader reader = {.path = path, .run = run, .tree = tree};
    qd_status st = check_origin(tree, path, run, err, errlen);
    if (st == QD_OK) st = read_rows(&reader, out, err, errlen);
    cJSON_Delete(tree);
    if (st != QD_OK) qd_alone_free(out);
    return st;
}

void qd_alone_free(struct qd_alone *alone)
{
    for (int op = 0; op < QD_N_OPS; op++) free(alone->of[op].points);
    *alone = (struct qd_alone){0};
}

/* ---- between rows ---- */

/* y at x on the line through (x0, y0) and (x1, y1), which may be one point. */
static double between(double x, double x0, double y0, double x1, double y1)
{
    return x1 > x0 ? y0 + (x - x0) * (y1 - y0) / (x1 - x0) : y0;
}

/* Among points[n] of the same rows. */
static bool at_context(const struct qd_alone_point *points, size_t n, double context, double *us)
{
    size_t i = 0;
    while (i < n && points[i].context < context) i++;
    if (i == n || (i == 0 && points[0].context > context)) return false;
    const struct qd_alone_point *low = &points[points[i].context > context ? i - 1 : i], *high = &points[i];
    *us = between(context, low->context, low->us, high->context, high->us);
    return true;
}

bool qd_alone_us(const struct qd_alone *alone, enum qd_op op, double rows, double context, double *us,
                 char *why, size_t why_len)
{
    const struct qd_alone_point *points = alone->of[op].points;
    size_t n = alone->of[op].n, low = 0, high = 0, end;
    double low_us, high_us;
    while (high < n && points[high].rows < rows) high++;
    bool is_inside = high < n && (high > 0 || points[0].rows <= rows);
    for (end = high; is_inside && end < n && points[end].rows == points[high].rows;) end++;
    if (is_inside) {
        size_t low_end = points[high].rows > rows ? high : end;
        for (low = low_end; low > 0 && points[low - 1].rows == points[low_end - 1].rows;) low--;
        is_inside = at_context(points + low, low_end - low, context, &low_us) &&
                    at_context(points + high, end - high, context, &high_us);
    }
    if (is_inside) {
        *us = between(rows, points[low].rows, low_us, points[high].rows, high_us);
        return true;
    }
    if (qd_op_is_attention(op))
        snprintf(why, why_len, "%s of %.4g behind %.4g keys lies outside what was measured", qd_op_name(op),
                 rows, context);
    else
        snprintf(why, why_len, "%s of %.4g rows lies outside the %d to %d that were measured", qd_op_name(op),
                 rows, n > 0 ? points[0].rows : 0, n > 0 ? points[n - 1].rows : 0);
    return false;
}

/* One layer's. */
static bool attention_us(const struct qd_alone *alone, const struct qd_step_row *row, double *us, char *why,
                         size_t why_len)
{
    int32_t n_chunks = row->n_prefill_seqs, n_decodes = row->n_seqs - n_chunks;
    double decodes_us = 0, chunk_us = 0;
    if (n_decodes > 0) {
        double keys = (double)(row->n_kv - row->n_prefill_kv) / n_decodes;
        if (!qd_alone_us(alone, QD_OP_ATTENTION_DECODE, n_decodes, keys - 1, &decodes_us, why, why_len))
            return false;
    }
    if (n_chunks > 0) {
        double tokens = (double)(row->n_prefill_tokens + row->n_decode_tokens - n_decodes) / n_chunks;
        double keys = (double)row->n_prefill_kv / n_chunks;
        if (!qd_alone_us(alone, QD_OP_ATTENTION_PREFILL, tokens, keys - tokens, &chunk_us, why, why_len))
            return false;
    }
    *us = decodes_us + n_chunks * chunk_us;
    return true;
}

static enum qd_op op_named(const char *name)
{
    int op = 0;
    while (op < QD_N_OPS && strcmp(qd_op_name((enum qd_op)op), name) != 0) op++;
    QD_ASSERT(op < QD_N_OPS);
    return (enum qd_op)op;
}

static bool step_us(const struct qd_alone *alone, const struct qd_step_row *row, double *us, char *why,
                    size_t why_len)
{
    struct qd_step_op ops[QD_MAX_STEP_OPS];
    struct qd_attention_load load = {.n_tokens = row->n_prefill_tokens + row->n_decode_tokens,
                                     .n_visible = row->n_visible,
                                     .n_kv = row->n_kv};
    int n = qd_model_step_ops(&alone->config, &alone->shard, &load, row->n_logit_rows, ops);
    *us = 0;
    for (int i = 0; i < n; i++) {
        double call_us;
        bool is_attention = ops[i].segment == QD_SEGMENT_ATTENTION;
        bool is_known = is_attention ? attention_us(alone, row, &call_us, why, why_len)
                                     : qd_alone_us(alone, op_named(ops[i].name), (double)ops[i].n_rows, 0,
                                                   &call_us, why, why_len);
        if (!is_known) return false;
        *us += (double)ops[i].times * call_us;
    }
    return true;
}

void qd_alone_take(void *arg, const struct qd_step_row *row)
{
    struct qd_alone *alone = arg;
    double us;
    char why[QD_ERR_LEN];
    alone->sums.n_rows++;
    if (step_us(alone, row, &us, why, sizeof why)) {
        alone->sums.ns += us * 1e3;
        return;
    }
    if (alone->sums.n_unknown++ == 0) snprintf(alone->sums.reason, sizeof alone->sums.reason, "%s", why);
}
