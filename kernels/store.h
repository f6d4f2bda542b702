/* Weights in a device's own memory: a store is the memory that one rank's weights take there. Host threads
 * fill it before any rank is opened; ranks then read it, and replicas whose ranks are on one device share it.
 * Callers know rows and strides; on which stream they travel and how they are page-locked is the device's
 * business.
 */
#ifndef QD_KERNELS_STORE_H
#define QD_KERNELS_STORE_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows from memory of alloc_staging to memory of a store. */
struct qd_store_copy {
    void *to;
    const void *from;
    size_t n_rows, row_bytes;
    size_t to_stride, from_stride; /* bytes, at least row_bytes */
};

/* Random values as qd_draw_bf16 (kernels/base/random.h) gives them: element [row][col] of a tensor has the
 * index row * n_cols + col. Of its rows [row_begin, + n_rows) and columns [col_begin, + n_slice_cols) row i
 * goes to row i of `to`, or with `interleaved` to row i / 8 * 16 + i % 8. Columns are multiples of 8. */
struct qd_store_fill {
    uint64_t seed, tensor;
    float width; /* of the distribution */
    int64_t n_cols, row_begin, n_rows, col_begin, n_slice_cols;
    bool interleaved;
    qd_bf16 *to;
    int64_t ld; /* elements from one row of `to` to the next, a multiple of 8 */
};

struct qd_store_stats {
    uint64_t copied_bytes; /* into this store */
    int64_t copy_ns;       /* the device was busy copying them */
};

/* Every function may be called from any thread, for one store with different lanes at the same time. */
struct qd_store_ops {
    /* The device of a rank of n_ranks by its global index: ranks with the same number share its memory. */
    qd_status (*device_of)(int global_rank, int n_ranks, int ranks_per_gpu, int *device, char *err,
                           size_t errlen);
    /* Zeroed memory of `bytes` on that device, for `n_lanes` callers that fill it. QD_ERR_NO_MEMORY
     * with what was asked for and what is free. */
    qd_status (*open)(int device, size_t bytes, int n_lanes, void **store, void **data, char *err,
                      size_t errlen);
    void (*close)(void *store); /* accepts NULL; after every rank that reads it */
    /* Elements from one row of a weight to the next. */
    int64_t (*row_stride)(int64_t n_cols, enum qd_weight_layout layout);
    qd_status (*alloc_staging)(size_t bytes, void **out, char *err,
                               size_t errlen); /* every device copies from it */
    void (*free_staging)(void *staging);       /* accepts NULL */
    /* Starts a copy and returns; `from` must stay as it is until the lane was waited for, which has one at a
     * time. */
    qd_status (*copy)(void *store, int lane, const struct qd_store_copy *copy, char *err, size_t errlen);
    qd_status (*wait)(void *store, int lane, char *err, size_t errlen);
    qd_status (*fill)(void *store, const struct qd_store_fill *fill, char *err,
                      size_t errlen); /* starts it */
    /* Waits for all of it. */
    qd_status (*finish)(void *store, struct qd_store_stats *stats, char *err, size_t errlen);
};

#ifdef __cplusplus
}
#endif

#endif
