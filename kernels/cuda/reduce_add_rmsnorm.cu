/* Residual addition and the norm behind it, over what an o or down projection left:
 *
 *     residual[t] = r(residual[t] + r(sum over ranks of r(sum over slices of partials[rank][slice][t])))
 *     out[i]      = rmsnorm(residual[t]),  t = rows[i], or i without rows
 *
 * residual: [T][dim] bf16; partials: [n_slices][T][dim] bf16 (one slice) or fp32 of each rank; weight: [dim]
 * bf16; out: [n_rows][dim] bf16, apart from residual. Rows are distinct. fp32 sums in index order, then in
 * rank order; the mean square is that of the rounded residual. One block a row with one rank. With more, at
 * most peers.n_blocks blocks, which must all be resident, take the rows in turn after a meeting with
 * their twins on the other GPUs, and read every rank's partial where it lies: a one-shot all-reduce with the
 * same bits on every rank.
 *
 *     constraint                        otherwise
 *     dim % 8 == 0, <= 8192             QD_ERR_UNSUPPORTED
 *     n_rows < 2^31                     QD_ERR_UNSUPPORTED
 *     bf16: one slice                   QD_ERR_UNSUPPORTED
 *     slice_stride % 8 == 0             QD_ERR_UNSUPPORTED (with several slices)
 *     1 <= n_ranks <= 8                 QD_ERR_UNSUPPORTED
 *
 * Traffic: qd_traffic_reduce_add_rmsnorm (kernels/ref/reduce_add_rmsnorm.c). nvcc 13.0, sm_80 / sm_90: 32 /
 * 32 registers with one rank, 62 / 60 over bf16 parts of ranks, 53 / 54 over fp32 slices of ranks; 256 bytes
 * of shared memory, no spills. Emulated only.
 */
#include "kernels/cuda/peers.cuh"
#include "kernels/cuda/row_norm.cuh"

namespace reduce_add_rmsnorm {

/* What is summed; kernels apart, since holding the loads of eight ranks takes registers. */
enum source { ONE_RANK, RANKS_BF16, RANKS_F32 };

/* The sum over the ranks of elements at .. at+7 of their bf16 partials. All loads are on their way before the
 * first is used: each takes a trip to another GPU. Indices known to the compiler keep the arguments out of
 * local memory. */
__device__ __forceinline__ void sum_ranks_bf16(const struct qd_cuda_reduce_add_rmsnorm_args &args, int64_t at,
                                               float (&sum)[CHUNK])
{
    uint4 bits[QD_CUDA_MAX_RANKS];
#pragma unroll
    for (int rank = 0; rank < QD_CUDA_MAX_RANKS; rank++)
        if (rank < args.peers.n_ranks)
            bits[rank] =
                *reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(args.partials[rank]) + at);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) sum[i] = 0.0f;
#pragma unroll
    for (int rank = 0; rank < QD_CUDA_MAX_RANKS; rank++) {
        float part[CHUNK];
        if (rank >= args.peers.n_ranks) break;
        widen_chunk(bits[rank], part);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) sum[i] = __fadd_rn(sum[i], part[i]);
    }
}

/* As above over r(sum of fp32 slices) of every rank. */
__device__ __forceinline__ void sum_ranks_f32(const struct qd_cuda_reduce_add_rmsnorm_args &args, int64_t at,
                                              float (&sum)[CHUNK])
{
#pragma unroll
    for (int i = 0; i < CHUNK; i++) sum[i] = 0.0f;
#pragma unroll
    for (int rank = 0; rank < QD_CUDA_MAX_RANKS; rank++) {
        float part[CHUNK];
        if (rank >= args.peers.n_ranks) break;
        sum_slices(args.partials[rank], QD_PARTIAL_F32, args.n_slices, args.slice_stride, at, part);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) sum[i] = __fadd_rn(sum[i], bf16_round(part[i]));
    }
}

