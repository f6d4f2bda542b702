/* Random weights: to[dst(i)][j] = r(u * width), u uniform in (-1/2, 1/2), a function of (seed, tensor, index
 * in the whole tensor) alone, so that every rank and the host draw the same value (qd_draw_bf16 of
 * kernels/base/random.h; struct qd_store_fill of kernels/store.h). A thread makes the eight values of one
 * Philox block and stores 16 bytes.
 *
 *     constraint                                                   otherwise
 *     n_cols, col_begin, n_slice_cols, ld multiples of 8           QD_ERR_UNSUPPORTED
 *     0 <= n_rows < 2^31, slice within n_cols and within ld        QD_ERR_UNSUPPORTED
 *     `to` 16-byte aligned                                         QD_ERR_UNSUPPORTED
 *
 * Traffic: 2 bytes written an element; about 70 integer operations a block of eight, so that memory is the
 * limit. nvcc 13.0: 30 registers on sm_80, 20 on sm_90, no shared memory, no spills. Emulated only.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/ptx.cuh"

namespace fill_uniform {

constexpr unsigned THREADS = 128;
constexpr int64_t DRAWS = 8, GROUP = 8; /* values of a block; rows of an interleaved group */

__device__ __forceinline__ float draw(uint32_t word, float width)
{
    return (static_cast<float>(static_cast<int32_t>(word & 0xffffu)) - 32767.5f) * 0x1p-16f * width;
}

__device__ __forceinline__ uint32_t two_draws(uint32_t word, float width)
{
    return ptx::pack_bf16(draw(word, width), draw(word >> 16, width));
}

__global__ void __launch_bounds__(THREADS)
    fill_uniform_bf16_block_per_row_kernel(const struct qd_store_fill args)
{
    const int64_t i = blockIdx.x, first = (args.row_begin + i) * args.n_cols + args.col_begin;
    const int64_t row = args.interleaved ? i / GROUP * 2 * GROUP + i % GROUP : i;
    qd_bf16 *to = args.to + row * args.ld;

    for (int64_t j = threadIdx.x * DRAWS; j < args.n_slice_cols; j += THREADS * DRAWS) {
        const philox_block block = philox(args.seed, args.tensor, static_cast<uint64_t>((first + j) / DRAWS));
        *reinterpret_cast<uint4 *>(to + j) =
            make_uint4(two_draws(block.word[0], args.width), two_draws(block.word[1], args.width),
                       two_draws(block.word[2], args.width), two_draws(block.word[3], args.width));
    }
}

} // namespace fill_uniform

extern "C" qd_status qd_cuda_fill_uniform(const struct qd_store_fill *args, struct CUstream_st *stream,
                                          char *err, size_t errlen)
{
    using namespace fill_uniform;
    const long long cols = args->n_cols, begin = args->col_begin, n = args->n_slice_cols, ld = args->ld;
    if (cols % DRAWS != 0 || begin % DRAWS != 0 || n % DRAWS != 0 || ld % DRAWS != 0 ||
        reinterpret_cast<uintptr_t>(args->to) % 16 != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                       "fill_uniform: columns %lld + %lld of %lld to rows %lld apart at %p: not in whole 8s",
                       begin, n, cols, ld, static_cast<void *>(args->to));
    if (begin < 0 || n < 0 || begin + n > cols || n > ld || args->row_begin < 0 || args->n_rows < 0 ||
        args->n_rows > INT32_MAX)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                       "fill_uniform: %lld rows from %lld, columns %lld + %lld of %lld to rows %lld apart",
                       static_cast<long long>(args->n_rows), static_cast<long long>(args->row_begin), begin,
                       n, cols, ld);
    if (args->n_rows == 0 || n == 0) return QD_OK;
    const struct launch_shape shape = {dim3(static_cast<unsigned>(args->n_rows)), dim3(THREADS), 0, stream};
    return launch("fill_uniform", fill_uniform_bf16_block_per_row_kernel, shape, err, errlen, *args);
}
