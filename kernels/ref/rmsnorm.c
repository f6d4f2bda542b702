/* Root mean square normalisation (Zhang & Sennrich 2019), as Qwen3RMSNorm. */
#include "kernels/ref/ref.h"
#include "kernels/ref/shared.h"
#include "kernels/traffic.h"

void qd_ref_rmsnorm(const struct qd_rmsnorm_args *args, enum qd_numerics numerics)
{
    for (int64_t r = 0; r < args->n_rows; r++) {
        const int64_t row = args->rows != NULL ? args->rows[r] : r;
        const qd_bf16 *x = args->x + row * args->dim;
        qd_bf16 *out = args->out + r * args->dim;
        const float rstd = qd_ref_reciprocal_rms(x, args->dim, args->eps);
        for (int64_t i = 0; i < args->dim; i++)
            out[i] = qd_bf16_from_f32(qd_ref_norm_one(x[i], rstd, args->weight[i], numerics));
    }
}

struct qd_traffic qd_traffic_rmsnorm(int64_t n_rows, int64_t dim)
{
    return (struct qd_traffic){
        .bytes = (uint64_t)(n_rows * (2 * dim + 2 * dim) + 2 * dim),
        .flops = (uint64_t)(4 * n_rows * dim), /* square, add, times rstd, times weight */
    };
}
