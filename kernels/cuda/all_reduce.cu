/* all_reduce: out[i] = r(sum over ranks of parts[rank][i]), fp32 sums in rank order, so that all ranks get
 * the same bits; one launch on every rank. One-shot: each reads the others' parts in place. Two-shot
 * (pieces): each sums a part of the elements, and reads the sums of the rest from the ranks that made them.
 *
 *     n         a multiple of 8, any size
 *     n_ranks   1 .. 8; the same n and order of launches on all ranks
 *     out       apart from every part; all pointers 16-byte aligned
 *
 * Source: own. nvcc 13.0, sm_80 / sm_90: 56 / 52 registers one-shot, 58 / 58 two-shot; 8 bytes of shared
 * memory, no spills. Emulated only. Bytes over the links into each rank: one-shot n * 2 * (n_ranks - 1),
 * two-shot 2 * n * 2 * (n_ranks - 1) / n_ranks with a meeting of all ranks between the shots.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peers.cuh"

namespace all_reduce {

constexpr int THREADS = 512;
constexpr int VECTOR = 8; /* elements of 16 bytes */

/* sum + the pair of elements of `word`. */
__device__ __forceinline__ float2 add_pair(float2 sum, uint32_t word)
{
    return make_float2(__fadd_rn(sum.x, bf16_low(word)), __fadd_rn(sum.y, bf16_high(word)));
}

/* One register of the result: the pairs of all ranks, in rank order. */
template <uint32_t uint4::*word>
__device__ __forceinline__ uint32_t sum_pairs(const uint4 (&part)[QD_CUDA_MAX_RANKS], int n_ranks)
{
    float2 sum = make_float2(bf16_low(part[0].*word), bf16_high(part[0].*word));
#pragma unroll
    for (int rank = 1; rank < QD_CUDA_MAX_RANKS; rank++)
        if (rank < n_ranks) sum = add_pair(sum, part[rank].*word);
    return ptx::pack_bf16(sum.x, sum.y);
}

/* Eight elements from vector i on, summed over the ranks. */
__device__ __forceinline__ uint4 sum_vectors(const struct qd_cuda_all_reduce_args &args, int64_t i)
{
    const int n_ranks = args.peers.n_ranks;
    uint4 part[QD_CUDA_MAX_RANKS]; /* all on their way before the first is used */
#pragma unroll
    for (int rank = 0; rank < QD_CUDA_MAX_RANKS; rank++)
        if (rank < n_ranks) part[rank] = reinterpret_cast<const uint4 *>(args.parts[rank])[i];
    return make_uint4(sum_pairs<&uint4::x>(part, n_ranks), sum_pairs<&uint4::y>(part, n_ranks),
                      sum_pairs<&uint4::z>(part, n_ranks), sum_pairs<&uint4::w>(part, n_ranks));
}

__global__ void __launch_bounds__(THREADS)
    all_reduce_bf16_one_shot_kernel(const __grid_constant__ struct qd_cuda_all_reduce_args args)
{
    const int block = static_cast<int>(blockIdx.x);
    const int64_t n_vectors = args.n / VECTOR;
    /* The parts are of earlier launches: whoever arrives has them behind it. */
    if (!peers_meet(args.peers, block)) return;
    for (int64_t i = static_cast<int64_t>(block) * THREADS + threadIdx.x; i < n_vectors;
         i += static_cast<int64_t>(gridDim.x) * THREADS)
        reinterpret_cast<uint4 *>(args.out)[i] = sum_vectors(args, i);
    peers_meet(args.peers, block); /* behind it every rank has read this one's part */
}

/* Elements come in tiles of n_ranks times THREADS vectors, of which rank r sums the r-th THREADS. A tile
 * belongs to the same block on all ranks, since only blocks of the same index meet.
 *
 *     tile t       [ of rank 0 | of rank 1 | ... ]       vectors
 *     pieces[r]    [ tile 0's | tile 1's | ... ]         of rank r
 */
__global__ void __launch_bounds__(THREADS)
    all_reduce_bf16_two_shot_kernel(const __grid_constant__ struct qd_cuda_all_reduce_args args,
                                    int64_t n_tiles)
{
    const int block = static_cast<int>(blockIdx.x), n_ranks = args.peers.n_ranks, self = args.peers.rank;
    const int64_t n_vectors = args.n / VECTOR;
    uint4 *own = nullptr;
#pragma unroll
    for (int rank = 0; rank < QD_CUDA_MAX_RANKS; rank++)
        if (rank == self) own = reinterpret_cast<uint4 *>(args.pieces.of_rank[rank]);
    /* The parts are there; and all have read the pieces of the launch before. */
    if (!peers_meet(args.peers, block)) return;
    for (int64_t tile = block; tile < n_tiles; tile += gridDim.x) {
        const int64_t i = (tile * n_ranks + self) * THREADS + threadIdx.x;
        if (i < n_vectors) own[tile * THREADS + threadIdx.x] = sum_vectors(args, i);
    }
    if (!peers_meet(args.peers, block)) return; /* the pieces are there, and no part is read any more */
    for (int64_t tile = block; tile < n_tiles; tile += gridDim.x) {
        const int64_t first = tile * n_ranks * THREADS + threadIdx.x;
        uint4 sum[QD_CUDA_MAX_RANKS];
#pragma unroll
        for (int rank = 0; rank < QD_CUDA_MAX_RANKS; rank++)
            if (rank < n_ranks && first + rank * THREADS < n_vectors)
                sum[rank] =
                    reinterpret_cast<const uint4 *>(args.pieces.of_rank[rank])[tile * THREADS + threadIdx.x];
#pragma unroll
        for (int rank = 0; rank < QD_CUDA_MAX_RANKS; rank++)
            if (rank < n_ranks && first + rank * THREADS < n_vectors)
                reinterpret_cast<uint4 *>(args.out)[first + rank * THREADS] = sum[rank];
    }
}

/* Pieces of work of which a block does one at a time. */
inline int64_t blocks_for(int64_t n, int64_t vectors_of_a_block)
{
    return (n / VECTOR + vectors_of_a_block - 1) / vectors_of_a_block;
}

} // namespace all_reduce

extern "C" size_t qd_cuda_all_reduce_piece_bytes(int64_t n, int n_ranks)
{
    using namespace all_reduce;
    return static_cast<size_t>(blocks_for(n, static_cast<int64_t>(n_ranks) * THREADS)) * THREADS *
           sizeof(uint4);
}

extern "C" qd_status qd_cuda_all_reduce(const struct qd_cuda_all_reduce_args *args,
                                        struct CUstream_st *stream, char *err, size_t errlen)
{
    const char *name = "all_reduce";
    QD_TRY(peers_check(name, args->peers, err, errlen));
    if (args->n < 0 || args->n % all_reduce::VECTOR != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: %lld elements, not a multiple of %d", name,
                       static_cast<long long>(args->n), all_reduce::VECTOR);
    if (args->n == 0) return QD_OK;
    using namespace all_reduce;
    const dim3 threads(THREADS);
    if (args->pieces.of_rank[0] == nullptr) {
        const struct launch_shape shape = {peers_grid(args->peers, blocks_for(args->n, THREADS)), threads, 0,
                                           stream};
        return launch(name, all_reduce_bf16_one_shot_kernel, shape, err, errlen, *args);
    }
    const int64_t n_tiles = blocks_for(args->n, static_cast<int64_t>(args->peers.n_ranks) * THREADS);
    const struct launch_shape shape = {peers_grid(args->peers, n_tiles), threads, 0, stream};
    return launch(name, all_reduce_bf16_two_shot_kernel, shape, err, errlen, *args, n_tiles);
}
