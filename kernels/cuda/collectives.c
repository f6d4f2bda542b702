/* Which collectives the ranks of a replica use: the own kernels, which read each other's memory, or NCCL; and
 * what goes by NCCL. */
#include "kernels/cuda/host.h"

#include <sched.h>
#include <stdio.h>

/* Into a rank's links go S * (n - 1) bytes in one shot, 2 * S * (n - 1) / n in two with a meeting more (about
 * 2 us): with 2 ranks two shots move as much, with 4 half as much, with 8 a quarter. At 300 to 450 GB/s that
 * pays from some 100 KB on; published figures cross at 0.5 to 1 MB with 4 ranks and between 0.25 and 0.5 MB
 * with 6 and 8, where vLLM (csrc/custom_all_reduce.cuh) changes as well; NCCL takes over where vLLM has it.
 * Ranks that share a GPU, and have no links, take the same ways, to try them out. Measured nowhere yet:
 * `qdyno kernels --op all_reduce,reduce_add_rmsnorm` prints what it finds beside these. */
static const struct {
    int max_ranks;
    struct qd_sum_limits limits;
} LIMITS[] = {
    {2, {.one_shot_bytes = SIZE_MAX, .own_bytes = 8 << 20}},
    {4, {.one_shot_bytes = 512 << 10, .own_bytes = 512 << 10}},
    {QD_CUDA_MAX_RANKS, {.one_shot_bytes = 256 << 10, .own_bytes = 256 << 10}},
};

struct qd_sum_limits qd_cuda_sum_limits(int tp)
{
    int row = 0;
    QD_ASSERT(tp <= QD_CUDA_MAX_RANKS);
    while (tp > LIMITS[row].max_ranks) row++;
    return LIMITS[row].limits;
}

bool qd_cuda_sums_by_nccl(const struct qd_cuda *cuda, size_t bytes)
{
    if (cuda->config.collectives == QD_COLLECTIVES_NCCL) return true;
    return cuda->nccl.comm != NULL && bytes > qd_cuda_sum_limits(cuda->bootstrap.world).own_bytes;
}

bool qd_cuda_sums_in_two_shots(const struct qd_cuda *cuda, size_t bytes)
{
    if (cuda->config.shots != QD_SHOTS_AUTO) return cuda->config.shots == QD_SHOTS_TWO;
    return bytes > qd_cuda_sum_limits(cuda->bootstrap.world).one_shot_bytes;
}

/* ---- choosing ---- */

/* Whether it is so on every rank. Collective. */
static qd_status agree(const struct qd_cuda *cuda, bool mine, bool *all, char *err, size_t errlen)
{
    const struct qd_bootstrap *b = &cuda->bootstrap;
    bool of_rank[QD_CUDA_MAX_RANKS] = {false};
    QD_TRY(b->all_gather(b->ctx, b->rank, &mine, sizeof mine, of_rank, err, errlen));
    *all = true;
    for (int rank = 0; rank < b->world; rank++) *all = *all && of_rank[rank];
    return QD_OK;
}

bool qd_cuda_collectives_allow_nccl(const struct qd_device_config *config)
{
    return !config->batch_invariant && config->ranks_per_gpu <= 1;
}

qd_status qd_cuda_collectives_check(const struct qd_device_config *config, char *err, size_t errlen)
{
    if (config->collectives != QD_COLLECTIVES_NCCL || qd_cuda_collectives_allow_nccl(config)) return QD_OK;
    return qd_fail(QD_ERR_ARGUMENT, err, errlen, "with %s, collectives are own and not NCCL's",
                   config->batch_invariant ? "batch_invariant" : "several ranks on a GPU");
}

/* The collectives that are left of those wanted, all ranks knowing the same. */
static qd_status settle(struct qd_cuda *cuda, bool has_peers, const char *no_peers, bool has_nccl,
                        const char *no_nccl, char *err, size_t errlen)
{
    enum qd_collectives *collectives = &cuda->config.collectives;
    if (*collectives == QD_COLLECTIVES_OWN && !has_peers)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "own collectives need peer access: %s", no_peers);
    if (*collectives == QD_COLLECTIVES_NCCL && !has_nccl)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "%s", no_nccl);
    if (*collectives != QD_COLLECTIVES_AUTO || (has_peers && has_nccl)) return QD_OK;
    if (!has_peers && !has_nccl)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "%s, and %s", no_peers, no_nccl);
    *collectives = has_peers ? QD_COLLECTIVES_OWN : QD_COLLECTIVES_NCCL;
    if (has_peers)
        snprintf(cuda->note, sizeof cuda->note, "own collectives for every size: %s", no_nccl);
    else
        snprintf(cuda->note, sizeof cuda->note, "every collective goes by NCCL: %s", no_peers);
    return QD_OK;
}

