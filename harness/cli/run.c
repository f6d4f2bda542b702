/* qdyno run: one configuration, one workload, one result. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/progress.h"
#include "harness/cli/run_ledger.h"
#include "harness/cli/run_limits.h"
#include "harness/cli/run_plan.h"
#include "harness/cli/run_record.h"
#include "harness/cli/run_replay.h"
#include "harness/cli/run_steps.h"
#include "harness/cli/run_svg.h"
#include "harness/cli/run_table.h"
#include "harness/cli/run_vllm.h"
#include "harness/cli/run_workload.h"
#include "harness/cli/session.h"
#include "harness/cli/version.h"
#include "harness/result/files.h"
#include "harness/workload/recorded_steps.h"
#include "kernels/base/clock.h"

enum { MAX_REQUESTS = 1 << 20 };

/* Everything a run holds from its opening to its files. */
struct run {
    const struct qd_options *options;
    qd_instance_t *instance;
    qd_tokenizer_t *tokenizer; /* NULL: the workload needs none */
    struct qd_workload workload;
    struct qd_request_record *records;
    struct qd_replica_stats *replicas; /* [dp] */
    struct qd_run_device *devices;     /* [dp] */
    struct qd_progress progress;
    const volatile sig_atomic_t *interrupted;
    struct qd_run_steps steps;
    struct qd_recorded_steps recorded; /* of --null-steps */
    struct qd_run_record record;
    char *result_path, *requests_path, *steps_path; /* NULL: not written */
    char hash[24], date[QD_DATE_LEN];
    struct qd_run_limits limits;
    struct qd_gpu_records gpus;
    struct qd_slo slo;
    struct qd_run_result result;
};

static void draw(void *arg, size_t n_done, size_t n_requests, uint64_t n_tokens)
{
    struct run *run = arg;
    char note[64];
    snprintf(note, sizeof note, "%zu of %zu requests, %" PRIu64 " tokens", n_done, n_requests, n_tokens);
    qd_progress_update(&run->progress, (double)n_done, (double)n_requests, note);
}

static struct qd_drive_options drive_options(struct run *run, enum qd_pacing pacing)
{
    const struct qd_options *o = run->options;
    return (struct qd_drive_options){
        .pacing = pacing,
        .max_concurrency = o->max_concurrency,
        .wave_size = o->wave_size,
        .client_delay_ns = (int64_t)(o->client_delay_ms * 1e6),
        .temperature = (float)o->temperature,
        .top_p = (float)o->top_p,
        .top_k = (int32_t)o->top_k,
        .seed = (uint64_t)o->seed,
        .interrupted = run->interrupted,
        .progress = draw,
        .progress_arg = run,
    };
}

/* Requests of the run's own lengths, other ids: pages, threads and caches are touched, no prefix is shared.
 */
static qd_status warm_up(struct run *run, char *err, size_t errlen)
{
    if (run->options->num_warmups == 0) return QD_OK;
    struct qd_workload warmup = {0};
    struct qd_request_record *records = NULL;
    double duration_s = 0;
    qd_status status;
    QD_TRY_GOTO(qd_run_workload_warmup(run->options, qd_instance_config(run->instance), &run->workload,
                                       &warmup, err, errlen),
                status, cleanup);
    QD_TRY_GOTO(qd_records_create(&warmup, &records, err, errlen), status, cleanup);
    struct qd_drive_options drive =
        drive_options(run, run->options->max_concurrency > 0 ? QD_PACING_CLOSED : QD_PACING_BURST);
    qd_progress_begin(&run->progress, "warm-up");
    status = qd_workload_drive(qd_instance_engine(run->instance), &warmup, &drive, records, &duration_s, err,
                               errlen);
    qd_progress_end(&run->progress);
    run->result.num_warmups = (int64_t)warmup.n;
    run->result.warmup_ns = (int64_t)(duration_s * 1e9);
    /* A prompt that is too long is refused here as it will be in the run, where it becomes a record. */
    for (size_t i = 0; status == QD_OK && i < warmup.n; i++)
        if (!records[i].success)
            qd_session_say("warm-up request %zu: %s: %s", i, records[i].finish,
                           records[i].error != NULL ? records[i].error : "");

cleanup:
    qd_records_free(records, warmup.n);
    qd_workload_free(&warmup);
    return status;
}

