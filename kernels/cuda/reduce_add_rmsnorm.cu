/* Residual addition and the norm behind it, over what an o or down projection left:
 *
 *     residual[t] = r(residual[t] + r(sum over ranks of r(sum over slices of partials[rank][slice][t])))
 *     out[i]      = rmsnorm(residual[t]),  t = rows[i], or i without rows
 *
 * residual: [T][dim] bf16; partials: [n_slices][T][dim] bf16 (one slice) or fp32 of each rank; weight: [dim]
 * bf16; out: [n_rows][dim] bf16, apart from residual. Rows are distinct. fp32 sums in index order, then in
 * rank order; the mean square is that of the rounded residual. One block a row with one rank. With more, at
 * most peers.n_blocks blocks, which must all be resident, take the rows in turn after a meeting with
 * their twins on the other GPUs: an all-reduce with the same bits on every rank. One-shot: each rank reads
 * every rank's partial where it lies. Two-shot (pieces): each reads its part of the columns and leaves the
 * sums for the others; after another meeting all read the sums. Into a rank's links go S * (n_ranks - 1)
 * bytes for partials of S bytes, or two-shot (S + n_rows * dim * 2) * (n_ranks - 1) / n_ranks.
 *
 *     constraint                        otherwise
 *     dim % 8 == 0, <= 8192             QD_ERR_UNSUPPORTED
 *     n_rows < 2^31                     QD_ERR_UNSUPPORTED
 *     bf16: one slice                   QD_ERR_UNSUPPORTED
 *     slice_stride % 8 == 0             QD_ERR_UNSUPPORTED (with several slices)
 *     1 <= n_ranks <= 8                 QD_ERR_UNSUPPORTED
 *
 * Traffic: qd_traffic_reduce_add_rmsnorm (kernels/ref/reduce_add_rmsnorm.c). nvcc 13.0, sm_80 / sm_90: 32 /
 * 32 registers with one rank; one-shot 60 / 60 over bf16 parts of ranks, 64 / 54 over fp32 slices of ranks;
 * two-shot 64 / 64 (which is the most that its blocks of up to 1024 threads may have); 264 bytes of shared
 * memory, no spills. Emulated only.
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

/* Columns of a rank, in chunks; those of the last ranks may be fewer or none.
 *
 *     row        [ of rank 0 | of rank 1 | ... ]      chunks
 *     pieces[r]  [ row 0's | row 1's | ... ]          of rank r
 */
__host__ __device__ __forceinline__ int chunks_of_rank(int64_t dim, int n_ranks)
{
    return (static_cast<int>(dim / CHUNK) + n_ranks - 1) / n_ranks;
}

/* The pieces of a rank; an index known to the compiler, as above. */
__device__ __forceinline__ uint16_t *pieces_of(const struct qd_cuda_reduce_add_rmsnorm_args &args, int of)
{
    uint16_t *pieces = nullptr;
#pragma unroll
    for (int rank = 0; rank < QD_CUDA_MAX_RANKS; rank++)
        if (rank == of) pieces = args.pieces.of_rank[rank];
    return pieces;
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

/* The first shot: this rank's columns of the block's rows, summed over the ranks. */
template <enum source from>
__device__ __forceinline__ void leave_pieces(const struct qd_cuda_reduce_add_rmsnorm_args &args)
{
    const int of_rank = chunks_of_rank(args.dim, args.peers.n_ranks), first = args.peers.rank * of_rank;
    const int n_chunks = min(static_cast<int>(args.dim / CHUNK) - first, of_rank);
    uint16_t *own = pieces_of(args, args.peers.rank);
    if (n_chunks <= 0) return;
    /* Threads take the chunks of one row after the other; so many rows and chunks are from one of a thread's
     * to its next. */
    const int n_threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
    const int rows_on = n_threads / n_chunks, chunks_on = n_threads % n_chunks;
    int chunk = thread % n_chunks;
    int64_t r = blockIdx.x + static_cast<int64_t>(thread / n_chunks) * gridDim.x;
    while (r < args.n_rows) {
        const int64_t row = args.rows != nullptr ? args.rows[r] : r;
        float sum[CHUNK];
        sum_partials<from>(args, row * args.dim + static_cast<int64_t>(first + chunk) * CHUNK, sum);
        store_chunk(own + (r * of_rank + chunk) * CHUNK, sum);
        r += static_cast<int64_t>(rows_on) * gridDim.x;
        chunk += chunks_on;
        if (chunk >= n_chunks) chunk -= n_chunks, r += gridDim.x;
    }
}

/* What is added to the residual at `at`, a thread's column of row r of n_rows. */
template <enum source from, bool two_shot>
__device__ __forceinline__ void sum_or_piece(const struct qd_cuda_reduce_add_rmsnorm_args &args, int64_t r,
                                             int64_t at, const uint16_t *pieces, int chunk,
                                             float (&sum)[CHUNK])
{
    if constexpr (two_shot) {
        load_chunk(pieces + (r * chunks_of_rank(args.dim, args.peers.n_ranks) + chunk) * CHUNK, sum);
    } else {
        sum_partials<from>(args, at, sum);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) sum[i] = bf16_round(sum[i]);
    }
}

