#include "kernels/cuda/host.h"

enum { MEETING_VALUES = 8 }; /* the least that an all-reduce takes */

/* What ranks tell each other when they open. */
struct hello {
    int gpu;
    struct qd_cuda_gpu_size size;
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

static qd_status enable_peer(struct qd_cuda *cuda, int peer_gpu, char *err, size_t errlen)
{
    int can = 0;
    QD_TRY(QD_CUDA(cudaDeviceCanAccessPeer(&can, cuda->gpu, peer_gpu)));
    if (!can)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "GPU %d cannot read the memory of GPU %d", cuda->gpu,
                       peer_gpu);
    cudaError_t error = cudaDeviceEnablePeerAccess(peer_gpu, 0);
    if (error == cudaErrorPeerAccessAlreadyEnabled) { /* by another replica's rank */
        cudaGetLastError();
        return QD_OK;
    }
    return qd_cuda_check(error, "cudaDeviceEnablePeerAccess", __FILE__, __LINE__, err, errlen);
}

/* An SM for every block that waits (each may take a whole one): those of all ranks that share a GPU. */
static qd_status choose_blocks(struct qd_cuda *cuda, char *err, size_t errlen)
{
    int per_gpu = cuda->config.ranks_per_gpu > 0 ? cuda->config.ranks_per_gpu : 1;
    cuda->peers.n_blocks = least(QD_CUDA_PEER_BLOCKS, cuda->size.n_sms / per_gpu);
    if (cuda->bootstrap.world > 1 && cuda->peers.n_blocks < 1)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen,
                       "%d ranks on a GPU of %d SMs: each needs one to wait on", per_gpu, cuda->size.n_sms);
    return QD_OK;
}

qd_status qd_cuda_comm_choose_pieces(struct qd_cuda *cuda, int64_t bytes, struct qd_cuda_pieces *out)
{
    const void *all[QD_CUDA_MAX_RANKS];
    *out = (struct qd_cuda_pieces){{NULL}};
    if (!qd_cuda_sums_in_two_shots(cuda, (size_t)bytes)) return QD_OK;
    QD_TRY(qd_cuda_memory_of_ranks(cuda, cuda->pieces, all, cuda->text, sizeof cuda->text));
    for (int rank = 0; rank < cuda->bootstrap.world; rank++)
        out->of_rank[rank] = (qd_bf16 *)(uintptr_t)all[rank];
    return QD_OK;
}

qd_status qd_cuda_comm_open(struct qd_cuda *cuda, char *err, size_t errlen)
{
    struct qd_bootstrap *b = &cuda->bootstrap;
    struct hello mine = {cuda->gpu, cuda->size}, all[QD_CUDA_MAX_RANKS] = {{0}};
    cuda->peers.rank = b->rank;
    cuda->peers.n_ranks = b->world;
    char no_peers[QD_ERR_LEN] = "";
    bool has_peers = true;
    QD_TRY(b->all_gather(b->ctx, b->rank, &mine, sizeof mine, all, err, errlen));
    for (int rank = 0; rank < b->world; rank++) {
        cuda->size.n_sms = least(cuda->size.n_sms, all[rank].size.n_sms);
        cuda->size.shared_bytes = least(cuda->size.shared_bytes, all[rank].size.shared_bytes);
        if (all[rank].gpu == cuda->gpu) continue;
        has_peers = has_peers && enable_peer(cuda, all[rank].gpu, no_peers, sizeof no_peers) == QD_OK;
    }
    QD_TRY(qd_cuda_collectives_open(cuda, has_peers, no_peers, err, errlen));
    return choose_blocks(cuda, err, errlen);
}

qd_status qd_cuda_comm_connect(struct qd_cuda *cuda, char *err, size_t errlen)
{
    const void *flags[QD_CUDA_MAX_RANKS], *scratch[QD_CUDA_MAX_RANKS];
    int self = cuda->bootstrap.rank;
    QD_TRY(qd_cuda_memory_of_ranks(cuda, cuda->peers.flags[self], flags, err, errlen));
    QD_TRY(qd_cuda_memory_of_ranks(cuda, cuda->sample_scratch[self], scratch, err, errlen));
    for (int rank = 0; rank < cuda->bootstrap.world; rank++) {
        cuda->peers.flags[rank] = (uint32_t *)(uintptr_t)flags[rank];
        cuda->sample_scratch[rank] = (void *)(uintptr_t)scratch[rank];
    }
    return QD_OK;
}

