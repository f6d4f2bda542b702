/* Tensors of a trace of Hugging Face's intermediates (tests/data/traces). */
#ifndef QD_TESTS_SUPPORT_TRACE_H
#define QD_TESTS_SUPPORT_TRACE_H

#include <stddef.h>

#include <cjson/cJSON.h>

#include "kernels/base/bf16.h"

/* Parses a whole file, or fails the test. The caller deletes it. */
cJSON *trace_read(const char *path);

/* The tensor of that name ("weights/l0.q_norm.weight": a member of weights) as bf16 with n elements; fails
 * the test when it is absent or of another size. The caller frees it. */
qd_bf16 *trace_tensor(const cJSON *trace, const char *name, size_t n);

#endif
