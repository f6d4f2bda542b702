#include "harness/report/data.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/result/csv.h"

/* Where each value stands; -1: the file has no such column. */
struct columns {
    int tp, dp, pp, budget;
    int metric[QD_N_METRICS];
    int runs, failed, preemptions, status, mark, reason, variant; /* of our summary.csv */
};

/* Where a message points to. */
struct place {
    const struct qd_csv *csv;
    size_t row;
};

static qd_status find_columns(const struct qd_csv *csv, struct columns *c, char *err, size_t errlen)
{
    c->tp = qd_csv_column(csv, "TP");
    c->dp = qd_csv_column(csv, "DP");
    c->pp = qd_csv_column(csv, "PP");
    c->budget = qd_csv_column(csv, "max_num_batched_tokens");
    for (int m = 0; m < QD_N_METRICS; m++)
        c->metric[m] = qd_csv_column(csv, qd_metric_info((enum qd_metric)m)->csv_column);
    c->runs = qd_csv_column(csv, "runs");
    c->failed = qd_csv_column(csv, "failed");
    c->preemptions = qd_csv_column(csv, "preemptions");
    c->status = qd_csv_column(csv, "status");
    c->mark = qd_csv_column(csv, "mark");
    c->reason = qd_csv_column(csv, "reason");
    c->variant = qd_csv_column(csv, "variant");
    const char *missing = c->tp < 0 ? "TP" : c->dp < 0 ? "DP" : c->pp < 0 ? "PP" : NULL;
    if (c->budget < 0) missing = "max_num_batched_tokens";
    /* The three throughputs are ours; the published report's columns are from there on. */
    for (int m = QD_METRIC_PER_REQUEST_TOK_S; m < QD_N_METRICS; m++)
        if (c->metric[m] < 0) missing = qd_metric_info((enum qd_metric)m)->csv_column;
    if (missing == NULL) return QD_OK;
    return qd_fail(QD_ERR_INPUT, err, errlen, "%s:%zu: column '%s' is missing", csv->name, csv->lines[0],
                   missing);
}

static qd_status bad_field(const struct place *at, int column, const char *reason, char *err, size_t errlen)
{
    return qd_fail(QD_ERR_INPUT, err, errlen, "%s:%zu: column '%s': '%.80s' %s", at->csv->name,
                   at->csv->lines[at->row + 1], at->csv->fields[column],
                   qd_csv_field(at->csv, at->row, (size_t)column), reason);
}

static qd_status read_int(const struct place *at, int column, int64_t min, int64_t max, int64_t *out,
                          char *err, size_t errlen)
{
    const char *text = qd_csv_field(at->csv, at->row, (size_t)column);
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0')
        return bad_field(at, column, "is not a whole number", err, errlen);
    if (errno != 0 || *out < min || *out > max) return bad_field(at, column, "is out of range", err, errlen);
    return QD_OK;
}

/* A measured value: zero and below are no measurements (a failed cell must not pass for a fast one). An
 * empty field is "not measured", which only files with a status column may say. */
static qd_status read_value(const struct place *at, int column, bool may_be_empty,
                            struct qd_metric_value *out, char *err, size_t errlen)
{
    const char *text = qd_csv_field(at->csv, at->row, (size_t)column);
    *out = (struct qd_metric_value){0};
    if (text[0] == '\0') {
        if (may_be_empty) return QD_OK;
        return bad_field(at, column, "is empty", err, errlen);
    }
    char *end;
    double value = strtod(text, &end);
    /* strtod also takes hexadecimal, "inf" and "nan", which no CSV of results holds on purpose. */
    if (text[strspn(text, "0123456789+-.eE")] != '\0' || *end != '\0' || end == text)
        return bad_field(at, column, "is not a number", err, errlen);
    if (!isfinite(value)) return bad_field(at, column, "is out of range", err, errlen);
    if (!(value > 0)) return bad_field(at, column, "is not above 0, so it is no measurement", err, errlen);
    *out = (struct qd_metric_value){.n = 1, .median = value, .mean = value, .min = value, .max = value};
    return QD_OK;
}

static qd_status read_status(const struct place *at, int column, enum qd_cell_status *out, char *err,
                             size_t errlen)
{
    const char *text = qd_csv_field(at->csv, at->row, (size_t)column);
    for (int s = QD_CELL_OK; s <= QD_CELL_MISSING; s++) {
        if (strcmp(text, qd_cell_status_name((enum qd_cell_status)s)) != 0) continue;
        *out = (enum qd_cell_status)s;
        return QD_OK;
    }
    return bad_field(at, column, "is not a status of a cell", err, errlen);
}

/* "a; b" into bits. */
static uint32_t read_marks(const char *text)
{
    uint32_t marks = 0;
    char piece[256];
    while (*text != '\0') {
        const char *end = strstr(text, "; ");
        size_t len = end != NULL ? (size_t)(end - text) : strlen(text);
        snprintf(piece, sizeof piece, "%.*s", (int)(len < sizeof piece ? len : sizeof piece - 1), text);
        marks |= qd_mark_find(piece);
        text += len + (end != NULL ? 2 : 0);
    }
    return marks;
}

