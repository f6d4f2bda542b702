/* The table of the devices `cuda` and `emu`: one source, compiled against CUDA or against the emulator. */
#include "kernels/cuda/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cuda/host.h"
#include "kernels/cuda/numa.h"

enum { MAX_DIM = 8192, MAX_VOCAB = 1 << 20, MAX_GQA = 16, MIN_COMPUTE_MAJOR = 8 };

/* ---- GPUs ---- */

/* CUDA calls a missing driver an old one. */
static const char *why_no_gpu(cudaError_t error)
{
#ifndef QD_EMU
    int driver = 0;
    if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
        return "there is no NVIDIA driver (qdyno doctor says which one this build needs)";
#endif
    return cudaGetErrorString(error == cudaSuccess ? cudaErrorNoDevice : error);
}

static qd_status count_gpus(int *out, char *err, size_t errlen)
{
    *out = 0;
    cudaError_t error = cudaGetDeviceCount(out);
    if (error == cudaSuccess && *out > 0) return QD_OK;
    cudaGetLastError();
    return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "there is no GPU that CUDA can use: %s", why_no_gpu(error));
}

/* A GPU that is shared unasked is refused, also among replicas: with several ranks each they could wait for
 * each other's SMs in a circle. */
qd_status qd_cuda_gpu_of_rank(int global_rank, int n_ranks, int ranks_per_gpu, int *gpu, char *err, size_t errlen)
{
    int n_gpus, per_gpu = ranks_per_gpu > 0 ? ranks_per_gpu : 1;
    QD_TRY(count_gpus(&n_gpus, err, errlen));
    *gpu = global_rank / per_gpu;
    if (*gpu < n_gpus) return QD_OK;
    return qd_fail(QD_ERR_ENVIRONMENT, err, errlen,
                   "%d ranks need %lld GPUs, there %s %d: fewer ranks, or --ranks-per-gpu %lld", n_ranks,
                   (long long)qd_div_up(n_ranks, per_gpu), n_gpus == 1 ? "is" : "are", n_gpus,
                   (long long)qd_div_up(n_ranks, n_gpus));
}

/* The GPU of a rank, made the calling thread's, and its size. */
static qd_status use_gpu(const struct qd_device_config *config, int *gpu, struct qd_cuda_gpu_size *size,
                         char *err, size_t errlen)
{
    int major;
    QD_TRY(qd_cuda_gpu_of_rank(config->first_rank, config->n_ranks, config->ranks_per_gpu, gpu, err, errlen));
    QD_TRY(QD_CUDA(cudaSetDevice(*gpu)));
    QD_TRY(QD_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, *gpu)));
    QD_TRY(QD_CUDA(cudaDeviceGetAttribute(&size->n_sms, cudaDevAttrMultiProcessorCount, *gpu)));
    QD_TRY(
        QD_CUDA(cudaDeviceGetAttribute(&size->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, *gpu)));
    if (major < MIN_COMPUTE_MAJOR)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "GPU %d has compute capability %d: %d is the least",
                       *gpu, major, MIN_COMPUTE_MAJOR);
    return QD_OK;
}

#ifndef QD_EMU
static qd_status cuda_memory(const struct qd_device_config *config, struct qd_device_memory *out, char *err,
                             size_t errlen)
{
    int gpu;
    struct qd_cuda_gpu_size size;
    QD_TRY(count_gpus(&out->n_devices, err, errlen));
    struct cudaDeviceProp properties;
    QD_TRY(use_gpu(config, &gpu, &size, err, errlen));
    QD_TRY(QD_CUDA(cudaGetDeviceProperties(&properties, gpu)));
    snprintf(out->name, sizeof out->name, "%s", properties.name);
    return QD_CUDA(cudaMemGetInfo(&out->free_bytes, &out->total_bytes));
}

/* The rank's thread, and with it the page-locked memory that it touches first, go beside the GPU. */
static qd_status go_near(int gpu, char *err, size_t errlen)
{
    struct cudaDeviceProp prop;
    char pci_id[32];
    QD_TRY(QD_CUDA(cudaGetDeviceProperties(&prop, gpu)));
    snprintf(pci_id, sizeof pci_id, "%04x:%02x:%02x.0", (unsigned)prop.pciDomainID, (unsigned)prop.pciBusID,
             (unsigned)prop.pciDeviceID);
    (void)qd_cuda_numa_bind("", pci_id); /* where it cannot be told, the thread stays as it is */
    return QD_OK;
}
#endif

/* ---- what is supported ---- */

