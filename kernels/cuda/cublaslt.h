/* cuBLASLt, to be compared with: C = A * B^T in bf16 with fp32 accumulation, by each of the algorithms that
 * its heuristics propose. No part of a model's forward pass. The library is opened when it is wanted
 * (kernels/library.h). One handle belongs to one thread and to the GPU that was current when it was opened.
 */
#ifndef QD_KERNELS_CUDA_CUBLASLT_H
#define QD_KERNELS_CUDA_CUBLASLT_H

#include "kernels/base/bf16.h"
#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* cudaStream_t is a pointer to it */

enum {
    QD_CUBLASLT_MAX_ALGORITHMS = 16,
    QD_CUBLASLT_WORKSPACE_BYTES = 32 << 20, /* device memory that every algorithm may use */
};

typedef struct qd_cublaslt qd_cublaslt_t;

/* QD_ERR_NOT_FOUND: it is not installed; QD_ERR_ENVIRONMENT: it is, but cannot be used; QD_ERR_NO_MEMORY: no
 * room for the workspace. */
qd_status qd_cublaslt_open(qd_cublaslt_t **out, char *err, size_t errlen);
void qd_cublaslt_close(qd_cublaslt_t *lt); /* accepts NULL; no run may be under way */

const char *qd_cublaslt_path(const qd_cublaslt_t *lt); /* the file that was opened */
size_t qd_cublaslt_version(const qd_cublaslt_t *lt);   /* 130100 for 13.1.0 */

/* Asks for algorithms for c [M][N] = a [M][K] * b [N][K]^T, all row-major, contiguous and 256-byte aligned,
 * as cudaMalloc gives. *n_algorithms is 1 .. QD_CUBLASLT_MAX_ALGORITHMS, the most promising first. Replaces
 * what was prepared before. QD_ERR_ARGUMENT: a dimension below 1; QD_ERR_UNSUPPORTED: no algorithm takes this
 * shape. */
qd_status qd_cublaslt_prepare(qd_cublaslt_t *lt, int64_t m, int64_t n, int64_t k, int *n_algorithms,
                              char *err, size_t errlen);

/* The id that cuBLASLt gives algorithm i of what is prepared; several i may share one and differ in tiles. */
int qd_cublaslt_algorithm(const qd_cublaslt_t *lt, int i);

/* Puts the prepared product, by algorithm i, on the stream; device pointers. Runs of one handle share a
 * workspace: keep them on one stream. QD_ERR_ARGUMENT: there is no algorithm i. */
qd_status qd_cublaslt_run(qd_cublaslt_t *lt, int i, const qd_bf16 *a, const qd_bf16 *b, qd_bf16 *c,
                          struct CUstream_st *stream, char *err, size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