template <enum source from>
__device__ __forceinline__ void sum_partials(const struct qd_cuda_reduce_add_rmsnorm_args &args, int64_t at,
                                             float (&sum)[CHUNK])
{
    if constexpr (from == RANKS_BF16)
        sum_ranks_bf16(args, at, sum);
    else if constexpr (from == RANKS_F32)
        sum_ranks_f32(args, at, sum);
    else
        sum_slices(args.partials[0], args.dtype, args.n_slices, args.slice_stride, at, sum);
}

template <bool hf, enum source from>
__global__ void __launch_bounds__(ROW_NORM_MAX_THREADS)
    reduce_add_rmsnorm_bf16_block_per_row_kernel(const struct qd_cuda_reduce_add_rmsnorm_args args,
                                                 float inverse_dim)
{
    QD_SHARED(float, sums, [2][ROW_NORM_MAX_WARPS]); /* used in turn: one barrier a row is enough */
    const int64_t column = CHUNK * static_cast<int64_t>(threadIdx.x);
    const bool inside = column < args.dim;
    int turn = 0;

    if constexpr (from != ONE_RANK)
        if (!peers_meet(args.peers, static_cast<int>(blockIdx.x))) return;
    /* All ranks' partials are complete. */
    for (int64_t r = blockIdx.x; r < args.n_rows; r += gridDim.x, turn ^= 1) {
        const int64_t row = args.rows != nullptr ? args.rows[r] : r;
        float x[CHUNK] = {};
        if (inside) {
            float sum[CHUNK];
            const int64_t at = row * args.dim + column;
            sum_partials<from>(args, at, sum);
            load_chunk(args.residual + at, x);
#pragma unroll
            for (int i = 0; i < CHUNK; i++) x[i] = bf16_round(__fadd_rn(x[i], bf16_round(sum[i])));
            store_chunk(args.residual + at, x);
        }
        const float square_sum = block_all_reduce_sum(sum_of_squares(x), sums[turn]);
        const float rstd = reciprocal_rms(square_sum, inverse_dim, args.eps);
        if (inside) store_norm<hf>(x, rstd, args.weight + column, args.out + r * args.dim + column);
    }
}

template <bool hf> auto kernel_for(enum source from)
{
    switch (from) {
    case ONE_RANK: return reduce_add_rmsnorm_bf16_block_per_row_kernel<hf, ONE_RANK>;
    case RANKS_BF16: return reduce_add_rmsnorm_bf16_block_per_row_kernel<hf, RANKS_BF16>;
    default: return reduce_add_rmsnorm_bf16_block_per_row_kernel<hf, RANKS_F32>;
    }
}

} // namespace reduce_add_rmsnorm

extern "C" qd_status qd_cuda_reduce_add_rmsnorm(const struct qd_cuda_reduce_add_rmsnorm_args *args,
                                                struct CUstream_st *stream, char *err, size_t errlen)
{
    using namespace reduce_add_rmsnorm;
    const char *name = "reduce_add_rmsnorm";
    QD_TRY(row_norm_check(name, args->n_rows, args->dim, err, errlen));
    QD_TRY(check_slices(name, args->dtype, args->n_slices, args->slice_stride, err, errlen));
    QD_TRY(peers_check(name, args->peers, err, errlen));
    if (args->n_rows == 0) return QD_OK;

    const enum source from = args->peers.n_ranks == 1         ? ONE_RANK
                             : args->dtype == QD_PARTIAL_BF16 ? RANKS_BF16
                                                              : RANKS_F32;
    const dim3 grid =
        from == ONE_RANK ? dim3(static_cast<unsigned>(args->n_rows)) : peers_grid(args->peers, args->n_rows);
    const struct launch_shape shape = {grid, dim3(row_norm_threads(args->dim)), 0, stream};
    const auto kernel = args->numerics == QD_NUMERICS_HF ? kernel_for<true>(from) : kernel_for<false>(from);
    return launch(name, kernel, shape, err, errlen, *args, 1.0f / static_cast<float>(args->dim));
}
