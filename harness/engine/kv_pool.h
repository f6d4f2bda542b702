/* The KV block pool of one replica: page numbers only, the memory belongs to the device.
 *
 * Page 0 is the null page: it is never handed out, as in vLLM (whose block 0 is reserved), so that the same
 * --num-gpu-blocks-override N gives the same capacity of N - 1 pages in both, and padded rows of a captured
 * graph have a page to write to.
 */
#ifndef QD_HARNESS_ENGINE_KV_POOL_H
#define QD_HARNESS_ENGINE_KV_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

struct qd_kv_pool {
    int32_t n_blocks;   /* all, the null page included */
    int32_t n_free;     /* n_blocks - 1 when idle */
    int32_t *free_list; /* [n_free] a stack: the last freed page is reused first */
    uint8_t *in_use;    /* [n_blocks] */
};

/* n_blocks >= 2; the pool is empty after a failure. */
qd_status qd_kv_pool_init(struct qd_kv_pool *pool, int32_t n_blocks);
void qd_kv_pool_free(struct qd_kv_pool *pool);

/* Pages that requests can hold together. */
static inline int32_t qd_kv_pool_capacity(int32_t n_blocks)
{
    return n_blocks - 1;
}

/* Takes n pages into out[n], or none at all (false). */
bool qd_kv_pool_take(struct qd_kv_pool *pool, int32_t n, int32_t *out);

/* Gives pages back; freeing a page that is not in use is an invariant violation. */
void qd_kv_pool_give(struct qd_kv_pool *pool, const int32_t *blocks, int32_t n);

#endif
