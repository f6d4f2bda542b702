/* The one comparator of all tests: NaN and infinities by bit pattern first, then every element against
 * abs + rel * |want|, then the normalised mean square error of the whole. A failure prints the first bad
 * index with both values, and what was observed, and fails the running test.
 */
#ifndef QD_TESTS_SUPPORT_COMPARE_H
#define QD_TESTS_SUPPORT_COMPARE_H

#include <stddef.h>

#include "kernels/base/bf16.h"

/* Each tolerance in a test carries the largest error observed beside it. */
struct tolerance {
    double abs, rel; /* an element is good when |got - want| <= abs + rel * |want| */
    double nmse;     /* sum (got - want)^2 / sum want^2 */
};

/* What was observed, for tests that print it. */
struct deviation {
    double max_abs, max_rel, nmse; /* max_rel over elements with |want| > 1e-3 of the largest */
};

void compare_f32(const char *what, const float *got, const float *want, size_t n, struct tolerance tolerance,
                 struct deviation *observed);
void compare_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n,
                  struct tolerance tolerance, struct deviation *observed);

/* Fails unless both are the same bits; prints the first element that differs. */
void compare_same_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n);
void compare_same_f32(const char *what, const float *got, const float *want, size_t n);

/* Fails unless at least `share` (0 .. 1) of the elements are the same bits and the others one bf16 apart. */
void compare_share_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n, double share);

#endif
