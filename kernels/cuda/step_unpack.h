/* How a step travels: one upload with a table of parts in front, which a kernel copies to the addresses that
 * every step has, each with its padding. The kernel's only argument is the address of the upload.
 */
#ifndef QD_KERNELS_CUDA_STEP_UNPACK_H
#define QD_KERNELS_CUDA_STEP_UNPACK_H

#include <stdint.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

enum { QD_CUDA_MAX_PARTS = 10, QD_CUDA_MAX_PATTERN = 8 };

/* One array of the step, in 32-bit words. */
struct qd_cuda_unpack_part {
    uint64_t from;                                    /* byte offset in the upload, a multiple of 4 */
    uint32_t *to;                                     /* in device memory */
    uint64_t n_words;                                 /* copied */
    uint64_t n_padded;                                /* written, >= n_words */
    uint32_t n_pattern, pattern[QD_CUDA_MAX_PATTERN]; /* padding, repeated from word 0 on; n_pattern 0: each
                                                       * word's own index */
};

/* Copies parts [n_parts] at the start of `upload` (device memory). max_words: the largest n_padded among
 * them. Errors: those of the launch. */
qd_status qd_cuda_step_unpack(const void *upload, int32_t n_parts, uint64_t max_words,
                              struct CUstream_st *stream, char *err, size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
