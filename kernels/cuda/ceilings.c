/* What a GPU reaches: a copy within its memory, and a large product by the kernel that qd_cuda_gemm_choose
 * takes. */
#include <stdlib.h>

#include "kernels/base/random.h"
#include "kernels/cuda/host.h"

enum {
#ifdef QD_EMU /* enough to run every line: the figures say nothing */
    COPY_BYTES = 1 << 16,
    DIM = 128,
#else
    COPY_BYTES = 1 << 29, /* ten times the largest L2 */
    DIM = 8192,
#endif
    WARM_UP = 2,
    CALLS = 10,
};

/* One measurement's memory and events; all of it is given back. */
struct bench {
    struct qd_cuda_gpu_size gpu;
    cudaStream_t stream;
    cudaEvent_t begin, end;
    void *from, *to;          /* [COPY_BYTES] */
    qd_bf16 *a, *w, *product; /* [DIM][DIM] */
};

typedef qd_status (*call_fn)(struct bench *b, char *err, size_t errlen);

static qd_status copy(struct bench *b, char *err, size_t errlen)
{
    return QD_CUDA(cudaMemcpyAsync(b->to, b->from, COPY_BYTES, cudaMemcpyDeviceToDevice, b->stream));
}

static qd_status multiply(struct bench *b, char *err, size_t errlen)
{
    const struct qd_cuda_gemm_args args = {
        .a = b->a,
        .m = DIM,
        .n = DIM,
        .k = DIM,
        .lda = DIM,
        .w = b->w,
        .epilogue = QD_EPILOGUE_STORE,
        .plan = qd_cuda_gemm_choose(DIM, DIM, DIM, false, b->gpu, false),
        .out = b->product,
        .ldo = DIM,
    };
    return qd_cuda_gemm(&args, b->stream, err, errlen);
}

/* Seconds of a call. */
static qd_status time_calls(struct bench *b, call_fn call, double *seconds, char *err, size_t errlen)
{
    float ms;
    for (int i = 0; i < WARM_UP; i++) QD_TRY(call(b, err, errlen));
    QD_TRY(QD_CUDA(cudaEventRecord(b->begin, b->stream)));
    for (int i = 0; i < CALLS; i++) QD_TRY(call(b, err, errlen));
    QD_TRY(QD_CUDA(cudaEventRecord(b->end, b->stream)));
    QD_TRY(QD_CUDA(cudaEventSynchronize(b->end)));
    QD_TRY(QD_CUDA(cudaEventElapsedTime(&ms, b->begin, b->end)));
    *seconds = (ms > 0 ? (double)ms : 1e-6) * 1e-3 / CALLS;
    return QD_OK;
}

/* Random values: products of zeros let a GPU clock higher. */
static qd_status fill(struct bench *b, qd_bf16 *matrix, char *err, size_t errlen)
{
    const size_t n = (size_t)DIM * DIM;
    qd_bf16 *host = malloc(n * sizeof *host);
    if (host == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a matrix");
    for (size_t i = 0; i < n; i++)
        host[i] = qd_bf16_from_f32(2 * qd_uniform_open(qd_philox(1, 0, i).word[0]) - 1);
    qd_status st =
        QD_CUDA(cudaMemcpyAsync(matrix, host, n * sizeof *host, cudaMemcpyHostToDevice, b->stream));
    if (st == QD_OK) st = QD_CUDA(cudaStreamSynchronize(b->stream));
    free(host);
    return st;
}

static qd_status open_bench(struct bench *b, char *err, size_t errlen)
{
    const size_t matrix = (size_t)DIM * DIM * sizeof(qd_bf16);
    void *memory;
    QD_TRY(QD_CUDA(cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking)));
    QD_TRY(QD_CUDA(cudaEventCreateWithFlags(&b->begin, cudaEventDefault)));
    QD_TRY(QD_CUDA(cudaEventCreateWithFlags(&b->end, cudaEventDefault)));
    QD_TRY(QD_CUDA(cudaMalloc(&b->from, COPY_BYTES)));
    QD_TRY(QD_CUDA(cudaMalloc(&b->to, COPY_BYTES)));
    QD_TRY(QD_CUDA(cudaMemsetAsync(b->from, 1, COPY_BYTES, b->stream)));
    QD_TRY(QD_CUDA(cudaMalloc(&memory, matrix)));
    b->a = memory;
    QD_TRY(QD_CUDA(cudaMalloc(&memory, matrix)));
    b->w = memory;
    QD_TRY(QD_CUDA(cudaMalloc(&memory, matrix)));
    b->product = memory;
    QD_TRY(fill(b, b->a, err, errlen));
    return fill(b, b->w, err, errlen);
}

static void close_bench(struct bench *b)
{
    cudaFree(b->product);
    cudaFree(b->w);
    cudaFree(b->a);
    cudaFree(b->to);
    cudaFree(b->from);
    if (b->end != NULL) cudaEventDestroy(b->end);
    if (b->begin != NULL) cudaEventDestroy(b->begin);
    if (b->stream != NULL) cudaStreamDestroy(b->stream);
    cudaGetLastError(); /* what failed before has been reported */
}

qd_status qd_cuda_ceilings(struct qd_cuda_gpu_size gpu, struct qd_device_ceilings *out, char *err,
                           size_t errlen)
{
    struct bench b = {.gpu = gpu};
    double seconds;
    qd_status st = open_bench(&b, err, errlen);
    if (st == QD_OK) st = time_calls(&b, copy, &seconds, err, errlen);
    if (st == QD_OK) out->copy_gbps = 2.0 * COPY_BYTES / seconds * 1e-9;
    if (st == QD_OK) st = time_calls(&b, multiply, &seconds, err, errlen);
    if (st == QD_OK) out->matrix_gflops = 2.0 * DIM * DIM * DIM / seconds * 1e-9;
    close_bench(&b);
    return st;
}
