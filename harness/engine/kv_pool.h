/* The KV block pool of one replica: page numbers only, the memory belongs to the device.
 *
 * Page 0 is the null page: it is never handed out, as in vLLM (whose block 0 is reserved), so that the same
 * --num-gpu-blocks-override N gives the same capacity of N - 1 pages in both, and padded rows of a captured
 * graph have a page to write to.
 *
 * With prefix caching a full page carries the hash of all tokens up to its end. It keeps it when nobody uses
 * the page any more, until the page is handed out again; until then another request may share it. Pages
 * without a hash are reused first, the last freed before others; those with one in order of their last use
 * (vLLM's block_pool.py).
 */
#ifndef QD_HARNESS_ENGINE_KV_POOL_H
#define QD_HARNESS_ENGINE_KV_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "harness/engine/block_hash.h"
#include "kernels/base/status.h"

/* Links of a free page; page 0, which is never free, is the list's head and end. */
struct qd_kv_page {
    int32_t prev, next;
    int32_t n_users; /* requests that hold it */
};

/* What a page holds: an entry of the table of hashes. */
struct qd_kv_label {
    struct qd_block_hash hash;
    int32_t next; /* page with the same bucket, 0: none */
    bool is_set;
};

struct qd_kv_pool {
    int32_t n_blocks;           /* all, the null page included */
    int32_t n_free;             /* n_blocks - 1 when idle */
    struct qd_kv_page *pages;   /* [n_blocks] */
    struct qd_kv_label *labels; /* [n_blocks]; NULL without prefix caching */
    int32_t *buckets;           /* [n_buckets, a power of two] first page, 0: none */
    uint32_t n_buckets;
};

/* n_blocks >= 2; the pool is empty after a failure. */
qd_status qd_kv_pool_init(struct qd_kv_pool *pool, int32_t n_blocks, bool prefix_caching);
void qd_kv_pool_free(struct qd_kv_pool *pool);

/* Pages that requests can hold together. */
static inline int32_t qd_kv_pool_capacity(int32_t n_blocks)
{
    return n_blocks - 1;
}

/* Takes n pages into out[n], each for one user, or none at all (false). Their hashes are forgotten. */
bool qd_kv_pool_take(struct qd_kv_pool *pool, int32_t n, int32_t *out);

/* One user less for each page; freeing a page that is not in use is an invariant violation. */
void qd_kv_pool_give(struct qd_kv_pool *pool, const int32_t *blocks, int32_t n);

/* The page that holds this, in use or not; 0: none. Only with prefix caching, as the following. */
int32_t qd_kv_pool_find(const struct qd_kv_pool *pool, struct qd_block_hash hash);

/* One user more for a page that was found. */
void qd_kv_pool_share(struct qd_kv_pool *pool, int32_t block);

/* Says what a page in use holds. Several pages may hold the same: requests that ran side by side. */
void qd_kv_pool_label(struct qd_kv_pool *pool, int32_t block, struct qd_block_hash hash);

#endif
