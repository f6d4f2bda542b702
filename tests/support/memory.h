/* Test buffers: outputs between sentinels, poisoned inputs, reproducible random values. */
#ifndef QD_TESTS_SUPPORT_MEMORY_H
#define QD_TESTS_SUPPORT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/bf16.h"

/* An output buffer of exactly `bytes` at data, 64-byte aligned, filled with NaN (bf16 and fp32), between
 * sentinels. */
struct guarded {
    unsigned char *base;
    void *data;
    size_t bytes;
};
struct guarded guarded_alloc(size_t bytes);
/* Fails the test when a sentinel was overwritten; once per buffer. */
void guarded_check(const char *what, const struct guarded *g);
/* guarded_check, then releases. */
void guarded_free(const char *what, struct guarded *g);

/* n values uniform in [-scale, scale), a function of (seed, index) only. */
void random_bf16(qd_bf16 *out, size_t n, uint64_t seed, double scale);
void random_f32(float *out, size_t n, uint64_t seed, double scale);
/* The same in fresh memory; the caller frees it. */
qd_bf16 *new_random_bf16(size_t n, uint64_t seed, double scale);
/* n norm weights: 1 plus a uniform in [-0.5, 0.5). */
qd_bf16 *new_norm_weight(size_t n, uint64_t seed);
/* Uniform integer in [0, n). */
uint32_t random_below(uint64_t seed, uint64_t index, uint32_t n);

/* n bf16 NaN */
void poison_bf16(qd_bf16 *out, size_t n);

#endif
