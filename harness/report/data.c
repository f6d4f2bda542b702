#include "harness/report/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/result/csv.h"
#include "harness/result/experiment.h"
#include "harness/result/files.h"
#include "models/json.h"

void qd_report_data_free(struct qd_report_data *data)
{
    qd_cell_list_free(&data->cells);
    qd_origin_list_free(&data->origins);
    qd_axes_free(&data->axes);
    *data = (struct qd_report_data){0};
}

/* Cells that may be expected beyond those seen: an absurd --matrix must not fill the memory. */
enum { MAX_EXPECTED = 20000 };

/* A matrix being expected: new cells go behind the sorted ones that were seen, whose lookups run on a copy,
 * because adding to a list that is searched would break its order. */
struct expectation {
    struct qd_report_data *data;
    const struct qd_cell_list *seen;
    const char *variant;
};

/* Marks one expected cell, and adds it as missing when it was not seen. */
static qd_status expect_cell(const struct expectation *e, int64_t tp, int64_t dp, int64_t budget, char *err,
                             size_t errlen)
{
    const struct qd_cell *seen = qd_cell_list_find(e->seen, e->variant, tp, dp, budget);
    struct qd_cell_list *cells = &e->data->cells;
    if (seen != NULL) {
        cells->cells[seen - e->seen->cells].is_expected = true;
        return QD_OK;
    }
    if (cells->n - e->seen->n >= MAX_EXPECTED)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "matrix: more than %d cells", MAX_EXPECTED);
    struct qd_cell *added = qd_cell_list_add(cells);
    if (added == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    snprintf(added->variant, sizeof added->variant, "%s", e->variant);
    added->tp = tp;
    added->dp = dp;
    added->budget = budget;
    added->is_expected = true;
    added->status = QD_CELL_MISSING;
    return QD_OK;
}

static qd_status expect_matrix(const struct expectation *e, const struct qd_matrix *m, char *err,
                               size_t errlen)
{
    for (int t = 0; t < m->tp.n; t++)
        for (int d = 0; d < m->dp.n; d++)
            for (int b = 0; b < m->budget.n; b++) {
                int64_t tp = m->tp.value[t], dp = m->dp.value[d];
                if (m->max_gpus > 0 && tp * dp > m->max_gpus) continue;
                QD_TRY(expect_cell(e, tp, dp, m->budget.value[b], err, errlen));
            }
    return QD_OK;
}

