#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cuda/host.h"
#include "kernels/cuda/step_unpack.h"

#ifdef QD_EMU
#include "kernels/emu/mode.h"
#endif

enum { ALIGNMENT = 256 };

/* What there was when there was too little. */
static qd_status no_memory(size_t bytes, char *err, size_t errlen)
{
    int gpu = -1;
    size_t free_bytes = 0, total_bytes = 0;
    cudaGetLastError(); /* clears it */
    if (cudaGetDevice(&gpu) != cudaSuccess || cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess)
        cudaGetLastError();
    return qd_fail(QD_ERR_NO_MEMORY, err, errlen,
                   "GPU %d has no %zu bytes (%.3f GiB): %zu (%.3f GiB) of its %zu (%.3f GiB) are free", gpu,
                   bytes, (double)bytes / 0x1p30, free_bytes, (double)free_bytes / 0x1p30, total_bytes,
                   (double)total_bytes / 0x1p30);
}

qd_status qd_cuda_allocate_zeroed(cudaStream_t stream, size_t bytes, void **out, char *err, size_t errlen)
{
    *out = NULL;
#ifdef QD_EMU
    /* A pool that nobody fills shall take no memory of the host. */
    enum { SPARSE_BYTES = 64 << 20 };
    if (bytes >= SPARSE_BYTES) return QD_CUDA((cudaError_t)qd_emu_malloc_sparse(out, bytes));
#endif
    cudaError_t error = cudaMalloc(out, bytes > 0 ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) return no_memory(bytes, err, errlen);
    QD_TRY(qd_cuda_check(error, "cudaMalloc", __FILE__, __LINE__, err, errlen));
    qd_status st = QD_CUDA(cudaMemsetAsync(*out, 0, bytes, stream));
    if (st == QD_OK) return QD_OK;
    cudaFree(*out);
    *out = NULL;
    return st;
}

qd_status qd_cuda_allocate_host(size_t bytes, void **out, char *err, size_t errlen)
{
    *out = NULL;
    cudaError_t error = cudaMallocHost(out, bytes > 0 ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* clears it */
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen,
                       "the host page-locks no %zu bytes (%.3f GiB): ulimit -l, or its memory", bytes,
                       (double)bytes / 0x1p30);
    }
    return qd_cuda_check(error, "cudaMallocHost", __FILE__, __LINE__, err, errlen);
}

qd_status qd_cuda_memory_alloc(struct qd_cuda *cuda, size_t bytes, void **out, char *err, size_t errlen)
{
    struct qd_cuda_memory *memory = &cuda->memory;
    if (cuda->has_peers || memory->n_blocks == QD_CUDA_MAX_BLOCKS)
        return qd_fail(QD_ERR_FULL, err, errlen, "allocation %d of a rank, %s", memory->n_blocks,
                       cuda->has_peers ? "after its first step" : "which has room for fewer");
    void *data;
    QD_TRY(qd_cuda_allocate_zeroed(cuda->stream, bytes, &data, err, errlen));
    memory->blocks[memory->n_blocks].data = data;
    memory->blocks[memory->n_blocks++].bytes = bytes;
    *out = data;
    return QD_OK;
}

qd_status qd_cuda_memory_alloc_host(struct qd_cuda *cuda, size_t bytes, void **out, char *err, size_t errlen)
{
    struct qd_cuda_memory *memory = &cuda->memory;
    if (memory->n_host == QD_CUDA_MAX_BLOCKS)
        return qd_fail(QD_ERR_FULL, err, errlen, "%d host allocations of a rank", memory->n_host);
    void *data;
    QD_TRY(qd_cuda_allocate_host(bytes, &data, err, errlen));
    memory->host[memory->n_host++] = data;
    memset(data, 0, bytes);
    *out = data;
    return QD_OK;
}

qd_status qd_cuda_memory_upload(struct qd_cuda *cuda, void *data, const void *host, size_t bytes, char *err,
                                size_t errlen)
{
    QD_TRY(QD_CUDA(cudaMemcpyAsync(data, host, bytes, cudaMemcpyHostToDevice, cuda->stream)));
    return QD_CUDA(cudaStreamSynchronize(cuda->stream));
}

void qd_cuda_memory_free(struct qd_cuda *cuda)
{
    for (int i = 0; i < cuda->memory.n_blocks; i++) cudaFree(cuda->memory.blocks[i].data);
    for (int i = 0; i < cuda->memory.n_host; i++) cudaFreeHost(cuda->memory.host[i]);
    cuda->memory = (struct qd_cuda_memory){0};
}

/* What a rank tells the others: its allocations in order. */
struct told {
    int n_blocks;
    unsigned char *data[QD_CUDA_MAX_BLOCKS];
    size_t bytes[QD_CUDA_MAX_BLOCKS];
};

