/* Vectors of 8 fp32 lanes with one body per instruction set: every op of kernels/cpu/ is written once against
 * this header and compiled once per set (QD_CPU_ISA is `portable` or `avx2`, given by the Makefile).
 *
 * `vf_fma` is a fused multiply-add on avx2 and a multiply followed by an add on portable (a software fmaf
 * would be a hundred times slower), so bits agree within one instruction set only. No other header of
 * kernels/cpu may contain intrinsics.
 */
#ifndef QD_KERNELS_CPU_SIMD_H
#define QD_KERNELS_CPU_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/base/bf16.h"

#define QD_CPU_PASTE_(a, b) a##_##b
#define QD_CPU_PASTE(a, b) QD_CPU_PASTE_(a, b)
/* qd_cpu_gemm_nt -> qd_cpu_gemm_nt_avx2 */
#define QD_CPU_FN(name) QD_CPU_PASTE(name, QD_CPU_ISA)

enum { VF_LANES = 8 };

/* Asks for the complete unrolling of the loop that follows, which keeps an array of accumulators in
 * registers. */
#ifdef __clang__
#define VF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define VF_UNROLL _Pragma("GCC unroll 64")
#endif

#ifdef __AVX2__

#include <immintrin.h>

typedef __m256 vf;

enum { VF_ACCUMULATORS = 12 }; /* that fit into the registers beside the operands of a product */

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); } /* a*b + c */
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }

/* 8 bf16 -> 8 fp32 */
static inline vf vf_load_bf16(const qd_bf16 *p)
{
    __m128i half = _mm_loadu_si128((const __m128i *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* 8 fp32 -> 8 bf16, round to nearest even; NaN stays NaN */
static inline void vf_store_bf16(qd_bf16 *p, vf v)
{
    __m256i bits = _mm256_castps_si256(v);
    __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff))), 16);
    __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    __m256i words = _mm256_blendv_epi8(rounded, quiet, is_nan);
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0xd8);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(packed));
}

/* round to integer, ties to even */
static inline vf vf_round(vf v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/* 2^n for integral n in [-126, 127] */
static inline vf vf_pow2(vf n)
{
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}

/* v where x >= limit or x is NaN, else 0 */
static inline vf vf_zero_below(vf v, vf x, vf limit)
{
    return _mm256_and_ps(v, _mm256_cmp_ps(x, limit, _CMP_NLT_UQ));
}

#else

typedef float vf __attribute__((vector_size(32)));

enum { VF_ACCUMULATORS = 6 }; /* of two 16-byte registers each */

static inline vf vf_set1(float x) { return (vf){x, x, x, x, x, x, x, x}; }
static inline vf vf_zero(void) { return vf_set1(0.0f); }
static inline vf vf_load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
/* as the x86 instruction: the second operand when either is NaN */
static inline vf vf_max(vf a, vf b)
{
    for (int i = 0; i < VF_LANES; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
static inline vf vf_min(vf a, vf b)
{
    for (int i = 0; i < VF_LANES; i++) a[i] = a[i] < b[i] ? a[i] : b[i];
    return a;
}
static inline vf vf_load_bf16(const qd_bf16 *p)
{
    vf v;
    for (int i = 0; i < VF_LANES; i++) v[i] = qd_bf16_to_f32(p[i]);
    return v;
}
static inline void vf_store_bf16(qd_bf16 *p, vf v)
{
    for (int i = 0; i < VF_LANES; i++) p[i] = qd_bf16_from_f32(v[i]);
}
static inline vf vf_round(vf v)
{
    /* adding and subtracting 1.5 * 2^23 rounds to nearest even for |x| < 2^22 */
    vf magic = vf_set1(0x1.8p23f);
    return (v + magic) - magic;
}
static inline vf vf_pow2(vf n)
{
    typedef int32_t vi __attribute__((vector_size(32)));
    vi exponent = __builtin_convertvector(n, vi) + 127;
    exponent <<= 23;
    vf out;
    memcpy(&out, &exponent, sizeof out);
    return out;
}
/* v where x >= limit or x is NaN, else 0 */
static inline vf vf_zero_below(vf v, vf x, vf limit)
{
    typedef int32_t vi __attribute__((vector_size(32)));
    vi bits;
    memcpy(&bits, &v, sizeof bits);
    bits &= ~(vi)(x < limit);
    memcpy(&v, &bits, sizeof v);
    return v;
}

#endif

/* The first n < 8 of 8 lanes; the others are 0 when loaded and kept out of memory when stored. */
static inline vf vf_load_bf16_part(const qd_bf16 *p, int64_t n)
{
    qd_bf16 half[VF_LANES] = {0};
    memcpy(half, p, (size_t)n * sizeof *p);
    return vf_load_bf16(half);
}
static inline void vf_store_bf16_part(qd_bf16 *p, vf v, int64_t n)
{
    qd_bf16 half[VF_LANES];
    vf_store_bf16(half, v);
    memcpy(p, half, (size_t)n * sizeof *p);
}

/* r(x) lane by lane */
static inline vf vf_round_bf16(vf v)
{
    qd_bf16 half[VF_LANES];
    vf_store_bf16(half, v);
    return vf_load_bf16(half);
}

/* Sum of the lanes, always in the same tree. */
static inline float vf_sum(vf v)
{
    float x[VF_LANES];
    vf_store(x, v);
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

static inline float vf_max_lane(vf v)
{
    float x[VF_LANES];
    vf_store(x, v);
    float best = x[0];
    for (int i = 1; i < VF_LANES; i++) best = x[i] > best ? x[i] : best;
    return best;
}

/* e^(x - n ln 2) for the integral n nearest to x / ln 2: Cody-Waite reduction and the degree-6 minimax
 * polynomial of Cephes expf. */
static inline vf vf_exp_reduced(vf x, vf n)
{
    vf r = vf_fma(n, vf_set1(-0.693359375f), x);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf p = vf_set1(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set1(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set1(5.0000001201e-1f));
    return vf_add(vf_fma(vf_mul(r, r), p, r), vf_set1(1.0f));
}

/* e^x, relative error below 2 ulp; 0 below -87.3, +inf above 88.7; -inf gives 0. */
static inline vf vf_exp(vf x)
{
    vf low = vf_set1(-87.3f), high = vf_set1(88.7f);
    vf clamped = vf_min(vf_max(x, low), high);
    vf n = vf_round(vf_mul(clamped, vf_set1(0x1.715476p+0f)));
    vf e = vf_exp_reduced(clamped, n);
    float in[VF_LANES], out[VF_LANES];
    /* 2^128 is not representable: scale in two halves */
    vf half = vf_round(vf_mul(n, vf_set1(0.5f)));
    e = vf_mul(vf_mul(e, vf_pow2(half)), vf_pow2(vf_sub(n, half)));
    vf_store(in, x);
    vf_store(out, e);
    for (int i = 0; i < VF_LANES; i++) out[i] = in[i] < -87.3f ? 0.0f : out[i];
    return vf_load(out);
}

/* e^x for x <= 0, relative error below 2 ulp; 0 below -87.3; NaN stays NaN. Same reduction and polynomial as
 * vf_exp, without what only positive arguments need. */
static inline vf vf_exp_nonpositive(vf x)
{
    vf low = vf_set1(-87.3f);
    vf clamped = vf_max(low, x);
    vf n = vf_round(vf_mul(clamped, vf_set1(0x1.715476p+0f)));
    vf e = vf_mul(vf_exp_reduced(clamped, n), vf_pow2(n));
    return vf_zero_below(e, x, low);
}

/* x / (1 + e^-x) */
static inline vf vf_silu(vf x)
{
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}

#endif