static int compare_budgets(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Every pair of powers of two whose product is at most the largest seen, for one budget. */
static qd_status expect_pairs(const struct expectation *e, int64_t largest, int64_t budget, char *err,
                              size_t errlen)
{
    for (int64_t tp = 1; tp <= largest; tp *= 2)
        for (int64_t dp = 1; tp * dp <= largest; dp *= 2) QD_TRY(expect_cell(e, tp, dp, budget, err, errlen));
    return QD_OK;
}

/* Infers the matrix from the n cells of the variant. */
static qd_status expect_inferred(const struct expectation *e, const struct qd_cell *cells, size_t n,
                                 char *err, size_t errlen)
{
    int64_t largest = 1, *budgets = malloc((n > 0 ? n : 1) * sizeof *budgets);
    if (budgets == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    for (size_t i = 0; i < n; i++) {
        int64_t n_gpus = cells[i].tp * cells[i].dp;
        if (n_gpus > largest) largest = n_gpus;
        budgets[i] = cells[i].budget;
    }
    qsort(budgets, n, sizeof *budgets, compare_budgets);
    qd_status st = QD_OK;
    for (size_t i = 0; st == QD_OK && i < n; i++)
        if (i == 0 || budgets[i] != budgets[i - 1]) st = expect_pairs(e, largest, budgets[i], err, errlen);
    free(budgets);
    return st;
}

/* Index behind the last cell of the variant that begins at `begin`. */
static size_t variant_end(const struct qd_cell_list *cells, size_t begin)
{
    size_t end = begin + 1;
    while (end < cells->n && strcmp(cells->cells[end].variant, cells->cells[begin].variant) == 0) end++;
    return end;
}

static qd_status expect_seen_variants(struct expectation *e, const struct qd_matrix *matrix, char *err,
                                      size_t errlen)
{
    for (size_t begin = 0, end; begin < e->seen->n; begin = end) {
        const struct qd_cell *cells = &e->seen->cells[begin];
        end = variant_end(e->seen, begin);
        e->variant = cells->variant;
        QD_TRY(matrix != NULL ? expect_matrix(e, matrix, err, errlen)
                              : expect_inferred(e, cells, end - begin, err, errlen));
    }
    return QD_OK;
}

static qd_status expect_all_variants(struct expectation *e, const struct qd_matrix *matrix, char *err,
                                     size_t errlen)
{
    char variant[QD_VARIANT_LEN];
    e->variant = variant;
    for (size_t i = 0; i < qd_axes_count(&e->data->axes); i++) {
        qd_axes_variant(&e->data->axes, i, variant);
        QD_TRY(expect_matrix(e, matrix, err, errlen));
    }
    return QD_OK;
}

static void count_expected(struct qd_report_data *data)
{
    data->n_expected = data->n_expected_ok = 0;
    for (size_t i = 0; i < data->cells.n; i++) {
        const struct qd_cell *cell = &data->cells.cells[i];
        data->n_expected += cell->is_expected;
        data->n_expected_ok += cell->is_expected && cell->status == QD_CELL_OK;
    }
}

qd_status qd_report_data_expect(struct qd_report_data *data, const struct qd_matrix *matrix, char *err,
                                size_t errlen)
{
    struct qd_cell_list seen = {.n = data->cells.n};
    if (seen.n > 0) {
        seen.cells = malloc(seen.n * sizeof *seen.cells);
        if (seen.cells == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
        memcpy(seen.cells, data->cells.cells, seen.n * sizeof *seen.cells);
    }
    struct expectation e = {.data = data, .seen = &seen};
    qd_status st = data->axes.n > 0 && matrix != NULL ? expect_all_variants(&e, matrix, err, errlen)
                                                      : expect_seen_variants(&e, matrix, err, errlen);
    qd_cell_list_free(&seen);
    qd_cell_list_sort(&data->cells);
    count_expected(data);
    return st;
}

struct qd_report_data qd_report_data_of_variant(const struct qd_report_data *data, size_t begin)
{
    struct qd_report_data part = *data;
    const char *variant = data->cells.cells[begin].variant;
    const struct qd_origin *origin = qd_origin_list_find(&data->origins, variant);
    part.cells = (struct qd_cell_list){.cells = &data->cells.cells[begin],
                                       .n = variant_end(&data->cells, begin) - begin};
    part.origin = origin != NULL ? *origin : (struct qd_origin){0};
    count_expected(&part);
    return part;
}

static qd_status load_csv(const char *path, struct qd_report_data *data, char *err, size_t errlen)
{
    char *text = NULL;
    size_t len = 0;
    QD_TRY(qd_file_read(path, QD_CSV_MAX_BYTES, &text, &len, err, errlen));
    qd_status st = qd_report_csv_parse(path, text, len, &data->cells, err, errlen);
    free(text);
    return st;
}

/* Reads experiment.json if it is there; *found says so. */
static qd_status load_experiment(const char *folder, struct qd_report_data *data, struct qd_matrix *matrix,
                                 bool *found, char *err, size_t errlen)
{
    char *path = qd_path_join(folder, "experiment.json");
    if (path == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", folder);
    qd_status st = qd_experiment_read_matrix(path, matrix, &data->n_repeats, err, errlen);
    if (st == QD_OK) st = qd_experiment_read_axes(path, &data->axes, err, errlen);
    free(path);
    *found = st == QD_OK;
    return st == QD_ERR_NOT_FOUND ? QD_OK : st;
}

static qd_status load(const char *path, struct qd_report_data *data, struct qd_matrix *recorded,
                      bool *has_recorded, char *err, size_t errlen)
{
    struct stat info;
    *has_recorded = false;
    if (stat(path, &info) != 0) return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "%s: not found", path);
    if (!S_ISDIR(info.st_mode)) {
        data->source = QD_REPORT_CSV;
        return load_csv(path, data, err, errlen);
    }
    data->source = QD_REPORT_DIRECTORY;
    QD_TRY(load_experiment(path, data, recorded, has_recorded, err, errlen));
    return qd_cells_read(path, &data->cells, &data->origins, err, errlen);
}

qd_status qd_report_data_load(const char *path, const char *matrix, struct qd_report_data *out, char *err,
                              size_t errlen)
{
    struct qd_matrix given, recorded;
    bool has_recorded;
    *out = (struct qd_report_data){0};
    if (matrix != NULL) QD_TRY(qd_matrix_parse(matrix, &given, err, errlen));
    out->path = path;
    qd_status st = load(path, out, &recorded, &has_recorded, err, errlen);
    if (st == QD_OK) {
        out->matrix_source = matrix != NULL ? QD_MATRIX_GIVEN
                             : has_recorded ? QD_MATRIX_RECORDED
                                            : QD_MATRIX_INFERRED;
        const struct qd_matrix *expected = matrix != NULL ? &given : has_recorded ? &recorded : NULL;
        st = qd_report_data_expect(out, expected, err, errlen);
    }
    if (st != QD_OK) qd_report_data_free(out);
    return st;
}
