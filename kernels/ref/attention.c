/* Causal attention over paged keys and values (Vaswani et al. 2017), grouped query heads.
 *
 * Scores are computed anew in every pass instead of being stored: slower, but nothing to read past the
 * formula.
 */
#include "kernels/ref/ref.h"
#include "kernels/ref/shared.h"
#include "kernels/traffic.h"

enum { OUT_DIMS = 256 }; /* elements of the output accumulated at a time */

/* One query row and the keys it sees. */
struct row {
    const struct qd_attention_args *args;
    const qd_bf16 *q;     /* [hd] */
    const int32_t *table; /* pages of the sequence */
    int32_t kv_head, n_visible;
    enum qd_numerics numerics;
};

/* Position j's K or V. */
static const qd_bf16 *key_or_value(const struct row *row, enum qd_ref_kv which, int32_t j)
{
    const int64_t slot = (int64_t)row->table[j / QD_KV_BLOCK_SIZE] * QD_KV_BLOCK_SIZE + j % QD_KV_BLOCK_SIZE;
    return qd_ref_kv_row(&row->args->kv, which, slot, row->kv_head);
}

static double score(const struct row *row, int32_t j)
{
    const qd_bf16 *k = key_or_value(row, QD_REF_K, j);
    const int32_t hd = row->args->head_dim;
    double sum = 0;
    for (int32_t i = 0; i < hd; i++) sum += (double)qd_bf16_to_f32(row->q[i]) * (double)qd_bf16_to_f32(k[i]);
    if (row->numerics == QD_NUMERICS_HF)
        return (double)qd_bf16_round(qd_bf16_round((float)sum) * (float)(1.0 / sqrt(hd)));
    return sum / sqrt(hd);
}

/* out[i] for i in [begin, end) */
static void weighted_sum(const struct row *row, double max, double total, int32_t begin, int32_t end,
                         qd_bf16 *out)
{
    double acc[OUT_DIMS] = {0};
    for (int32_t j = 0; j < row->n_visible; j++) {
        double p = exp(score(row, j) - max) / total;
        if (row->numerics == QD_NUMERICS_HF) p = (double)qd_bf16_round((float)p);
        const qd_bf16 *v = key_or_value(row, QD_REF_V, j);
        for (int32_t i = begin; i < end; i++) acc[i - begin] += p * (double)qd_bf16_to_f32(v[i]);
    }
    for (int32_t i = begin; i < end; i++) out[i] = qd_bf16_from_f32((float)acc[i - begin]);
}

static void attend(const struct row *row, qd_bf16 *out)
{
    const int32_t hd = row->args->head_dim;
    double max = -INFINITY, total = 0;
    for (int32_t j = 0; j < row->n_visible; j++) max = fmax(max, score(row, j));
    for (int32_t j = 0; j < row->n_visible; j++) total += exp(score(row, j) - max);
    for (int32_t begin = 0; begin < hd; begin += OUT_DIMS)
        weighted_sum(row, max, total, begin, begin + OUT_DIMS < hd ? begin + OUT_DIMS : hd, out);
}

void qd_ref_attention(const struct qd_attention_args *args, enum qd_numerics numerics)
{
    const struct qd_step *step = args->step;
    const int32_t group = args->n_heads / args->n_kv_heads;
    for (int32_t s = 0; s < step->n_seqs; s++) {
        const int32_t *table = qd_step_block_table(step) + qd_step_block_offset(step)[s];
        for (int32_t t = qd_step_cu_seqlens_q(step)[s]; t < qd_step_cu_seqlens_q(step)[s + 1]; t++) {
            for (int32_t h = 0; h < args->n_heads; h++) {
                const int64_t at = ((int64_t)t * args->n_heads + h) * args->head_dim;
                const struct row row = {
                    args, args->q + at, table, h / group, qd_step_position(step)[t] + 1, numerics};
                attend(&row, args->out + at);
            }
        }
    }
}

struct qd_attention_load qd_attention_load(const struct qd_step *step)
{
    struct qd_attention_load load = {.n_tokens = step->n_tokens};
    for (int32_t t = 0; t < step->n_tokens; t++) load.n_visible += qd_step_position(step)[t] + 1;
    for (int32_t s = 0; s < step->n_seqs; s++) load.n_kv += qd_step_kv_len(step)[s];
    return load;
}

struct qd_traffic qd_traffic_attention(const struct qd_attention_load *load, int64_t n_heads,
                                       int64_t n_kv_heads, int64_t head_dim)
{
    const int64_t q_dim = n_heads * head_dim, kv_dim = n_kv_heads * head_dim;
    return (struct qd_traffic){
        .bytes = (uint64_t)(load->n_tokens * (2 * q_dim + 2 * q_dim) + load->n_kv * 2 * 2 * kv_dim),
        .flops = (uint64_t)(4 * q_dim * load->n_visible), /* q.k and p*v, a multiply and an add each */
    };
}
