/* gemm_nt of the CPU device at the shapes of Qwen3-0.6B, against the read bandwidth and the FMA peak of this
 * machine, which are probed before and after because shared machines drift. Weights are taken from different
 * places of a buffer much larger than any cache, so that they come from memory as in a real step. */
#include <getopt.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/random.h"
#include "kernels/base/size.h"
#include "kernels/cpu/host/probe.h"
#include "kernels/traffic.h"

enum { MIN_REPEATS = 3, MAX_REPEATS = 64, LAYERS = 28 };
enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_ENVIRONMENT = 3 };

static const double CELL_SECONDS = 0.12; /* repeats of a cell end after this */

struct shape {
    const char *name;
    int64_t n, k;
    enum qd_epilogue epilogue;
    int64_t max_m; /* logits are wanted for a row a sequence, not a token */
    int per_model;
};

static const struct shape SHAPES[] = {
    {"qkv", 4096, 1024, QD_EPILOGUE_STORE, 512, LAYERS},
    {"o", 1024, 2048, QD_EPILOGUE_STORE, 512, LAYERS},
    {"gate_up", 6144, 1024, QD_EPILOGUE_SILU_MUL, 512, LAYERS},
    {"down", 1024, 3072, QD_EPILOGUE_STORE, 512, LAYERS},
    {"lm_head", 151936, 1024, QD_EPILOGUE_STORE_F32, 64, 1},
};
enum { N_SHAPES = sizeof SHAPES / sizeof SHAPES[0] };

static const int64_t ROWS[] = {1, 2, 4, 8, 16, 64, 512};
enum { N_ROWS = sizeof ROWS / sizeof ROWS[0], MAX_ROWS = 512, MAX_K = 3072, MAX_N = 151936 };

struct cell {
    double median, least; /* seconds */
};

struct bench {
    struct qd_device device;
    struct qd_cpu *cpu; /* the same context: the probe wants its team and instruction set */
    struct qd_arena weights, activations;
    size_t next; /* bytes into weights */
    qd_bf16 *a;
    void *out;
    struct qd_cpu_probe probes[N_SHAPES + 1]; /* before each shape, and after the last */
    struct cell cells[N_SHAPES][N_ROWS];
};

/* bf16 of magnitude 2^-7 to 2^-6 and either sign; one mebibyte repeated, as only sums are checked. */
static void fill(struct qd_arena *arena)
{
    enum { PATTERN_BYTES = 1 << 20 };
    qd_bf16 *pattern = (qd_bf16 *)(void *)arena->base;
    for (size_t i = 0; i < PATTERN_BYTES / sizeof *pattern; i++) {
        uint32_t word = qd_philox(1, 0, i).word[0];
        pattern[i] = (qd_bf16)((word & 0x8000u) | 0x3c00u | (word & 0x7fu));
    }
    for (size_t done = PATTERN_BYTES; done < arena->capacity; done += PATTERN_BYTES)
        memcpy(arena->base + done, pattern, PATTERN_BYTES);
}

static qd_status bench_memory(struct bench *b, char *err, size_t errlen)
{
    size_t largest = (size_t)MAX_N * 1024 * sizeof(qd_bf16), pool = qd_cpu_probe_bytes();
    if (pool < largest) pool = largest;
    size_t a_bytes = (size_t)MAX_ROWS * MAX_K * sizeof(qd_bf16);
    size_t out_bytes = (size_t)64 * MAX_N * sizeof(float); /* the logits are the largest output */
    QD_TRY(qd_arena_init(&b->weights, pool, err, errlen));
    QD_TRY(qd_arena_init(&b->activations, a_bytes + out_bytes, err, errlen));
    fill(&b->weights);
    b->a = qd_arena_take(&b->activations, a_bytes, 64);
    b->out = qd_arena_take(&b->activations, out_bytes, 64);
    memcpy(b->a, b->weights.base + 4096, a_bytes);
    memset(b->out, 0, out_bytes);
    return QD_OK;
}

