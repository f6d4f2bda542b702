#include "harness/result/cells.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/result/cell_ledger.h"
#include "harness/result/failure.h"
#include "harness/result/files.h"
#include "harness/result/json_put.h"
#include "harness/result/matrix.h"
#include "harness/result/origin.h"
#include "harness/result/schema.h"
#include "models/json.h"

enum { MAX_RUN_BYTES = 64 << 20, MAX_RUNS = QD_MAX_CELL_RUNS };

/* The member at a path such as "qdyno/latency_ms/ttft/p50", or NULL. */
static const cJSON *find_path(const cJSON *object, const char *path)
{
    char key[64];
    while (object != NULL && *path != '\0') {
        size_t len = strcspn(path, "/");
        snprintf(key, sizeof key, "%.*s", (int)len, path);
        object = cJSON_GetObjectItemCaseSensitive(object, key);
        path += len + (path[len] == '/');
    }
    return object;
}

/* The number n of "run=<n>.json", or -1. */
static int run_number_of(const char *name)
{
    int number, used = 0;
    if (sscanf(name, "run=%9d.json%n", &number, &used) != 1 || used == 0 || name[used] != '\0') return -1;
    return number;
}

static int compare_ints(const void *a, const void *b)
{
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

static qd_status list_run_numbers(const char *folder, int *numbers, int *n, char *err, size_t errlen)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) return qd_fail(QD_ERR_IO, err, errlen, "%s: %s", folder, strerror(errno));
    qd_status st = QD_OK;
    *n = 0;
    for (struct dirent *entry; st == QD_OK && (entry = readdir(dir)) != NULL;) {
        int number = run_number_of(entry->d_name);
        if (number < 0) continue;
        if (*n == MAX_RUNS)
            st = qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: more than %d runs", folder, MAX_RUNS);
        else
            numbers[(*n)++] = number;
    }
    closedir(dir);
    qsort(numbers, (size_t)*n, sizeof *numbers, compare_ints);
    return st;
}

/* Reads variant, TP, DP and budget of a run into `key`. */
static qd_status read_key(const cJSON *run, struct qd_cell *key, char *err, size_t errlen)
{
    const char *variant;
    QD_TRY(qd_variant_get(cJSON_GetObjectItemCaseSensitive(run, "qdyno"), &variant, err, errlen));
    snprintf(key->variant, sizeof key->variant, "%s", variant);
    QD_TRY(qd_json_get_int(run, "tensor_parallel_size", 1, QD_MAX_PARALLEL, &key->tp, err, errlen));
    QD_TRY(qd_json_get_int(run, "data_parallel_size", 1, QD_MAX_PARALLEL, &key->dp, err, errlen));
    return qd_json_get_int(run, "max_num_batched_tokens", 1, QD_MAX_BUDGET, &key->budget, err, errlen);
}

/* What every run must have before anything of it is used. */
static qd_status check_run(const cJSON *run, const cJSON *first, char *err, size_t errlen)
{
    const cJSON *own = cJSON_GetObjectItemCaseSensitive(run, "qdyno");
    struct qd_cell key, other;
    int64_t count;
    if (!cJSON_IsObject(own))
        return qd_fail(QD_ERR_INPUT, err, errlen, "qdyno: missing: not a result of this program");
    QD_TRY(qd_schema_check(own, err, errlen));
    QD_TRY(read_key(run, &key, err, errlen));
    QD_TRY(qd_json_get_int(run, "completed", 0, INT64_C(1) << 53, &count, err, errlen));
    QD_TRY(qd_json_get_int(run, "failed", 0, INT64_C(1) << 53, &count, err, errlen));
    if (first == NULL) return QD_OK;
    QD_TRY(read_key(first, &other, err, errlen));
    if (qd_cell_compare(&key, &other) != 0)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "is of another cell (TP%d DP%d %lld%s%s) than the runs before it", (int)key.tp,
                       (int)key.dp, (long long)key.budget, key.variant[0] != '\0' ? " " : "", key.variant);
    return QD_OK;
}

