/* cuBLASLt on the CPU, for tests/kernels/cuda_cublaslt.c: column-major products by plain loops, at once,
 * whatever the stream. Of the four heuristics that it gives, the second cannot be run; algorithm ids are 70,
 * 71, 72, 73. It checks what it is handed. QD_FAKE_CUBLASLT=none: no algorithm takes the shape; =broken: it
 * does not start. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/bf16.h"
#include "kernels/cuda/cublaslt_functions.h"

enum { NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, N_HEURISTICS = 4, FIRST_ID = 70 };

struct cublasLtContext {
    int is_open;
};
struct qd_cublaslt_desc {
    int32_t transpose[2];
};
struct qd_cublaslt_layout {
    int64_t rows, cols, ld;
};
struct qd_cublaslt_preference {
    uint64_t workspace_bytes;
};

#define DECLARE(result, member, symbol, args) result symbol args;
QD_CUBLASLT_FUNCTIONS(DECLARE, struct qd_cublaslt_desc, struct qd_cublaslt_layout,
                      struct qd_cublaslt_preference, struct qd_cublaslt_algo, struct qd_cublaslt_heuristic)

static int is_case(const char *name)
{
    const char *value = getenv("QD_FAKE_CUBLASLT");
    return value != NULL && strcmp(value, name) == 0;
}

static unsigned create(void **out, size_t bytes)
{
    *out = calloc(1, bytes);
    return *out != NULL ? QD_CUBLAS_SUCCESS : NOT_INITIALIZED;
}

unsigned cublasLtCreate(struct cublasLtContext **out)
{
    return is_case("broken") ? NOT_INITIALIZED : create((void **)out, sizeof **out);
}
unsigned cublasLtDestroy(struct cublasLtContext *context)
{
    free(context);
    return QD_CUBLAS_SUCCESS;
}
size_t cublasLtGetVersion(void)
{
    return 120900;
}
const char *cublasLtGetStatusString(unsigned status)
{
    return status == NOT_INITIALIZED ? "not initialized"
           : status == INVALID_VALUE ? "invalid value"
                                     : "other";
}
unsigned cublasLtMatmulDescCreate(struct qd_cublaslt_desc **out, unsigned compute, unsigned scale)
{
    if (compute != QD_CUBLAS_COMPUTE_32F || scale != QD_CUBLAS_R_32F) return INVALID_VALUE;
    return create((void **)out, sizeof **out);
}
unsigned cublasLtMatmulDescDestroy(struct qd_cublaslt_desc *desc)
{
    free(desc);
    return QD_CUBLAS_SUCCESS;
}
unsigned cublasLtMatmulDescSetAttribute(struct qd_cublaslt_desc *desc, unsigned attribute, const void *value,
                                        size_t bytes)
{
    if (bytes != sizeof(int32_t) ||
        (attribute != QD_CUBLASLT_DESC_TRANSA && attribute != QD_CUBLASLT_DESC_TRANSB))
        return INVALID_VALUE;
    memcpy(&desc->transpose[attribute - QD_CUBLASLT_DESC_TRANSA], value, bytes);
    return QD_CUBLAS_SUCCESS;
}
unsigned cublasLtMatrixLayoutCreate(struct qd_cublaslt_layout **out, unsigned type, uint64_t rows,
                                    uint64_t cols, int64_t ld)
{
    if (type != QD_CUBLAS_R_16BF || ld < (int64_t)rows) return INVALID_VALUE;
    unsigned status = create((void **)out, sizeof **out);
    if (status == QD_CUBLAS_SUCCESS) **out = (struct qd_cublaslt_layout){(int64_t)rows, (int64_t)cols, ld};
    return status;
}
unsigned cublasLtMatrixLayoutDestroy(struct qd_cublaslt_layout *layout)
{
    free(layout);
    return QD_CUBLAS_SUCCESS;
}
unsigned cublasLtMatmulPreferenceCreate(struct qd_cublaslt_preference **out)
{
    return create((void **)out, sizeof **out);
}
unsigned cublasLtMatmulPreferenceDestroy(struct qd_cublaslt_preference *preference)
{
    free(preference);
    return QD_CUBLAS_SUCCESS;
}
unsigned cublasLtMatmulPreferenceSetAttribute(struct qd_cublaslt_preference *preference, unsigned attribute,
                                              const void *value, size_t bytes)
{
    if (attribute != QD_CUBLASLT_PREF_MAX_WORKSPACE_BYTES || bytes != sizeof preference->workspace_bytes)
        return INVALID_VALUE;
    memcpy(&preference->workspace_bytes, value, bytes);
    return QD_CUBLAS_SUCCESS;
}

/* d = op(a) * op(b) with the shapes of the layouts. */
static int shapes_agree(const struct qd_cublaslt_desc *desc, const struct qd_cublaslt_layout *a,
                        const struct qd_cublaslt_layout *b, const struct qd_cublaslt_layout *d)
{
    int64_t m = desc->transpose[0] ? a->cols : a->rows, k = desc->transpose[0] ? a->rows : a->cols;
    int64_t n = desc->transpose[1] ? b->rows : b->cols, k2 = desc->transpose[1] ? b->cols : b->rows;
    return m == d->rows && n == d->cols && k == k2;
}

