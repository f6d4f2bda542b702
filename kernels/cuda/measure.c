/* Time on the device, by a pair of events on the stream of the ops, and cuBLASLt on that stream. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/host.h"

qd_status qd_cuda_time_begin(void *ctx)
{
    struct qd_cuda *cuda = ctx;
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    if (cuda->time_begin == NULL)
        QD_TRY(QD_CUDA(cudaEventCreateWithFlags(&cuda->time_begin, cudaEventDefault)));
    if (cuda->time_end == NULL) QD_TRY(QD_CUDA(cudaEventCreateWithFlags(&cuda->time_end, cudaEventDefault)));
    return QD_CUDA(cudaEventRecord(cuda->time_begin, cuda->stream));
}

qd_status qd_cuda_time_end(void *ctx, int64_t *ns)
{
    struct qd_cuda *cuda = ctx;
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    float ms;
    QD_TRY(QD_CUDA(cudaEventRecord(cuda->time_end, cuda->stream)));
    QD_TRY(qd_cuda_step_wait(cuda, cuda->time_end)); /* a rank that fails must not leave this one waiting */
    QD_TRY(QD_CUDA(cudaEventElapsedTime(&ms, cuda->time_begin, cuda->time_end)));
    *ns = (int64_t)((double)ms * 1e6);
    return QD_OK;
}

void qd_cuda_time_free(struct qd_cuda *cuda)
{
    if (cuda->time_begin != NULL) cudaEventDestroy(cuda->time_begin);
    if (cuda->time_end != NULL) cudaEventDestroy(cuda->time_end);
    cuda->time_begin = cuda->time_end = NULL;
    qd_cublaslt_close(cuda->cublaslt);
    cuda->cublaslt = NULL;
}

static qd_status rival_prepare(void *ctx, int64_t m, int64_t n, int64_t k, int *n_algorithms, char *err,
                               size_t errlen)
{
    struct qd_cuda *cuda = ctx;
    if (cuda->cublaslt == NULL) QD_TRY(qd_cublaslt_open(&cuda->cublaslt, err, errlen));
    return qd_cublaslt_prepare(cuda->cublaslt, m, n, k, n_algorithms, err, errlen);
}

static int rival_algorithm(void *ctx, int i)
{
    return qd_cublaslt_algorithm(((struct qd_cuda *)ctx)->cublaslt, i);
}

static qd_status rival_run(void *ctx, int i, const qd_bf16 *a, const qd_bf16 *w, qd_bf16 *out, char *err,
                           size_t errlen)
{
    struct qd_cuda *cuda = ctx;
    return qd_cublaslt_run(cuda->cublaslt, i, a, w, out, cuda->stream, err, errlen);
}

const struct qd_rival_ops qd_cuda_rival = {
    .name = "cuBLASLt",
    .prepare = rival_prepare,
    .algorithm = rival_algorithm,
    .run = rival_run,
};
