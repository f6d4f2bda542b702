/* Counter-based random numbers (Philox4x32-10, Salmon et al., SC 2011): the value depends only on (key,
 * counter), so any rank, thread or order of evaluation draws the same number. */
#ifndef QD_KERNELS_BASE_RANDOM_H
#define QD_KERNELS_BASE_RANDOM_H

#include <stdint.h>

#include "kernels/base/bf16.h"

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

enum { QD_DRAWS = 8 }; /* bf16 values of one block */

/* out[QD_DRAWS] = r(u * width), u uniform in (-1/2, 1/2) on 2^16 points, from the block at `index` of
 * `stream`: the 16-bit draw w, the lower half of a word first, stands for (w + 1/2) / 2^16 - 1/2. */
static inline void qd_draw_bf16(uint64_t key, uint64_t stream, uint64_t index, float width, qd_bf16 *out)
{
    struct qd_philox_block block = qd_philox(key, stream, index);
    for (int i = 0; i < QD_DRAWS; i++) {
        int32_t draw = (int32_t)(block.word[i / 2] >> (i % 2 * 16) & 0xffffu);
        out[i] = qd_bf16_from_f32(((float)draw - 32767.5f) * 0x1p-16f * width);
    }
}

#endif
