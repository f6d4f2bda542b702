/* QD_CUDA(call): a call of CUDA's runtime as a qd_status. A failure's text has file, line, GPU, statement and
 * CUDA's own words, and the thread's last error is cleared, so that cudaGetLastError does not report it
 * again. A kernel's fault stays: it has ended the GPU's context, every later call of the process fails with
 * it at once, and the text says so, since the call that tells of it need not be at fault.
 *
 *     QD_TRY(QD_CUDA(cudaMalloc(&p, bytes)));      expects `err` and `errlen` in scope
 */
#ifndef QD_KERNELS_CUDA_CHECK_H
#define QD_KERNELS_CUDA_CHECK_H

#include <cuda_runtime.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QD_CUDA(call) qd_cuda_check((call), #call, __FILE__, __LINE__, err, errlen)

/* QD_OK, QD_ERR_NO_MEMORY or, for every other error, QD_ERR_ENVIRONMENT. */
qd_status qd_cuda_check(cudaError_t error, const char *statement, const char *file, int line, char *err,
                        size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
