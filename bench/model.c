/* A whole model on the CPU device against this machine's limits: prompt processing against the FMA peak,
 * decoding against the read bandwidth. Limits are probed on both sides of every measurement, in the same
 * process and on the same cores, and shares are medians over rounds: shared machines drift. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/cli/session.h"
#include "harness/engine/forward_once.h"
#include "kernels/base/arena.h"
#include "kernels/base/clock.h"
#include "kernels/cpu/host/probe.h"
#include "kernels/traffic.h"
#include "models/step_cost.h"

enum { N_ROUNDS = 3, MAX_CONTEXT = 2304, DECODE_FROM = 512, DECODE_TOKENS = 32 };

/* A part of a sequence that is computed and timed. */
struct task {
    const char *name;
    int32_t n_cached, n_tokens, chunk;
    bool memory_bound; /* whose limit is the read bandwidth */
};

static const struct task TASKS[] = {
    {"prompt 512", 0, 512, 512, false},
    {"prompt 2048", 0, 2048, 2048, false},
    {"decode at 512", DECODE_FROM, DECODE_FROM + DECODE_TOKENS, 1, true},
    {"decode at 2048", 2048, 2048 + DECODE_TOKENS, 1, true},
};
enum { N_TASKS = sizeof TASKS / sizeof TASKS[0] };

struct bench {
    qd_instance_t *instance;
    const struct qd_cpu_kernels *kernels;
    qd_team_t *team;        /* of the probes, on the cores of the rank */
    struct qd_arena memory; /* that the probes read */
    int32_t *tokens;        /* [MAX_CONTEXT] */
    double seconds[N_TASKS][N_ROUNDS], share[N_TASKS][N_ROUNDS];
    double read_gbps[N_TASKS * N_ROUNDS], fma_gflops[N_TASKS * N_ROUNDS];
};

static void ignore_row(void *arg, int32_t position, int32_t id, const float *logits)
{
    (void)arg, (void)position, (void)id, (void)logits;
}

static void add(struct qd_traffic *sum, struct qd_traffic part, int64_t times)
{
    sum->bytes += part.bytes * (uint64_t)times;
    sum->flops += part.flops * (uint64_t)times;
}

/* Linear layers and attention of one step of m tokens behind `prior` others, logits of the last. */
static struct qd_traffic step_traffic(const struct qd_model_config *config, const struct qd_shard *shard,
                                      int64_t prior, int64_t m)
{
    struct qd_step_op ops[QD_MAX_STEP_OPS];
    struct qd_traffic sum = {0};
    struct qd_attention_load load = {
        .n_tokens = m, .n_visible = m * prior + m * (m + 1) / 2, .n_kv = prior + m};
    int n = qd_model_step_ops(config, shard, &load, 1, ops);
    for (int i = 0; i < n; i++)
        if (ops[i].segment == QD_SEGMENT_LINEAR || ops[i].segment == QD_SEGMENT_ATTENTION)
            add(&sum, ops[i].traffic, ops[i].times);
    return sum;
}

/* Of the whole model: all ranks share the limits that are probed. */
static qd_status task_traffic(const struct qd_model_config *config, const struct task *task,
                              struct qd_traffic *sum, char *err, size_t errlen)
{
    struct qd_shard whole;
    *sum = (struct qd_traffic){0};
    QD_TRY(qd_shard_make(config, 1, 0, &whole, err, errlen));
    for (int32_t at = task->n_cached; at < task->n_tokens; at += task->chunk)
        add(sum, step_traffic(config, &whole, at, task->chunk), 1);
    return QD_OK;
}

static qd_status run_task(struct bench *b, const struct task *task, double *seconds, char *err, size_t errlen)
{
    const struct qd_instance_plan *plan = qd_instance_get_plan(b->instance);
    struct qd_forward forward = {
        .tokens = b->tokens,
        .n_tokens = task->n_tokens,
        .n_cached = task->n_cached,
        .chunk = task->chunk,
        .first_row = task->chunk == 1 ? task->n_cached : task->n_tokens - 1,
        .row = ignore_row,
    };
    int64_t begin = qd_clock_now_ns();
    QD_TRY(qd_forward_once(qd_instance_group(b->instance, 0), &plan->limits, &forward, err, errlen));
    *seconds = (double)(qd_clock_now_ns() - begin) * 1e-9;
    return QD_OK;
}

static struct qd_cpu_probe probe(struct bench *b)
{
    return (struct qd_cpu_probe){
        .read_gbps = qd_cpu_probe_read_gbps(b->kernels, b->team, b->memory.base, b->memory.used),
        .fma_gflops = qd_cpu_probe_fma_gflops(b->kernels, b->team),
    };
}

