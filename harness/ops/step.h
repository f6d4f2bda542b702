/* The step that a case runs in: sequences, pages dealt out of order, sampling parameters. */
#ifndef QD_HARNESS_OPS_STEP_H
#define QD_HARNESS_OPS_STEP_H

#include "harness/ops/case.h"

/* A sequence's part in a step. */
struct qd_op_chunk {
    int32_t seq, prior, q_len; /* keys before the step; tokens of the step */
};

/* Where a case's sequences have their pages. */
struct qd_op_pages {
    int32_t n_seqs, per_seq; /* pages of a sequence */
    int32_t n_blocks;        /* of the pool; some belong to nobody */
};
struct qd_op_pages qd_op_pages(const struct qd_op_case *c);

/* Part i of the case's step. */
int32_t qd_op_n_chunks(const struct qd_op_case *c);
struct qd_op_chunk qd_op_chunk(const struct qd_op_case *c, int32_t i);
/* What attention's cost depends on. */
struct qd_attention_load qd_op_attention_load(const struct qd_op_case *c);

/* Largest counts of the case's step and of the steps that fill its pool. */
struct qd_step_limits qd_op_limits(const struct qd_op_case *c);

/* Writes the step of these chunks into `step`, which has room for the limits. Rows are sampled by turns
 * greedily, by temperature, top-k and top-p, or with `greedy` all greedily. */
void qd_op_step_write(const struct qd_op_case *c, const struct qd_op_chunk *chunks, int32_t n_chunks,
                      uint64_t seed, bool greedy, struct qd_step *step);

#endif