unsigned cublasLtMatmulAlgoGetHeuristic(struct cublasLtContext *context, struct qd_cublaslt_desc *desc,
                                        struct qd_cublaslt_layout *a, struct qd_cublaslt_layout *b,
                                        struct qd_cublaslt_layout *c, struct qd_cublaslt_layout *d,
                                        struct qd_cublaslt_preference *preference, int n_asked,
                                        struct qd_cublaslt_heuristic *out, int *n)
{
    *n = 0;
    if (is_case("none")) return QD_CUBLAS_NOT_SUPPORTED;
    if (context == NULL || c != d || !shapes_agree(desc, a, b, d)) return INVALID_VALUE;
    for (; *n < N_HEURISTICS && *n < n_asked; ++*n)
        out[*n] =
            (struct qd_cublaslt_heuristic){.algo = {{(uint64_t)(FIRST_ID + *n)}},
                                           .workspace_bytes = (size_t)preference->workspace_bytes,
                                           .state = *n == 1 ? QD_CUBLAS_NOT_SUPPORTED : QD_CUBLAS_SUCCESS};
    return QD_CUBLAS_SUCCESS;
}
unsigned cublasLtMatmulAlgoConfigGetAttribute(const struct qd_cublaslt_algo *algo, unsigned attribute,
                                              void *value, size_t bytes, size_t *written)
{
    int32_t id = (int32_t)algo->data[0];
    if (attribute != QD_CUBLASLT_ALGO_ID || bytes != sizeof id) return INVALID_VALUE;
    memcpy(value, &id, sizeof id);
    *written = sizeof id;
    return QD_CUBLAS_SUCCESS;
}

static float at(const void *data, const struct qd_cublaslt_layout *layout, int transposed, int64_t row,
                int64_t col)
{
    const qd_bf16 *values = data;
    return qd_bf16_to_f32(transposed ? values[row * layout->ld + col] : values[col * layout->ld + row]);
}

unsigned cublasLtMatmul(struct cublasLtContext *context, struct qd_cublaslt_desc *desc, const void *alpha,
                        const void *a, struct qd_cublaslt_layout *la, const void *b,
                        struct qd_cublaslt_layout *lb, const void *beta, const void *c,
                        struct qd_cublaslt_layout *lc, void *d, struct qd_cublaslt_layout *ld,
                        const struct qd_cublaslt_algo *algo, void *workspace, size_t workspace_bytes,
                        struct CUstream_st *stream)
{
    (void)stream;
    if (context == NULL || *(const float *)alpha != 1 || *(const float *)beta != 0 || c != d || lc != ld ||
        !shapes_agree(desc, la, lb, ld))
        return INVALID_VALUE;
    if (algo->data[0] == FIRST_ID + 1) return EXECUTION_FAILED;
    memset(workspace, 0x5a, workspace_bytes); /* all of it is there */
    for (int64_t col = 0; col < ld->cols; col++)
        for (int64_t row = 0; row < ld->rows; row++) {
            int64_t k = desc->transpose[0] ? la->rows : la->cols;
            float sum = 0;
            for (int64_t i = 0; i < k; i++)
                sum += at(a, la, desc->transpose[0], row, i) * at(b, lb, desc->transpose[1], i, col);
            ((qd_bf16 *)d)[col * ld->ld + row] = qd_bf16_from_f32(sum);
        }
    return QD_CUBLAS_SUCCESS;
}
