#include "kernels/cuda/check.h"

qd_status qd_cuda_check(cudaError_t error, const char *statement, const char *file, int line, char *err,
                        size_t errlen)
{
    if (error == cudaSuccess) return QD_OK;
    int gpu = -1;
    cudaGetLastError(); /* clears it */
    if (cudaGetDevice(&gpu) != cudaSuccess) cudaGetLastError();
    return qd_fail(error == cudaErrorMemoryAllocation ? QD_ERR_NO_MEMORY : QD_ERR_ENVIRONMENT, err, errlen,
                   "%s:%d: GPU %d: %s: %s", file, line, gpu, statement, cudaGetErrorString(error));
}
