/* all_reduce: out[i] = r(sum over ranks of parts[rank][i]), fp32 sums in rank order, so that all ranks get
 * the same bits; one launch on every rank, which reads the others' parts in place (one-shot).
 *
 *     n         a multiple of 8, any size
 *     n_ranks   1 .. 8; the same n and order of launches on all ranks
 *     out       apart from every part; all pointers 16-byte aligned
 *
 * Source: own. 54 registers (sm_80 and sm_90), no shared memory. Emulated only.
 * Bytes: n * 2 * (n_ranks + 1) on each rank, of which n * 2 * (n_ranks - 1) cross the links.
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

__global__ void __launch_bounds__(THREADS)
    all_reduce_bf16_one_shot_kernel(const __grid_constant__ struct qd_cuda_all_reduce_args args)
{
    const int block = static_cast<int>(blockIdx.x), n_ranks = args.peers.n_ranks;
    const int64_t n_vectors = args.n / VECTOR;
    /* The parts are of earlier launches: whoever arrives has them behind it. */
    if (!peers_meet(args.peers, block)) return;
    for (int64_t i = static_cast<int64_t>(block) * THREADS + threadIdx.x; i < n_vectors;
         i += static_cast<int64_t>(gridDim.x) * THREADS) {
        uint4 part[QD_CUDA_MAX_RANKS]; /* all on their way before the first is used */
#pragma unroll
        for (int rank = 0; rank < QD_CUDA_MAX_RANKS; rank++)
            if (rank < n_ranks) part[rank] = reinterpret_cast<const uint4 *>(args.parts[rank])[i];
        reinterpret_cast<uint4 *>(args.out)[i] =
            make_uint4(sum_pairs<&uint4::x>(part, n_ranks), sum_pairs<&uint4::y>(part, n_ranks),
                       sum_pairs<&uint4::z>(part, n_ranks), sum_pairs<&uint4::w>(part, n_ranks));
    }
    peers_meet(args.peers, block); /* behind it every rank has read this one's part */
}

} // namespace all_reduce

extern "C" qd_status qd_cuda_all_reduce(const struct qd_cuda_all_reduce_args *args,
                                        struct CUstream_st *stream, char *err, size_t errlen)
{
    const char *name = "all_reduce";
    QD_TRY(peers_check(name, args->peers, err, errlen));
    if (args->n < 0 || args->n % all_reduce::VECTOR != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: %lld elements, not a multiple of %d", name,
                       static_cast<long long>(args->n), all_reduce::VECTOR);
    if (args->n == 0) return QD_OK;
    const int64_t n_blocks = (args->n / all_reduce::VECTOR + all_reduce::THREADS - 1) / all_reduce::THREADS;
    const struct launch_shape shape = {peers_grid(args->peers, n_blocks), dim3(all_reduce::THREADS), 0, stream};
    return launch(name, all_reduce::all_reduce_bf16_one_shot_kernel, shape, err, errlen, *args);
}
