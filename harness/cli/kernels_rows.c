#include "harness/cli/kernels_rows.h"

#include <inttypes.h>
#include <math.h>

#include "harness/ops/way.h"
#include "harness/report/table.h"
#include "harness/result/csv.h"
#include "harness/result/json_put.h"
#include "kernels/nvml.h"

enum field_kind { FIELD_NONE, FIELD_TEXT, FIELD_INT, FIELD_REAL };

struct field {
    const char *name;
    enum field_kind kind;
    char text[QD_ERR_LEN];
    int64_t whole;
    double real;
    bool in_table;
};

enum { MAX_FIELDS = 64 };

struct fields {
    struct field of[MAX_FIELDS];
    int n;
};

static struct field *add(struct fields *fields, const char *name, enum field_kind kind, bool in_table)
{
    QD_ASSERT(fields->n < MAX_FIELDS);
    struct field *field = &fields->of[fields->n++];
    field->name = name;
    field->kind = kind;
    field->in_table = in_table;
    return field;
}

static void add_text(struct fields *fields, const char *name, const char *text, bool in_table)
{
    struct field *field = add(fields, name, text != NULL ? FIELD_TEXT : FIELD_NONE, in_table);
    snprintf(field->text, sizeof field->text, "%s", text != NULL ? text : "");
}

/* `known` false: the field is there, without a value. */
static void add_int(struct fields *fields, const char *name, bool known, int64_t value, bool in_table)
{
    add(fields, name, known ? FIELD_INT : FIELD_NONE, in_table)->whole = value;
}

static void add_real(struct fields *fields, const char *name, bool known, double value, bool in_table)
{
    add(fields, name, known && isfinite(value) ? FIELD_REAL : FIELD_NONE, in_table)->real = value;
}

static void add_case(struct fields *fields, const struct qd_kernels_row *row)
{
    char shape[128];
    const struct qd_op_case *c = &row->c;
    qd_op_describe(c, shape, sizeof shape);
    bool has_way = c->way != QD_OP_WAY_AUTO;
    add_text(fields, "op", qd_op_name(c->op), true);
    add_text(fields, "member", qd_op_member(c->op), false);
    add_text(fields, "way", has_way ? qd_op_way_name(c->way) : NULL, true);
    add_int(fields, "chosen", has_way, row->is_chosen, true);
    add_int(fields, "tp", true, c->tp, true);
    add_int(fields, "ranks", true, qd_op_ranks(c), false);
    add_int(fields, "tokens", true, c->n_tokens, false);
    add_int(fields, "context", qd_op_is_attention(c->op), c->context, false);
    add_text(fields, "shape", shape, true);
    add_text(fields, "numerics", c->numerics == QD_NUMERICS_HF ? "hf" : "fused", false);
}

static void add_result(struct fields *fields, const struct qd_kernels_row *row)
{
    const struct qd_op_result *result = &row->result;
    bool compared = result->error.n_checked > 0;
    add_text(fields, "status", qd_op_outcome_name(result->outcome), true);
    add_text(fields, "reason", result->outcome != QD_OP_PASSED ? result->text : NULL, false);
    add_int(fields, "elements_checked", compared, result->error.n_checked, false);
    add_real(fields, "worst_of_tolerance", compared, result->error.worst, true);
    add_real(fields, "worst_abs_error", compared, result->error.abs, false);
}

static void add_times(struct fields *fields, const struct qd_kernels_row *row, struct qd_traffic traffic)
{
    const struct qd_op_timing *t = &row->timing;
    bool known = row->is_timed;
    double us = known ? t->median_us : 1, gbps = (double)traffic.bytes / us * 1e-3;
    double gflops = (double)traffic.flops / us * 1e-3;
    const struct qd_op_ceilings *most = &row->ceilings;
    add_int(fields, "samples", known, t->n_samples, false);
    add_int(fields, "calls_per_sample", known, t->batch, false);
    add_text(fields, "cache", !known ? NULL : t->is_cold ? "cold" : "warm", true);
    add_real(fields, "median_us", known, t->median_us, true);
    add_real(fields, "p10_us", known, t->p10_us, true);
    add_real(fields, "p90_us", known, t->p90_us, true);
    add_real(fields, "min_us", known, t->min_us, false);
    add_real(fields, "max_us", known, t->max_us, false);
    add_real(fields, "mad_us", known, t->mad_us, false);
    add_real(fields, "gbps", known, gbps, true);
    add_real(fields, "gflops", known, gflops, true);
    add_real(fields, "memory_pct", known && most->memory_gbps > 0, 100 * gbps / most->memory_gbps, true);
    add_real(fields, "peak_pct", known && most->gflops > 0, 100 * gflops / most->gflops, true);
    add_real(fields, "floor_us", true, row->floor_us, true);
    add_text(fields, "bound", row->is_compute_bound ? "compute" : "memory", true);
    add_real(fields, "floor_pct", known, 100 * row->floor_us / us, true);
    add_text(fields, "machine", row->machine, false);
}