static qd_status read_run(const char *folder, int number, cJSON *runs, char *err, size_t errlen)
{
    char name[64], detail[QD_ERR_LEN] = "";
    snprintf(name, sizeof name, "run=%d.json", number);
    char *path = qd_path_join(folder, name);
    if (path == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", folder);
    cJSON *run = NULL;
    qd_status st = qd_json_read_file(path, MAX_RUN_BYTES, &run, err, errlen);
    if (st == QD_OK) {
        st = check_run(run, runs->child, detail, sizeof detail);
        st = qd_fail_in_file(st, path, detail, err, errlen);
    }
    if (st == QD_OK) {
        bool ok = true;
        cJSON_DeleteItemFromObjectCaseSensitive(run, "run_number");
        qd_json_put_int(run, "run_number", number, &ok);
        qd_json_append_item(runs, run, &ok);
        run = NULL;
        if (!ok) st = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", path);
    }
    cJSON_Delete(run);
    free(path);
    return st;
}

qd_status qd_cell_read_runs(const char *folder, cJSON **runs, char *err, size_t errlen)
{
    int numbers[MAX_RUNS], n;
    *runs = NULL;
    QD_TRY(list_run_numbers(folder, numbers, &n, err, errlen));
    cJSON *array = cJSON_CreateArray();
    if (array == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", folder);
    qd_status st = QD_OK;
    for (int i = 0; st == QD_OK && i < n; i++) st = read_run(folder, numbers[i], array, err, errlen);
    if (st == QD_OK)
        *runs = array;
    else
        cJSON_Delete(array);
    return st;
}

/* Values of one metric over the runs that completed something; null is "no sample" and is left out. */
static qd_status read_metric(const cJSON *runs, enum qd_metric metric, struct qd_metric_value *out, char *err,
                             size_t errlen)
{
    double values[MAX_RUNS];
    int n = 0;
    const cJSON *run;
    cJSON_ArrayForEach (run, runs) {
        const cJSON *completed = cJSON_GetObjectItemCaseSensitive(run, "completed");
        const cJSON *value = find_path(run, qd_metric_info(metric)->json_path);
        if (completed->valuedouble < 1 || cJSON_IsNull(value)) continue;
        if (!cJSON_IsNumber(value) || !(value->valuedouble >= 0))
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: is not a number from 0 on",
                           qd_metric_info(metric)->json_path);
        values[n++] = value->valuedouble;
    }
    *out = qd_metric_value_of(values, n);
    return QD_OK;
}

static void add_marks(const cJSON *run, struct qd_cell *cell)
{
    const cJSON *mark;
    cJSON_ArrayForEach (mark, find_path(run, "qdyno/marks")) {
        if (cJSON_IsString(mark)) cell->marks |= qd_mark_find(mark->valuestring);
    }
}

static qd_status cell_from_runs(const cJSON *runs, struct qd_cell *cell, char *err, size_t errlen)
{
    const cJSON *run;
    QD_TRY(read_key(runs->child, cell, err, errlen));
    cJSON_ArrayForEach (run, runs) {
        bool completed = cJSON_GetObjectItemCaseSensitive(run, "completed")->valuedouble >= 1;
        if (completed)
            cell->n_runs++;
        else
            cell->n_empty_runs++;
        cell->n_failed += (uint64_t)cJSON_GetObjectItemCaseSensitive(run, "failed")->valuedouble;
        int64_t preemptions;
        QD_TRY(qd_json_get_int(cJSON_GetObjectItemCaseSensitive(run, "qdyno"), "preemptions", 0,
                               INT64_C(1) << 53, &preemptions, err, errlen));
        if (preemptions > cell->n_preemptions) cell->n_preemptions = preemptions;
        add_marks(run, cell);
    }
    for (int m = 0; m < QD_N_METRICS; m++)
        QD_TRY(read_metric(runs, (enum qd_metric)m, &cell->values[m], err, errlen));
    QD_TRY(qd_cell_ledger_read(runs, &cell->ledger, err, errlen));
    cell->status = cell->n_runs > 0 ? QD_CELL_OK : QD_CELL_EMPTY;
    if (cell->n_empty_runs > 0)
        snprintf(cell->reason, sizeof cell->reason, "no request completed in %d of %d runs",
                 cell->n_empty_runs, cell->n_empty_runs + cell->n_runs);
    return QD_OK;
}

/* Adds what failed.json says to a cell that may have runs already. */
static qd_status add_failure(const char *path, struct qd_cell *cell, char *err, size_t errlen)
{
    struct qd_failure f;
    QD_TRY(qd_failure_read(path, &f, err, errlen));
    bool has_runs = cell->n_runs + cell->n_empty_runs > 0;
    struct qd_cell key = {.tp = f.tp, .dp = f.dp, .budget = f.budget};
    memcpy(key.variant, f.variant, sizeof key.variant);
    if (has_runs && qd_cell_compare(cell, &key) != 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: is of another cell than the runs beside it", path);
    memcpy(cell->variant, f.variant, sizeof cell->variant);
    cell->tp = f.tp;
    cell->dp = f.dp;
    cell->budget = f.budget;
    if (cell->n_runs == 0)
        cell->status = f.kind == QD_FAILURE_REFUSED   ? QD_CELL_REFUSED
                       : f.kind == QD_FAILURE_CRASHED ? QD_CELL_CRASHED
                                                      : QD_CELL_TIMEOUT;
    if (f.run_number >= 0)
        snprintf(cell->reason, sizeof cell->reason, "run %d %s in phase %s: %.400s", f.run_number,
                 qd_failure_kind_name(f.kind), f.phase, f.reason);
    else
        snprintf(cell->reason, sizeof cell->reason, "%s in phase %s: %.400s", qd_failure_kind_name(f.kind),
                 f.phase, f.reason);
    return QD_OK;
}

/* Reads one folder; *is_cell is false when it holds neither runs nor failed.json. */
static qd_status read_cell(const char *folder, struct qd_cell *cell, struct qd_origin_list *origins,
                           bool *is_cell, char *err, size_t errlen)
{
    cJSON *runs = NULL;
    char detail[QD_ERR_LEN] = "";
    char *failed = qd_path_join(folder, "failed.json");
    if (failed == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", folder);
    struct stat info;
    bool has_failure = stat(failed, &info) == 0;
    qd_status st = qd_cell_read_runs(folder, &runs, err, errlen);
    *is_cell = st == QD_OK && (runs->child != NULL || has_failure);
    if (st == QD_OK && runs->child != NULL) {
        st = cell_from_runs(runs, cell, detail, sizeof detail);
        st = qd_fail_in_file(st, folder, detail, err, errlen);
        if (st == QD_OK && origins != NULL && qd_origin_list_add(origins, cell->variant, runs) != QD_OK)
            st = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", folder);
    }
    if (st == QD_OK && has_failure) st = add_failure(failed, cell, err, errlen);
    cJSON_Delete(runs);
    free(failed);
    return st;
}

static qd_status check_unique(const struct qd_cell_list *list, const char *folder, char *err, size_t errlen)
{
    for (size_t i = 1; i < list->n; i++) {
        const struct qd_cell *a = &list->cells[i - 1], *b = &list->cells[i];
        if (qd_cell_compare(a, b) == 0)
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: two folders hold TP%d DP%d budget %lld%s%s",
                           folder, (int)a->tp, (int)a->dp, (long long)a->budget,
                           a->variant[0] != '\0' ? " " : "", a->variant);
    }
    return QD_OK;
}

qd_status qd_cell_read(const char *parent, const char *name, struct qd_cell *out,
                       struct qd_origin_list *origins, bool *found, char *err, size_t errlen)
{
    char *path = qd_path_join(parent, name);
    if (path == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", parent);
    struct stat info;
    *out = (struct qd_cell){0};
    *found = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    qd_status st = *found ? read_cell(path, out, origins, found, err, errlen) : QD_OK;
    free(path);
    return st;
}

static qd_status add_cell(const char *parent, const char *name, struct qd_cell_list *cells,
                          struct qd_origin_list *origins, char *err, size_t errlen)
{
    struct qd_cell cell, *added;
    bool found;
    QD_TRY(qd_cell_read(parent, name, &cell, origins, &found, err, errlen));
    if (!found) return QD_OK;
    added = qd_cell_list_add(cells);
    if (added == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", parent);
    *added = cell;
    return QD_OK;
}

qd_status qd_cells_read(const char *folder, struct qd_cell_list *cells, struct qd_origin_list *origins,
                        char *err, size_t errlen)
{
    *cells = (struct qd_cell_list){0};
    if (origins != NULL) *origins = (struct qd_origin_list){0};
    struct dirent **entries = NULL;
    /* Sorted, so that the same folder always gives the same report. */
    int n = scandir(folder, &entries, NULL, alphasort);
    if (n < 0)
        return qd_fail(errno == ENOENT ? QD_ERR_NOT_FOUND : QD_ERR_IO, err, errlen, "%s: %s", folder,
                       strerror(errno));
    qd_status st = QD_OK;
    for (int i = 0; i < n; i++) {
        if (st == QD_OK && entries[i]->d_name[0] != '.')
            st = add_cell(folder, entries[i]->d_name, cells, origins, err, errlen);
        free(entries[i]);
    }
    free(entries);
    qd_cell_list_sort(cells);
    if (st == QD_OK) st = check_unique(cells, folder, err, errlen);
    if (st == QD_OK && cells->n == 0)
        st = qd_fail(QD_ERR_NOT_FOUND, err, errlen,
                     "%s: no cell of a sweep inside (a folder with run=<n>.json or failed.json)", folder);
    if (st != QD_OK) qd_cell_list_free(cells);
    if (st != QD_OK && origins != NULL) qd_origin_list_free(origins);
    return st;
}
