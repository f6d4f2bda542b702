/* qdyno sweep: a matrix of runs, each in a child process, interleaved, resumable; failures become rows. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness/cli/child.h"
#include "harness/cli/commands.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/progress.h"
#include "harness/cli/run_limits.h"
#include "harness/cli/run_plan.h"
#include "harness/cli/run_workload.h"
#include "harness/cli/session.h"
#include "harness/cli/sweep_files.h"
#include "harness/result/cells.h"
#include "harness/result/experiment.h"
#include "harness/result/files.h"

enum { PLAN_TIMEOUT_S = 120, NAME_LEN = 512 };

/* A cell's life: refused cells never run, failed ones are not repeated. */
enum cell_state { CELL_READY, CELL_REFUSED, CELL_FAILED };

struct sweep {
    const struct qd_command *command;
    const struct qd_options *options; /* with the default budget once it is known */
    struct qd_sweep_plan plan;
    char *folder; /* results/experiment */
    struct qd_summary summary;
    enum cell_state *states; /* [n_cells] */
    const volatile sig_atomic_t *interrupted;
    struct qd_progress progress;
    size_t n_runs, n_runs_done, n_runs_empty;
    size_t n_refused, n_failed;
};

static void draw(void *arg)
{
    struct sweep *sweep = arg;
    char note[64];
    snprintf(note, sizeof note, "%zu of %zu runs", sweep->n_runs_done, sweep->n_runs);
    qd_progress_update(&sweep->progress, (double)sweep->n_runs_done, (double)sweep->n_runs, note);
}

static qd_status run_child(struct sweep *sweep, size_t cell, const char *const *extra, double timeout_s,
                           struct qd_child_result *result, char *err, size_t errlen)
{
    char **argv = qd_sweep_plan_argv(&sweep->plan, cell, extra);
    if (argv == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "command line of a cell");
    struct qd_child_limits limits = {
        .timeout_s = timeout_s, .grace_s = QD_CHILD_GRACE_S, .interrupted = sweep->interrupted};
    qd_status status = qd_child_run(argv, &limits, draw, sweep, result, err, errlen);
    free(argv);
    return status;
}

/* The number of the cell on an axis, or what all cells share. */
static int64_t cell_number(const struct sweep *sweep, size_t cell, const char *axis, int64_t single)
{
    for (size_t i = 0; i < sweep->plan.n_axes; i++)
        if (strcmp(sweep->plan.axes[i].name, axis) == 0)
            return strtoll(qd_sweep_plan_value(&sweep->plan, cell, i), NULL, 10);
    return single;
}

/* The last line that a run said, without the program's name. */
static void last_message(const struct qd_child_result *result, char *text, size_t len)
{
    static const char prefix[] = "qdyno: run: ";
    qd_child_last_line(result, text, len);
    if (strncmp(text, prefix, sizeof prefix - 1) == 0)
        memmove(text, text + sizeof prefix - 1, strlen(text) - (sizeof prefix - 1) + 1);
}

/* Why a child did not succeed, as a row of the results. A cell that is refused by its own arithmetic is a
 * result; one that ends for another reason is a failure. */
static void describe(const struct sweep *sweep, size_t cell, const struct qd_child_result *result,
                     const char *phase, int run_number, struct qd_failure *out)
{
    const struct qd_options *o = sweep->options;
    bool planning = run_number < 0;
    bool refused = planning && !result->timed_out && result->signal == 0;
    *out = (struct qd_failure){
        .kind = result->timed_out ? QD_FAILURE_TIMEOUT
                : refused         ? QD_FAILURE_REFUSED
                                  : QD_FAILURE_CRASHED,
        .tp = cell_number(sweep, cell, "tensor-parallel-size", o->tp),
        .dp = cell_number(sweep, cell, "data-parallel-size", o->dp),
        .budget = cell_number(sweep, cell, "max-num-batched-tokens", qd_session_budget(o)),
        .run_number = run_number,
        .exit_code = result->exit_code,
        .signal = result->signal,
    };
    qd_run_plan_read_refused(result->output, &out->needed_bytes, &out->available_bytes);
    qd_sweep_plan_variant(&sweep->plan, cell, out->variant);
    snprintf(out->phase, sizeof out->phase, "%s", phase);
    qd_failure_set_lines(out, result->tail, strlen(result->tail));
    last_message(result, out->reason, sizeof out->reason);
    if (result->timed_out)
        snprintf(out->reason, sizeof out->reason, "stopped after --cell-timeout %" PRId64 " s",
                 o->cell_timeout);
    else if (result->signal != 0)
        snprintf(out->reason, sizeof out->reason, "ended by signal %d (%s)", result->signal,
                 strsignal(result->signal));
}

