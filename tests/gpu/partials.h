/* What a GEMM left for the kernel under test: one bf16 tensor, or fp32 slices whose stride is larger than the
 * data, with NaN in the gaps. */
#ifndef QD_TESTS_GPU_PARTIALS_H
#define QD_TESTS_GPU_PARTIALS_H

#include <stdlib.h>

#include "kernels/ops.h"
#include "tests/gpu/runner.h"

enum { SLICE_GAP = 24 /* elements behind each slice; a multiple of 8 */ };

struct test_partial {
    struct qd_partial device;
    float *sum; /* [n] on the host: slices summed in index order in fp32, not rounded */
};

/* n elements, each part uniform in [-scale, scale); n_slices 1 for bf16. */
static inline struct test_partial new_partial(size_t n, enum qd_partial_dtype dtype, int n_slices,
                                              float scale, uint64_t seed)
{
    const size_t stride = n + SLICE_GAP;
    struct test_partial partial = {.sum = gpu_host_alloc(n * sizeof(float))};
    partial.device = (struct qd_partial){.dtype = dtype, .n_slices = n_slices, .stride = (int64_t)stride};
    if (dtype == QD_PARTIAL_BF16) {
        qd_bf16 *data = gpu_host_alloc(n * sizeof *data);
        gpu_random_bf16(data, n, scale, seed);
        for (size_t i = 0; i < n; i++) partial.sum[i] = qd_bf16_to_f32(data[i]);
        partial.device.data = gpu_upload(data, n * sizeof *data);
        return partial;
    }
    float *slices = gpu_host_alloc(stride * (size_t)n_slices * sizeof *slices);
    memset(slices, 0xff, stride * (size_t)n_slices * sizeof *slices);
    memset(partial.sum, 0, n * sizeof *partial.sum);
    for (int s = 0; s < n_slices; s++) {
        float *slice = slices + (size_t)s * stride;
        gpu_random_f32(slice, n, scale, seed + (uint64_t)s);
        for (size_t i = 0; i < n; i++) partial.sum[i] += slice[i];
    }
    partial.device.data = gpu_upload(slices, stride * (size_t)n_slices * sizeof *slices);
    return partial;
}

/* The sums rounded to bf16: what a GEMM without slices would have stored. */
static inline qd_bf16 *rounded_sum(const struct test_partial *partial, size_t n)
{
    qd_bf16 *rounded = gpu_host_alloc(n * sizeof *rounded);
    for (size_t i = 0; i < n; i++) rounded[i] = qd_bf16_from_f32(partial->sum[i]);
    return rounded;
}

#endif
