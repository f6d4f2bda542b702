/* Per head RMSNorm of q and k, rotary embedding, and the store of k and v into the paged pool. */
#include <math.h>

#include "kernels/ref/ref.h"
#include "kernels/ref/shared.h"
#include "kernels/traffic.h"

static void rope_pair(const struct qd_rope *rope, int32_t pair, int32_t position, enum qd_numerics numerics,
                      float *cos_out, float *sin_out)
{
    const float angle = (float)position * rope->inv_freq[pair];
    *cos_out = (float)cos((double)angle) * rope->attention_scaling;
    *sin_out = (float)sin((double)angle) * rope->attention_scaling;
    if (numerics == QD_NUMERICS_HF) {
        *cos_out = qd_bf16_round(*cos_out);
        *sin_out = qd_bf16_round(*sin_out);
    }
}

void qd_ref_rope(const struct qd_rope *rope, int32_t head_dim, int32_t position, enum qd_numerics numerics,
                 float *cos_out, float *sin_out)
{
    for (int32_t i = 0; i < head_dim / 2; i++)
        rope_pair(rope, i, position, numerics, &cos_out[i], &sin_out[i]);
}

/* How one token's q and k heads are turned. */
struct turn {
    const struct qd_rope *rope;
    int32_t head_dim, position;
    float eps;
    enum qd_numerics numerics;
};

enum { MAX_HEAD_DIM = 512 };

/* One token's head as the projection would have stored it; `head` counts q, k and v heads. */
static void read_head(const struct qd_qk_norm_rope_kv_args *args, int64_t token, int64_t head, qd_bf16 *out)
{
    const int64_t hd = args->head_dim, n = args->n_heads + 2 * args->n_kv_heads;
    for (int64_t i = 0; i < hd; i++)
        out[i] =
            qd_bf16_from_f32(qd_ref_partial_one(&args->qkv, args->qkv.data, (token * n + head) * hd + i));
}

/* One head: norm, then rotation of the pairs (i, i + hd/2). */
static void norm_rope_head(const struct turn *turn, const qd_bf16 *x, const qd_bf16 *weight, qd_bf16 *out)
{
    const int32_t half = turn->head_dim / 2;
    const float rstd = qd_ref_reciprocal_rms(x, turn->head_dim, turn->eps);

    for (int32_t i = 0; i < half; i++) {
        const float a = qd_ref_norm_one(x[i], rstd, weight[i], turn->numerics);
        const float b = qd_ref_norm_one(x[i + half], rstd, weight[i + half], turn->numerics);
        float c, s;
        rope_pair(turn->rope, i, turn->position, turn->numerics, &c, &s);
        if (turn->numerics == QD_NUMERICS_HF) {
            out[i] = qd_bf16_from_f32(qd_bf16_round(a * c) + qd_bf16_round(-b * s));
            out[i + half] = qd_bf16_from_f32(qd_bf16_round(b * c) + qd_bf16_round(a * s));
        } else {
            out[i] = qd_bf16_from_f32((float)((double)a * (double)c - (double)b * (double)s));
            out[i + half] = qd_bf16_from_f32((float)((double)b * (double)c + (double)a * (double)s));
        }
    }
}

void qd_ref_qk_norm_rope_kv(const struct qd_qk_norm_rope_kv_args *args, const struct qd_rope *rope,
                            enum qd_numerics numerics)
{
    const int64_t hd = args->head_dim, n_q = args->n_heads, n_kv = args->n_kv_heads;
    qd_bf16 head[MAX_HEAD_DIM];
    QD_ASSERT(hd <= MAX_HEAD_DIM);
    for (int64_t t = 0; t < args->step->n_tokens; t++) {
        const int64_t slot = qd_step_slot_mapping(args->step)[t];
        const struct turn turn = {rope, args->head_dim, qd_step_position(args->step)[t], args->eps, numerics};
        for (int32_t h = 0; h < n_q; h++) {
            read_head(args, t, h, head);
            norm_rope_head(&turn, head, args->q_norm_weight, args->q_out + (t * n_q + h) * hd);
        }
        for (int32_t h = 0; h < n_kv; h++) {
            read_head(args, t, n_q + h, head);
            norm_rope_head(&turn, head, args->k_norm_weight, qd_ref_kv_row(&args->kv, QD_REF_K, slot, h));
            read_head(args, t, n_q + n_kv + h, qd_ref_kv_row(&args->kv, QD_REF_V, slot, h));
        }
    }
}

struct qd_traffic qd_traffic_qk_norm_rope_kv(int64_t n_tokens, int64_t n_heads, int64_t n_kv_heads,
                                             int64_t head_dim)
{
    const int64_t qkv = n_tokens * (n_heads + 2 * n_kv_heads) * head_dim;
    return (struct qd_traffic){
        .bytes = (uint64_t)(2 * qkv + 2 * qkv + 2 * 2 * head_dim + n_tokens * (4 + 8)),
        .flops = (uint64_t)(n_tokens * (n_heads + n_kv_heads) * head_dim * (4 + 3)), /* norm, rotation */
    };
}
