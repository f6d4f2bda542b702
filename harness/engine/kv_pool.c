#include "harness/engine/kv_pool.h"

#include <stdlib.h>

qd_status qd_kv_pool_init(struct qd_kv_pool *pool, int32_t n_blocks)
{
    *pool = (struct qd_kv_pool){0};
    if (n_blocks < 2) return QD_ERR_ARGUMENT;
    pool->free_list = calloc((size_t)n_blocks, sizeof *pool->free_list);
    pool->in_use = calloc((size_t)n_blocks, sizeof *pool->in_use);
    if (pool->free_list == NULL || pool->in_use == NULL) {
        qd_kv_pool_free(pool);
        return QD_ERR_NO_MEMORY;
    }
    pool->n_blocks = n_blocks;
    pool->n_free = qd_kv_pool_capacity(n_blocks);
    /* The stack's top is page 1, so an idle pool hands pages out in rising order. */
    for (int32_t i = 0; i < pool->n_free; i++) pool->free_list[i] = n_blocks - 1 - i;
    pool->in_use[0] = 1;
    return QD_OK;
}

void qd_kv_pool_free(struct qd_kv_pool *pool)
{
    free(pool->free_list);
    free(pool->in_use);
    *pool = (struct qd_kv_pool){0};
}

bool qd_kv_pool_take(struct qd_kv_pool *pool, int32_t n, int32_t *out)
{
    if (n > pool->n_free) return false;
    for (int32_t i = 0; i < n; i++) {
        int32_t block = pool->free_list[--pool->n_free];
        pool->in_use[block] = 1;
        out[i] = block;
    }
    return true;
}

void qd_kv_pool_give(struct qd_kv_pool *pool, const int32_t *blocks, int32_t n)
{
    /* In reverse, so that the next owner receives them in the order they were held. */
    for (int32_t i = n - 1; i >= 0; i--) {
        int32_t block = blocks[i];
        QD_ASSERT(block > 0 && block < pool->n_blocks && pool->in_use[block]);
        pool->in_use[block] = 0;
        pool->free_list[pool->n_free++] = block;
    }
}