/* Probe, task, probe; the share is against the better of the two probes. */
static qd_status measure(struct bench *b, int t, int round, char *err, size_t errlen)
{
    const struct task *task = &TASKS[t];
    struct qd_traffic traffic;
    QD_TRY(task_traffic(qd_instance_config(b->instance), task, &traffic, err, errlen));
    struct qd_cpu_probe before = probe(b);
    QD_TRY(run_task(b, task, &b->seconds[t][round], err, errlen));
    struct qd_cpu_probe after = probe(b);
    double read = fmax(before.read_gbps, after.read_gbps), fma = fmax(before.fma_gflops, after.fma_gflops);
    b->read_gbps[t * N_ROUNDS + round] = read;
    b->fma_gflops[t * N_ROUNDS + round] = fma;
    double seconds = b->seconds[t][round];
    b->share[t][round] = task->memory_bound ? (double)traffic.bytes / seconds * 1e-9 / read
                                            : (double)traffic.flops / seconds * 1e-9 / fma;
    return QD_OK;
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return n % 2 != 0 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void print_table(struct bench *b, const struct qd_options *options)
{
    printf("%s, %s, %d thread%s, TP %d; medians of %d rounds\n", options->model, b->kernels->isa,
           qd_team_size(b->team), qd_team_size(b->team) == 1 ? "" : "s", (int)options->tp, N_ROUNDS);
    printf("probes: read %.1f GB/s, fma %.1f GFLOP/s\n", median(b->read_gbps, N_TASKS * N_ROUNDS),
           median(b->fma_gflops, N_TASKS * N_ROUNDS));
    printf("%-16s %10s %10s  %s\n", "task", "ms", "tok/s", "share of the limit probed around it");
    for (int t = 0; t < N_TASKS; t++) {
        double seconds = median(b->seconds[t], N_ROUNDS), share = median(b->share[t], N_ROUNDS); /* sorts */
        printf("%-16s %10.1f %10.2f  %.0f %% of %s (%.0f to %.0f %%)\n", TASKS[t].name, seconds * 1e3,
               (TASKS[t].n_tokens - TASKS[t].n_cached) / seconds, 100 * share,
               TASKS[t].memory_bound ? "read bandwidth" : "FMA peak", 100 * b->share[t][0],
               100 * b->share[t][N_ROUNDS - 1]);
    }
}

static qd_status open_probe(struct bench *b, const struct qd_options *options, char *err, size_t errlen)
{
    QD_TRY(qd_cpu_probe_team(options->cpu_isa, (int)options->threads, &b->kernels, &b->team, err, errlen));
    QD_TRY(qd_arena_init(&b->memory, qd_cpu_probe_bytes(), err, errlen));
    memset(qd_arena_take(&b->memory, qd_cpu_probe_bytes(), 64), 1, qd_cpu_probe_bytes());
    return QD_OK;
}

static qd_status run(struct bench *b, const struct qd_options *options, char *err, size_t errlen)
{
    struct qd_instance_options instance_options = qd_session_instance_options(options);
    if (instance_options.max_model_len == 0) instance_options.max_model_len = MAX_CONTEXT;
    if (instance_options.max_num_seqs == 0) instance_options.max_num_seqs = 1;
    QD_TRY(qd_session_open(&instance_options, &b->instance, err, errlen));
    /* Pins this thread: ranks that start later would inherit that. */
    QD_TRY(open_probe(b, options, err, errlen));
    b->tokens = calloc(MAX_CONTEXT, sizeof *b->tokens);
    if (b->tokens == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "tokens");
    for (int32_t i = 0; i < MAX_CONTEXT; i++)
        b->tokens[i] = (int32_t)((int64_t)i * 7919 % qd_instance_config(b->instance)->vocab_size);
    double unused;
    QD_TRY(run_task(b, &TASKS[1], &unused, err, errlen)); /* warm up: every page is touched once */
    for (int round = 0; round < N_ROUNDS; round++)
        for (int t = 0; t < N_TASKS; t++) QD_TRY(measure(b, t, round, err, errlen));
    print_table(b, options);
    return QD_OK;
}

static const struct qd_command command = {
    .name = "bench/model",
    .summary = "Times prompts and decoding of a model against probed limits; two minutes for the 0.6B shape.",
    .synopsis = "--model 0.6B --load-format dummy [OPTION...]",
    .groups = QD_GROUP_MODEL | QD_GROUP_PARALLEL | QD_GROUP_ENGINE,
};

int main(int argc, char **argv)
{
    static struct bench b;
    struct qd_options options;
    char err[QD_ERR_LEN] = "";
    qd_status status = qd_options_parse(&command, argc, argv, &options, err, sizeof err);
    if (status == QD_ERR_ABORTED) return QD_EXIT_OK;
    if (status == QD_OK) status = run(&b, &options, err, sizeof err);
    qd_team_destroy(b.team);
    qd_arena_free(&b.memory);
    qd_instance_close(b.instance);
    free(b.tokens);
    if (status != QD_OK) fprintf(stderr, "bench/model: %s\n", err);
    return qd_exit_code(status);
}
