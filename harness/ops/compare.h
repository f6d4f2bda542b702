/* The comparator of cases: an element passes when |got - want| <= atol + rtol * |want|; NaN and infinities
 * pass only where the same one is wanted. Of rounded outputs nearly all must also be the same bits, which
 * tells roundings apart that no tolerance can. */
#ifndef QD_HARNESS_OPS_COMPARE_H
#define QD_HARNESS_OPS_COMPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/bf16.h"

struct qd_op_tolerance {
    double rtol, atol;
    double moved; /* share of a bf16 output's elements (or two) that may have other bits; 1: any */
};

/* Over all outputs of a case. */
struct qd_op_error {
    const char *output;  /* of the worst element: "out", "residual", "ids", ...; NULL when nothing differs */
    double worst;        /* its |got - want| / tolerance: good up to 1 */
    double abs, rel;     /* its |got - want|, and that / |want| */
    double got, want;    /* of it */
    int64_t row, column; /* of it */
    int64_t n_checked;   /* elements */
    int64_t n_bad;       /* beyond the tolerance */
    int64_t n_moved;     /* good, but other bits, in outputs that limit them */
    int64_t n_limited;   /* elements of such outputs */
    double moved_limit;  /* share */
};

void qd_op_compare_bf16(struct qd_op_error *error, const char *output, struct qd_op_tolerance tolerance,
                        int64_t row, const qd_bf16 *got, const qd_bf16 *want, int64_t n);
void qd_op_compare_f32(struct qd_op_error *error, const char *output, struct qd_op_tolerance tolerance,
                       int64_t row, const float *got, const float *want, int64_t n);

/* Adds what another rank found. */
void qd_op_error_merge(struct qd_op_error *error, const struct qd_op_error *other);

/* Whether everything is good; otherwise why[why_len] says what is not. */
bool qd_op_error_passed(const struct qd_op_error *error, char *why, size_t why_len);

#endif
