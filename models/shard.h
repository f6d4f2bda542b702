/* The tensor-parallel plan: which rows and columns of each Hugging Face tensor a rank holds, and where they
 * go in the arranged weights.
 *
 * Arranged weights per layer and rank (row-major [N][K] bf16 before the device packs them):
 *   qkv      [(Hq + 2*Hkv)*hd][H]   q heads of the rank, its k heads, its v heads
 *   o        [H][Hq*hd]             columns of the rank's heads
 *   gate_up  [2*I][H]               gate and up rows of the rank interleaved in groups of 8
 *   down     [H][I]                 columns of the rank
 * lm_head shard: S = 64*ceil(V/(64*tp)) rows, rank r owns ids [r*S, min((r+1)*S, V)).
 * KV heads are replicated when tp exceeds their number.
 */
#ifndef QD_MODELS_SHARD_H
#define QD_MODELS_SHARD_H

#include "kernels/device.h"
#include "models/tensors.h"

/* What one rank holds. */
struct qd_shard {
    int tp, rank;
    int32_t n_heads, head_begin;       /* query heads */
    int32_t n_kv_heads, kv_head_begin; /* KV heads (shared with other ranks when replicated) */
    int64_t ffn_dim, ffn_begin;        /* I of the rank */
    int64_t vocab_rows;                /* S: rows of the lm_head shard, padding included */
    int64_t vocab_begin, vocab_count;  /* ids owned; count may be 0 */
};

/* Elements from one row of silu(gate) * up to the next: I in whole 64s, as some devices read them. */
static inline int64_t qd_shard_activated_dim(const struct qd_shard *shard)
{
    return (shard->ffn_dim + 63) / 64 * 64;
}

/* S: rows of the lm_head shard of each of tp ranks, for a vocabulary of V. */
int64_t qd_shard_vocab_rows(int64_t vocab_size, int tp);

/* QD_ERR_UNSUPPORTED with the arithmetic when heads or ffn do not divide by tp, or neither of kv heads and tp
 * divides the other. */
qd_status qd_shard_make(const struct qd_model_config *config, int tp, int rank, struct qd_shard *out,
                        char *err, size_t errlen);

enum qd_interleave {
    QD_INTERLEAVE_NONE = 0,
    QD_INTERLEAVE_GATE, /* first half of each group of 8 + 8 */
    QD_INTERLEAVE_UP,   /* second half */
};

/* The part of a Hugging Face tensor that a rank holds, and its place in the arranged weight. */
struct qd_slice {
    int64_t row_begin, n_rows; /* of the tensor; n_rows may be 0 */
    int64_t col_begin, n_cols; /* of the tensor; n_cols is the arranged weight's row length */
    int64_t dst_row;           /* arranged row of row_begin when not interleaved */
    enum qd_interleave interleave;
};

/* The slice of a tensor for one rank. Norms and the embedding are whole. */
struct qd_slice qd_shard_slice(const struct qd_model_config *config, const struct qd_shard *shard,
                               const struct qd_tensor_spec *spec);

/* Arranged row of the slice's row i, 0 <= i < n_rows. */
int64_t qd_slice_dst_row(const struct qd_slice *slice, int64_t i);

/* Shape facts for the device. */
struct qd_model_shape qd_shard_shape(const struct qd_model_config *config, const struct qd_shard *shard);

/* Bytes of one rank on a device, for doctor, for refusals and for sizing the pool; of rank 0, which is never
 * smaller than another. A device that does not execute needs nothing but (imagined) pages.
 * QD_ERR_UNSUPPORTED when the model does not divide by tp, QD_ERR_TOO_LARGE when a size overflows. */
struct qd_memory_need {
    size_t weight_bytes;      /* of this rank, embedding excluded when shared */
    size_t embedding_bytes;   /* read-only, once per process or, where the device has copies, per rank */
    size_t kv_bytes_per_token; /* all layers, this rank */
    size_t activation_bytes;  /* at limits; in the device's memory */
    size_t logit_bytes;       /* the same, of steps that want logits */
};
qd_status qd_memory_need(const struct qd_model_config *config, int tp, const struct qd_device_ops *ops,
                         const struct qd_step_limits *limits, struct qd_memory_need *out, char *err,
                         size_t errlen);

#endif
