#include "harness/cli/sweep_files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli/commands.h"
#include "harness/cli/session.h"
#include "harness/cli/version.h"
#include "harness/result/experiment.h"
#include "harness/result/files.h"
#include "harness/result/run_result.h"
#include "models/json.h"

enum { MAX_JSON_BYTES = 1 << 28, MAX_WORDS = 4 * QD_MAX_GIVEN };

/* The values of one axis of the matrix: the list of the sweep, or the one value of all cells. */
static qd_status axis_values(const struct qd_sweep_plan *plan, const char *name, int64_t single,
                             struct qd_int_list *out, char *err, size_t errlen)
{
    *out = (struct qd_int_list){.n = 1, .value = {single}};
    for (size_t i = 0; i < plan->n_axes; i++) {
        if (strcmp(plan->axes[i].name, name) != 0) continue;
        const struct qd_range *range = &plan->axes[i].range;
        if (range->n > QD_INT_LIST_MAX)
            return qd_fail(QD_ERR_INPUT, err, errlen, "--%s: more than %d values", name, QD_INT_LIST_MAX);
        out->n = (int)range->n;
        for (size_t j = 0; j < range->n; j++) out->value[j] = strtoll(range->values[j], NULL, 10);
    }
    return QD_OK;
}

qd_status qd_sweep_write_experiment(const char *folder, const struct qd_sweep_plan *plan, char *err,
                                    size_t errlen)
{
    const struct qd_options *o = plan->options;
    char date[QD_DATE_LEN];
    qd_date_now(date);
    struct qd_experiment experiment = {
        .date = date,
        .version = qd_version(),
        .commit = qd_commit(),
        .device = o->device,
        .model_id = o->model,
        .argc = o->argc,
        .argv = o->argv,
        .n_repeats = (int)o->repeats,
    };
    struct qd_matrix *matrix = &experiment.matrix;
    QD_TRY(axis_values(plan, "tensor-parallel-size", o->tp, &matrix->tp, err, errlen));
    QD_TRY(axis_values(plan, "data-parallel-size", o->dp, &matrix->dp, err, errlen));
    QD_TRY(axis_values(plan, "max-num-batched-tokens", qd_session_budget(o), &matrix->budget, err, errlen));
    matrix->max_gpus = o->max_gpus;
    qd_sweep_plan_further_axes(plan, &experiment.axes);
    qd_machine_read(&experiment.machine);
    QD_TRY(qd_folder_create(folder, err, errlen));
    char *path = qd_path_join(folder, "experiment.json");
    if (path == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s", folder);
    qd_status status = qd_experiment_write(&experiment, path, err, errlen);
    free(path);
    return status;
}

static bool is_of_run(const struct qd_given_option *given)
{
    return (given->group & (QD_GROUP_SWEEP | QD_GROUP_DRY_RUN)) == 0;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Whether two command lines describe the same runs: the same options of `run` in any order, of the same
 * cells. */
static bool same_runs(const struct qd_options *a, const struct qd_options *b)
{
    int n_a = 0, n_b = 0;
    if (a->max_gpus != b->max_gpus) return false;
    for (int i = 0; i < b->n_given; i++) n_b += is_of_run(&b->given[i]);
    for (int i = 0; i < a->n_given; i++) {
        if (!is_of_run(&a->given[i])) continue;
        n_a++;
        bool found = false;
        for (int j = 0; j < b->n_given && !found; j++)
            found = strcmp(a->given[i].name, b->given[j].name) == 0 &&
                    same_text(a->given[i].value, b->given[j].value);
        if (!found) return false;
    }
    return n_a == n_b;
}

static qd_status check_stored(const cJSON *stored, const struct qd_sweep_plan *plan, char *err, size_t errlen)
{
    const char *commit;
    QD_TRY(qd_json_get_string(stored, "commit", &commit, err, errlen));
    if (strcmp(commit, qd_commit()) != 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "was started by commit %s, this is %s", commit,
                       qd_commit());
    const cJSON *argv = cJSON_GetObjectItemCaseSensitive(stored, "argv"), *word;
    char *words[MAX_WORDS];
    int argc = 0;
    cJSON_ArrayForEach (word, argv)
        if (cJSON_IsString(word) && argc < MAX_WORDS) words[argc++] = word->valuestring;
    struct qd_options earlier;
    char reason[QD_ERR_LEN];
    if (qd_options_parse(&qd_command_sweep, argc, words, &earlier, reason, sizeof reason) != QD_OK)
        return qd_fail(QD_ERR_INPUT, err, errlen, "argv: %s", reason);
    if (!same_runs(&earlier, plan->options))
        return qd_fail(QD_ERR_INPUT, err, errlen, "was started with other options");
    return QD_OK;
}

qd_status qd_sweep_check_experiment(const char *folder, const struct qd_sweep_plan *plan, char *err,
                                    size_t errlen)
{
    char *path = qd_path_join(folder, "experiment.json");
    if (path == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s", folder);
    cJSON *stored = NULL;
    char reason[QD_ERR_LEN];
    qd_status status = qd_json_read_file(path, MAX_JSON_BYTES, &stored, err, errlen);
    if (status == QD_OK) {
        status = check_stored(stored, plan, reason, sizeof reason);
        if (status != QD_OK) qd_fail(status, err, errlen, "--resume: %s: %s", path, reason);
    }
    cJSON_Delete(stored);
    free(path);
    return status;
}

/* "folder/cell/file", freed by the caller; NULL when out of memory. */
static char *cell_path(const char *folder, const char *cell_name, const char *file)
{
    char *cell = qd_path_join(folder, cell_name);
    char *path = cell != NULL ? qd_path_join(cell, file) : NULL;
    free(cell);
    return path;
}

bool qd_sweep_has_run(const char *folder, const char *cell_name, int run_number, bool *is_empty)
{
    char file[QD_RUN_NAME_LEN], reason[QD_ERR_LEN];
    qd_run_name(run_number, file);
    char *path = cell_path(folder, cell_name, file);
    cJSON *run = NULL;
    bool has = path != NULL && qd_json_read_file(path, MAX_JSON_BYTES, &run, reason, sizeof reason) == QD_OK;
    const cJSON *completed = cJSON_GetObjectItemCaseSensitive(run, "completed");
    *is_empty = cJSON_IsNumber(completed) && completed->valuedouble < 1;
    cJSON_Delete(run);
    free(path);
    return has;
}

void qd_sweep_set_run_aside(const char *folder, const char *cell_name, int run_number)
{
    static const char *const ends[] = {"json", "requests.jsonl", "steps.jsonl"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char from_name[64], to_name[80];
        snprintf(from_name, sizeof from_name, "run=%d.%s", run_number, ends[i]);
        snprintf(to_name, sizeof to_name, "partial-%s", from_name);
        char *from = cell_path(folder, cell_name, from_name), *to = cell_path(folder, cell_name, to_name);
        if (from != NULL && to != NULL) rename(from, to);
        free(from);
        free(to);
    }
}

qd_status qd_sweep_write_failure(const char *folder, const char *cell_name, const struct qd_failure *failure,
                                 char *err, size_t errlen)
{
    char *cell = qd_path_join(folder, cell_name);
    char *path = cell_path(folder, cell_name, "failed.json");
    qd_status status = QD_OK;
    if (cell == NULL || path == NULL) {
        status = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s", folder);
        goto cleanup;
    }
    QD_TRY_GOTO(qd_folder_create(cell, err, errlen), status, cleanup);
    status = qd_failure_write(failure, path, err, errlen);

cleanup:
    free(cell);
    free(path);
    return status;
}

void qd_sweep_clear_failure(const char *folder, const char *cell_name)
{
    char *path = cell_path(folder, cell_name, "failed.json");
    if (path != NULL) unlink(path);
    free(path);
}
