/* The specification's view of one sequence: its keys and values by kernels/ref, and attention of one token.
 */
#ifndef QD_HARNESS_OPS_CHECK_ATTENTION_H
#define QD_HARNESS_OPS_CHECK_ATTENTION_H

#include "harness/ops/run.h"

struct qd_op_sequence {
    const struct qd_op_rank *r;
    struct qd_rope rope;
    int32_t n_pages;
    struct qd_step *step; /* of one token; pages 0 .. n_pages - 1 */
    qd_bf16 *pool;        /* [2][n_pages][Hkv][16][hd] */
    qd_bf16 *row;         /* [2*Hkv*hd] */
    int32_t seq, n_keys;  /* whose keys the pool has, and how many; -1: nobody's */
};

qd_status qd_op_sequence_init(const struct qd_op_rank *r, int32_t max_len, struct qd_op_sequence *out,
                              char *err, size_t errlen);
void qd_op_sequence_free(struct qd_op_sequence *s);

/* qk_norm_rope_kv of one token: q, k and v heads at `qkv`, n_heads of them query heads; K and V to place
 * `slot`. */
void qd_op_sequence_rope(struct qd_op_sequence *s, const qd_bf16 *qkv, int32_t n_heads, int32_t position,
                         int64_t slot, qd_bf16 *q_out);

/* attention of the token at `position` of sequence `seq`: q[Hq*hd] -> out[Hq*hd]. */
void qd_op_sequence_attend(struct qd_op_sequence *s, uint64_t seed, int32_t seq, int32_t position,
                           const qd_bf16 *q, qd_bf16 *out);

#endif
