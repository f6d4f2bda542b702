/* The table of the devices `cuda` and `emu`: one source, compiled against CUDA or against the emulator. */
#include "kernels/cuda/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/host.h"

enum { MAX_DIM = 8192, MAX_VOCAB = 1 << 20, MAX_GQA = 16, MIN_COMPUTE_MAJOR = 8 };

/* ---- GPUs ---- */

static qd_status count_gpus(int *out, char *err, size_t errlen)
{
    *out = 0;
    cudaError_t error = cudaGetDeviceCount(out);
    if (error == cudaSuccess && *out > 0) return QD_OK;
    cudaGetLastError();
    return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "there is no GPU that CUDA can use: %s",
                   cudaGetErrorString(error == cudaSuccess ? cudaErrorNoDevice : error));
}

qd_status qd_cuda_gpu_of_rank(int global_rank, int *gpu, char *err, size_t errlen)
{
    int n_gpus;
    QD_TRY(count_gpus(&n_gpus, err, errlen));
    *gpu = global_rank % n_gpus;
    return QD_OK;
}

/* The GPU of a rank, made the calling thread's, and its size. */
static qd_status use_gpu(int global_rank, int *gpu, struct qd_cuda_gpu_size *size, char *err, size_t errlen)
{
    int major;
    QD_TRY(qd_cuda_gpu_of_rank(global_rank, gpu, err, errlen));
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
static qd_status cuda_memory(int global_rank, struct qd_device_memory *out, char *err, size_t errlen)
{
    int gpu;
    struct qd_cuda_gpu_size size;
    QD_TRY(count_gpus(&out->n_devices, err, errlen));
    struct cudaDeviceProp properties;
    QD_TRY(use_gpu(global_rank, &gpu, &size, err, errlen));
    QD_TRY(QD_CUDA(cudaGetDeviceProperties(&properties, gpu)));
    snprintf(out->name, sizeof out->name, "%s", properties.name);
    return QD_CUDA(cudaMemGetInfo(&out->free_bytes, &out->total_bytes));
}

/* How much the driver takes for a recorded step and NCCL for its channels is known from hearsay only (vLLM's
 * logs tell of hundreds of MiB for 67 graphs, NCCL's buffers are 4 MiB a channel): to be measured. */
static void cuda_reserve(const struct qd_device_config *config, int tp, struct qd_device_reserve *out)
{
    const size_t graph_bytes = (size_t)4 << 20, collective_bytes = (size_t)256 << 20;
    *out = (struct qd_device_reserve){.collective_bytes = tp > 1 ? collective_bytes : 0};
    if (!config->enforce_eager) out->graph_bytes = (size_t)qd_cuda_graph_count(config) * graph_bytes;
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
        qd_cuda_graph_free(cuda);
        cudaStreamSynchronize(cuda->stream);
    }
    qd_cuda_step_free(cuda);
    qd_cuda_memory_free(cuda);
    if (cuda->stream != NULL) cudaStreamDestroy(cuda->stream);
    cudaGetLastError(); /* what failed before has been reported */
    free(cuda);
}

static qd_status open_context(struct qd_cuda *cuda, char *err, size_t errlen)
{
    size_t bytes;
    QD_TRY(use_gpu(cuda->config.first_rank, &cuda->gpu, &cuda->size, err, errlen));
    QD_TRY(qd_cuda_comm_open(cuda, err, errlen));
    QD_TRY(QD_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking)));
    QD_TRY(qd_cuda_working_memory(&cuda->config, cuda->size, cuda, &bytes, err, errlen));
    return qd_cuda_step_init(cuda, err, errlen);
}

static qd_status cuda_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                           void **ctx, char *err, size_t errlen)
{
    *ctx = NULL;
    char why[QD_ERR_LEN];
    if (!cuda_supports(&config->shape, bootstrap->world, config->numerics, why, sizeof why))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s", why);
    struct qd_cuda *cuda = calloc(1, sizeof *cuda);
    if (cuda == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a device context");
    cuda->config = *config;
    cuda->bootstrap = *bootstrap;
    cuda->graphs.current = -1;
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

static qd_status cuda_working_bytes(const struct qd_device_config *config, size_t *out, char *err,
                                    size_t errlen)
{
    int gpu;
    struct qd_cuda_gpu_size size;
    QD_TRY(use_gpu(config->first_rank, &gpu, &size, err, errlen));
    return qd_cuda_working_memory(config, size, NULL, out, err, errlen);
}

/* ---- memory and copies ---- */

static qd_status cuda_alloc(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    return qd_cuda_memory_alloc(ctx, bytes, out, err, errlen);
}

static qd_status cuda_alloc_host(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    return qd_cuda_memory_alloc_host(ctx, bytes, out, err, errlen);
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
    *launched = cuda->graphs.mode == QD_CUDA_REPLAY ? NULL : cuda->step.launched;
    return qd_cuda_graph_begin(cuda);
}

static qd_status cuda_end_step(void *ctx, int32_t *ids)
{
    QD_TRY(qd_cuda_graph_end(ctx));
    return qd_cuda_step_finish(ctx, ids);
}

#ifdef QD_EMU
const struct qd_device_ops qd_emu_ops = {
    .name = "emu", /* emulated GPUs live in the host's memory, so there is no `memory` */
#else
static const struct qd_device_ops cuda_ops = {
    .name = "cuda",
    .memory = cuda_memory,
    .reserve = cuda_reserve,
#endif
    .abi_version = QD_DEVICE_ABI_VERSION,
    .executes = true,
    .open = cuda_open,
    .close = cuda_close,
    .supports = cuda_supports,
    .error_text = cuda_error_text,
    .working_bytes = cuda_working_bytes,
    .alloc = cuda_alloc,
    .alloc_host = cuda_alloc_host,
    .weight_bytes = qd_cuda_weight_bytes,
    .store = &qd_cuda_store_ops,
    .copy_to_host = cuda_copy_to_host,
    .plan = cuda_plan,
    .begin_step = cuda_begin_step,
    .end_step = cuda_end_step,
    .embed = qd_cuda_op_embed,
    .rmsnorm = qd_cuda_op_rmsnorm,
    .gemm_nt = qd_cuda_op_gemm_nt,
    .silu_mul = qd_cuda_op_silu_mul,
    .qk_norm_rope_kv = qd_cuda_op_qk_norm_rope_kv,
    .attention = qd_cuda_op_attention,
    .reduce_add_rmsnorm = qd_cuda_op_reduce_add_rmsnorm,
    .sample = qd_cuda_op_sample,
    .all_gather = qd_cuda_all_gather,
    .all_reduce = qd_cuda_all_reduce_in_place,
};

#ifndef QD_EMU
/* Kernels are to be loaded when a GPU is first used, not when they are first launched: loading may wait for all that
 * runs on the GPU, and what runs may be waiting for another rank. CUDA reads this with its first call. */
__attribute__((visibility("default"))) const struct qd_device_ops *qd_cuda_device_ops(void)
{
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    return &cuda_ops;
}
#endif