static qd_status record_failure(struct sweep *sweep, size_t cell, const struct qd_child_result *result,
                                const char *phase, int run_number, char *err, size_t errlen)
{
    char name[NAME_LEN];
    struct qd_failure failure;
    describe(sweep, cell, result, phase, run_number, &failure);
    qd_sweep_plan_name(&sweep->plan, cell, name, sizeof name);
    bool refused = failure.kind == QD_FAILURE_REFUSED;
    sweep->states[cell] = refused ? CELL_REFUSED : CELL_FAILED;
    *(refused ? &sweep->n_refused : &sweep->n_failed) += 1;
    qd_progress_end(&sweep->progress);
    qd_session_say("%s: %s: %s", name, qd_failure_kind_name(failure.kind), failure.reason);
    if (sweep->options->dry_run) return QD_OK;
    return qd_sweep_write_failure(sweep->folder, name, &failure, err, errlen);
}

/* Asks every cell's own process whether it could run. */
static qd_status plan_cells(struct sweep *sweep, char *err, size_t errlen)
{
    static const char *const dry_run[] = {"--dry-run", NULL};
    for (size_t cell = 0; cell < sweep->plan.n_cells && *sweep->interrupted == 0; cell++) {
        struct qd_child_result result;
        QD_TRY(run_child(sweep, cell, dry_run, PLAN_TIMEOUT_S, &result, err, errlen));
        if (result.interrupted) break;
        if (result.exit_code != QD_EXIT_OK)
            QD_TRY(record_failure(sweep, cell, &result, "validate", -1, err, errlen));
        else
            sweep->n_runs += (size_t)sweep->options->repeats;
    }
    return QD_OK;
}

/* A run in which no request completed is whole, and a result; but it is told, and counts as partial. */
static bool note_empty_run(struct sweep *sweep, const char *name, int repeat,
                           const struct qd_child_result *result)
{
    char message[QD_ERR_LEN];
    last_message(result, message, sizeof message);
    if (result->exit_code != QD_EXIT_PARTIAL ||
        strncmp(message, QD_RUN_EMPTY_MESSAGE, sizeof QD_RUN_EMPTY_MESSAGE - 1) != 0)
        return false;
    sweep->n_runs_empty++;
    qd_progress_end(&sweep->progress);
    qd_session_say("%s: run %d: %s", name, repeat, message);
    return true;
}

static qd_status run_cell(struct sweep *sweep, size_t cell, int repeat, char *err, size_t errlen)
{
    char name[NAME_LEN], file[QD_RUN_NAME_LEN], variant[QD_VARIANT_LEN];
    qd_sweep_plan_name(&sweep->plan, cell, name, sizeof name);
    qd_run_name(repeat, file);
    bool is_empty;
    if (qd_sweep_has_run(sweep->folder, name, repeat, &is_empty)) {
        sweep->n_runs_done++;
        sweep->n_runs_empty += is_empty;
        return QD_OK;
    }
    char *cell_folder = qd_path_join(sweep->folder, name);
    if (cell_folder == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "name of a cell");
    qd_sweep_clear_failure(sweep->folder, name);
    qd_sweep_plan_variant(&sweep->plan, cell, variant);
    const char *const extra[] = {"--result-dir", cell_folder, "--result-filename", file,
                                 variant[0] != '\0' ? "--variant" : NULL, variant, NULL};
    struct qd_child_result result;
    qd_status status =
        run_child(sweep, cell, extra, (double)sweep->options->cell_timeout, &result, err, errlen);
    free(cell_folder);
    if (status != QD_OK) return status;
    bool is_whole = result.exit_code == QD_EXIT_OK || note_empty_run(sweep, name, repeat, &result);
    if (!is_whole) qd_sweep_set_run_aside(sweep->folder, name, repeat);
    if (result.interrupted) return QD_OK;
    if (!is_whole)
        QD_TRY(record_failure(sweep, cell, &result, "run", repeat, err, errlen));
    else
        sweep->n_runs_done++;
    return qd_summary_update(&sweep->summary, name, err, errlen);
}

