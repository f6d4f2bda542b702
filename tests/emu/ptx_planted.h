/* A product of two small matrices by one mma, and the same with a bug in the asm string. */
#ifndef QD_TESTS_EMU_PTX_PLANTED_H
#define QD_TESTS_EMU_PTX_PLANTED_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

enum { PLANTED_M = 16, PLANTED_N = 8, PLANTED_K = 16 };

/* All in device memory. */
struct ptx_planted_product {
    const uint16_t *a; /* [M][K] bf16 */
    const uint16_t *b; /* [K][N] bf16 */
    float *d;          /* [M][N] out: a times b */
};

/* is_swapped: what nvcc sees has two registers of a exchanged; to the source front end there is no
 * difference. */
qd_status ptx_planted_product(const struct ptx_planted_product *args, bool is_swapped,
                              struct CUstream_st *stream, char *err, size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
