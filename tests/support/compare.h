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
    double same;     /* share of elements, 0 .. 1, that must be equal; 0: not asked */
};

/* The worst over all comparisons that were given the same struct (start with DEVIATION_NONE). */
struct deviation {
    double max_abs, max_rel, nmse; /* max_rel over elements with |want| > 1e-3 of the largest */
    double same;                   /* share of equal elements */
};
#define DEVIATION_NONE                                                                                       \
    {                                                                                                        \
        .same = 1                                                                                            \
    }
/* One line on stdout: where the observed errors in the tests' comments come from. */
void deviation_print(const char *what, const struct deviation *d);

/* `observed` may be NULL. */
void compare_f32(const char *what, const float *got, const float *want, size_t n, struct tolerance tolerance,
                 struct deviation *observed);
void compare_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n,
                  struct tolerance tolerance, struct deviation *observed);

/* Fails unless both are the same bits; prints the first element that differs. */
void compare_same_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n);
void compare_same_f32(const char *what, const float *got, const float *want, size_t n);

#endif
