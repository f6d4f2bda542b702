/* The device's random numbers as a kernel of its own, for the test of them. */
#ifndef QD_TESTS_GPU_PHILOX_KERNEL_H
#define QD_TESTS_GPU_PHILOX_KERNEL_H

#include <stdint.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

struct philox_test_args {
    uint64_t key, counter_hi, counter_lo;
    int32_t n;
    uint32_t *out; /* [n][4]: the block of (key, counter_hi, counter_lo + i) */
};
qd_status philox_test_launch(const struct philox_test_args *args, struct CUstream_st *stream, char *err,
                             size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