/* What this rank has more than another one has no counterpart there. */
static void keep(struct qd_cuda_memory *memory, const struct told *told, int rank)
{
    for (int i = 0; i < memory->n_blocks; i++) {
        bool same = i < told->n_blocks && told->bytes[i] == memory->blocks[i].bytes;
        memory->blocks[i].of_rank[rank] = same ? told->data[i] : NULL;
    }
}

qd_status qd_cuda_memory_exchange(struct qd_cuda *cuda, char *err, size_t errlen)
{
    struct qd_bootstrap *b = &cuda->bootstrap;
    struct qd_cuda_memory *memory = &cuda->memory;
    struct told mine = {.n_blocks = memory->n_blocks}, all[QD_CUDA_MAX_RANKS] = {{0}};
    for (int i = 0; i < memory->n_blocks; i++) {
        mine.data[i] = memory->blocks[i].data;
        mine.bytes[i] = memory->blocks[i].bytes;
    }
    /* What is zeroed at first is zero before any other rank can write to it. */
    QD_TRY(QD_CUDA(cudaStreamSynchronize(cuda->stream)));
    QD_TRY(b->all_gather(b->ctx, b->rank, &mine, sizeof mine, all, err, errlen));
    for (int rank = 0; rank < b->world; rank++) keep(memory, &all[rank], rank);
    cuda->has_peers = true;
    return QD_OK;
}

qd_status qd_cuda_memory_of_ranks(const struct qd_cuda *cuda, const void *mine, const void **all, char *err,
                                  size_t errlen)
{
    uintptr_t at = (uintptr_t)mine;
    for (int i = 0; i < cuda->memory.n_blocks; i++) {
        uintptr_t begin = (uintptr_t)cuda->memory.blocks[i].data;
        if (at < begin || at - begin >= cuda->memory.blocks[i].bytes) continue;
        for (int rank = 0; rank < cuda->bootstrap.world; rank++) {
            const unsigned char *peer = cuda->memory.blocks[i].of_rank[rank];
            if (peer == NULL)
                return qd_fail(QD_ERR_INTERNAL, err, errlen, "rank %d has no counterpart of allocation %d",
                               rank, i);
            all[rank] = peer + (at - begin);
        }
        return QD_OK;
    }
    return qd_fail(QD_ERR_INTERNAL, err, errlen, "%p is in no allocation of this rank", mine);
}

/* ---- the context's own memory ---- */

/* Placing runs twice: first it counts, then `base` is known. */
struct layout {
    unsigned char *base;
    size_t bytes;
    bool overflow;
};

static void *take(struct layout *l, int64_t n, size_t element_bytes)
{
    size_t begin = qd_round_up(l->bytes, ALIGNMENT), bytes;
    if (!qd_size_mul((size_t)n, element_bytes, &bytes) || !qd_size_add(begin, bytes, &l->bytes))
        l->overflow = true;
    return l->base != NULL ? l->base + begin : NULL;
}

/* Bytes of fp32 slices that any step's projection [m][n] of inputs [m][k] may leave. */
static size_t slice_bytes(const struct qd_device_config *config, struct qd_cuda_gpu_size size, int64_t n,
                          int64_t k)
{
    int64_t most = 0;
    for (int64_t m = 1; m <= config->limits.max_tokens; m++) {
        int64_t slices = qd_cuda_gemm_choose(m, n, k, true, size, config->batch_invariant).n_slices;
        if (slices > 1 && slices * m > most) most = slices * m;
    }
    return (size_t)most * (size_t)n * sizeof(float);
}

/* The largest of the three projections whose readers take slices. */
static size_t largest_slices(const struct qd_device_config *config, struct qd_cuda_gpu_size size)
{
    const struct qd_model_shape *s = &config->shape;
    int64_t hd = s->head_dim, ffn = (int64_t)qd_round_up((size_t)s->ffn_dim, 64);
    const int64_t shapes[][2] = {{(s->n_heads + 2 * (int64_t)s->n_kv_heads) * hd, s->hidden_dim},
                                 {s->hidden_dim, s->n_heads * hd},
                                 {s->hidden_dim, ffn}};
    size_t most = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        size_t bytes = slice_bytes(config, size, shapes[i][0], shapes[i][1]);
        if (bytes > most) most = bytes;
    }
    return most;
}

