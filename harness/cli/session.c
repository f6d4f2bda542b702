#include "harness/cli/session.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/cli/progress.h"
#include "harness/result/device_use.h"
#include "kernels/cpu/host/isa.h"

enum { DEFAULT_WATCHDOG_S = 60 };

void qd_session_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("qdyno: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int64_t qd_session_budget(const struct qd_options *options)
{
    return options->budget > 0 ? options->budget : QD_DEFAULT_BUDGET;
}

const char *qd_session_isa(const struct qd_options *options)
{
    const struct qd_cpu_kernels *kernels;
    char why[QD_ERR_LEN];
    if (strcmp(options->device, "cpu") != 0) return NULL;
    return qd_cpu_isa_select(options->cpu_isa, &kernels, why, sizeof why) == QD_OK ? kernels->isa : NULL;
}

/* A step on a processor takes what it takes; one on a GPU takes seconds at most. */
static int64_t watchdog_ns(const struct qd_options *options)
{
    int64_t seconds = options->watchdog_timeout_s;
    if (seconds < 0) seconds = strcmp(options->device, "cuda") == 0 ? DEFAULT_WATCHDOG_S : 0;
    return seconds * 1000000000;
}

static enum qd_collectives collectives(const struct qd_options *options)
{
    if (strcmp(options->collectives, "own") == 0) return QD_COLLECTIVES_OWN;
    return strcmp(options->collectives, "nccl") == 0 ? QD_COLLECTIVES_NCCL : QD_COLLECTIVES_AUTO;
}

static enum qd_router_policy router_of(const char *name)
{
    enum qd_router_policy policy = QD_ROUTER_ROUND_ROBIN;
    while (strcmp(name, qd_router_policy_name(policy)) != 0) policy++; /* one of the option's choices */
    return policy;
}

struct qd_instance_options qd_session_instance_options(const struct qd_options *options)
{
    return (struct qd_instance_options){
        .model = options->model,
        .load_format = strcmp(options->load_format, "dummy") == 0 ? QD_LOAD_DUMMY : QD_LOAD_AUTO,
        .device = options->device,
        .cpu_isa = options->cpu_isa,
        .numerics = strcmp(options->numerics, "hf") == 0 ? QD_NUMERICS_HF : QD_NUMERICS_FUSED,
        .seed = (uint64_t)options->seed,
        .tp = (int)options->tp,
        .dp = (int)options->dp,
        .n_threads = (int)options->threads,
        .max_num_batched_tokens = options->budget,
        .max_num_seqs = options->max_num_seqs,
        .max_model_len = options->max_model_len,
        .n_kv_blocks = options->num_gpu_blocks,
        .kv_cache_bytes = (size_t)options->kv_cache_bytes,
        .memory_limit = (size_t)options->memory_limit,
        .memory_utilization = options->memory_utilization,
        .enforce_eager = options->enforce_eager,
        .batch_invariant = options->batch_invariant,
        .device_timing = options->device_timing,
        .collectives = collectives(options),
        .ranks_per_gpu = (int)options->ranks_per_gpu,
        .prefix_caching = options->enable_prefix_caching,
        .router = router_of(options->router),
        .async_scheduling = options->async_scheduling,
        .long_prefill_token_threshold = options->long_prefill_token_threshold,
        .is_stepped = qd_options_are_virtual(options),
        .is_virtual = qd_options_are_virtual(options),
        .coupling = strcmp(options->dp_coupling, "none") == 0 ? QD_COUPLING_NONE : QD_COUPLING_VLLM_0_9_1,
        .null_step_ns = options->null_step_us > 0 ? llround(options->null_step_us * 1e3) : 0,
        .watchdog_ns = watchdog_ns(options),
        .max_requests = 16,
    };
}

static void draw_loading(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    char note[64];
    snprintf(note, sizeof note, "%.2f of %.2f GB", (double)done_bytes * 1e-9, (double)total_bytes * 1e-9);
    qd_progress_update(arg, (double)done_bytes, (double)total_bytes, note);
}

static void say_plan(const struct qd_instance_plan *plan)
{
    qd_session_say("%s on %s, TP %d x DP %d: budget %" PRId32 " tokens, %" PRId32
                   " sequences%s, max_model_len %" PRId32 "%s, %" PRId32 " KV pages%s per replica",
                   plan->config.name, plan->ops->name, plan->tp, plan->dp, plan->limits.max_tokens,
                   plan->limits.max_seqs, plan->lowered_seqs ? " (lowered to the budget)" : "",
                   plan->max_model_len, plan->shrunk_model_len ? " (shrunk to the pool)" : "",
                   plan->n_kv_blocks, plan->shrunk_pool ? " (shrunk to the memory)" : "");
}

/* Replicas on like GPUs say the same: once is enough. */
static void say_notes(const qd_instance_t *instance)
{
    const char *last = "";
    for (int replica = 0; replica < qd_instance_get_plan(instance)->dp; replica++) {
        const char *note = qd_instance_note(instance, replica);
        if (strcmp(note, last) != 0) qd_session_say("%s", note);
        last = note;
    }
}

/* Bytes over time; bytes per nanosecond are GB/s. */
static double gbps(uint64_t bytes, int64_t ns)
{
    return ns > 0 ? (double)bytes / (double)ns : 0;
}

static void say_load(const struct qd_load_stats *load)
{
    double seconds = (double)load->duration_ns * 1e-9;
    char copied[96] = "";
    if (load->n_devices > 0)
        snprintf(copied, sizeof copied, ", copied %.3f GB to %d GPU%s at %.2f GB/s",
                 (double)load->copied_bytes * 1e-9, load->n_devices, load->n_devices > 1 ? "s" : "",
                 gbps(load->copied_bytes, load->copy_ns));
    if (load->file_bytes > 0)
        qd_session_say("weights: %.3f GB in %.2f s, %.2f GB/s (read at %.2f GB/s%s)",
                       (double)load->file_bytes * 1e-9, seconds, gbps(load->file_bytes, load->duration_ns),
                       gbps(load->file_bytes, load->read_ns), copied);
    else if (load->duration_ns > 0)
        qd_session_say("weights: made up in %.2f s%s", seconds, load->n_devices > 0 ? " by the GPUs" : "");
    if (load->n_overflowed > 0)
        qd_session_say("%" PRIu64 " weights are too large for bf16 and became infinite", load->n_overflowed);
}

/* Replicas record one after the other. */
static void say_graphs(qd_instance_t *instance)
{
    const struct qd_instance_plan *plan = qd_instance_get_plan(instance);
    struct qd_device_stats sum = {0};
    double seconds = 0;
    for (int r = 0; r < plan->dp; r++) {
        struct qd_device_stats stats = qd_group_get_stats(qd_instance_group(instance, r));
        qd_device_stats_add(&sum, &stats);
        seconds += (double)stats.capture_ns * 1e-9;
    }
    char planned[48] = "";
    if (plan->graph_bytes > 0)
        snprintf(planned, sizeof planned, " (%.3f planned)",
                 (double)(plan->graph_bytes / (size_t)plan->n_sharing * (size_t)plan->dp) / 1073741824.0);
    if (sum.n_graphs > 0)
        qd_session_say("graphs: %" PRId32 " recorded in %.2f s, %.3f GiB of rank 0%s", sum.n_graphs, seconds,
                       (double)sum.graph_bytes / 1073741824.0, planned);
}

/* A plan is a bound; what it came to shows how good a one. */
static void say_memory(const struct qd_instance_options *options, const qd_instance_t *instance)
{
    char text[QD_ERR_LEN];
    qd_instance_plan_describe_use(options, qd_instance_get_plan(instance), text, sizeof text);
    if (text[0] != '\0') qd_session_say("memory: %s", text);
}

static void say_timing_cost(qd_instance_t *instance)
{
    char text[QD_ERR_LEN];
    struct qd_device_stats stats = qd_group_get_stats(qd_instance_group(instance, 0));
    const char *device = qd_instance_get_plan(instance)->ops->name;
    qd_device_use_describe_cost(&stats.timing_cost, device, text, sizeof text);
    if (text[0] != '\0') qd_session_say("device timing: %s", text);
}

qd_status qd_session_open(const struct qd_instance_options *options, qd_instance_t **out, char *err,
                          size_t errlen)
{
    struct qd_progress progress;
    struct qd_instance_options with_progress = *options;
    qd_progress_begin(&progress, "loading");
    with_progress.progress = draw_loading;
    with_progress.progress_arg = &progress;
    qd_status status = qd_instance_open(&with_progress, out, err, errlen);
    qd_progress_end(&progress);
    if (status != QD_OK) return status;
    struct qd_load_stats load = qd_instance_load_stats(*out);
    say_plan(qd_instance_get_plan(*out));
    say_notes(*out);
    say_load(&load);
    say_graphs(*out);
    say_memory(options, *out);
    say_timing_cost(*out);
    return QD_OK;
}

int qd_session_close(const struct qd_command *command, qd_instance_t *instance, int exit_code)
{
    char err[QD_ERR_LEN] = "";
    if (instance == NULL) return exit_code;
    qd_status status = qd_instance_end(instance, err, sizeof err);
    if (status != QD_OK) {
        int failed = qd_command_fail(command, status, err);
        if (exit_code == QD_EXIT_OK) exit_code = failed;
    }
    qd_instance_close(instance);
    return exit_code;
}

qd_status qd_session_tokenizer(const struct qd_options *options, qd_tokenizer_t **out, char *err,
                               size_t errlen)
{
    return qd_tokenizer_load(options->model, out, err, errlen);
}