/* The columns that only our own summary.csv has. */
static qd_status read_own_columns(const struct place *at, const struct columns *c, struct qd_cell *cell,
                                  char *err, size_t errlen)
{
    int64_t count;
    cell->n_runs = 1;
    if (c->status >= 0) QD_TRY(read_status(at, c->status, &cell->status, err, errlen));
    if (c->runs >= 0) {
        QD_TRY(read_int(at, c->runs, 0, 1000000, &count, err, errlen));
        cell->n_runs = (int)count;
    }
    if (c->failed >= 0) {
        QD_TRY(read_int(at, c->failed, 0, INT64_C(1) << 53, &count, err, errlen));
        cell->n_failed = (uint64_t)count;
    }
    if (c->preemptions >= 0 && qd_csv_field(at->csv, at->row, (size_t)c->preemptions)[0] != '\0')
        QD_TRY(read_int(at, c->preemptions, 0, INT64_C(1) << 53, &cell->n_preemptions, err, errlen));
    if (c->mark >= 0) cell->marks = read_marks(qd_csv_field(at->csv, at->row, (size_t)c->mark));
    if (c->reason >= 0)
        snprintf(cell->reason, sizeof cell->reason, "%s", qd_csv_field(at->csv, at->row, (size_t)c->reason));
    return QD_OK;
}

static qd_status read_variant(const struct place *at, int column, struct qd_cell *cell, char *err,
                              size_t errlen)
{
    char reason[QD_ERR_LEN];
    const char *text = qd_csv_field(at->csv, at->row, (size_t)column);
    if (qd_variant_check("variant", text, reason, sizeof reason) != QD_OK)
        return bad_field(at, column, "is no variant", err, errlen);
    snprintf(cell->variant, sizeof cell->variant, "%s", text);
    return QD_OK;
}

static qd_status read_row(const struct place *at, const struct columns *c, struct qd_cell *cell, char *err,
                          size_t errlen)
{
    int64_t pp;
    QD_TRY(read_int(at, c->tp, 1, QD_MAX_PARALLEL, &cell->tp, err, errlen));
    QD_TRY(read_int(at, c->dp, 1, QD_MAX_PARALLEL, &cell->dp, err, errlen));
    QD_TRY(read_int(at, c->pp, 1, QD_MAX_PARALLEL, &pp, err, errlen));
    if (pp != 1)
        return bad_field(at, c->pp, "is not 1: pipeline parallelism is not part of this report", err, errlen);
    QD_TRY(read_int(at, c->budget, 1, QD_MAX_BUDGET, &cell->budget, err, errlen));
    if (c->variant >= 0) QD_TRY(read_variant(at, c->variant, cell, err, errlen));
    QD_TRY(read_own_columns(at, c, cell, err, errlen));
    for (int m = 0; m < QD_N_METRICS; m++)
        if (c->metric[m] >= 0)
            QD_TRY(read_value(at, c->metric[m], c->status >= 0, &cell->values[m], err, errlen));
    return QD_OK;
}

/* Whether a row (already found valid) is the cell's. */
static bool is_row_of(const struct qd_csv *csv, const struct columns *c, size_t row,
                      const struct qd_cell *cell)
{
    return strtoll(qd_csv_field(csv, row, (size_t)c->tp), NULL, 10) == cell->tp &&
           strtoll(qd_csv_field(csv, row, (size_t)c->dp), NULL, 10) == cell->dp &&
           strtoll(qd_csv_field(csv, row, (size_t)c->budget), NULL, 10) == cell->budget &&
           (c->variant < 0 || strcmp(qd_csv_field(csv, row, (size_t)c->variant), cell->variant) == 0);
}

static qd_status fail_duplicate(const struct qd_csv *csv, const struct columns *c, const struct qd_cell *cell,
                                char *err, size_t errlen)
{
    size_t lines[2] = {0}, n = 0;
    for (size_t row = 0; row < csv->n_rows && n < 2; row++)
        if (is_row_of(csv, c, row, cell)) lines[n++] = csv->lines[row + 1];
    return qd_fail(QD_ERR_INPUT, err, errlen,
                   "%s:%zu: TP %lld DP %lld max_num_batched_tokens %lld%s%s is already in line %zu",
                   csv->name, lines[1], (long long)cell->tp, (long long)cell->dp, (long long)cell->budget,
                   cell->variant[0] != '\0' ? " " : "", cell->variant, lines[0]);
}

static qd_status check_duplicates(const struct qd_csv *csv, const struct columns *c,
                                  const struct qd_cell_list *sorted, char *err, size_t errlen)
{
    for (size_t i = 1; i < sorted->n; i++) {
        const struct qd_cell *cell = &sorted->cells[i];
        if (qd_cell_compare(&sorted->cells[i - 1], cell) == 0)
            return fail_duplicate(csv, c, cell, err, errlen);
    }
    return QD_OK;
}

static qd_status read_rows(const struct qd_csv *csv, struct qd_cell_list *cells, char *err, size_t errlen)
{
    struct columns c;
    QD_TRY(find_columns(csv, &c, err, errlen));
    if (csv->n_rows == 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: has a header but no rows", csv->name);
    for (size_t row = 0; row < csv->n_rows; row++) {
        struct qd_cell *cell = qd_cell_list_add(cells);
        if (cell == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", csv->name);
        QD_TRY(read_row(&(struct place){csv, row}, &c, cell, err, errlen));
    }
    qd_cell_list_sort(cells);
    return check_duplicates(csv, &c, cells, err, errlen);
}

qd_status qd_report_csv_parse(const char *name, const char *text, size_t len, struct qd_cell_list *cells,
                              char *err, size_t errlen)
{
    struct qd_csv csv;
    *cells = (struct qd_cell_list){0};
    QD_TRY(qd_csv_parse(name, text, len, &csv, err, errlen));
    qd_status st = read_rows(&csv, cells, err, errlen);
    qd_csv_free(&csv);
    if (st != QD_OK) qd_cell_list_free(cells);
    return st;
}