static struct qd_metrics_options metrics_options(const struct run *run, enum qd_pacing pacing,
                                                 double duration_s)
{
    return (struct qd_metrics_options){
        .duration_s = duration_s,
        .n_gpus = run->result.tp * run->result.dp,
        .has_arrivals = pacing == QD_PACING_OPEN || pacing == QD_PACING_WAVES,
        .slo = run->slo,
        .steady_rule = pacing == QD_PACING_CLOSED ? QD_STEADY_CONCURRENCY
                       : pacing == QD_PACING_OPEN ? QD_STEADY_ARRIVALS
                                                  : QD_STEADY_NONE,
        .max_concurrency = run->options->max_concurrency,
    };
}

/* The measured part. */
static qd_status measure(struct run *run, char *err, size_t errlen)
{
    qd_engine_t *engine = qd_instance_engine(run->instance);
    struct qd_drive_options drive =
        drive_options(run, qd_run_workload_pacing(run->options, &run->workload).pacing);
    double duration_s = 0;
    qd_date_now(run->date);
    struct qd_ledger_limits limits = qd_run_limits_of_rank(&run->limits, run->options);
    qd_engine_reset_stats(engine);
    run->record.is_measured = true;
    QD_TRY(
        qd_run_steps_begin(&run->steps, run->options, run->instance, &limits, run->steps_path, err, errlen));
    qd_progress_begin(&run->progress, "run");
    qd_gpu_records_read(&run->gpus, false);
    qd_machine_load_read(&run->result.load_before);
    qd_status status =
        qd_workload_drive(engine, &run->workload, &drive, run->records, &duration_s, err, errlen);
    qd_machine_load_read(&run->result.load_after);
    qd_gpu_records_read(&run->gpus, true);
    qd_progress_end(&run->progress);
    for (int r = 0; r < run->result.dp; r++) run->replicas[r] = qd_engine_stats(engine, r);
    qd_run_steps_end(&run->steps, run->instance);
    struct qd_metrics_options metrics = metrics_options(run, drive.pacing, duration_s);
    qd_status computed = qd_metrics_compute(run->records, run->workload.n, &metrics, &run->result.metrics);
    if (computed != QD_OK)
        return qd_fail(computed, err, errlen, "no memory for the metrics of %zu requests in %g s",
                       run->workload.n, duration_s);
    run->result.ledger =
        qd_ledger_make(run->replicas, run->result.dp, run->records, run->workload.n, &run->result.metrics,
                       qd_run_steps_rows(&run->steps), qd_run_steps_alone(&run->steps), run->steps.n_dropped);
    return status;
}

static void describe_devices(struct run *run)
{
    for (int r = 0; r < (int)run->options->dp; r++) {
        const char *note = qd_instance_note(run->instance, r);
        run->devices[r] = (struct qd_run_device){.collectives = qd_instance_collectives(run->instance, r),
                                                 .note = note[0] != '\0' ? note : NULL};
    }
}

/* What is known of the run before it is measured. */
static void describe(struct run *run)
{
    describe_devices(run);
    const struct qd_options *o = run->options;
    const struct qd_instance_plan *plan = qd_instance_get_plan(run->instance);
    struct qd_load_stats load = qd_instance_load_stats(run->instance);
    struct qd_machine machine;
    qd_machine_read(&machine);
    snprintf(run->hash, sizeof run->hash, "%016" PRIx64, run->workload.hash);
    run->result = (struct qd_run_result){
        .date = run->date,
        .label = o->label,
        .variant = o->variant,
        .model_id = o->model,
        .tokenizer_id = run->tokenizer != NULL ? o->model : NULL,
        .version = qd_version(),
        .commit = qd_commit(),
        .device = o->device,
        .device_isa = qd_session_isa(o),
        .numerics = o->numerics,
        .load_format = o->load_format,
        .argc = o->argc,
        .argv = o->argv,
        .seed = (uint64_t)o->seed,
        .workload = qd_run_workload_pacing(o, &run->workload).kind,
        .workload_hash = run->hash,
        .num_prompts = (int64_t)run->workload.n,
        .max_concurrency = o->max_concurrency,
        .request_rate = o->request_rate,
        .burstiness = o->burstiness,
        .tp = (int)o->tp,
        .dp = (int)o->dp,
        .is_virtual = qd_options_are_virtual(o),
        .ranks_per_gpu = (int)o->ranks_per_gpu,
        .n_threads = plan->n_threads > 0 ? plan->n_threads : machine.n_cores,
        .router = o->router,
        .dp_coupling = o->dp_coupling,
        .max_num_batched_tokens = plan->limits.max_tokens,
        .max_num_seqs = plan->limits.max_seqs,
        .max_model_len = plan->max_model_len,
        .n_kv_blocks = plan->n_kv_blocks,
        .prefix_caching = o->enable_prefix_caching,
        .async_scheduling = o->async_scheduling,
        .long_prefill_token_threshold = o->long_prefill_token_threshold,
        .records = run->records,
        .n_records = run->workload.n,
        .replicas = run->replicas,
        .devices = run->devices,
        .load_bytes = load.file_bytes,
        .load_ns = load.duration_ns,
        .probed_read_gbps = run->limits.probed.read_gbps,
        .machine = machine,
        .gpus = &run->gpus,
    };
}