static void place_step(struct layout *l, const struct qd_device_config *config, struct qd_cuda *cuda)
{
    const struct qd_step_limits *limits = &config->limits;
    struct qd_cuda_step *step = &cuda->step;
    int64_t half = config->shape.head_dim / 2;
    step->at.token_source = take(l, limits->max_tokens, sizeof(int32_t));
    step->at.position = take(l, limits->max_tokens, sizeof(int32_t));
    step->at.slot_mapping = take(l, limits->max_tokens, sizeof(int64_t));
    step->at.cu_seqlens_q = take(l, (int64_t)limits->max_seqs + 1, sizeof(int32_t));
    step->at.kv_len = take(l, limits->max_seqs, sizeof(int32_t));
    step->at.block_offset = take(l, (int64_t)limits->max_seqs + 1, sizeof(int32_t));
    step->at.block_table = take(l, limits->max_blocks, sizeof(int32_t));
    step->at.logit_row = take(l, limits->max_logit_rows, sizeof(int32_t));
    step->at.sampling = take(l, limits->max_logit_rows, sizeof(struct qd_sampling));
    step->at.plan = take(l, (int64_t)step->plan_bytes, 1);
    step->upload = take(l,
                        (int64_t)(QD_CUDA_MAX_PARTS * sizeof(struct qd_cuda_unpack_part) + step->step_bytes +
                                  step->plan_bytes),
                        1);
    step->cos = take(l, config->max_model_len, (size_t)half * sizeof(float));
    step->sin = take(l, config->max_model_len, (size_t)half * sizeof(float));
    step->sampled = take(l, limits->max_seqs, sizeof(int32_t));
    step->ids = take(l, limits->max_logit_rows, sizeof(int32_t));
}

/* Pieces of two-shot launches; how many ranks a replica has is not known here, and the fewest that take two
 * shots need the most. */
static size_t piece_bytes(const struct qd_device_config *config)
{
    const int fewest_ranks = config->shots == QD_SHOTS_TWO ? 2 : 3;
    if (config->n_ranks < fewest_ranks) return 0;
    size_t of_rows = qd_cuda_reduce_add_rmsnorm_piece_bytes(config->limits.max_tokens,
                                                            config->shape.hidden_dim, fewest_ranks);
    size_t of_sums = qd_cuda_all_reduce_piece_bytes(QD_CUDA_REDUCE_VALUES, fewest_ranks);
    return of_rows > of_sums ? of_rows : of_sums;
}

static void place(struct layout *l, const struct qd_device_config *config, size_t slices,
                  struct qd_cuda *cuda)
{
    place_step(l, config, cuda);
    cuda->attention_parts =
        take(l, (int64_t)qd_cuda_attention_parts_bytes(&cuda->attention, &cuda->attention_capacity), 1);
    for (int i = 0; i < QD_CUDA_N_SLICE_BUFFERS; i++) cuda->slices[i] = take(l, (int64_t)slices, 1);
    int rank = cuda->bootstrap.rank;
    cuda->peers.epoch = take(l, QD_CUDA_PEER_BLOCKS, sizeof(uint32_t));
    cuda->peers.flags[rank] = take(l, QD_CUDA_PEER_BLOCKS * QD_CUDA_MAX_RANKS, sizeof(uint32_t));
    cuda->sample_scratch[rank] =
        take(l, (int64_t)qd_cuda_sample_scratch_bytes(config->limits.max_logit_rows), 1);
    cuda->gathered = take(l, qd_cuda_gathered_values(config), sizeof *cuda->gathered);
    cuda->reduced = take(l, config->n_ranks > 1 ? QD_CUDA_REDUCE_VALUES : 0, sizeof(qd_bf16));
    cuda->pieces = take(l, (int64_t)piece_bytes(config), 1);
}

qd_status qd_cuda_working_memory(const struct qd_device_config *config, struct qd_cuda_gpu_size size,
                                 struct qd_cuda *cuda, size_t *bytes, char *err, size_t errlen)
{
    const struct qd_step_limits *limits = &config->limits;
    struct qd_cuda *target = cuda != NULL ? cuda : calloc(1, sizeof *target);
    if (target == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a device context");
    target->attention = (struct qd_cuda_attention_config){.n_heads = config->shape.n_heads,
                                                          .n_kv_heads = config->shape.n_kv_heads,
                                                          .head_dim = config->shape.head_dim,
                                                          .n_sms = size.n_sms,
                                                          .batch_invariant = config->batch_invariant};
    target->attention_capacity = qd_cuda_attention_capacity(&target->attention, limits);
    target->step.step_bytes = qd_step_capacity(limits);
    target->step.plan_bytes = qd_cuda_attention_plan_bytes(&target->attention_capacity);
    size_t slices = largest_slices(config, size);
    struct layout l = {0};
    place(&l, config, slices, target);
    *bytes = l.bytes;
    if (cuda == NULL) free(target);
    if (l.overflow || qd_step_capacity(limits) == 0 || limits->max_tokens < 1 || limits->max_seqs < 1)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "limits of %d tokens and %d sequences a step",
                       limits->max_tokens, limits->max_seqs);
    if (cuda == NULL) return QD_OK;
    void *base;
    QD_TRY(qd_cuda_memory_alloc(cuda, l.bytes, &base, err, errlen));
    l = (struct layout){.base = base};
    place(&l, config, slices, cuda);
    return QD_OK;
}