static void add_counters(struct fields *fields, const struct qd_kernels_row *row)
{
    const struct qd_op_counters *c = &row->counters;
    bool known = row->is_counted;
    add_int(fields, "launches", known, (int64_t)c->launches, true);
    add_int(fields, "mma", known, (int64_t)c->mma, true);
    add_int(fields, "ldmatrix", known, (int64_t)c->ldmatrix, false);
    add_int(fields, "loaded_bytes", known, (int64_t)c->loaded_bytes, true);
    add_int(fields, "async_copy_bytes", known, (int64_t)c->async_copy_bytes, true);
    add_int(fields, "shared_wavefronts", known, (int64_t)c->shared_wavefronts, false);
    add_int(fields, "shared_conflicts", known, (int64_t)c->shared_conflicts, true);
    add_int(fields, "barriers", known, (int64_t)c->barriers, false);
}

static void add_rival(struct fields *fields, const struct qd_kernels_row *row)
{
    const struct qd_op_rival *rival = &row->rival;
    bool known = row->has_rival;
    add_real(fields, "cublaslt_us", known, rival->median_us, true);
    add_real(fields, "cublaslt_first_us", known, rival->first_us, false);
    add_int(fields, "cublaslt_algorithms", known, rival->n_algorithms, false);
    add_int(fields, "cublaslt_algorithm", known, rival->algorithm, true);
}

/* In the terms of nccl-tests. */
static void add_message(struct fields *fields, const struct qd_kernels_row *row)
{
    size_t bytes = qd_op_message_bytes(&row->c);
    bool known = bytes > 0 && row->is_timed;
    double algbw = known ? (double)bytes / row->timing.median_us * 1e-3 : 0;
    add_int(fields, "message_bytes", bytes > 0, (int64_t)bytes, true);
    add_real(fields, "algbw_gbps", known, algbw, true);
    add_real(fields, "busbw_gbps", known, algbw * qd_op_bus_factor(&row->c), true);
    add_real(fields, "nccl_us", row->nccl_us > 0, row->nccl_us, true);
}

static void add_clocks(struct fields *fields, const struct qd_kernels_row *row)
{
    char throttle[256];
    qd_nvml_throttle_text(row->before.throttle | row->after.throttle, throttle, sizeof throttle);
    add_int(fields, "sm_mhz_before", row->has_clocks, row->before.sm_mhz, true);
    add_int(fields, "sm_mhz_after", row->has_clocks, row->after.sm_mhz, true);
    add_text(fields, "throttle", row->has_clocks ? throttle : NULL, true);
}

static void list_fields(const struct qd_kernels_row *row, struct fields *fields)
{
    struct qd_traffic traffic = qd_op_traffic(&row->c);
    fields->n = 0;
    add_case(fields, row);
    add_result(fields, row);
    add_int(fields, "bytes", true, (int64_t)traffic.bytes, true);
    add_int(fields, "flops", true, (int64_t)traffic.flops, false);
    add_times(fields, row, traffic);
    add_rival(fields, row);
    add_message(fields, row);
    add_clocks(fields, row);
    add_counters(fields, row);
}

/* Shortest of four digits that tells the number; n/a where there is none. */
static void format(const struct field *field, const char *none, char *out, size_t len)
{
    switch (field->kind) {
    case FIELD_NONE: snprintf(out, len, "%s", none); break;
    case FIELD_TEXT: snprintf(out, len, "%s", field->text); break;
    case FIELD_INT: snprintf(out, len, "%" PRId64, field->whole); break;
    case FIELD_REAL: snprintf(out, len, fabs(field->real) >= 1000 ? "%.0f" : "%.4g", field->real); break;
    }
}

