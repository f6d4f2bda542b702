#include "models/convert.h"

#include <string.h>

/* Values are handled in blocks whose length the compiler knows, so that it can use vectors. */
enum { BLOCK = 64 };

static const uint32_t F32_INFINITY = 0x7f800000u;

/* One block; returns the overflows. The rule of qd_bf16_from_f32 without its branch. */
static uint32_t convert_f32_block(const uint32_t *in, qd_bf16 *out, int n)
{
    uint32_t n_overflowed = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits = in[i], magnitude = bits & 0x7fffffffu;
        uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        uint32_t quiet = bits >> 16 | 0x40u;
        n_overflowed += magnitude < F32_INFINITY && (rounded & 0x7fffu) == F32_INFINITY >> 16;
        out[i] = (qd_bf16)(magnitude > F32_INFINITY ? quiet : rounded);
    }
    return n_overflowed;
}

uint64_t qd_convert_f32(const void *in, size_t n, qd_bf16 *out)
{
    uint64_t n_overflowed = 0;
    const unsigned char *from = in;
    uint32_t block[BLOCK];
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t count = n - i < BLOCK ? n - i : BLOCK;
        memcpy(block, from + i * sizeof *block, count * sizeof *block);
        n_overflowed += count == BLOCK ? convert_f32_block(block, out + i, BLOCK)
                                       : convert_f32_block(block, out + i, (int)count);
    }
    return n_overflowed;
}

/* A half's exponent and fraction, moved to their places in fp32, are 2^112 too small; the product is exact,
 * for subnormal halves too. */
static void convert_f16_block(const uint16_t *in, qd_bf16 *out, int n)
{
    uint32_t wide[BLOCK];
    for (int i = 0; i < n; i++) {
        uint32_t half = in[i], shifted = (half & 0x7fffu) << 13;
        float value;
        memcpy(&value, &shifted, sizeof value);
        value *= 0x1p112f;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (shifted >= 0x0f800000u) bits = shifted | F32_INFINITY; /* infinity and NaN */
        wide[i] = bits | (half & 0x8000u) << 16;
    }
    convert_f32_block(wide, out, n);
}

void qd_convert_f16(const void *in, size_t n, qd_bf16 *out)
{
    const unsigned char *from = in;
    uint16_t block[BLOCK];
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t count = n - i < BLOCK ? n - i : BLOCK;
        memcpy(block, from + i * sizeof *block, count * sizeof *block);
        if (count == BLOCK)
            convert_f16_block(block, out + i, BLOCK);
        else
            convert_f16_block(block, out + i, (int)count);
    }
}