/* Repeats are interleaved: drift of the machine then falls on all cells alike. Odd repeats go backwards. */
static qd_status run_cells(struct sweep *sweep, char *err, size_t errlen)
{
    size_t n = sweep->plan.n_cells;
    QD_TRY(qd_summary_open(&sweep->summary, sweep->folder, err, errlen));
    for (int repeat = 0; repeat < sweep->options->repeats; repeat++) {
        for (size_t i = 0; i < n && *sweep->interrupted == 0; i++) {
            size_t cell = repeat % 2 == 0 ? i : n - 1 - i;
            if (sweep->states[cell] != CELL_READY) continue;
            QD_TRY(run_cell(sweep, cell, repeat, err, errlen));
        }
    }
    /* Once more at the end: an earlier sweep may have been killed between a run and its summary. */
    return *sweep->interrupted == 0 ? qd_summary_write(sweep->folder, err, errlen) : QD_OK;
}

static void print_dry_run(const struct sweep *sweep)
{
    static const char *const none[] = {NULL};
    for (size_t cell = 0; cell < sweep->plan.n_cells; cell++) {
        if (sweep->states[cell] != CELL_READY) continue;
        char **argv = qd_sweep_plan_argv(&sweep->plan, cell, none);
        for (char **word = argv; word != NULL && *word != NULL; word++)
            printf("%s%s", word == argv ? "" : " ", *word);
        printf("\n");
        free(argv);
    }
}

/* The largest number on an axis, or what all cells share. */
static int64_t largest_number(const struct sweep *sweep, const char *axis, int64_t single)
{
    int64_t largest = single;
    for (size_t cell = 0; cell < sweep->plan.n_cells; cell++) {
        int64_t number = cell_number(sweep, cell, axis, single);
        if (number > largest) largest = number;
    }
    return largest;
}

/* Reads the prompts once, as the cell that takes most of them does. */
static qd_status check_prompts(const struct sweep *sweep, const struct qd_model_config *config, char *err,
                               size_t errlen)
{
    struct qd_options options = *sweep->options;
    bool is_random = strcmp(options.dataset_name, "random") == 0;
    if (is_random && !qd_run_workload_needs_tokenizer(&options)) return QD_OK;
    options.num_prompts = largest_number(sweep, "num-prompts", options.num_prompts);
    options.output_len = largest_number(sweep, "random-output-len", options.output_len);
    qd_tokenizer_t *tokenizer = NULL;
    if (qd_run_workload_needs_tokenizer(&options))
        QD_TRY(qd_session_tokenizer(&options, &tokenizer, err, errlen));
    qd_status status = QD_OK;
    if (!is_random) {
        struct qd_workload workload;
        status = qd_run_workload_build(&options, config, tokenizer, &workload, err, errlen);
        if (status == QD_OK) qd_workload_free(&workload);
    }
    qd_tokenizer_free(tokenizer);
    return status;
}

/* Asks the first cell that can tell for the default token budget, which on GPUs depends on their memory. An
 * environment that can run no cell ends the sweep. */
static qd_status ask_budget(struct sweep *sweep, int64_t *budget, char *err, size_t errlen)
{
    static const char *const dry_run[] = {"--dry-run", NULL};
    for (size_t cell = 0; cell < sweep->plan.n_cells && *sweep->interrupted == 0; cell++) {
        struct qd_child_result result;
        QD_TRY(run_child(sweep, cell, dry_run, PLAN_TIMEOUT_S, &result, err, errlen));
        int64_t told = qd_run_plan_read_budget(result.output);
        if (told > 0) {
            *budget = told;
            return QD_OK;
        }
        char message[QD_ERR_LEN];
        last_message(&result, message, sizeof message);
        if (result.exit_code == QD_EXIT_ENVIRONMENT)
            return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "%s", message);
    }
    return QD_OK;
}

/* What is wrong for every cell alike is an error of the command line, not a row a cell. */
static qd_status check_inputs(const struct sweep *sweep, char *err, size_t errlen)
{
    const struct qd_options *options = sweep->options;
    struct qd_instance_options smallest = qd_session_instance_options(options);
    struct qd_instance_plan plan;
    struct qd_run_limits limits = {0};
    smallest.tp = smallest.dp = 1;
    smallest.max_num_batched_tokens = smallest.max_num_seqs = smallest.max_model_len = smallest.n_kv_blocks =
        0;
    smallest.kv_cache_bytes = 0;
    QD_TRY(qd_run_limits_choose(&limits, options, err, errlen));
    QD_TRY(qd_instance_plan_check(&smallest, &plan, err, errlen));
    return check_prompts(sweep, &plan.config, err, errlen);
}