qd_status qd_kernels_rows_print_csv(const struct qd_kernels_row *rows, size_t n, FILE *out)
{
    static struct qd_kernels_row none;
    struct fields fields;
    char text[QD_ERR_LEN];
    list_fields(n > 0 ? &rows[0] : &none, &fields);
    for (int f = 0; f < fields.n; f++) fprintf(out, "%s%s", f > 0 ? "," : "", fields.of[f].name);
    fputc('\n', out);
    for (size_t i = 0; i < n; i++) {
        list_fields(&rows[i], &fields);
        for (int f = 0; f < fields.n; f++) {
            if (f > 0) fputc(',', out);
            format(&fields.of[f], "", text, sizeof text);
            qd_csv_print(out, text);
        }
        fputc('\n', out);
    }
    return QD_OK;
}

/* Columns of the table: those that some row has a value for. */
static int table_columns(const struct qd_kernels_row *rows, size_t n, bool *shown, char *align)
{
    struct fields fields;
    int n_shown = 0;
    for (size_t i = 0; i < n; i++) {
        list_fields(&rows[i], &fields);
        for (int f = 0; f < fields.n; f++)
            shown[f] = shown[f] || (fields.of[f].in_table && fields.of[f].kind != FIELD_NONE);
    }
    list_fields(&rows[0], &fields);
    for (int f = 0; f < fields.n; f++)
        if (shown[f]) align[n_shown++] = fields.of[f].kind == FIELD_TEXT ? 'l' : 'r';
    align[n_shown] = '\0';
    return n_shown;
}

qd_status qd_kernels_rows_print_table(const struct qd_kernels_row *rows, size_t n, FILE *out)
{
    bool shown[MAX_FIELDS] = {false};
    char align[MAX_FIELDS + 1], text[QD_ERR_LEN];
    struct fields fields;
    struct qd_table table;
    if (n == 0) return QD_OK;
    table_columns(rows, n, shown, align);
    qd_table_init(&table, align);
    list_fields(&rows[0], &fields);
    for (int f = 0; f < fields.n; f++)
        if (shown[f]) qd_table_add(&table, "%s", fields.of[f].name);
    for (size_t i = 0; i < n; i++) {
        list_fields(&rows[i], &fields);
        for (int f = 0; f < fields.n; f++) {
            if (!shown[f]) continue;
            format(&fields.of[f], "n/a", text, sizeof text);
            qd_table_add(&table, "%s", text);
        }
    }
    QD_TRY(qd_table_print(&table, out));
    for (size_t i = 0; i < n; i++)
        if (rows[i].result.outcome != QD_OP_PASSED)
            fprintf(out, "%s, %d tokens, TP %d: %s: %s\n", qd_op_name(rows[i].c.op), rows[i].c.n_tokens,
                    rows[i].c.tp, qd_op_outcome_name(rows[i].result.outcome), rows[i].result.text);
    return QD_OK;
}

static cJSON *row_to_json(const struct qd_kernels_row *row, bool *ok)
{
    struct fields fields;
    cJSON *object = cJSON_CreateObject();
    *ok = *ok && object != NULL;
    list_fields(row, &fields);
    for (int f = 0; f < fields.n; f++) {
        const struct field *field = &fields.of[f];
        switch (field->kind) {
        case FIELD_NONE: qd_json_put_null(object, field->name, ok); break;
        case FIELD_TEXT: qd_json_put_text(object, field->name, field->text, ok); break;
        case FIELD_INT: qd_json_put_int(object, field->name, field->whole, ok); break;
        case FIELD_REAL: qd_json_put_number(object, field->name, field->real, ok); break;
        }
    }
    return object;
}

cJSON *qd_kernels_rows_to_json(const struct qd_kernels_row *rows, size_t n)
{
    bool ok = true;
    cJSON *array = cJSON_CreateArray();
    ok = array != NULL;
    for (size_t i = 0; i < n && ok; i++) qd_json_append_item(array, row_to_json(&rows[i], &ok), &ok);
    if (ok) return array;
    cJSON_Delete(array);
    return NULL;
}
