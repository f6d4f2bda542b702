#include "kernels/cuda/cublaslt.h"

#include <limits.h>
#include <stdlib.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cublaslt_functions.h"
#include "kernels/library.h"

struct functions {
    QD_CUBLASLT_FUNCTIONS(QD_LIBRARY_MEMBER, struct qd_cublaslt_desc, struct qd_cublaslt_layout,
                          struct qd_cublaslt_preference, struct qd_cublaslt_algo,
                          struct qd_cublaslt_heuristic)
};

#define SYMBOL(result, member, symbol, args) QD_LIBRARY_SYMBOL(struct functions, member, symbol)
static const struct qd_library_symbol symbols[] = {QD_CUBLASLT_FUNCTIONS(SYMBOL, , , , , )};

struct qd_cublaslt {
    struct functions call;
    char path[PATH_MAX];
    struct cublasLtContext *handle;
    void *workspace; /* QD_CUBLASLT_WORKSPACE_BYTES of device memory */
    struct qd_cublaslt_desc *desc;
    struct qd_cublaslt_preference *preference;
    struct qd_cublaslt_layout *w, *x, *out; /* of what is prepared; NULL: nothing is */
    struct qd_cublaslt_heuristic algorithms[QD_CUBLASLT_MAX_ALGORITHMS];
    int n_algorithms;
};

static qd_status check(const struct qd_cublaslt *lt, unsigned status, const char *what, char *err,
                       size_t errlen)
{
    if (status == QD_CUBLAS_SUCCESS) return QD_OK;
    return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cuBLASLt: %s: %s", what, lt->call.status_string(status));
}

#define LT(statement, what) check(lt, lt->call.statement, what, err, errlen)

/* ---- opening ---- */

/* cuBLASLt is column-major: there the row-major a [M][K] is K x M, b is K x N, and c is N x M = b' * a, where
 * b' is the transpose of b. So its A is our b, and its B our a. */
static qd_status set_up(struct qd_cublaslt *lt, char *err, size_t errlen)
{
    const int32_t transpose = QD_CUBLAS_OP_T, keep = QD_CUBLAS_OP_N;
    const uint64_t workspace_bytes = QD_CUBLASLT_WORKSPACE_BYTES;
    QD_TRY(LT(create(&lt->handle), "starting it"));
    QD_TRY(LT(desc_create(&lt->desc, QD_CUBLAS_COMPUTE_32F, QD_CUBLAS_R_32F), "descriptor"));
    QD_TRY(LT(desc_set(lt->desc, QD_CUBLASLT_DESC_TRANSA, &transpose, sizeof transpose), "transposition"));
    QD_TRY(LT(desc_set(lt->desc, QD_CUBLASLT_DESC_TRANSB, &keep, sizeof keep), "transposition"));
    QD_TRY(LT(preference_create(&lt->preference), "preference"));
    QD_TRY(LT(preference_set(lt->preference, QD_CUBLASLT_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                             sizeof workspace_bytes),
              "workspace"));
    return QD_CUDA(cudaMalloc(&lt->workspace, QD_CUBLASLT_WORKSPACE_BYTES));
}

qd_status qd_cublaslt_open(qd_cublaslt_t **out, char *err, size_t errlen)
{
    *out = NULL;
    struct qd_cublaslt *lt = calloc(1, sizeof *lt);
    if (lt == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for cuBLASLt");
    qd_status st =
        qd_library_open(&qd_libraries[QD_LIBRARY_CUBLASLT], symbols, sizeof symbols / sizeof symbols[0],
                        &lt->call, lt->path, sizeof lt->path, err, errlen);
    if (st != QD_OK) {
        free(lt);
        return st;
    }
    st = set_up(lt, err, errlen);
    if (st != QD_OK) {
        qd_cublaslt_close(lt);
        return st;
    }
    *out = lt;
    return QD_OK;
}

static void forget_shape(struct qd_cublaslt *lt)
{
    struct qd_cublaslt_layout **layouts[] = {&lt->w, &lt->x, &lt->out};
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (*layouts[i] != NULL) lt->call.layout_destroy(*layouts[i]);
        *layouts[i] = NULL;
    }
    lt->n_algorithms = 0;
}

