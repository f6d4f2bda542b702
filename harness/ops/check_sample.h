/* Whether a sampled id is right: the specification's, or one that rounding may have put in its place. */
#ifndef QD_HARNESS_OPS_CHECK_SAMPLE_H
#define QD_HARNESS_OPS_CHECK_SAMPLE_H

#include "harness/ops/compare.h"
#include "kernels/ref/ref.h"

/* Adds one comparison. An id other than the specification's passes when the uniform lies within rounding of a
 * boundary of the specification's running sum, or the top-p cut within rounding of the id. QD_ERR_NO_MEMORY.
 */
qd_status qd_op_check_id(struct qd_op_error *error, int64_t row, const float *logits, int64_t n,
                         const struct qd_sampling *sampling, int32_t id, char *err, size_t errlen);

#endif
