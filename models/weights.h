/* Arranged weights of one rank, as the forward pass reads them. Filled by the safetensors loader or by
 * dummy.c; memory belongs to the model, is read-only once loaded and is shared by all replicas. */
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

/* What rank 0 <= rank < tp holds; everything lives as long as the model. The weights are NULL when the model
 * was loaded for a device that does not execute. */
const struct qd_rank_weights *qd_model_rank_weights(const qd_model_t *model, int rank);
const struct qd_shard *qd_model_shard(const qd_model_t *model, int rank);

/* The weights of `rank` where its device reads them: those of the model, which must then outlive `out`, or copies in
 * the device's memory, which lives as long as the device's context. `out` owns its table of layers. */
qd_status qd_model_place_weights(const qd_model_t *model, int rank, struct qd_device device,
                                 struct qd_rank_weights *out, char *err, size_t errlen);
void qd_rank_weights_free(struct qd_rank_weights *weights); /* of qd_model_place_weights; harmless when zeroed */

/* The model's rotary frequencies; inv_freq [head_dim/2] lives as long as the model. */
struct qd_rope qd_model_get_rope(const qd_model_t *model);

#endif
