/* Pieces of the specification that two ops have in common. */
#ifndef QD_KERNELS_REF_SHARED_H
#define QD_KERNELS_REF_SHARED_H

#include <math.h>
#include <stdint.h>

#include "kernels/ops.h"

enum { QD_GATE_UP_GROUP = 8 }; /* gate columns, then as many up columns, and so on */

/* Column of gate i among 2*n interleaved columns; its up column is *group further. The last group may be
 * shorter. */
static inline int64_t qd_ref_gate_column(int64_t i, int64_t n, int64_t *group)
{
    const int64_t begin = i / QD_GATE_UP_GROUP * QD_GATE_UP_GROUP, left = n - begin;
    *group = left < QD_GATE_UP_GROUP ? left : QD_GATE_UP_GROUP;
    return 2 * begin + (i - begin);
}

/* Element `at` of a partial whose slices lie at `data`: the slices summed in index order, as if stored in
 * bf16. */
static inline float qd_ref_partial_one(const struct qd_partial *partial, const void *data, int64_t at)
{
    if (partial->dtype == QD_PARTIAL_BF16) return qd_bf16_to_f32(((const qd_bf16 *)data)[at]);
    float sum = 0;
    for (int32_t slice = 0; slice < partial->n_slices; slice++)
        sum += ((const float *)data)[slice * partial->stride + at];
    return qd_bf16_round(sum);
}

/* fused: r(silu(g) * u)   hf: r(r(silu(r(g))) * r(u)) */
static inline qd_bf16 qd_ref_silu_mul_one(double gate, double up, enum qd_numerics numerics)
{
    if (numerics == QD_NUMERICS_HF) {
        gate = (double)qd_bf16_round((float)gate);
        up = (double)qd_bf16_round((float)up);
    }
    double silu = gate / (1.0 + exp(-gate));
    if (numerics == QD_NUMERICS_HF) silu = (double)qd_bf16_round((float)silu);
    return qd_bf16_from_f32((float)(silu * up));
}

/* 1 / sqrt(mean(x^2) + eps) in fp32: Hugging Face holds it so in every numerics. */
static inline float qd_ref_reciprocal_rms(const qd_bf16 *x, int64_t dim, float eps)
{
    double sum = 0;
    for (int64_t i = 0; i < dim; i++) sum += (double)qd_bf16_to_f32(x[i]) * (double)qd_bf16_to_f32(x[i]);
    return (float)(1.0 / sqrt(sum / (double)dim + (double)eps));
}

/* hf: r(w * r(x * rstd))   fused: w * x * rstd, not yet rounded */
static inline float qd_ref_norm_one(qd_bf16 x, float rstd, qd_bf16 weight, enum qd_numerics numerics)
{
    const float normed = qd_bf16_to_f32(x) * rstd, w = qd_bf16_to_f32(weight);
    return numerics == QD_NUMERICS_HF ? qd_bf16_round(w * qd_bf16_round(normed)) : w * normed;
}

enum qd_ref_kv { QD_REF_K = 0, QD_REF_V = 1 };

/* One head's K or V of a slot (page * 16 + offset): pool [2][page][Hkv][16][hd]. */
static inline qd_bf16 *qd_ref_kv_row(const struct qd_kv_layer *kv, enum qd_ref_kv which, int64_t slot,
                                     int32_t head)
{
    const int64_t page = slot / QD_KV_BLOCK_SIZE, offset = slot % QD_KV_BLOCK_SIZE;
    const int64_t tile = (which * kv->n_blocks + page) * kv->n_kv_heads + head;
    return kv->data + (tile * QD_KV_BLOCK_SIZE + offset) * kv->head_dim;
}

#endif
