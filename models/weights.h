/* Arranged weights of one rank, as the forward pass reads them. Filled by the safetensors loader or by
 * dummy.c; memory belongs to the model, is read-only once loaded and is shared by all replicas that reach it.
 */
#ifndef QD_MODELS_WEIGHTS_H
#define QD_MODELS_WEIGHTS_H

#include "kernels/ops.h"
#include "models/model.h"

struct qd_layer_weights {
    const qd_bf16 *input_norm;     /* [H] */
    struct qd_weight qkv;          /* [(Hq + 2*Hkv)*hd][H] packed */
    const qd_bf16 *q_norm, *k_norm; /* [hd] */
    struct qd_weight o;            /* [H][Hq*hd] packed */
    const qd_bf16 *post_norm;      /* [H] */
    struct qd_weight gate_up;      /* [2*I][H] packed, groups of 8 */
    struct qd_weight down;         /* [H][I] packed */
};

struct qd_rank_weights {
    struct qd_weight embedding; /* [V][H], rows; packed when tied (then shared with lm_head) */
    struct qd_layer_weights *layers; /* [n_layers] */
    const qd_bf16 *final_norm;  /* [H] */
    struct qd_weight lm_head;   /* [vocab_count][H] packed; data NULL when the shard is empty */
};

/* The weights of a rank by its global index (replica * tp + rank), where its device reads them; everything
 * lives as long as the model. NULL when the model was loaded for a device that does not execute. */
const struct qd_rank_weights *qd_model_rank_weights(const qd_model_t *model, int rank);
const struct qd_shard *qd_model_shard(const qd_model_t *model, int rank); /* 0 <= rank < tp */

/* The model's rotary frequencies; inv_freq [head_dim/2] lives as long as the model. */
struct qd_rope qd_model_get_rope(const qd_model_t *model);

#endif