static qd_status check_dims(const struct qd_model_shape *s, char *why, size_t why_len)
{
    if (s->hidden_dim < 1 || s->ffn_dim < 1 || s->vocab_size < 1 || s->n_layers < 1 || s->n_heads < 1 ||
        s->n_kv_heads < 1)
        return qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "a dimension of the model is not positive");
    if (s->hidden_dim % 64 != 0 || s->hidden_dim > MAX_DIM)
        return qd_fail(QD_ERR_UNSUPPORTED, why, why_len,
                       "hidden size %lld: it must be a multiple of 64 up to %d", (long long)s->hidden_dim,
                       MAX_DIM);
    if (s->ffn_dim % 8 != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, why, why_len,
                       "an intermediate size of %lld a rank: it must be a multiple of 8",
                       (long long)s->ffn_dim);
    if (s->vocab_size > MAX_VOCAB)
        return qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "a vocabulary of %lld ids: %d are the most",
                       (long long)s->vocab_size, MAX_VOCAB);
    return QD_OK;
}

static qd_status check_heads(const struct qd_model_shape *s, char *why, size_t why_len)
{
    if (s->head_dim != 64 && s->head_dim != 128)
        return qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "head_dim %d: it must be 64 or 128", s->head_dim);
    if (s->n_heads % s->n_kv_heads != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "%d query heads are no multiple of %d KV heads",
                       s->n_heads, s->n_kv_heads);
    if (s->n_heads / s->n_kv_heads > MAX_GQA)
        return qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "%d query heads for each KV head: %d are the most",
                       s->n_heads / s->n_kv_heads, MAX_GQA);
    return QD_OK;
}

static bool cuda_supports(const struct qd_model_shape *shape, int tp, enum qd_numerics numerics, char *why,
                          size_t why_len)
{
    (void)numerics;
    qd_status st = QD_OK;
    if (tp < 1 || tp > QD_CUDA_MAX_RANKS)
        st = qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "%d ranks: it is 1 to %d", tp, QD_CUDA_MAX_RANKS);
    if (st == QD_OK) st = check_dims(shape, why, why_len);
    if (st == QD_OK) st = check_heads(shape, why, why_len);
    return st == QD_OK;
}

/* ---- lifecycle ---- */

static void cuda_close(void *ctx)
{
    struct qd_cuda *cuda = ctx;
    if (cuda == NULL) return;
    if (cuda->stream != NULL) {
        qd_cuda_collectives_close(cuda);
        qd_cuda_graph_free(cuda);
        cudaStreamSynchronize(cuda->stream);
    }
    qd_cuda_timing_free(cuda);
    qd_cuda_time_free(cuda);
    qd_cuda_step_free(cuda);
    qd_cuda_memory_free(cuda);
    if (cuda->stream != NULL) cudaStreamDestroy(cuda->stream);
    cudaGetLastError(); /* what failed before has been reported */
    free(cuda);
}

static qd_status open_context(struct qd_cuda *cuda, char *err, size_t errlen)
{
    size_t bytes;
    QD_TRY(use_gpu(&cuda->config, &cuda->gpu, &cuda->size, err, errlen));
#ifndef QD_EMU
    QD_TRY(go_near(cuda->gpu, err, errlen));
#endif
    QD_TRY(qd_cuda_comm_open(cuda, err, errlen));
    QD_TRY(QD_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking)));
    QD_TRY(qd_cuda_working_memory(&cuda->config, cuda->size, cuda, &bytes, err, errlen));
    qd_cuda_graph_init(cuda);
    QD_TRY(qd_cuda_timing_init(cuda, err, errlen));
    return qd_cuda_step_init(cuda, err, errlen);
}

