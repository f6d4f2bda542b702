/* Time on the device, by a pair of events on the stream of the ops. */
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
    QD_TRY(QD_CUDA(cudaEventSynchronize(cuda->time_end)));
    QD_TRY(QD_CUDA(cudaEventElapsedTime(&ms, cuda->time_begin, cuda->time_end)));
    *ns = (int64_t)((double)ms * 1e6);
    return QD_OK;
}

void qd_cuda_time_free(struct qd_cuda *cuda)
{
    if (cuda->time_begin != NULL) cudaEventDestroy(cuda->time_begin);
    if (cuda->time_end != NULL) cudaEventDestroy(cuda->time_end);
    cuda->time_begin = cuda->time_end = NULL;
}
