/* Attention as Hugging Face's eager bf16 path computes it: scores rounded after the product and after the
 * scale, softmax in fp32 over the whole row, probabilities rounded, output rounded by the caller. */
#include <math.h>

#include "kernels/cpu/attention_tile.h"

/* scores[0 .. visible) to r(softmax(r(r(s) * scale))); sums run over lanes of eight keys from position 0 on.
 */
static void softmax_row(float *scores, int32_t visible, float scale)
{
    int32_t padded = (visible + VF_LANES - 1) / VF_LANES * VF_LANES;
    for (int32_t key = visible; key < padded; key++) scores[key] = -INFINITY;

    vf max = vf_set1(-INFINITY), sum = vf_zero();
    for (int32_t key = 0; key < padded; key += VF_LANES) {
        vf s = vf_round_bf16(vf_mul(vf_round_bf16(vf_load(scores + key)), vf_set1(scale)));
        vf_store(scores + key, s);
        max = vf_max(max, s);
    }
    max = vf_set1(vf_max_lane(max));
    for (int32_t key = 0; key < padded; key += VF_LANES) {
        vf e = vf_exp(vf_sub(vf_load(scores + key), max));
        vf_store(scores + key, e);
        sum = vf_add(sum, e);
    }
    sum = vf_set1(vf_sum(sum));
    for (int32_t key = 0; key < padded; key += VF_LANES)
        vf_store(scores + key, vf_round_bf16(vf_div(vf_load(scores + key), sum)));
}

void QD_CPU_FN(qd_cpu_attention_hf)(struct qd_cpu_attention_block *block)
{
    const struct qd_cpu_attention_keys *keys = &block->keys;
    const int32_t n_keys = block->visible[block->n_rows - 1];
    for (int32_t key = 0; key < n_keys; key += QD_CPU_TILE_KEYS) {
        while (block->visible[block->first_row] <= key) block->first_row++;
        struct qd_cpu_attention_tile k =
            qd_cpu_attention_tile_at(block, keys->k, key, keys->k, key + QD_CPU_TILE_KEYS);
        QD_CPU_FN(qd_cpu_attention_scores)(block, &k, block->scores + key);
    }
    for (int row = 0; row < block->n_rows; row++)
        softmax_row(block->scores + row * block->score_stride, block->visible[row], block->scale);
    block->first_row = 0;
    for (int32_t key = 0; key < n_keys; key += QD_CPU_TILE_KEYS) {
        while (block->visible[block->first_row] <= key) block->first_row++;
        struct qd_cpu_attention_tile v =
            qd_cpu_attention_tile_at(block, keys->v, key, keys->v, key + QD_CPU_TILE_KEYS);
        QD_CPU_FN(qd_cpu_attention_values)(block, &v, block->scores + key);
    }
}