void qd_cublaslt_close(qd_cublaslt_t *lt)
{
    if (lt == NULL) return;
    forget_shape(lt);
    if (lt->workspace != NULL) cudaFree(lt->workspace);
    if (lt->preference != NULL) lt->call.preference_destroy(lt->preference);
    if (lt->desc != NULL) lt->call.desc_destroy(lt->desc);
    if (lt->handle != NULL) lt->call.destroy(lt->handle);
    free(lt);
}

const char *qd_cublaslt_path(const qd_cublaslt_t *lt)
{
    return lt->path;
}

size_t qd_cublaslt_version(const qd_cublaslt_t *lt)
{
    return lt->call.get_version();
}

/* ---- products ---- */

static qd_status set_shape(struct qd_cublaslt *lt, int64_t m, int64_t n, int64_t k, char *err, size_t errlen)
{
    const uint64_t rows = (uint64_t)m, cols = (uint64_t)n, inner = (uint64_t)k;
    QD_TRY(LT(layout_create(&lt->w, QD_CUBLAS_R_16BF, inner, cols, k), "layout of b"));
    QD_TRY(LT(layout_create(&lt->x, QD_CUBLAS_R_16BF, inner, rows, k), "layout of a"));
    return LT(layout_create(&lt->out, QD_CUBLAS_R_16BF, cols, rows, n), "layout of c");
}

/* Fills in the algorithms that can be run; the heuristics may also name others. */
static qd_status find_algorithms(struct qd_cublaslt *lt, char *err, size_t errlen)
{
    int n_found = 0;
    unsigned status =
        lt->call.get_heuristics(lt->handle, lt->desc, lt->w, lt->x, lt->out, lt->out, lt->preference,
                                QD_CUBLASLT_MAX_ALGORITHMS, lt->algorithms, &n_found);
    if (status == QD_CUBLAS_NOT_SUPPORTED) return QD_OK;
    QD_TRY(check(lt, status, "heuristics", err, errlen));
    for (int i = 0; i < n_found; i++)
        if (lt->algorithms[i].state == QD_CUBLAS_SUCCESS)
            lt->algorithms[lt->n_algorithms++] = lt->algorithms[i];
    return QD_OK;
}

qd_status qd_cublaslt_prepare(qd_cublaslt_t *lt, int64_t m, int64_t n, int64_t k, int *n_algorithms,
                              char *err, size_t errlen)
{
    *n_algorithms = 0;
    forget_shape(lt);
    if (m < 1 || n < 1 || k < 1)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "cuBLASLt: a product of %lld x %lld x %lld",
                       (long long)m, (long long)n, (long long)k);
    QD_TRY(set_shape(lt, m, n, k, err, errlen));
    QD_TRY(find_algorithms(lt, err, errlen));
    if (lt->n_algorithms == 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                       "cuBLASLt has no algorithm for %lld x %lld x %lld in bf16", (long long)m, (long long)n,
                       (long long)k);
    *n_algorithms = lt->n_algorithms;
    return QD_OK;
}

int qd_cublaslt_algorithm(const qd_cublaslt_t *lt, int i)
{
    int32_t id = -1;
    size_t written;
    QD_ASSERT(i >= 0 && i < lt->n_algorithms);
    unsigned status =
        lt->call.algo_get(&lt->algorithms[i].algo, QD_CUBLASLT_ALGO_ID, &id, sizeof id, &written);
    return status == QD_CUBLAS_SUCCESS ? id : -1;
}

qd_status qd_cublaslt_run(qd_cublaslt_t *lt, int i, const qd_bf16 *a, const qd_bf16 *b, qd_bf16 *c,
                          struct CUstream_st *stream, char *err, size_t errlen)
{
    const float one = 1, zero = 0;
    if (i < 0 || i >= lt->n_algorithms)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "cuBLASLt: algorithm %d of %d", i, lt->n_algorithms);
    return LT(matmul(lt->handle, lt->desc, &one, b, lt->w, a, lt->x, &zero, c, lt->out, c, lt->out,
                     &lt->algorithms[i].algo, lt->workspace, QD_CUBLASLT_WORKSPACE_BYTES, stream),
              "matmul");
}