/* out [n] = sum over ranks of `data`, which is in memory that ranks know of each other. */
static qd_status reduce(struct qd_cuda *cuda, const qd_bf16 *data, int64_t n, qd_bf16 *out)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    const void *parts[QD_CUDA_MAX_RANKS];
    struct qd_cuda_all_reduce_args args = {.n = n, .peers = cuda->peers, .out = out};
    QD_TRY(qd_cuda_memory_of_ranks(cuda, data, parts, err, errlen));
    for (int rank = 0; rank < cuda->bootstrap.world; rank++) args.parts[rank] = parts[rank];
    QD_TRY(qd_cuda_comm_choose_pieces(cuda, n * (int64_t)sizeof *data, &args.pieces));
    return qd_cuda_all_reduce(&args, qd_cuda_launch_stream(cuda), err, errlen);
}

qd_status qd_cuda_comm_meet(struct qd_cuda *cuda)
{
    /* NCCL's kernels read no memory but their own rank's. */
    if (cuda->bootstrap.world == 1 || cuda->config.collectives == QD_COLLECTIVES_NCCL) return QD_OK;
    return reduce(cuda, cuda->reduced, MEETING_VALUES, cuda->reduced + MEETING_VALUES);
}

/* In pieces, each summed elsewhere and copied over its terms: every rank has read them by then. */
qd_status qd_cuda_all_reduce_in_place(void *ctx, const struct qd_all_reduce_args *args)
{
    struct qd_cuda *cuda = ctx;
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    if (cuda->bootstrap.world == 1) return QD_OK;
    if (qd_cuda_sums_by_nccl(cuda, (size_t)args->n * sizeof *args->data))
        return qd_nccl_all_reduce(&cuda->nccl, args->data, args->data, args->n, cuda->stream, err, errlen);
    for (int64_t begin = 0; begin < args->n; begin += QD_CUDA_REDUCE_VALUES) {
        int64_t left = args->n - begin, n = left < QD_CUDA_REDUCE_VALUES ? left : QD_CUDA_REDUCE_VALUES;
        QD_TRY(reduce(cuda, args->data + begin, n, cuda->reduced));
        QD_TRY(QD_CUDA(cudaMemcpyAsync(args->data + begin, cuda->reduced, (size_t)n * sizeof *args->data,
                                       cudaMemcpyDeviceToDevice, cuda->stream)));
    }
    return QD_OK;
}

/* Only logits that were asked for come this way, so the hosts may wait for each other. */
static qd_status meet_on_host(struct qd_cuda *cuda)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    struct qd_bootstrap *b = &cuda->bootstrap;
    QD_TRY(qd_cuda_step_wait(cuda, NULL));
    return b->barrier(b->ctx, b->rank, err, errlen);
}

qd_status qd_cuda_all_gather(void *ctx, const struct qd_all_gather_args *args)
{
    struct qd_cuda *cuda = ctx;
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    const void *parts[QD_CUDA_MAX_RANKS];
    if (cuda->config.collectives == QD_COLLECTIVES_NCCL)
        return qd_cuda_gather_rows(cuda, args->in, 1, args->bytes, args->out);
    QD_TRY(qd_cuda_memory_of_ranks(cuda, args->in, parts, err, errlen));
    QD_TRY(meet_on_host(cuda));
    for (int rank = 0; rank < cuda->bootstrap.world && args->out != NULL; rank++)
        QD_TRY(QD_CUDA(cudaMemcpyAsync((unsigned char *)args->out + (size_t)rank * args->bytes, parts[rank],
                                       args->bytes, cudaMemcpyDefault, cuda->stream)));
    return meet_on_host(cuda);
}
