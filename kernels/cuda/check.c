#include "kernels/cuda/check.h"

#include <stdbool.h>

/* What CUDA's documentation says of these: the process has to be ended to use the GPU again. */
static bool ends_context(cudaError_t error)
{
    switch (error) {
    case cudaErrorLaunchFailure:
#ifndef QD_EMU /* whose faults are all that one */
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
#endif
        return true;
    default: return false;
    }
}

qd_status qd_cuda_check(cudaError_t error, const char *statement, const char *file, int line, char *err,
                        size_t errlen)
{
    if (error == cudaSuccess) return QD_OK;
    int gpu = -1;
    const char *text = cudaGetErrorString(error);
    cudaGetLastError(); /* clears it, unless it ended the context */
    if (cudaGetDevice(&gpu) != cudaSuccess) cudaGetLastError();
    if (ends_context(error))
        return qd_fail(
            QD_ERR_ENVIRONMENT, err, errlen,
            "%s:%d: GPU %d: %s: %s (of this call or a kernel before it; the context of GPU %d is lost, and "
            "with it whatever this process runs there)",
            file, line, gpu, statement, text, gpu);
    return qd_fail(error == cudaErrorMemoryAllocation ? QD_ERR_NO_MEMORY : QD_ERR_ENVIRONMENT, err, errlen,
                   "%s:%d: GPU %d: %s: %s", file, line, gpu, statement, text);
}