/* In --result-dir: NAME, or STEM.NAME where the result is not called result.json. */
static char *companion_path(const struct qd_options *o, const char *name)
{
    char full[512];
    const char *dot = strrchr(o->result_filename, '.');
    int stem = dot != NULL ? (int)(dot - o->result_filename) : (int)strlen(o->result_filename);
    if (strcmp(o->result_filename, "result.json") == 0) return qd_path_join(o->result_dir, name);
    snprintf(full, sizeof full, "%.*s.%s", stem, o->result_filename, name);
    return qd_path_join(o->result_dir, full);
}

/* The names of the files in --result-dir. */
static qd_status name_files(struct run *run, char *err, size_t errlen)
{
    const struct qd_options *o = run->options;
    if (o->result_dir == NULL) return QD_OK;
    run->result_path = qd_path_join(o->result_dir, o->result_filename);
    run->requests_path = companion_path(o, "requests.jsonl");
    run->steps_path = companion_path(o, "steps.jsonl");
    if (run->result_path == NULL || run->requests_path == NULL || run->steps_path == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "names of the result files");
    return QD_OK;
}

/* The file of --json, or NULL: none, or standard output. */
static const char *json_path(const struct run *run)
{
    const char *json = run->options->json;
    return json != NULL && strcmp(json, "-") != 0 ? json : NULL;
}

/* What cannot be written is noticed before anything is measured. */
static qd_status check_files(struct run *run, char *err, size_t errlen)
{
    if (run->options->save_steps && run->options->result_dir == NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--save-steps needs --result-dir");
    QD_TRY(name_files(run, err, errlen));
    if (run->result_path != NULL) {
        QD_TRY(qd_folder_create(run->options->result_dir, err, errlen));
        QD_TRY(qd_file_check_writable(run->requests_path, err, errlen));
        QD_TRY(qd_file_check_writable(run->result_path, err, errlen));
        if (run->options->save_steps) QD_TRY(qd_file_check_writable(run->steps_path, err, errlen));
    }
    if (run->options->trace != NULL) QD_TRY(qd_file_check_writable(run->options->trace, err, errlen));
    QD_TRY(qd_run_svg_check(run->options->ledger_svg, err, errlen));
    return json_path(run) != NULL ? qd_file_check_writable(json_path(run), err, errlen) : QD_OK;
}

static qd_status write_svg(const struct run *run, char *err, size_t errlen)
{
    const struct qd_options *o = run->options;
    char title[1024];
    if (o->ledger_svg == NULL) return QD_OK;
    snprintf(title, sizeof title, "%s on %s, TP %d x DP %d: %" PRIu64 " steps", o->model, o->device,
             run->result.tp, run->result.dp, run->result.ledger.n_steps);
    return qd_run_svg_write(o->ledger_svg, title, &run->result.ledger, err, errlen);
}

/* The first error counts. */
static void keep_first(qd_status *first, qd_status status, const char *reason, char *err, size_t errlen)
{
    if (*first == QD_OK && status != QD_OK) *first = qd_fail(status, err, errlen, "%s", reason);
}

/* All files that can be written, whichever cannot. */
static qd_status write_files(struct run *run, char *err, size_t errlen)
{
    char why[QD_ERR_LEN] = "";
    const char *json = json_path(run);
    qd_status first = qd_run_steps_write(&run->steps, err, errlen);
    keep_first(&first, qd_run_record_write(&run->record, why, sizeof why), why, err, errlen);
    keep_first(&first, write_svg(run, why, sizeof why), why, err, errlen);
    if (run->result_path != NULL) {
        keep_first(&first,
                   qd_requests_write(run->records, run->workload.n, run->requests_path, why, sizeof why), why,
                   err, errlen);
        keep_first(&first, qd_run_result_write(&run->result, run->result_path, why, sizeof why), why, err,
                   errlen);
    }
    if (json != NULL)
        keep_first(&first, qd_run_result_write(&run->result, json, why, sizeof why), why, err, errlen);
    return first;
}

static qd_status print_json(const struct run *run, char *err, size_t errlen)
{
    cJSON *tree = qd_run_result_to_json(&run->result);
    char *text = tree != NULL ? cJSON_Print(tree) : NULL;
    bool ok = text != NULL;
    if (ok) puts(text);
    cJSON_free(text);
    cJSON_Delete(tree);
    return ok ? QD_OK : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "result as JSON");
}