/* The folder of the experiment: new, or with --resume one of the same matrix and options. */
static qd_status open_experiment(struct sweep *sweep, char *err, size_t errlen)
{
    char stamp[32];
    time_t now = time(NULL);
    struct tm local;
    strftime(stamp, sizeof stamp, "%Y%m%d_%H%M%S", localtime_r(&now, &local));
    const char *name = sweep->options->experiment != NULL ? sweep->options->experiment : stamp;
    if (strchr(name, '/') != NULL || name[0] == '.' || name[0] == '\0')
        return qd_fail(QD_ERR_INPUT, err, errlen, "--experiment: \"%s\" is no folder name", name);
    sweep->folder = qd_path_join(sweep->options->results, name);
    if (sweep->folder == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "name of the experiment");
    if (sweep->options->dry_run) return QD_OK;
    bool exists = access(sweep->folder, F_OK) == 0;
    if (exists && !sweep->options->resume)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s exists (use --resume to continue it)", sweep->folder);
    if (exists) return qd_sweep_check_experiment(sweep->folder, &sweep->plan, err, errlen);
    if (sweep->options->resume)
        return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "--resume: no experiment in %s", sweep->folder);
    return qd_sweep_write_experiment(sweep->folder, &sweep->plan, err, errlen);
}

static int finish(struct sweep *sweep)
{
    qd_progress_end(&sweep->progress);
    if (sweep->options->dry_run) {
        print_dry_run(sweep);
        return QD_EXIT_OK;
    }
    printf("%s\n", sweep->folder);
    if (*sweep->interrupted != 0) {
        const char *slash = strrchr(sweep->folder, '/');
        qd_session_say("interrupted after %zu of %zu runs; the same command with --experiment %s --resume "
                       "continues",
                       sweep->n_runs_done, sweep->n_runs, slash != NULL ? slash + 1 : sweep->folder);
        return QD_EXIT_INTERRUPTED;
    }
    char empty[64] = "";
    if (sweep->n_runs_empty > 0)
        snprintf(empty, sizeof empty, " (%zu without a completed request)", sweep->n_runs_empty);
    qd_session_say("%zu runs%s, %zu cells refused, %zu failed", sweep->n_runs_done, empty, sweep->n_refused,
                   sweep->n_failed);
    return sweep->n_failed + sweep->n_runs_empty > 0 ? QD_EXIT_PARTIAL : QD_EXIT_OK;
}

static int run_sweep(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    struct qd_options with_budget = *options;
    int64_t budget = 0; /* of no cell */
    struct sweep sweep = {.command = command, .options = &with_budget};
    int exit_code;
    qd_status status = qd_sweep_plan_make(&with_budget, &sweep.plan, err, sizeof err);
    if (status != QD_OK) return qd_command_fail(command, status, err);
    sweep.states = calloc(sweep.plan.n_cells, sizeof *sweep.states);
    if (sweep.states == NULL) {
        exit_code = qd_command_fail(command, QD_ERR_NO_MEMORY, "states of the cells");
        goto cleanup;
    }
    sweep.interrupted = qd_interrupt_install();
    qd_progress_begin(&sweep.progress, "sweep");
    status = check_inputs(&sweep, err, sizeof err);
    if (status == QD_OK) status = ask_budget(&sweep, &budget, err, sizeof err);
    if (with_budget.budget == 0) with_budget.budget = budget;
    if (status == QD_OK) status = open_experiment(&sweep, err, sizeof err);
    if (status == QD_OK) status = plan_cells(&sweep, err, sizeof err);
    if (status == QD_OK && !options->dry_run) status = run_cells(&sweep, err, sizeof err);
    qd_progress_end(&sweep.progress);
    exit_code = status == QD_OK ? finish(&sweep) : qd_command_fail(command, status, err);

cleanup:
    qd_summary_close(&sweep.summary);
    free(sweep.states);
    free(sweep.folder);
    qd_sweep_plan_free(&sweep.plan);
    return exit_code;
}

const struct qd_command qd_command_sweep = {
    .name = "sweep",
    .summary = "a matrix of runs, each in its own process: results directory",
    .synopsis = "--model DIR --tp 1,2 --dp 1,2 --budget 64-4096*2 [OPTION...]\n"
                "Numeric options of a run take lists and ranges: 1,2,4  1-8*2  64-256+64.",
    .groups = QD_GROUP_MODEL | QD_GROUP_PARALLEL | QD_GROUP_ENGINE | QD_GROUP_SAMPLING | QD_GROUP_WORKLOAD |
              QD_GROUP_SWEEP | QD_GROUP_DRY_RUN,
    .run = run_sweep,
};