/* The next arguments of a cell: weights that were not read lately. */
static struct qd_gemm_nt_args next_args(struct bench *b, const struct shape *shape, int64_t m)
{
    size_t bytes = (size_t)(shape->n * shape->k) * sizeof(qd_bf16);
    if (b->next + bytes > b->weights.capacity) b->next = 0;
    struct qd_gemm_nt_args args = {.a = b->a, .m = m, .lda = shape->k, .epilogue = shape->epilogue};
    args.w = (struct qd_weight){b->weights.base + b->next, shape->n, shape->k, QD_LAYOUT_PACKED};
    args.out = b->out;
    args.ldo = shape->epilogue == QD_EPILOGUE_SILU_MUL ? shape->n / 2 : shape->n;
    b->next += bytes;
    return args;
}

static double dot(const struct qd_gemm_nt_args *args, int64_t row, int64_t column)
{
    const qd_bf16 *w = (const qd_bf16 *)args->w.data + column / QD_CPU_PANEL * QD_CPU_PANEL * args->w.n_cols +
                       qd_cpu_panel_lane(column);
    double sum = 0;
    for (int64_t k = 0; k < args->w.n_cols; k++)
        sum += (double)qd_bf16_to_f32(args->a[row * args->lda + k]) *
               (double)qd_bf16_to_f32(w[k * QD_CPU_PANEL]);
    return sum;
}

/* A wrong product yields no number: the first and the last element of the last row. */
static bool is_right(const struct qd_gemm_nt_args *args)
{
    for (int end = 0; end < 2; end++) {
        int64_t row = args->m - 1, column = end == 0 ? 0 : args->ldo - 1, at = row * args->ldo + column;
        double want, got = args->epilogue == QD_EPILOGUE_STORE_F32
                               ? (double)((const float *)args->out)[at]
                               : (double)qd_bf16_to_f32(((const qd_bf16 *)args->out)[at]);
        if (args->epilogue == QD_EPILOGUE_SILU_MUL) {
            int64_t gate_column = column / 8 * 16 + column % 8;
            double gate = dot(args, row, gate_column), up = dot(args, row, gate_column + 8);
            want = gate / (1 + exp(-gate)) * up;
        } else {
            want = dot(args, row, column);
        }
        if (!(fabs(got - want) <= 1e-2 * fabs(want) + 1e-5)) return false;
    }
    return true;
}