static void print_ledger(const struct qd_run_result *result)
{
    const struct qd_ledger_view view = {.ledger = &result->ledger,
                                        .replicas = result->replicas,
                                        .dp = result->dp,
                                        .device = result->device,
                                        .async_scheduling = result->async_scheduling,
                                        .is_virtual = result->is_virtual};
    qd_run_ledger_print(&view, stdout);
}

/* Files first, then standard output, so that a closed pipe loses nothing; and where a file failed after all,
 * the result goes to standard output instead. */
static qd_status publish(struct run *run, char *err, size_t errlen)
{
    char reason[QD_ERR_LEN];
    bool wants_table = run->options->json == NULL || json_path(run) != NULL;
    run->result.marks = qd_run_result_find_marks(&run->result);
    qd_status written = write_files(run, err, errlen);
    if (written == QD_OK && wants_table) {
        qd_run_table_print(&run->result, stdout);
        if (run->options->ledger) print_ledger(&run->result);
        return QD_OK;
    }
    if (written == QD_OK) return print_json(run, err, errlen);
    qd_session_say("a file could not be written; the result goes to standard output");
    print_json(run, reason, sizeof reason);
    return written;
}

/* Requests beyond the engine's room would be refused one by one, and the rest measured as if it were all. */
static qd_status check_burst(const struct run *run, char *err, size_t errlen)
{
    size_t n = run->workload.n;
    if (qd_run_workload_pacing(run->options, &run->workload).pacing != QD_PACING_BURST || n <= MAX_REQUESTS)
        return QD_OK;
    return qd_fail(
        QD_ERR_TOO_LARGE, err, errlen,
        "a burst of %zu requests: the engine holds %d at once (--max-concurrency hands over fewer)", n,
        MAX_REQUESTS);
}

static qd_status prepare(struct run *run, char *err, size_t errlen)
{
    struct qd_instance_options instance_options = qd_session_instance_options(run->options);
    instance_options.max_requests = MAX_REQUESTS;
    if (qd_run_steps_wanted(run->options))
        instance_options.n_step_rows = qd_step_log_room((int)run->options->dp);
    QD_TRY(qd_run_limits_choose(&run->limits, run->options, err, errlen));
    QD_TRY(qd_run_steps_read_kernels(&run->steps, run->options, &instance_options, err, errlen));
    QD_TRY(qd_slo_parse(run->options->goodput.texts, run->options->goodput.n, &run->slo, err, errlen));
    QD_TRY(check_files(run, err, errlen));
    if (run->options->null_steps != NULL)
        QD_TRY(qd_recorded_steps_read(run->options->null_steps, (int)run->options->dp, &run->recorded, err,
                                      errlen));
    instance_options.null_steps = run->recorded.replicas;
    QD_TRY(qd_run_limits_probe(&run->limits, run->options, err, errlen));
    QD_TRY(qd_run_record_open(&run->record, run->options->record, &instance_options, err, errlen));
    QD_TRY(qd_session_open(&instance_options, &run->instance, err, errlen));
    const struct qd_instance_plan *plan = qd_instance_get_plan(run->instance);
    qd_gpu_records_open(plan->ops, plan->tp * plan->dp, (int)run->options->ranks_per_gpu, &run->gpus);
    qd_run_record_begin(&run->record, qd_instance_get_plan(run->instance));
    if (qd_run_workload_needs_tokenizer(run->options))
        QD_TRY(qd_session_tokenizer(run->options, &run->tokenizer, err, errlen));
    QD_TRY(qd_run_workload_build(run->options, qd_instance_config(run->instance), run->tokenizer,
                                 &run->workload, err, errlen));
    QD_TRY(check_burst(run, err, errlen));
    QD_TRY(qd_records_create(&run->workload, &run->records, err, errlen));
    run->replicas = calloc((size_t)run->options->dp, sizeof *run->replicas);
    run->devices = calloc((size_t)run->options->dp, sizeof *run->devices);
    if (run->replicas == NULL || run->devices == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "statistics");
    describe(run);
    return warm_up(run, err, errlen);
}

