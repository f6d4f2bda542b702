#include "harness/result/cells.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/result/csv.h"
#include "harness/result/experiment.h"
#include "harness/result/files.h"
#include "harness/result/json_put.h"

/* The published report's columns, in its order; TP, DP, PP and the budget stand before them. */
static const enum qd_metric PUBLISHED[] = {
    QD_METRIC_PER_REQUEST_TOK_S, QD_METRIC_E2EL_P50, QD_METRIC_E2EL_P99, QD_METRIC_TTFT_P50,
    QD_METRIC_TTFT_P99,          QD_METRIC_ITL_P50,  QD_METRIC_ITL_P99,
};
static const enum qd_metric OURS[] = {QD_METRIC_OUTPUT_TOK_S, QD_METRIC_TOK_S_PER_GPU,
                                      QD_METRIC_TOK_S_PER_USER};

enum { N_PUBLISHED = sizeof PUBLISHED / sizeof PUBLISHED[0], N_OURS = sizeof OURS / sizeof OURS[0] };

static void print_header(FILE *out)
{
    fputs("TP,DP,PP,max_num_batched_tokens", out);
    for (int i = 0; i < N_PUBLISHED; i++) fprintf(out, ",%s", qd_metric_info(PUBLISHED[i])->csv_column);
    for (int i = 0; i < N_OURS; i++) fprintf(out, ",%s", qd_metric_info(OURS[i])->csv_column);
    fputs(",output_tok_s_mean,output_tok_s_std,output_tok_s_min,output_tok_s_max", out);
    fputs(",runs,failed,preemptions,status,mark,reason,variant\n", out);
}

/* ",value" with 17 digits, so that reading gives the same double; nothing behind the comma when unknown. */
static void print_value(FILE *out, double value, bool known)
{
    if (known)
        fprintf(out, ",%.17g", value);
    else
        fputc(',', out);
}

static void print_marks(FILE *out, uint32_t marks)
{
    char text[512] = "";
    for (uint32_t mark = 1; qd_mark_text(mark) != NULL; mark <<= 1) {
        if (!(marks & mark)) continue;
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%s", used > 0 ? "; " : "", qd_mark_text(mark));
    }
    qd_csv_print(out, text);
}

static void print_cell(FILE *out, const struct qd_cell *cell)
{
    fprintf(out, "%lld,%lld,1,%lld", (long long)cell->tp, (long long)cell->dp, (long long)cell->budget);
    for (int i = 0; i < N_PUBLISHED; i++)
        print_value(out, cell->values[PUBLISHED[i]].median, cell->values[PUBLISHED[i]].n > 0);
    for (int i = 0; i < N_OURS; i++)
        print_value(out, cell->values[OURS[i]].median, cell->values[OURS[i]].n > 0);
    const struct qd_metric_value *v = &cell->values[QD_METRIC_OUTPUT_TOK_S];
    print_value(out, v->mean, v->n > 0);
    print_value(out, v->std, v->n > 1);
    print_value(out, v->min, v->n > 0);
    print_value(out, v->max, v->n > 0);
    fprintf(out, ",%d,%llu", cell->n_runs, (unsigned long long)cell->n_failed);
    print_value(out, (double)cell->n_preemptions, cell->n_preemptions >= 0);
    fprintf(out, ",%s,", qd_cell_status_name(cell->status));
    print_marks(out, cell->marks);
    fputc(',', out);
    qd_csv_print(out, cell->reason);
    fprintf(out, ",%s\n", cell->variant);
}

static qd_status write_csv(const struct qd_cell_list *cells, const char *folder, char *err, size_t errlen)
{
    char *path = qd_path_join(folder, "summary.csv");
    struct qd_atomic_file file;
    if (path == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", folder);
    qd_status st = qd_atomic_file_open(&file, path, err, errlen);
    if (st == QD_OK) {
        print_header(file.stream);
        for (size_t i = 0; i < cells->n; i++) print_cell(file.stream, &cells->cells[i]);
        st = qd_atomic_file_commit(&file, err, errlen);
    }
    free(path);
    return st;
}

/* The value of an axis under its option's name: a number where it is one ("512M" is not). */
static void put_override(cJSON *run, const struct qd_axis *axis, const char *value, bool *ok)
{
    char key[QD_AXIS_NAME_LEN], *end;
    snprintf(key, sizeof key, "%s", axis->option);
    for (char *c = key; *c != '\0'; c++)
        if (*c == '-') *c = '_';
    cJSON_DeleteItemFromObjectCaseSensitive(run, key);
    double number = strtod(value, &end);
    if (*end == '\0')
        qd_json_put_number(run, key, number, ok);
    else
        qd_json_put_text(run, key, value, ok);
}

/* Gives every run the values of the further axes, as the list that vLLM's plotters read has them. */
static qd_status put_overrides(cJSON *runs, const struct qd_axes *axes, char *err, size_t errlen)
{
    cJSON *run;
    cJSON_ArrayForEach (run, runs) {
        const char *variant;
        size_t index[QD_MAX_AXES];
        bool ok = true;
        QD_TRY(qd_variant_get(cJSON_GetObjectItemCaseSensitive(run, "qdyno"), &variant, err, errlen));
        if (!qd_axes_find(axes, variant, index)) continue;
        for (size_t a = 0; a < axes->n; a++)
            put_override(run, &axes->axis[a], axes->axis[a].range.values[index[a]], &ok);
        if (!ok) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "summary.json: out of memory");
    }
    return QD_OK;
}