qd_status qd_cuda_collectives_open(struct qd_cuda *cuda, bool has_peers, const char *no_peers, char *err,
                                   size_t errlen)
{
    enum qd_collectives *collectives = &cuda->config.collectives;
    char no_nccl[QD_ERR_LEN] = "NCCL is not here on another rank";
    bool has_nccl = false;
    if (!qd_cuda_collectives_allow_nccl(&cuda->config) || cuda->bootstrap.world == 1)
        *collectives = QD_COLLECTIVES_OWN;
    if (cuda->bootstrap.world == 1) return QD_OK;
    QD_TRY(agree(cuda, has_peers, &has_peers, err, errlen));
    if (*collectives != QD_COLLECTIVES_OWN) {
        has_nccl = qd_nccl_load(&cuda->nccl, no_nccl, sizeof no_nccl) == QD_OK;
        QD_TRY(agree(cuda, has_nccl, &has_nccl, err, errlen));
    }
    if (no_peers[0] == '\0') no_peers = "a GPU cannot read the memory of another one";
    QD_TRY(settle(cuda, has_peers, no_peers, has_nccl, no_nccl, err, errlen));
    return *collectives == QD_COLLECTIVES_OWN ? QD_OK
                                              : qd_nccl_open(&cuda->nccl, &cuda->bootstrap, err, errlen);
}

/* Before anything is open: any rank of the process may be one of the replica. */
qd_status qd_cuda_collectives_expect(struct qd_device_config *config, int n_gpus, char *err, size_t errlen)
{
    if (config->n_ranks == 1 || !qd_cuda_collectives_allow_nccl(config))
        config->collectives = QD_COLLECTIVES_OWN;
    if (config->collectives != QD_COLLECTIVES_AUTO) return QD_OK;
    int n_used = config->n_ranks < n_gpus ? config->n_ranks : n_gpus;
    for (int gpu = 0; gpu < n_used; gpu++)
        for (int peer = 0; peer < n_used; peer++) {
            int can = 1;
            if (peer != gpu) QD_TRY(QD_CUDA(cudaDeviceCanAccessPeer(&can, gpu, peer)));
            if (!can) config->collectives = QD_COLLECTIVES_NCCL;
        }
    return QD_OK;
}

const char *qd_cuda_collectives_name(void *ctx)
{
    static const char *const names[] = {
        [QD_COLLECTIVES_AUTO] = "auto", [QD_COLLECTIVES_OWN] = "own", [QD_COLLECTIVES_NCCL] = "nccl"};
    const struct qd_cuda *cuda = ctx;
    return cuda->bootstrap.world > 1 ? names[cuda->config.collectives] : NULL;
}

/* ---- by NCCL ---- */

int64_t qd_cuda_gathered_values(const struct qd_device_config *config)
{
    /* A rank's shard is rounded up to whole 64s. */
    const int64_t row = config->shape.vocab_size + 64 * (int64_t)QD_CUDA_MAX_RANKS;
    return config->collectives == QD_COLLECTIVES_NCCL ? row * config->limits.max_logit_rows : 0;
}

qd_status qd_cuda_gather_rows(struct qd_cuda *cuda, const void *in, int64_t n_rows, size_t row_bytes,
                              void *out)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text, world = (size_t)cuda->bootstrap.world;
    size_t room = (size_t)qd_cuda_gathered_values(&cuda->config) * sizeof *cuda->gathered;
    if (out == NULL) {
        if ((size_t)n_rows * row_bytes > room / world)
            return qd_fail(QD_ERR_TOO_LARGE, err, errlen,
                           "gathering %lld rows of %zu bytes by NCCL: room for %zu", (long long)n_rows,
                           row_bytes, room / world);
        out = cuda->gathered;
    }
    return qd_nccl_all_gather(&cuda->nccl, in, n_rows, row_bytes, out, cuda->stream, err, errlen);
}

/* NCCL waits for the end of every graph that has captured it. */
static void give_up(struct qd_cuda *cuda)
{
    qd_cuda_graph_free(cuda);
    qd_nccl_abort(&cuda->nccl);
}

/* Kernels of NCCL end early only when their own rank's thread says so. */
qd_status qd_cuda_collectives_wait(struct qd_cuda *cuda, cudaEvent_t event)
{
    if (cuda->nccl.comm == NULL) return QD_OK;
    qd_status st = QD_OK;
    bool is_abandoned = false;
    while ((event != NULL ? cudaEventQuery(event) : cudaStreamQuery(cuda->stream)) == cudaErrorNotReady) {
        st = qd_nccl_check(&cuda->nccl, cuda->text, sizeof cuda->text);
        is_abandoned = atomic_load(cuda->abandoned) != 0;
        if (st != QD_OK || is_abandoned) break;
        sched_yield();
    }
    cudaGetLastError(); /* that it was not ready is no error */
    if (st != QD_OK || is_abandoned) give_up(cuda);
    return st;
}

void qd_cuda_collectives_close(struct qd_cuda *cuda)
{
    bool is_sound = cuda->has_peers && atomic_load(cuda->abandoned) == 0;
    if (cuda->nccl.comm == NULL) return;
    if (is_sound && cudaStreamSynchronize(cuda->stream) == cudaSuccess) {
        qd_cuda_graph_free(cuda);
        qd_nccl_close(&cuda->nccl);
        return;
    }
    give_up(cuda);
}
