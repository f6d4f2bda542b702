/* RMSNorm of one row, shared by the ops that contain it. Compiled once per instruction set.
 *
 * The sum of squares runs over 4 x 8 lanes and is closed by a fixed tree, so it depends on the row alone.
 */
#ifndef QD_KERNELS_CPU_NORM_H
#define QD_KERNELS_CPU_NORM_H

#include "kernels/cpu/kernels.h"

enum { NORM_VECTORS = 4 };

/* 1 / sqrt(mean(x^2) + eps) over x[dim], in fp32. */
static inline float norm_reciprocal_rms(const qd_bf16 *x, int64_t dim, float eps)
{
    vf sum[NORM_VECTORS] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    int64_t i = 0;
    for (; i + NORM_VECTORS * VF_LANES <= dim; i += NORM_VECTORS * VF_LANES) {
        VF_UNROLL
        for (int j = 0; j < NORM_VECTORS; j++) {
            vf v = vf_load_bf16(x + i + j * VF_LANES);
            sum[j] = vf_fma(v, v, sum[j]);
        }
    }
    for (int j = 0; i < dim; i += VF_LANES, j++) {
        vf v = dim - i < VF_LANES ? vf_load_bf16_part(x + i, dim - i) : vf_load_bf16(x + i);
        sum[j] = vf_fma(v, v, sum[j]);
    }
    float total = vf_sum(vf_add(vf_add(sum[0], sum[2]), vf_add(sum[1], sum[3])));
    return 1.0f / sqrtf(total / (float)dim + eps);
}

/* One vector of it; not yet rounded for the last time in fused numerics: that is the caller's store. */
static inline vf norm_vector(vf x, vf weight, float reciprocal_rms, enum qd_numerics numerics)
{
    vf normed = vf_mul(x, vf_set1(reciprocal_rms));
    if (numerics == QD_NUMERICS_HF) normed = vf_round_bf16(normed);
    return vf_mul(weight, normed);
}

/* out = r(weight * x / rms(x)), in hf numerics r(weight * r(x / rms(x))); out may alias x. */
static inline void norm_row(const qd_bf16 *x, const qd_bf16 *weight, qd_bf16 *out, int64_t dim, float eps,
                            enum qd_numerics numerics)
{
    float reciprocal_rms = norm_reciprocal_rms(x, dim, eps);
    int64_t i = 0;
    for (; i + VF_LANES <= dim; i += VF_LANES)
        vf_store_bf16(out + i,
                      norm_vector(vf_load_bf16(x + i), vf_load_bf16(weight + i), reciprocal_rms, numerics));
    if (i < dim)
        vf_store_bf16_part(out + i,
                           norm_vector(vf_load_bf16_part(x + i, dim - i),
                                       vf_load_bf16_part(weight + i, dim - i), reciprocal_rms, numerics),
                           dim - i);
}

#endif