/* After an interrupt or a dead replica what was measured is still written. */
static qd_status run_all(struct run *run, char *err, size_t errlen)
{
    QD_TRY(prepare(run, err, errlen));
    qd_status measured = measure(run, err, errlen);
    if (measured != QD_OK && measured != QD_ERR_ABORTED && measured != QD_ERR_RANK) return measured;
    char reason[QD_ERR_LEN] = "";
    qd_status published = publish(run, reason, sizeof reason);
    if (published != QD_OK) return qd_fail(published, err, errlen, "%s", reason);
    return measured;
}

static int dry_run(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    struct qd_instance_options instance_options = qd_session_instance_options(options);
    struct qd_instance_plan plan;
    qd_status status = qd_instance_plan_make(&instance_options, &plan, err, sizeof err);
    if (status == QD_OK) qd_run_plan_print(&plan, stdout);
    if (status == QD_ERR_DOES_NOT_FIT) qd_run_plan_print_refused(&plan, stdout);
    return status == QD_OK ? QD_EXIT_OK : qd_command_fail(command, status, err);
}

/* Nothing is opened: a plan, the workload and its texts. */
static int print_vllm(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    struct qd_instance_options instance_options = qd_session_instance_options(options);
    struct qd_instance_plan plan;
    struct qd_workload workload = {0};
    struct qd_vllm_prompts prompts;
    qd_tokenizer_t *tokenizer = NULL;
    char *path = qd_path_join(options->result_dir, "vllm-prompts.jsonl");
    qd_status status = path != NULL ? QD_OK : QD_ERR_NO_MEMORY;
    if (status != QD_OK) goto cleanup;
    QD_TRY_GOTO(qd_instance_plan_make(&instance_options, &plan, err, sizeof err), status, cleanup);
    QD_TRY_GOTO(qd_session_tokenizer(options, &tokenizer, err, sizeof err), status, cleanup);
    QD_TRY_GOTO(qd_run_workload_build(options, &plan.config, tokenizer, &workload, err, sizeof err), status,
                cleanup);
    QD_TRY_GOTO(qd_folder_create(options->result_dir, err, sizeof err), status, cleanup);
    QD_TRY_GOTO(qd_run_vllm_write_prompts(&workload, tokenizer, path, &prompts, err, sizeof err), status,
                cleanup);
    qd_run_vllm_print(options, &plan, &workload, &prompts, path, stdout);

cleanup:
    qd_workload_free(&workload);
    qd_tokenizer_free(tokenizer);
    free(path);
    return status == QD_OK ? QD_EXIT_OK : qd_command_fail(command, status, err);
}

/* A run that measured nothing must not look like one that did, whoever reads only the exit code. */
static int finish_run(const struct run *run)
{
    if (run->result.metrics.n_completed > 0) return QD_EXIT_OK;
    const struct qd_request_record *first = &run->records[0];
    qd_session_say("run: " QD_RUN_EMPTY_MESSAGE "; the first of %" PRIu64 ": %s%s%s", run->result.n_records,
                   first->finish, first->error != NULL ? ": " : "", first->error != NULL ? first->error : "");
    return QD_EXIT_PARTIAL;
}

static int run_run(const struct qd_command *command, const struct qd_options *options)
{
    if (options->dry_run) return dry_run(command, options);
    if (options->replay != NULL) return qd_run_replay(command, options);
    if (options->print_vllm) return print_vllm(command, options);
    char err[QD_ERR_LEN] = "";
    struct run run = {.options = options, .interrupted = qd_interrupt_install()};
    qd_status status = run_all(&run, err, sizeof err);
    int exit_code = status == QD_OK ? finish_run(&run) : qd_command_fail(command, status, err);
    qd_run_steps_close(&run.steps);
    exit_code = qd_session_close(command, run.instance, exit_code);
    qd_run_record_close(&run.record);
    qd_recorded_steps_free(&run.recorded);
    qd_tokenizer_free(run.tokenizer);
    qd_records_free(run.records, run.workload.n);
    qd_workload_free(&run.workload);
    qd_gpu_records_close(&run.gpus);
    free(run.devices);
    free(run.replicas);
    free(run.result_path);
    free(run.requests_path);
    free(run.steps_path);
    return exit_code;
}

const struct qd_command qd_command_run = {
    .name = "run",
    .summary = "one configuration, one workload: latencies and throughput",
    .synopsis = "--model DIR [OPTION...]",
    .groups = QD_GROUP_MODEL | QD_GROUP_PARALLEL | QD_GROUP_ENGINE | QD_GROUP_SAMPLING | QD_GROUP_WORKLOAD |
              QD_GROUP_RESULT | QD_GROUP_DRY_RUN | QD_GROUP_RUN,
    .run = run_run,
};