static qd_status cuda_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                           void **ctx, char *err, size_t errlen)
{
    *ctx = NULL;
    char why[QD_ERR_LEN];
    if (!cuda_supports(&config->shape, bootstrap->world, config->numerics, why, sizeof why))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s", why);
    QD_TRY(qd_cuda_collectives_check(config, err, errlen));
    struct qd_cuda *cuda = calloc(1, sizeof *cuda);
    if (cuda == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a device context");
    cuda->config = *config;
    cuda->bootstrap = *bootstrap;
    qd_status st = open_context(cuda, err, errlen);
    if (st != QD_OK) {
        cuda_close(cuda);
        return st;
    }
    *ctx = cuda;
    return QD_OK;
}

static const char *cuda_error_text(void *ctx)
{
    return ((struct qd_cuda *)ctx)->text;
}

static void cuda_abandon(void *ctx)
{
    atomic_store(((struct qd_cuda *)ctx)->abandoned, 1);
}

static const char *cuda_note(void *ctx)
{
    return ((const struct qd_cuda *)ctx)->note;
}

static const char *cuda_waits_for(void *ctx)
{
    return atomic_load(&((struct qd_cuda *)ctx)->waits_for);
}

static qd_status cuda_working_bytes(const struct qd_device_config *config, size_t *out, char *err,
                                    size_t errlen)
{
    int gpu, n_gpus;
    struct qd_cuda_gpu_size size;
    struct qd_device_config expected = *config;
    QD_TRY(qd_cuda_collectives_check(config, err, errlen));
    QD_TRY(use_gpu(config, &gpu, &size, err, errlen));
    QD_TRY(count_gpus(&n_gpus, err, errlen));
    QD_TRY(qd_cuda_collectives_expect(&expected, n_gpus, err, errlen));
    return qd_cuda_working_memory(&expected, size, NULL, out, err, errlen);
}

/* The GPU of a rank that shares none. */
static qd_status use_own_gpu(int first_rank, int *gpu, struct qd_cuda_gpu_size *size, char *err, size_t errlen)
{
    const struct qd_device_config config = {.first_rank = first_rank, .n_ranks = first_rank + 1};
    return use_gpu(&config, gpu, size, err, errlen);
}

static qd_status cuda_cache_bytes(int first_rank, size_t *out, char *err, size_t errlen)
{
    int gpu, bytes;
    struct qd_cuda_gpu_size size;
    QD_TRY(use_own_gpu(first_rank, &gpu, &size, err, errlen));
    QD_TRY(QD_CUDA(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, gpu)));
    *out = (size_t)bytes;
    return QD_OK;
}

static qd_status cuda_ceilings(int first_rank, struct qd_device_ceilings *out, char *err, size_t errlen)
{
    int gpu;
    struct qd_cuda_gpu_size size;
    QD_TRY(use_own_gpu(first_rank, &gpu, &size, err, errlen));
    return qd_cuda_ceilings(size, out, err, errlen);
}

#ifndef QD_EMU
static qd_status cuda_pci_bus_id(int first_rank, char *out, size_t len, char *err, size_t errlen)
{
    int gpu;
    struct qd_cuda_gpu_size size;
    QD_TRY(use_own_gpu(first_rank, &gpu, &size, err, errlen));
    return QD_CUDA(cudaDeviceGetPCIBusId(out, (int)len, gpu));
}
#endif

/* ---- memory and copies ---- */

static qd_status cuda_alloc(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    return qd_cuda_memory_alloc(ctx, bytes, out, err, errlen);
}

static qd_status cuda_alloc_host(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    return qd_cuda_memory_alloc_host(ctx, bytes, out, err, errlen);
}

static qd_status cuda_upload(void *ctx, void *data, const void *host, size_t bytes, char *err, size_t errlen)
{
    return qd_cuda_memory_upload(ctx, data, host, bytes, err, errlen);
}

static qd_status cuda_copy_to_host(void *ctx, const struct qd_copy_to_host_args *args)
{
    struct qd_cuda *cuda = ctx;
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    if (args->n_rows == 0) return QD_OK;
    return QD_CUDA(cudaMemcpy2DAsync(args->host, args->host_stride, args->data, args->stride, args->row_bytes,
                                     args->n_rows, cudaMemcpyDeviceToHost, cuda->stream));
}

/* ---- steps ---- */

static qd_status cuda_plan(void *ctx, const struct qd_plan_args *args)
{
    return qd_cuda_step_plan(ctx, args);
}

static qd_status cuda_begin_step(void *ctx, const struct qd_step **launched)
{
    struct qd_cuda *cuda = ctx;
    *launched = cuda->graphs.mode == QD_CUDA_REPLAY ? NULL : cuda->step.slot->launched;
    return qd_cuda_graph_begin(cuda);
}

static qd_status cuda_end_step(void *ctx)
{
    QD_TRY(qd_cuda_graph_end(ctx));
    return qd_cuda_step_submit(ctx);
}

static qd_status cuda_finish_step(void *ctx, int32_t *ids)
{
    return qd_cuda_step_finish(ctx, ids);
}

static void cuda_stats(void *ctx, struct qd_device_stats *out)
{
    *out = ((const struct qd_cuda *)ctx)->stats;
}

/* ---- ops, timed where asked for ---- */

