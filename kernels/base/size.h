/* Checked size arithmetic: every byte count that comes from a file or an option goes through these. */
#ifndef QD_KERNELS_BASE_SIZE_H
#define QD_KERNELS_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* *out = a * b; false (and *out untouched) when the product does not fit. */
static inline bool qd_size_mul(size_t a, size_t b, size_t *out)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

/* *out = a + b; false (and *out untouched) when the sum does not fit. */
static inline bool qd_size_add(size_t a, size_t b, size_t *out)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

/* Smallest multiple of `multiple` (> 0) that is at least `n`; the caller has bounded n. */
static inline size_t qd_round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* ceil(a / b) for a >= 0, b > 0. */
static inline int64_t qd_div_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#endif
