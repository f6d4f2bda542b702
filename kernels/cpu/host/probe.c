#include "kernels/cpu/host/probe.h"

#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/base/size.h"
#include "kernels/cpu/host/cores.h"
#include "kernels/cpu/host/isa.h"

enum {
    MIN_BYTES = 256 << 20,
    READ_PASSES = 8,
    FMA_PASSES = 8,
    FMA_ROUNDS = 1 << 20,
    LINE_BYTES = 64,
    /* prefetching helps on some machines and hinders on others: odd passes use it */
    AHEAD_BYTES = 1024,
};

struct probe_work {
    const struct qd_cpu_kernels *kernels;
    unsigned char *data;
    size_t bytes, ahead_bytes;
};

size_t qd_cpu_probe_bytes(void)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t bytes = MIN_BYTES;
    return cache > 0 && (size_t)cache > bytes / 4 ? (size_t)cache * 4 : bytes;
}

static size_t part_of(const struct probe_work *work, int member, int n_members, unsigned char **part)
{
    int64_t begin, end;
    qd_team_split((int64_t)work->bytes, LINE_BYTES, member, n_members, &begin, &end);
    *part = work->data + begin;
    return (size_t)(end - begin);
}

static void read_part(void *arg, int member, int n_members)
{
    const struct probe_work *work = arg;
    unsigned char *part;
    size_t bytes = part_of(work, member, n_members, &part);
    (void)work->kernels->probe_read((const float *)(const void *)part, bytes / sizeof(float),
                                    work->ahead_bytes);
}

/* Each member touches its own part first, as the reads find it on machines with several memory nodes. */
static void write_part(void *arg, int member, int n_members)
{
    unsigned char *part;
    size_t bytes = part_of(arg, member, n_members, &part);
    memset(part, 0, bytes);
}

static void fma_part(void *arg, int member, int n_members)
{
    (void)member, (void)n_members;
    const struct probe_work *work = arg;
    float result;
    (void)work->kernels->probe_fma(FMA_ROUNDS, &result);
}

/* Seconds of one region, never 0. */
static double time_region(qd_team_t *team, qd_team_fn fn, struct probe_work *work)
{
    int64_t start = qd_clock_now_ns();
    qd_team_run(team, fn, work);
    int64_t ns = qd_clock_now_ns() - start;
    return (double)(ns > 0 ? ns : 1) * 1e-9;
}

double qd_cpu_probe_read_gbps(const struct qd_cpu_kernels *kernels, qd_team_t *team, const void *data,
                              size_t bytes)
{
    struct probe_work work = {.kernels = kernels, .data = (unsigned char *)data, .bytes = bytes};
    double best = 0;
    for (int pass = 0; pass < READ_PASSES; pass++) {
        work.ahead_bytes = pass % 2 == 0 ? 0 : AHEAD_BYTES;
        double gbps = (double)bytes / time_region(team, read_part, &work) * 1e-9;
        best = gbps > best ? gbps : best;
    }
    return best;
}

double qd_cpu_probe_fma_gflops(const struct qd_cpu_kernels *kernels, qd_team_t *team)
{
    struct probe_work work = {.kernels = kernels};
    float result;
    double best = 0, flops = (double)kernels->probe_fma(1, &result) * FMA_ROUNDS * qd_team_size(team);
    for (int pass = 0; pass < FMA_PASSES; pass++) {
        double gflops = flops / time_region(team, fma_part, &work) * 1e-9;
        best = gflops > best ? gflops : best;
    }
    return best;
}

qd_status qd_cpu_probe(const struct qd_cpu_kernels *kernels, qd_team_t *team, struct qd_cpu_probe *out,
                       char *err, size_t errlen)
{
    struct qd_arena arena;
    struct probe_work work = {.kernels = kernels, .bytes = qd_cpu_probe_bytes()};
    QD_TRY(qd_arena_init(&arena, work.bytes, err, errlen));
    work.data = arena.base;
    qd_team_run(team, write_part, &work);
    out->read_gbps = qd_cpu_probe_read_gbps(kernels, team, work.data, work.bytes);
    out->fma_gflops = qd_cpu_probe_fma_gflops(kernels, team);
    qd_arena_free(&arena);
    return QD_OK;
}

qd_status qd_cpu_probe_team(const char *isa, int n_threads, const struct qd_cpu_kernels **kernels,
                            qd_team_t **team, char *err, size_t errlen)
{
    struct qd_cpu_cores cores;
    cpu_set_t available;
    QD_TRY(qd_cpu_isa_select(isa, kernels, err, errlen));
    if (sched_getaffinity(0, sizeof available, &available) != 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "the cores of this process cannot be read");
    QD_TRY(qd_cpu_cores_share(&available, n_threads, 0, 1, &cores, err, errlen));
    struct qd_team_config config = {.n_members = cores.n_threads,
                                    .cores = cores.own_cores ? cores.cores : NULL,
                                    .may_spin = false,
                                    .label = "probe"};
    return qd_team_create(&config, team, err, errlen);
}

qd_status qd_cpu_probe_cores(const char *isa, int n_threads, struct qd_cpu_probe *out, char *err,
                             size_t errlen)
{
    const struct qd_cpu_kernels *kernels;
    qd_team_t *team;
    QD_TRY(qd_cpu_probe_team(isa, n_threads, &kernels, &team, err, errlen));
    qd_status status = qd_cpu_probe(kernels, team, out, err, errlen);
    qd_team_destroy(team);
    return status;
}