#define TIMED_OP(op, function, segment)                                                                      \
    static qd_status timed_##op(void *ctx, const struct qd_##op##_args *args)                                \
    {                                                                                                        \
        QD_TRY(qd_cuda_timing_begin_op(ctx, segment));                                                       \
        QD_TRY(function(ctx, args));                                                                         \
        return qd_cuda_timing_end_op(ctx);                                                                   \
    }

TIMED_OP(embed, qd_cuda_op_embed, QD_SEGMENT_NORM_ROPE)
TIMED_OP(rmsnorm, qd_cuda_op_rmsnorm, QD_SEGMENT_NORM_ROPE)
TIMED_OP(gemm_nt, qd_cuda_op_gemm_nt, QD_SEGMENT_LINEAR)
TIMED_OP(silu_mul, qd_cuda_op_silu_mul, QD_SEGMENT_LINEAR)
TIMED_OP(qk_norm_rope_kv, qd_cuda_op_qk_norm_rope_kv, QD_SEGMENT_NORM_ROPE)
TIMED_OP(attention, qd_cuda_op_attention, QD_SEGMENT_ATTENTION)
TIMED_OP(reduce_add_rmsnorm, qd_cuda_op_reduce_add_rmsnorm,
         args->partial.cross_rank ? QD_SEGMENT_COLLECTIVE : QD_SEGMENT_NORM_ROPE)
TIMED_OP(sample, qd_cuda_op_sample, QD_SEGMENT_SAMPLING)
TIMED_OP(all_gather, qd_cuda_all_gather, QD_SEGMENT_COLLECTIVE)
TIMED_OP(all_reduce, qd_cuda_all_reduce_in_place, QD_SEGMENT_COLLECTIVE)

#ifndef QD_EMU
static const struct qd_device_build cuda_build = {.cuda = CUDART_VERSION, .architectures = QD_CUDA_ARCHITECTURES};
#endif

#ifdef QD_EMU
const struct qd_device_ops qd_emu_ops = {
    .name = "emu", /* emulated GPUs live in the host's memory, so there is no `memory` */
#else
static const struct qd_device_ops cuda_ops = {
    .name = "cuda",
    .build = &cuda_build,
    .memory = cuda_memory,
    .reserve = qd_cuda_reserve,
    .step_ended = qd_cuda_step_ended, /* asking emulated GPUs keeps them from running */
    .pci_bus_id = cuda_pci_bus_id,
    .rival = &qd_cuda_rival,
#endif
    .abi_version = QD_DEVICE_ABI_VERSION,
    .executes = true,
    .open = cuda_open,
    .close = cuda_close,
    .supports = cuda_supports,
    .error_text = cuda_error_text,
    .abandon = cuda_abandon,
    .waits_for = cuda_waits_for,
    .note = cuda_note,
    .collectives = qd_cuda_collectives_name,
    .working_bytes = cuda_working_bytes,
    .alloc = cuda_alloc,
    .alloc_host = cuda_alloc_host,
    .weight_bytes = qd_cuda_weight_bytes,
    .store = &qd_cuda_store_ops,
    .upload = cuda_upload,
    .copy_to_host = cuda_copy_to_host,
    .plan = cuda_plan,
    .begin_step = cuda_begin_step,
    .end_step = cuda_end_step,
    .finish_step = cuda_finish_step,
    .warm_up_step = qd_cuda_graph_warm_up_step,
    .stats = cuda_stats,
    .time_begin = qd_cuda_time_begin,
    .time_end = qd_cuda_time_end,
    .cache_bytes = cuda_cache_bytes,
    .ceilings = cuda_ceilings,
    .embed = timed_embed,
    .rmsnorm = timed_rmsnorm,
    .gemm_nt = timed_gemm_nt,
    .silu_mul = timed_silu_mul,
    .qk_norm_rope_kv = timed_qk_norm_rope_kv,
    .attention = timed_attention,
    .reduce_add_rmsnorm = timed_reduce_add_rmsnorm,
    .sample = timed_sample,
    .all_gather = timed_all_gather,
    .all_reduce = timed_all_reduce,
    .sum_limits = qd_cuda_sum_limits,
};

#ifndef QD_EMU
/* Kernels are to be loaded when a GPU is first used, not when they are first launched: loading may wait for
 * all that runs on the GPU, and what runs may be waiting for another rank. And ranks that share a GPU must
 * not share one of its queues, in which a kernel waits for the one before. CUDA reads these with its first
 * call. */
__attribute__((visibility("default"))) const struct qd_device_ops *qd_cuda_device_ops(void)
{
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
    return &cuda_ops;
}
#endif
