#include "harness/engine/kv_pool.h"

#include <stdlib.h>

static void link_before(struct qd_kv_pool *pool, int32_t block, int32_t next)
{
    struct qd_kv_page *pages = pool->pages;
    int32_t prev = pages[next].prev;
    pages[block].prev = prev;
    pages[block].next = next;
    pages[prev].next = pages[next].prev = block;
    pool->n_free++;
}

static void unlink_page(struct qd_kv_pool *pool, int32_t block)
{
    struct qd_kv_page *pages = pool->pages;
    pages[pages[block].prev].next = pages[block].next;
    pages[pages[block].next].prev = pages[block].prev;
    pool->n_free--;
}

static bool is_labelled(const struct qd_kv_pool *pool, int32_t block)
{
    return pool->labels != NULL && pool->labels[block].is_set;
}

static int32_t *bucket_of(const struct qd_kv_pool *pool, struct qd_block_hash hash)
{
    return &pool->buckets[hash.word[0] & (pool->n_buckets - 1)];
}

static qd_status allocate(struct qd_kv_pool *pool, int32_t n_blocks, bool prefix_caching)
{
    pool->pages = calloc((size_t)n_blocks, sizeof *pool->pages);
    if (pool->pages == NULL) return QD_ERR_NO_MEMORY;
    if (!prefix_caching) return QD_OK;
    pool->n_buckets = 1;
    while (pool->n_buckets < (uint32_t)n_blocks) pool->n_buckets *= 2;
    pool->labels = calloc((size_t)n_blocks, sizeof *pool->labels);
    pool->buckets = calloc(pool->n_buckets, sizeof *pool->buckets);
    return pool->labels != NULL && pool->buckets != NULL ? QD_OK : QD_ERR_NO_MEMORY;
}

qd_status qd_kv_pool_init(struct qd_kv_pool *pool, int32_t n_blocks, bool prefix_caching)
{
    *pool = (struct qd_kv_pool){0};
    if (n_blocks < 2) return QD_ERR_ARGUMENT;
    qd_status st = allocate(pool, n_blocks, prefix_caching);
    if (st != QD_OK) {
        qd_kv_pool_free(pool);
        return st;
    }
    pool->n_blocks = n_blocks;
    pool->pages[0].n_users = 1;
    for (int32_t block = 1; block < n_blocks; block++) link_before(pool, block, 0);
    return QD_OK;
}

void qd_kv_pool_free(struct qd_kv_pool *pool)
{
    free(pool->pages);
    free(pool->labels);
    free(pool->buckets);
    *pool = (struct qd_kv_pool){0};
}

static void forget_label(struct qd_kv_pool *pool, int32_t block)
{
    int32_t *link = bucket_of(pool, pool->labels[block].hash);
    while (*link != block) link = &pool->labels[*link].next;
    *link = pool->labels[block].next;
    pool->labels[block].is_set = false;
}

bool qd_kv_pool_take(struct qd_kv_pool *pool, int32_t n, int32_t *out)
{
    if (n > pool->n_free) return false;
    for (int32_t i = 0; i < n; i++) {
        int32_t block = pool->pages[0].next;
        unlink_page(pool, block);
        if (is_labelled(pool, block)) forget_label(pool, block);
        pool->pages[block].n_users = 1;
        out[i] = block;
    }
    return true;
}

void qd_kv_pool_give(struct qd_kv_pool *pool, const int32_t *blocks, int32_t n)
{
    /* In reverse, so that the next owner receives them in the order they were held, and that of a prefix the
     * end is forgotten first. */
    for (int32_t i = n - 1; i >= 0; i--) {
        int32_t block = blocks[i];
        QD_ASSERT(block > 0 && block < pool->n_blocks && pool->pages[block].n_users > 0);
        if (--pool->pages[block].n_users > 0) continue;
        link_before(pool, block, is_labelled(pool, block) ? 0 : pool->pages[0].next);
    }
}

int32_t qd_kv_pool_find(const struct qd_kv_pool *pool, struct qd_block_hash hash)
{
    int32_t block = *bucket_of(pool, hash);
    while (block != 0 && !qd_block_hash_equal(pool->labels[block].hash, hash))
        block = pool->labels[block].next;
    return block;
}

void qd_kv_pool_share(struct qd_kv_pool *pool, int32_t block)
{
    QD_ASSERT(is_labelled(pool, block));
    if (pool->pages[block].n_users++ == 0) unlink_page(pool, block);
}

void qd_kv_pool_label(struct qd_kv_pool *pool, int32_t block, struct qd_block_hash hash)
{
    QD_ASSERT(pool->pages[block].n_users > 0 && !is_labelled(pool, block));
    int32_t *link = bucket_of(pool, hash);
    while (*link != 0) link = &pool->labels[*link].next;
    *link = block;
    pool->labels[block] = (struct qd_kv_label){.hash = hash, .is_set = true};
}
