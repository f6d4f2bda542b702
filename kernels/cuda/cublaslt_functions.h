/* The functions of cuBLASLt that cublaslt.c calls, declared without cublasLt.h: X(result, member, symbol,
 * arguments). tests/kernels/library_real.c holds list, values and structures to cublasLt.h where that is
 * installed; `desc`, `layout`, `preference`, `algo` and `heuristic` are the names of five structures, ours or
 * cublasLt.h's.
 */
#ifndef QD_KERNELS_CUDA_CUBLASLT_FUNCTIONS_H
#define QD_KERNELS_CUDA_CUBLASLT_FUNCTIONS_H

#include <stddef.h>
#include <stdint.h>

struct cublasLtContext; /* cublasLtHandle_t is a pointer to it */
struct CUstream_st;

enum {
    QD_CUBLAS_SUCCESS = 0,
    QD_CUBLAS_NOT_SUPPORTED = 15,
    QD_CUBLAS_OP_N = 0,
    QD_CUBLAS_OP_T = 1,
    QD_CUBLAS_COMPUTE_32F = 68,
    QD_CUBLAS_R_32F = 0,
    QD_CUBLAS_R_16BF = 14,
    QD_CUBLASLT_DESC_TRANSA = 3,
    QD_CUBLASLT_DESC_TRANSB = 4,
    QD_CUBLASLT_PREF_MAX_WORKSPACE_BYTES = 1,
    QD_CUBLASLT_ALGO_ID = 0,
};

struct qd_cublaslt_desc;
struct qd_cublaslt_layout;
struct qd_cublaslt_preference;

struct qd_cublaslt_algo {
    uint64_t data[8];
};

struct qd_cublaslt_heuristic {
    struct qd_cublaslt_algo algo;
    size_t workspace_bytes;
    int state; /* QD_CUBLAS_SUCCESS: the rest is valid */
    float waves;
    int reserved[4];
};

#define QD_CUBLASLT_FUNCTIONS(X, desc, layout, preference, algo, heuristic)                                  \
    X(unsigned, create, cublasLtCreate, (struct cublasLtContext **))                                         \
    X(unsigned, destroy, cublasLtDestroy, (struct cublasLtContext *))                                        \
    X(size_t, get_version, cublasLtGetVersion, (void))                                                       \
    X(const char *, status_string, cublasLtGetStatusString, (unsigned))                                      \
    X(unsigned, desc_create, cublasLtMatmulDescCreate, (desc **, unsigned, unsigned))                        \
    X(unsigned, desc_destroy, cublasLtMatmulDescDestroy, (desc *))                                           \
    X(unsigned, desc_set, cublasLtMatmulDescSetAttribute, (desc *, unsigned, const void *, size_t))          \
    X(unsigned, layout_create, cublasLtMatrixLayoutCreate,                                                   \
      (layout **, unsigned, uint64_t, uint64_t, int64_t))                                                    \
    X(unsigned, layout_destroy, cublasLtMatrixLayoutDestroy, (layout *))                                     \
    X(unsigned, preference_create, cublasLtMatmulPreferenceCreate, (preference **))                          \
    X(unsigned, preference_destroy, cublasLtMatmulPreferenceDestroy, (preference *))                         \
    X(unsigned, preference_set, cublasLtMatmulPreferenceSetAttribute,                                        \
      (preference *, unsigned, const void *, size_t))                                                        \
    X(unsigned, get_heuristics, cublasLtMatmulAlgoGetHeuristic,                                              \
      (struct cublasLtContext *, desc *, layout *, layout *, layout *, layout *, preference *, int,          \
       heuristic *, int *))                                                                                  \
    X(unsigned, algo_get, cublasLtMatmulAlgoConfigGetAttribute,                                              \
      (const algo *, unsigned, void *, size_t, size_t *))                                                    \
    X(unsigned, matmul, cublasLtMatmul,                                                                      \
      (struct cublasLtContext *, desc *, const void *, const void *, layout *, const void *, layout *,       \
       const void *, const void *, layout *, void *, layout *, const algo *, void *, size_t,                 \
       struct CUstream_st *))

#endif