template <bool hf, enum source from, bool two_shot>
__global__ void __launch_bounds__(ROW_NORM_MAX_THREADS)
    reduce_add_rmsnorm_bf16_block_per_row_kernel(const struct qd_cuda_reduce_add_rmsnorm_args args,
                                                 float inverse_dim)
{
    QD_SHARED(float, sums, [2][ROW_NORM_MAX_WARPS]); /* used in turn: one barrier a row is enough */
    const int64_t column = CHUNK * static_cast<int64_t>(threadIdx.x);
    const bool inside = column < args.dim;
    const uint16_t *pieces = nullptr; /* where this thread's column is, two-shot */
    int turn = 0, chunk = 0;

    if constexpr (from != ONE_RANK)
        if (!peers_meet(args.peers, static_cast<int>(blockIdx.x))) return;
    /* All ranks' partials are complete, and all have read the pieces of the launch before. */
    if constexpr (two_shot) {
        const int of_rank = chunks_of_rank(args.dim, args.peers.n_ranks);
        const int owner = static_cast<int>(threadIdx.x) / of_rank;
        chunk = static_cast<int>(threadIdx.x) - owner * of_rank;
        leave_pieces<from>(args);
        if (!peers_meet(args.peers, static_cast<int>(blockIdx.x))) return;
        pieces = pieces_of(args, owner);
    }
    for (int64_t r = blockIdx.x; r < args.n_rows; r += gridDim.x, turn ^= 1) {
        const int64_t row = args.rows != nullptr ? args.rows[r] : r;
        float x[CHUNK] = {};
        if (inside) {
            float sum[CHUNK];
            const int64_t at = row * args.dim + column;
            sum_or_piece<from, two_shot>(args, r, at, pieces, chunk, sum);
            load_chunk(args.residual + at, x);
#pragma unroll
            for (int i = 0; i < CHUNK; i++) x[i] = bf16_round(__fadd_rn(x[i], sum[i]));
            store_chunk(args.residual + at, x);
        }
        const float square_sum = block_all_reduce_sum(sum_of_squares(x), sums[turn]);
        const float rstd = reciprocal_rms(square_sum, inverse_dim, args.eps);
        if (inside) store_norm<hf>(x, rstd, args.weight + column, args.out + r * args.dim + column);
    }
}

template <bool hf> auto kernel_for(enum source from, bool two_shot)
{
    switch (from) {
    case ONE_RANK: return reduce_add_rmsnorm_bf16_block_per_row_kernel<hf, ONE_RANK, false>;
    case RANKS_BF16:
        return two_shot ? reduce_add_rmsnorm_bf16_block_per_row_kernel<hf, RANKS_BF16, true>
                        : reduce_add_rmsnorm_bf16_block_per_row_kernel<hf, RANKS_BF16, false>;
    default:
        return two_shot ? reduce_add_rmsnorm_bf16_block_per_row_kernel<hf, RANKS_F32, true>
                        : reduce_add_rmsnorm_bf16_block_per_row_kernel<hf, RANKS_F32, false>;
    }
}

} // namespace reduce_add_rmsnorm

extern "C" size_t qd_cuda_reduce_add_rmsnorm_piece_bytes(int64_t n_rows, int64_t dim, int n_ranks)
{
    using namespace reduce_add_rmsnorm;
    return static_cast<size_t>(n_rows) * static_cast<size_t>(chunks_of_rank(dim, n_ranks)) * CHUNK *
           sizeof(qd_bf16);
}

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
    const bool two_shot = args->pieces.of_rank[0] != nullptr;
    const auto kernel = args->numerics == QD_NUMERICS_HF ? kernel_for<true>(from, two_shot)
                                                         : kernel_for<false>(from, two_shot);
    return launch(name, kernel, shape, err, errlen, *args, 1.0f / static_cast<float>(args->dim));
}
