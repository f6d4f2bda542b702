/* A step's arrays to their fixed places: to[i] = i < n_words ? from[i] : padding(i), in 32-bit words, for
 * every part of the upload (kernels/cuda/step_unpack.h).
 *
 *     constraint                                    otherwise
 *     1 .. QD_CUDA_MAX_PARTS parts, max_words > 0   QD_ERR_ARGUMENT
 *
 * Traffic: twice the upload, a few hundred KiB at most. nvcc 13.0: 22 registers on sm_80, 24 on sm_90, no shared
 * memory, no spills. Emulated only.
 */
#include "kernels/cuda/step_unpack.h"

#include "kernels/cuda/launch.cuh"

namespace step_unpack {

constexpr unsigned THREADS = 128, WORDS_A_THREAD = 4, MAX_BLOCKS = 64;

__global__ void __launch_bounds__(THREADS) step_unpack_u32_kernel(const unsigned char *upload)
{
    const qd_cuda_unpack_part &part = reinterpret_cast<const qd_cuda_unpack_part *>(upload)[blockIdx.y];
    const uint32_t *from = reinterpret_cast<const uint32_t *>(upload + part.from);
    uint64_t i = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x;

    for (; i < part.n_padded; i += static_cast<uint64_t>(gridDim.x) * THREADS) {
        uint32_t word = static_cast<uint32_t>(i);
        if (i < part.n_words)
            word = from[i];
        else if (part.n_pattern > 0)
            word = part.pattern[i % part.n_pattern];
        part.to[i] = word;
    }
}

} // namespace step_unpack

extern "C" qd_status qd_cuda_step_unpack(const void *upload, int32_t n_parts, uint64_t max_words,
                                         struct CUstream_st *stream, char *err, size_t errlen)
{
    using namespace step_unpack;
    if (n_parts < 1 || n_parts > QD_CUDA_MAX_PARTS || max_words == 0)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "step_unpack: %d parts of up to %llu words", n_parts,
                       static_cast<unsigned long long>(max_words));
    const uint64_t a_block = THREADS * WORDS_A_THREAD, most = (max_words + a_block - 1) / a_block;
    const unsigned blocks = most < MAX_BLOCKS ? static_cast<unsigned>(most) : MAX_BLOCKS;
    const struct launch_shape shape = {dim3(blocks, static_cast<unsigned>(n_parts)), dim3(THREADS), 0,
                                       stream};
    return launch("step_unpack", step_unpack_u32_kernel, shape, err, errlen,
                  static_cast<const unsigned char *>(upload));
}
