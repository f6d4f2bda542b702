/* The counter-based random numbers of kernels/base/random.h on the device: the same values for the same key
 * and counter (Philox4x32-10, Salmon et al., SC 2011).
 */
#ifndef QD_KERNELS_CUDA_PHILOX_CUH
#define QD_KERNELS_CUDA_PHILOX_CUH

#include "kernels/cuda/gpu.cuh"

struct philox_block {
    uint32_t word[4]; /* four independent 32-bit values */
};

__device__ __forceinline__ struct philox_block philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo)
{
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    uint32_t c0 = static_cast<uint32_t>(counter_lo), c1 = static_cast<uint32_t>(counter_lo >> 32);
    uint32_t c2 = static_cast<uint32_t>(counter_hi), c3 = static_cast<uint32_t>(counter_hi >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint64_t even = static_cast<uint64_t>(0xD2511F53u) * c0;
        const uint64_t odd = static_cast<uint64_t>(0xCD9E8D57u) * c2;
        c0 = static_cast<uint32_t>(odd >> 32) ^ c1 ^ k0;
        c2 = static_cast<uint32_t>(even >> 32) ^ c3 ^ k1;
        c1 = static_cast<uint32_t>(odd);
        c3 = static_cast<uint32_t>(even);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

#endif
