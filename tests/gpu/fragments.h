/* Kernels that show one instruction of kernels/cuda/ptx.cuh each: registers in and out as the lanes hold
 * them, so that the test alone says which element is where. All pointers are device pointers.
 */
#ifndef QD_TESTS_GPU_FRAGMENTS_H
#define QD_TESTS_GPU_FRAGMENTS_H

#include <stdint.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

enum { FRAGMENT_LANES = 32 };

/* mma_m16n8k16_bf16, one product a case. */
struct fragment_mma {
    int n_cases;
    const uint32_t *a; /* [n_cases][32][4] */
    const uint32_t *b; /* [n_cases][32][2] */
    float *d;          /* [n_cases][32][4] in and out */
};
qd_status fragment_mma(const struct fragment_mma *args, struct CUstream_st *stream, char *err, size_t errlen);

enum fragment_load { FRAGMENT_X1, FRAGMENT_X2, FRAGMENT_X4, FRAGMENT_X4_TRANS };

/* ldmatrix from a tile of 32 rows of 8 elements that is copied to shared memory first. */
struct fragment_ldmatrix {
    enum fragment_load load;
    const uint16_t *tile;  /* [32][8] */
    const int32_t *row_of; /* [32]: the row whose address each lane names */
    uint32_t *registers;   /* [32][4] out; those that the form has not are left alone */
};
qd_status fragment_ldmatrix(const struct fragment_ldmatrix *args, struct CUstream_st *stream, char *err,
                            size_t errlen);

/* pack_bf16(low[i], high[i]), at most 32. */
struct fragment_pack {
    int n;
    const float *low, *high; /* [n] */
    uint32_t *packed;        /* [n] out */
};
qd_status fragment_pack(const struct fragment_pack *args, struct CUstream_st *stream, char *err,
                        size_t errlen);

/* cp_async_16 by every lane into shared memory that held 0xee, and what lies there after wait and barrier. */
struct fragment_copy {
    const unsigned char *from; /* [32][16] */
    const uint32_t *src_bytes; /* [32] */
    unsigned char *arrived;    /* [32][16] out */
};
qd_status fragment_copy(const struct fragment_copy *args, struct CUstream_st *stream, char *err,
                        size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
