/* The KV block pool of one replica: page numbers only, the memory belongs to the device. */
#ifndef QD_HARNESS_ENGINE_KV_POOL_H
#define QD_HARNESS_ENGINE_KV_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

struct qd_kv_pool {
    int32_t n_blocks; /* all */
    int32_t n_free;
    int32_t *free_list; /* [n_free] a stack: the last freed page is reused first */
    uint8_t *in_use;    /* [n_blocks] */
};

qd_status qd_kv_pool_init(struct qd_kv_pool *pool, int32_t n_blocks);
void qd_kv_pool_free(struct qd_kv_pool *pool);

/* Takes n pages into out[n], or none at all (false). */
bool qd_kv_pool_take(struct qd_kv_pool *pool, int32_t n, int32_t *out);

/* Gives pages back; freeing a page that is not in use is an invariant violation. */
void qd_kv_pool_give(struct qd_kv_pool *pool, const int32_t *blocks, int32_t n);

#endif
