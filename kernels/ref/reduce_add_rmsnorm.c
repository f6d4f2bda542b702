/* Sum of a projection's parts, residual addition, norm. The order and the fp32 type of the sum of parts are
 * part of the specification, not an accident of a device, so they are the same here. */
#include "kernels/ref/ref.h"
#include "kernels/ref/shared.h"
#include "kernels/traffic.h"

void qd_ref_reduce_add_rmsnorm(const struct qd_reduce_add_rmsnorm_args *args, const void *const *partials,
                               int n_ranks, enum qd_numerics numerics)
{
    for (int64_t r = 0; r < args->n_rows; r++) {
        const int64_t row = args->rows != NULL ? args->rows[r] : r;
        qd_bf16 *residual = args->residual + row * args->dim;
        for (int64_t i = 0; i < args->dim; i++) {
            float sum = 0;
            for (int rank = 0; rank < n_ranks; rank++)
                sum += qd_ref_partial_one(&args->partial, partials[rank], row * args->dim + i);
            residual[i] = qd_bf16_from_f32(qd_bf16_to_f32(residual[i]) + qd_bf16_round(sum));
        }
    }
    qd_ref_rmsnorm(&(struct qd_rmsnorm_args){.x = args->residual,
                                             .weight = args->weight,
                                             .rows = args->rows,
                                             .n_rows = args->n_rows,
                                             .dim = args->dim,
                                             .eps = args->eps,
                                             .out = args->out},
                   numerics);
}

struct qd_traffic qd_traffic_reduce_add_rmsnorm(int64_t n_rows, int64_t dim, int n_slices,
                                                enum qd_partial_dtype dtype)
{
    const int64_t slice_bytes = n_slices * (dtype == QD_PARTIAL_F32 ? 4 : 2);
    return (struct qd_traffic){
        /* residual in and out, every slice, the normalised row; the weight once */
        .bytes = (uint64_t)(n_rows * dim * (2 + 2 + slice_bytes + 2) + 2 * dim),
        .flops = (uint64_t)(n_rows * dim * (n_slices + 4)), /* one addition a slice, then the norm */
    };
}
