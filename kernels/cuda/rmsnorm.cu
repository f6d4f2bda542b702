/* RMSNorm: out[r] = x[row(r)] * rsqrt(mean(x[row(r)]^2) + eps) * weight, rounded as kernels/ops.h says.
 *
 * x: [*][dim] bf16; weight: [dim] bf16; rows: [n_rows] int32 or NULL; out: [n_rows][dim] bf16, may be x when
 * rows is NULL. One block a row, the row in registers (8 elements a thread), fp32 sums: within a thread,
 * across the warp by shuffles, across warps in shared memory.
 *
 *     constraint              otherwise
 *     dim % 8 == 0, <= 8192   QD_ERR_UNSUPPORTED
 *     n_rows < 2^31           QD_ERR_UNSUPPORTED
 *
 * Traffic: qd_traffic_rmsnorm (kernels/ref/rmsnorm.c). Source: Zhang & Sennrich 2019; Qwen3RMSNorm of Hugging
 * Face transformers. nvcc 13.0: 26 registers on sm_80, 24 on sm_90, 128 bytes of shared memory, no spills.
 * Emulated only.
 */
#include "kernels/cuda/row_norm.cuh"

namespace rmsnorm {

template <bool hf>
__global__ void __launch_bounds__(ROW_NORM_MAX_THREADS)
    rmsnorm_bf16_block_per_row_kernel(const struct qd_cuda_rmsnorm_args args, float inverse_dim)
{
    QD_SHARED(float, sums, [ROW_NORM_MAX_WARPS]);
    const int64_t row = args.rows != nullptr ? args.rows[blockIdx.x] : blockIdx.x;
    const int64_t column = CHUNK * static_cast<int64_t>(threadIdx.x);
    const bool inside = column < args.dim; /* the last warp may reach beyond the row */
    float x[CHUNK] = {};

    if (inside) load_chunk(args.x + row * args.dim + column, x);
    const float sum = block_all_reduce_sum(sum_of_squares(x), sums);
    const float rstd = reciprocal_rms(sum, inverse_dim, args.eps);
    if (inside)
        store_norm<hf>(x, rstd, args.weight + column,
                       args.out + static_cast<int64_t>(blockIdx.x) * args.dim + column);
}

} // namespace rmsnorm

extern "C" qd_status qd_cuda_rmsnorm(const struct qd_cuda_rmsnorm_args *args, struct CUstream_st *stream,
                                     char *err, size_t errlen)
{
    QD_TRY(row_norm_check("rmsnorm", args->n_rows, args->dim, err, errlen));
    if (args->n_rows == 0) return QD_OK;
    const struct launch_shape shape = {dim3(static_cast<unsigned>(args->n_rows)),
                                       dim3(row_norm_threads(args->dim)), 0, stream};
    const auto kernel = args->numerics == QD_NUMERICS_HF ? rmsnorm::rmsnorm_bf16_block_per_row_kernel<true>
                                                         : rmsnorm::rmsnorm_bf16_block_per_row_kernel<false>;
    return launch("rmsnorm", kernel, shape, err, errlen, *args, 1.0f / static_cast<float>(args->dim));
}