static int compare_doubles(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Repeats until CELL_SECONDS are over; false when the product is wrong. */
static bool time_cell(struct bench *b, const struct shape *shape, int64_t m, struct cell *cell)
{
    struct qd_gemm_nt_args args = next_args(b, shape, m);
    if (qd_device_gemm_nt(b->device, &args) != QD_OK || !is_right(&args)) return false;
    double samples[MAX_REPEATS], total = 0;
    int n = 0;
    while (n < MIN_REPEATS || (n < MAX_REPEATS && total < CELL_SECONDS)) {
        args = next_args(b, shape, m);
        int64_t start = qd_clock_now_ns();
        (void)qd_device_gemm_nt(b->device, &args);
        samples[n] = (double)(qd_clock_now_ns() - start) * 1e-9;
        total += samples[n++];
    }
    qsort(samples, (size_t)n, sizeof *samples, compare_doubles);
    cell->least = samples[0];
    cell->median = n % 2 != 0 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
    return true;
}

static void probe(struct bench *b, struct qd_cpu_probe *out)
{
    const struct qd_cpu_kernels *kernels = b->cpu->kernels;
    out->read_gbps = qd_cpu_probe_read_gbps(kernels, b->cpu->team, b->weights.base, b->weights.capacity);
    out->fma_gflops = qd_cpu_probe_fma_gflops(kernels, b->cpu->team);
}

/* The higher of each limit among probes [from, to]. */
static struct qd_cpu_probe best_probe(const struct bench *b, int from, int to)
{
    struct qd_cpu_probe best = b->probes[from];
    for (int i = from + 1; i <= to; i++) {
        best.read_gbps = fmax(best.read_gbps, b->probes[i].read_gbps);
        best.fma_gflops = fmax(best.fma_gflops, b->probes[i].fma_gflops);
    }
    return best;
}

static void print_probes(const struct bench *b)
{
    const struct qd_cpu_probe *before = &b->probes[0], *after = &b->probes[N_SHAPES];
    struct qd_cpu_probe best = best_probe(b, 0, N_SHAPES);
    int n_threads = qd_team_size(b->cpu->team);
    printf("\n%s, %d thread%s\n", b->cpu->kernels->isa, n_threads, n_threads == 1 ? "" : "s");
    printf("probe: read %.1f GB/s before, %.1f after, %.1f at best; ", before->read_gbps, after->read_gbps,
           best.read_gbps);
    printf("fma %.1f GFLOP/s before, %.1f after, %.1f at best\n", before->fma_gflops, after->fma_gflops,
           best.fma_gflops);
}

static void print_line(const char *name, int64_t m, struct qd_traffic t, struct cell cell,
                       struct qd_cpu_probe limit)
{
    double gbps = (double)t.bytes / cell.median * 1e-9, gflops = (double)t.flops / cell.median * 1e-9;
    printf("%-8s %4lld %10.3f %10.3f %8.1f %8.1f %7.0f %7.0f\n", name, (long long)m, cell.median * 1e3,
           cell.least * 1e3, gbps, gflops, 100 * gbps / limit.read_gbps, 100 * gflops / limit.fma_gflops);
}

/* All linear layers of the model in one step of ROWS[row] tokens, logits of one. */
static void print_model(const struct bench *b, const char *name, int row)
{
    struct qd_traffic sum = {0};
    struct cell cell = {0};
    for (int s = 0; s < N_SHAPES; s++) {
        int at = SHAPES[s].per_model == 1 ? 0 : row;
        struct qd_traffic t = qd_traffic_gemm_nt(ROWS[at], SHAPES[s].n, SHAPES[s].k, SHAPES[s].epilogue);
        sum.bytes += t.bytes * (uint64_t)SHAPES[s].per_model;
        sum.flops += t.flops * (uint64_t)SHAPES[s].per_model;
        cell.median += b->cells[s][at].median * SHAPES[s].per_model;
        cell.least += b->cells[s][at].least * SHAPES[s].per_model;
    }
    print_line(name, ROWS[row], sum, cell, best_probe(b, 0, N_SHAPES));
}

static void print_table(const struct bench *b)
{
    print_probes(b);
    printf("%-8s %4s %10s %10s %8s %8s %7s %7s\n", "gemm", "M", "ms", "least ms", "GB/s", "GFLOP/s", "% read",
           "% fma");
    for (int s = 0; s < N_SHAPES; s++)
        for (int r = 0; r < N_ROWS && ROWS[r] <= SHAPES[s].max_m; r++)
            print_line(SHAPES[s].name, ROWS[r],
                       qd_traffic_gemm_nt(ROWS[r], SHAPES[s].n, SHAPES[s].k, SHAPES[s].epilogue),
                       b->cells[s][r], best_probe(b, s, s + 1));
    print_model(b, "decode", 0);
    print_model(b, "prompt", N_ROWS - 1);
}

static qd_status open_device(struct bench *b, const char *isa, int n_threads, qd_thread_bootstrap_t *shared,
                             char *err, size_t errlen)
{
    struct qd_device_config config = {
        .n_ranks = 1,
        .n_threads = n_threads,
        .cpu_isa = isa,
        .numerics = QD_NUMERICS_FUSED,
        .shape = {.hidden_dim = 1024, .ffn_dim = 3072, .vocab_size = MAX_N, .n_layers = LAYERS, .n_heads = 16,
                  .n_kv_heads = 8, .head_dim = 128},
        .limits = {.max_tokens = MAX_ROWS, .max_seqs = 64, .max_blocks = 64, .max_logit_rows = 64},
        .max_model_len = MAX_ROWS,
    };
    struct qd_bootstrap bootstrap = qd_thread_bootstrap_rank(shared, 0);
    b->device.ops = qd_device_find("cpu");
    QD_TRY(b->device.ops->open(&config, &bootstrap, &b->device.ctx, err, errlen));
    b->cpu = b->device.ctx;
    return QD_OK;
}

/* One thread count: every cell between two probes, then the table. */
static qd_status measure(struct bench *b, char *err, size_t errlen)
{
    for (int s = 0; s < N_SHAPES; s++) {
        probe(b, &b->probes[s]);
        for (int r = 0; r < N_ROWS && ROWS[r] <= SHAPES[s].max_m; r++)
            if (!time_cell(b, &SHAPES[s], ROWS[r], &b->cells[s][r]))
                return qd_fail(QD_ERR_INTERNAL, err, errlen, "%s at M = %lld: the product is wrong",
                               SHAPES[s].name, (long long)ROWS[r]);
    }
    probe(b, &b->probes[N_SHAPES]);
    print_table(b);
    return QD_OK;
}

static qd_status run(struct bench *b, const char *isa, int n_threads, char *err, size_t errlen)
{
    /* The device pins the calling thread; the next one needs all cores again. */
    cpu_set_t cores;
    sched_getaffinity(0, sizeof cores, &cores);
    qd_thread_bootstrap_t *shared = NULL;
    qd_status st = qd_thread_bootstrap_create(1, &shared, err, errlen);
    if (st == QD_OK) st = open_device(b, isa, n_threads, shared, err, errlen);
    if (st == QD_OK) st = measure(b, err, errlen);
    if (b->cpu != NULL) b->device.ops->close(b->cpu);
    b->cpu = NULL;
    qd_thread_bootstrap_destroy(shared);
    sched_setaffinity(0, sizeof cores, &cores);
    return st;
}

static const char USAGE[] = "usage: bench/cpu [--cpu-isa auto|portable|avx2] [--threads N]\n"
                            "Times gemm_nt at the shapes of Qwen3-0.6B against this machine's probed\n"
                            "limits, with 1 thread and with all available cores, or with N threads only.\n";

struct options {
    const char *isa;
    int n_threads; /* 0: one, then all */
};

/* The exit status to leave with, or -1 to go on. */
static int parse(int argc, char **argv, struct options *options)
{
    static const struct option LONG[] = {
        {"cpu-isa", required_argument, NULL, 'i'}, {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "h", LONG, NULL)) != -1;) {
        char *end = NULL;
        if (c == 'h') return fputs(USAGE, stdout), 0;
        if (c == '?') return fputs(USAGE, stderr), EXIT_USAGE;
        if (c == 'i') options->isa = optarg;
        if (c != 't') continue;
        long n = strtol(optarg, &end, 10);
        if (*optarg == '\0' || *end != '\0' || n < 1 || n > 4096)
            return fprintf(stderr, "--threads %s: it is 1 to 4096\n", optarg), EXIT_USAGE;
        options->n_threads = (int)n;
    }
    if (optind < argc) return fputs(USAGE, stderr), EXIT_USAGE;
    return -1;
}

int main(int argc, char **argv)
{
    struct options options = {.isa = "auto"};
    int status = parse(argc, argv, &options);
    if (status >= 0) return status;

    static struct bench b;
    char err[QD_ERR_LEN] = "";
    cpu_set_t cores;
    int n_cores = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
    qd_status st = bench_memory(&b, err, sizeof err);
    if (st == QD_OK && options.n_threads > 0) {
        st = run(&b, options.isa, options.n_threads, err, sizeof err);
    } else if (st == QD_OK) {
        st = run(&b, options.isa, 1, err, sizeof err);
        if (st == QD_OK && n_cores > 1) st = run(&b, options.isa, n_cores, err, sizeof err);
    }
    qd_arena_free(&b.activations);
    qd_arena_free(&b.weights);
    if (st == QD_OK) return 0;
    fprintf(stderr, "bench/cpu: %s\n", err);
    return st == QD_ERR_INTERNAL ? EXIT_FAILED : st == QD_ERR_ARGUMENT ? EXIT_USAGE : EXIT_ENVIRONMENT;
}
