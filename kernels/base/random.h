/* Counter-based random numbers (Philox4x32-10, Salmon et al., SC 2011): the value depends only on (key,
 * counter), so any rank, thread or order of evaluation draws the same number. */
#ifndef QD_KERNELS_BASE_RANDOM_H
#define QD_KERNELS_BASE_RANDOM_H

#include <stdint.h>

struct qd_philox_block {
    uint32_t word[4]; /* four independent 32-bit values */
};

static inline struct qd_philox_block qd_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_lo, c1 = (uint32_t)(counter_lo >> 32);
    uint32_t c2 = (uint32_t)counter_hi, c3 = (uint32_t)(counter_hi >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (struct qd_philox_block){{c0, c1, c2, c3}};
}

/* Uniform in the open interval (0, 1) on 2^23 points: 2^-24 .. 1 - 2^-24, each exact in fp32. */
static inline float qd_uniform_open(uint32_t word)
{
    return ((float)(word >> 9) + 0.5f) * 0x1p-23f;
}

#endif
