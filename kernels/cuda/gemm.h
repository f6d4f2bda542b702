/* The two families of GEMM kernels as qd_cuda_gemm (gemm.c) calls them: with arguments it has checked. Each
 * launches args->plan.kernel, one of its own, and returns the launch's error.
 */
#ifndef QD_KERNELS_CUDA_GEMM_H
#define QD_KERNELS_CUDA_GEMM_H

#include "kernels/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* gemm_tile.cu: QD_CUDA_GEMM_TILE_*. */
qd_status qd_cuda_gemm_tile(const struct qd_cuda_gemm_args *args, struct CUstream_st *stream, char *err,
                            size_t errlen);
size_t qd_cuda_gemm_tile_shared_bytes(enum qd_cuda_gemm_kernel kernel);

/* gemm_skinny.cu: QD_CUDA_GEMM_SKINNY_*, M up to the kernel's number of tokens. */
qd_status qd_cuda_gemm_skinny(const struct qd_cuda_gemm_args *args, struct CUstream_st *stream, char *err,
                              size_t errlen);
size_t qd_cuda_gemm_skinny_shared_bytes(enum qd_cuda_gemm_kernel kernel, int64_t m);

enum { QD_CUDA_GEMM_DIRECT_TOKENS = 16, QD_CUDA_GEMM_RING_TOKENS = 64 };

#ifdef __cplusplus
}
#endif

#endif