/* summary.json of one folder, if it has runs. */
static qd_status write_cell_summary(const char *parent, const char *name, const struct qd_axes *axes,
                                    char *err, size_t errlen)
{
    char *folder = qd_path_join(parent, name), *path = NULL;
    cJSON *runs = NULL;
    struct stat info;
    qd_status st = QD_OK;
    if (folder == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", parent);
    if (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)) goto cleanup;
    QD_TRY_GOTO(qd_cell_read_runs(folder, &runs, err, errlen), st, cleanup);
    if (runs->child == NULL) goto cleanup;
    QD_TRY_GOTO(put_overrides(runs, axes, err, errlen), st, cleanup);
    path = qd_path_join(folder, "summary.json");
    st = path != NULL ? qd_file_write_json(path, runs, err, errlen)
                      : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", folder);
cleanup:
    free(path);
    cJSON_Delete(runs);
    free(folder);
    return st;
}

/* The further axes of the experiment; none when it has no experiment.json. */
static qd_status read_axes(const char *folder, struct qd_axes *axes, char *err, size_t errlen)
{
    char *path = qd_path_join(folder, "experiment.json");
    if (path == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", folder);
    qd_status st = qd_experiment_read_axes(path, axes, err, errlen);
    free(path);
    return st == QD_ERR_NOT_FOUND ? QD_OK : st;
}

qd_status qd_summary_open(struct qd_summary *out, const char *folder, char *err, size_t errlen)
{
    struct stat info;
    *out = (struct qd_summary){.folder = folder};
    if (stat(folder, &info) != 0)
        return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "%s: %s", folder, strerror(errno));
    QD_TRY(read_axes(folder, &out->axes, err, errlen));
    qd_status st = qd_cells_read(folder, &out->cells, NULL, err, errlen);
    if (st == QD_OK || st == QD_ERR_NOT_FOUND)
        return QD_OK; /* the folder is there, so it is one without cells */
    qd_summary_close(out);
    return st;
}

void qd_summary_close(struct qd_summary *summary)
{
    qd_axes_free(&summary->axes);
    qd_cell_list_free(&summary->cells);
}

qd_status qd_summary_update(struct qd_summary *summary, const char *cell_name, char *err, size_t errlen)
{
    struct qd_cell cell;
    bool found;
    QD_TRY(qd_cell_read(summary->folder, cell_name, &cell, NULL, &found, err, errlen));
    if (!found) return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "%s/%s: no cell", summary->folder, cell_name);
    struct qd_cell *known = qd_cell_list_find(&summary->cells, cell.variant, cell.tp, cell.dp, cell.budget);
    if (known != NULL) {
        *known = cell;
    } else {
        struct qd_cell *added = qd_cell_list_add(&summary->cells);
        if (added == NULL)
            return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", summary->folder);
        *added = cell;
        qd_cell_list_sort(&summary->cells);
    }
    QD_TRY(write_csv(&summary->cells, summary->folder, err, errlen));
    return write_cell_summary(summary->folder, cell_name, &summary->axes, err, errlen);
}

qd_status qd_summary_write(const char *folder, char *err, size_t errlen)
{
    struct qd_cell_list cells;
    struct qd_axes axes;
    QD_TRY(qd_cells_read(folder, &cells, NULL, err, errlen));
    qd_status st = write_csv(&cells, folder, err, errlen);
    qd_cell_list_free(&cells);
    if (st == QD_OK) st = read_axes(folder, &axes, err, errlen);
    if (st != QD_OK) return st;
    DIR *dir = opendir(folder);
    if (dir == NULL) st = qd_fail(QD_ERR_IO, err, errlen, "%s: %s", folder, strerror(errno));
    for (struct dirent *entry; st == QD_OK && (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.') st = write_cell_summary(folder, entry->d_name, &axes, err, errlen);
    if (dir != NULL) closedir(dir);
    qd_axes_free(&axes);
    return st;
}
