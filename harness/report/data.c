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
    *data = (struct qd_report_data){0};
}

/* Cells that may be expected beyond those seen: an absurd --matrix must not fill the memory. */
enum { MAX_EXPECTED = 20000 };

/* Counts one expected cell and adds it to `missing` when it is not among the first n_seen (sorted) cells. */
static qd_status expect_cell(struct qd_report_data *data, const struct qd_cell_list *seen,
                             const struct qd_cell *key, char *err, size_t errlen)
{
    const struct qd_cell *cell = qd_cell_list_find(seen, key->tp, key->dp, key->budget);
    data->n_expected++;
    if (cell != NULL) {
        data->n_expected_ok += cell->status == QD_CELL_OK;
        return QD_OK;
    }
    if (data->n_expected > MAX_EXPECTED)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "matrix: more than %d cells", MAX_EXPECTED);
    struct qd_cell *added = qd_cell_list_add(&data->cells);
    if (added == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    added->tp = key->tp;
    added->dp = key->dp;
    added->budget = key->budget;
    added->status = QD_CELL_MISSING;
    return QD_OK;
}

static qd_status expect_matrix(struct qd_report_data *data, const struct qd_cell_list *seen,
                               const struct qd_matrix *m, char *err, size_t errlen)
{
    for (int t = 0; t < m->tp.n; t++)
        for (int d = 0; d < m->dp.n; d++)
            for (int b = 0; b < m->budget.n; b++) {
                struct qd_cell key = {
                    .tp = m->tp.value[t], .dp = m->dp.value[d], .budget = m->budget.value[b]};
                if (m->max_gpus > 0 && key.tp * key.dp > m->max_gpus) continue;
                QD_TRY(expect_cell(data, seen, &key, err, errlen));
            }
    return QD_OK;
}

static int compare_budgets(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Every pair of powers of two whose product is at most the largest seen, for one budget. */
static qd_status expect_pairs(struct qd_report_data *data, const struct qd_cell_list *seen, int64_t largest,
                              int64_t budget, char *err, size_t errlen)
{
    for (int64_t tp = 1; tp <= largest; tp *= 2)
        for (int64_t dp = 1; tp * dp <= largest; dp *= 2) {
            struct qd_cell key = {.tp = tp, .dp = dp, .budget = budget};
            QD_TRY(expect_cell(data, seen, &key, err, errlen));
        }
    return QD_OK;
}

static qd_status expect_inferred(struct qd_report_data *data, const struct qd_cell_list *seen, char *err,
                                 size_t errlen)
{
    int64_t largest = 1, *budgets = malloc((seen->n > 0 ? seen->n : 1) * sizeof *budgets);
    if (budgets == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    for (size_t i = 0; i < seen->n; i++) {
        int64_t n_gpus = seen->cells[i].tp * seen->cells[i].dp;
        if (n_gpus > largest) largest = n_gpus;
        budgets[i] = seen->cells[i].budget;
    }
    qsort(budgets, seen->n, sizeof *budgets, compare_budgets);
    qd_status st = QD_OK;
    for (size_t i = 0; st == QD_OK && i < seen->n; i++)
        if (i == 0 || budgets[i] != budgets[i - 1])
            st = expect_pairs(data, seen, largest, budgets[i], err, errlen);
    free(budgets);
    return st;
}

qd_status qd_report_data_expect(struct qd_report_data *data, const struct qd_matrix *matrix, char *err,
                                size_t errlen)
{
    /* The lookups run on a copy: adding cells to the list they search would break its order. */
    struct qd_cell_list seen = {.n = data->cells.n};
    if (seen.n > 0) {
        seen.cells = malloc(seen.n * sizeof *seen.cells);
        if (seen.cells == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
        memcpy(seen.cells, data->cells.cells, seen.n * sizeof *seen.cells);
    }
    data->n_expected = data->n_expected_ok = 0;
    qd_status st = matrix != NULL ? expect_matrix(data, &seen, matrix, err, errlen)
                                  : expect_inferred(data, &seen, err, errlen);
    qd_cell_list_free(&seen);
    qd_cell_list_sort(&data->cells);
    return st;
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
    return qd_cells_read(path, &data->cells, &data->origin, err, errlen);
}

qd_status qd_report_data_load(const char *path, const char *matrix, struct qd_report_data *out, char *err,
                              size_t errlen)
{
    struct qd_matrix given, recorded;
    bool has_recorded;
    *out = (struct qd_report_data){0};
    if (matrix != NULL) QD_TRY(qd_matrix_parse(matrix, &given, err, errlen));
    snprintf(out->path, sizeof out->path, "%s", path);
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
