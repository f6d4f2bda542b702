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

/* 16 bf16 a0 b0 a1 b1 .. a7 b7 -> fp32 a0..a7 and b0..b7: half the work of two vf_load_bf16 */
static inline void vf_load_bf16_pairs(const qd_bf16 *p, vf *a, vf *b)
{
    __m256i pairs = _mm256_loadu_si256((const __m256i *)p);
    *a = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    *b = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000u)));
}

/* r(x) lane by lane: nearest even in the upper half of each lane; NaN stays NaN */
static inline vf vf_round_bf16(vf v)
{
    __m256i bits = _mm256_castps_si256(v);
    __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    __m256i words = _mm256_blendv_epi8(rounded, quiet, is_nan);
    return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32((int)0xffff0000u)));
}

/* 8 fp32 -> 8 bf16 */
static inline void vf_store_bf16(qd_bf16 *p, vf v)
{
    __m256i words = _mm256_srli_epi32(_mm256_castps_si256(vf_round_bf16(v)), 16);
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0xd8);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(packed));
}

/* a < b ? x : y, lane by lane; y where a or b is NaN */
static inline vf vf_select_lt(vf a, vf b, vf x, vf y)
{
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}

/* Sum of the lanes, always in the same tree: ((0+4) + (2+6)) + ((1+5) + (3+7)). */
static inline float vf_sum(vf v)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Largest lane; unspecified when a lane is NaN. */
static inline float vf_max_lane(vf v)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* round to integer, ties to even */
static inline vf vf_round(vf v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/* 2^n for integral n in [-126, 127] */
static inline vf vf_pow2(vf n)
{
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
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
static inline void vf_load_bf16_pairs(const qd_bf16 *p, vf *a, vf *b)
{
    typedef uint32_t vu __attribute__((vector_size(32)));
    vu pairs, low, high;
    memcpy(&pairs, p, sizeof pairs);
    low = pairs << 16;
    high = pairs & 0xffff0000u;
    memcpy(a, &low, sizeof low);
    memcpy(b, &high, sizeof high);
}
static inline void vf_store_bf16(qd_bf16 *p, vf v)
{
    for (int i = 0; i < VF_LANES; i++) p[i] = qd_bf16_from_f32(v[i]);
}
static inline vf vf_round_bf16(vf v)
{
    for (int i = 0; i < VF_LANES; i++) v[i] = qd_bf16_round(v[i]);
    return v;
}
static inline vf vf_select_lt(vf a, vf b, vf x, vf y)
{
    for (int i = 0; i < VF_LANES; i++) y[i] = a[i] < b[i] ? x[i] : y[i];
    return y;
}
static inline float vf_sum(vf v)
{
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
static inline float vf_max_lane(vf v)
{
    float best = v[0];
    for (int i = 1; i < VF_LANES; i++) best = v[i] > best ? v[i] : best;
    return best;
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

/* e^x, relative error below 2 ulp; 0 below -87.3, +inf from 88.73; NaN stays NaN. Cody-Waite reduction and
 * the degree-6 minimax polynomial of Cephes expf. */
static inline vf vf_exp(vf x)
{
    /* the second operand is the one that a NaN passes through */
    vf low = vf_set1(-87.3f), clamped = vf_min(vf_set1(89.0f), vf_max(low, x));
    vf n = vf_round(vf_mul(clamped, vf_set1(0x1.715476p+0f)));
    vf r = vf_fma(n, vf_set1(-0.693359375f), clamped);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf p = vf_set1(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set1(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set1(5.0000001201e-1f));
    vf e = vf_add(vf_fma(vf_mul(r, r), p, r), vf_set1(1.0f));
    /* 2^128 is not representable: scale in two halves */
    vf half = vf_round(vf_mul(n, vf_set1(0.5f)));
    e = vf_mul(vf_mul(e, vf_pow2(half)), vf_pow2(vf_sub(n, half)));
    return vf_select_lt(x, low, vf_zero(), e);
}

/* x / (1 + e^-x) */
static inline vf vf_silu(vf x)
{
    return vf_div(x, vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_zero(), x))));
}

#endif
