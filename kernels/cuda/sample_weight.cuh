/* The arithmetic of sampling, in integers wherever order or schedule could show: keys in the order of the
 * logits, weights e^((logit - max) / temperature) in fixed point, exact shares of a sum. fp32 is used for a
 * weight alone, with explicit roundings and no library function, so that a weight has the same bits in the
 * emulator and on a GPU.
 */
#ifndef QD_KERNELS_CUDA_SAMPLE_WEIGHT_CUH
#define QD_KERNELS_CUDA_SAMPLE_WEIGHT_CUH

#include "kernels/cuda/gpu.cuh"

namespace sample {

/* A weight of 1 (the largest logit's) is 2^WEIGHT_BITS: the sum over MAX_VOCAB ids fits into 64 bits. */
constexpr int WEIGHT_BITS = 43;
constexpr int MAX_VOCAB_BITS = 20;
constexpr int MAX_VOCAB = 1 << MAX_VOCAB_BITS;
static_assert(WEIGHT_BITS + MAX_VOCAB_BITS < 64, "sums of weights overflow");
/* 2^x below this is no weight at all: such ids cannot be drawn. Above it a weight keeps at least one bit. */
constexpr float LEAST_EXPONENT = -42.0f;
constexpr float LOG2_E = 1.44269504f;

/* Unsigned integers in the order of the logits; NaN counts as -inf, -0 as 0. No key is 0. */
__device__ __forceinline__ uint32_t sort_key(float logit)
{
    const uint32_t bits = logit == logit ? __float_as_uint(__fadd_rn(logit, 0.0f)) : 0xff800000u;
    return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}
__device__ __forceinline__ float from_sort_key(uint32_t key)
{
    return __uint_as_float(key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}

/* What a row's logits are weighed against. */
struct scale {
    uint32_t max_key;      /* of the largest logit */
    float max;             /* that logit */
    float exponent;        /* log2(e) / temperature */
    float bins_per_octave; /* of a coarse histogram of exponents */
};

/* The x of a weight 2^x: 0 for the largest logit, even an infinite one; never rises as the key falls. */
__device__ __forceinline__ float exponent_of(const struct scale &scale, uint32_t key)
{
    if (key == scale.max_key) return 0.0f;
    return __fmul_rn(__fsub_rn(from_sort_key(key), scale.max), scale.exponent);
}

__device__ __forceinline__ bool can_be_drawn(float x)
{
    return x > LEAST_EXPONENT;
}

/* 2^x * 2^WEIGHT_BITS, above 0, for LEAST_EXPONENT < x <= 0. The relative error is below 2^-22: 2^f on (-1,
 * 0] is a polynomial through its values at Chebyshev nodes (off by 2^-25.2), evaluated in fp32. */
__device__ __forceinline__ uint64_t weight_of(float x)
{
    const int whole = static_cast<int>(x); /* towards 0 */
    const float f = __fsub_rn(x, static_cast<float>(whole));
    float q = __fmaf_rn(0x1.e2025cp-14f, f, 0x1.529848p-10f);
    q = __fmaf_rn(q, f, 0x1.3a79c4p-7f);
    q = __fmaf_rn(q, f, 0x1.c6a652p-5f);
    q = __fmaf_rn(q, f, 0x1.ebfba8p-3f);
    q = __fmaf_rn(q, f, 0x1.62e430p-1f);
    q = __fmaf_rn(q, f, 1.0f);                                              /* [0.5, 1] */
    const uint64_t mantissa = static_cast<uint32_t>(__fmul_rn(q, 0x1p24f)); /* exact */
    const int shift = WEIGHT_BITS - 24 + whole;
    return shift >= 0 ? mantissa << shift : mantissa >> -shift;
}

/* total * mantissa / 2^shift, rounded down; mantissa < 2^24 <= 2^shift. */
__device__ __forceinline__ uint64_t share_of(uint64_t total, uint32_t mantissa, int shift)
{
    const uint64_t product = (total >> 24) * mantissa + ((total & 0xffffff) * mantissa >> 24); /* / 2^24 */
    return shift - 24 < 64 ? product >> (shift - 24) : 0;
}

/* The share top_p < 1 of the total, at least 1 unit: ids stay while those before them weigh less. */
__device__ __forceinline__ uint64_t top_p_target(float top_p, uint64_t total)
{
    const uint32_t bits = __float_as_uint(fmaxf(top_p, 0.0f)); /* (2^23 + fraction) * 2^(exponent - 150) */
    const uint64_t share =
        share_of(total, (bits & 0x7fffffu) | 0x800000u, 150 - static_cast<int>(bits >> 23));
    return share > 0 ? share : 1;
}

} // namespace sample

#endif
