/* What the specification (kernels/ref) makes of a rank's inputs, compared element by element with what the
 * device left. A tolerance stands with its derivation in check.c. */
#ifndef QD_HARNESS_OPS_CHECK_H
#define QD_HARNESS_OPS_CHECK_H

#include "harness/ops/compare.h"
#include "harness/ops/run.h"

/* What the device left after a call on copy 0, on the host. */
struct qd_op_outputs {
    unsigned char *guarded[QD_OP_N_OPERANDS]; /* written operands between their guards; NULL: not written */
    float *slices;                            /* [n_slices][T][N] of a projection that left such, else NULL */
    const int32_t *ids;                       /* [R] sampled */
};

/* Queues copies of what the last call wrote; they have arrived when the step ends. QD_ERR_NO_MEMORY, or what
 * the device says. */
qd_status qd_op_read_back(struct qd_op_rank *r, struct qd_op_outputs *out, char *err, size_t errlen);
void qd_op_outputs_free(struct qd_op_outputs *out);

/* Adds to *error. Rows are checked in even steps where all of them would take the specification many seconds.
 * `step` is the case's, `seed` that of its inputs. QD_ERR_INTERNAL with the place when bytes beside an output
 * were written; QD_ERR_NO_MEMORY. */
qd_status qd_op_check(const struct qd_op_rank *r, const struct qd_step *step, uint64_t seed,
                      const struct qd_op_outputs *outputs, struct qd_op_error *error, char *err,
                      size_t errlen);

/* Of another library's product [M][N] of a projection's operands, without its epilogue. */
qd_status qd_op_check_product(const struct qd_op_rank *r, const qd_bf16 *product, struct qd_op_error *error,
                              char *err, size_t errlen);

#endif
