/* The arithmetic of attention on one KV tile, shared by both numerics. Compiled once per instruction set.
 *
 * A row is one query head of one token. A tile is 64 keys, aligned to position 0: four K pages, each a panel
 * [hd][16] whose lanes are keys, or four V pages, each [16][hd], both interleaved (cpu.h). Every score is one
 * chain over rising d and every output element one chain over rising keys, whatever rows and pages are worked
 * on together, so a row's bits do not depend on the company it is computed in.
 */
#ifndef QD_KERNELS_CPU_ATTENTION_TILE_H
#define QD_KERNELS_CPU_ATTENTION_TILE_H

#include "kernels/cpu/kernels.h"

enum {
    QD_CPU_TILE_PAGES = 4,
    QD_CPU_TILE_KEYS = QD_CPU_TILE_PAGES * QD_KV_BLOCK_SIZE,
    QD_CPU_BLOCK_ROWS = 48, /* most rows of a block: enough to pay for widening its tiles */
};

/* The keys and values of one sequence and KV head. */
struct qd_cpu_attention_keys {
    const qd_bf16 *k, *v;       /* this head's part of page 0 */
    int64_t page_stride;        /* elements between pages */
    const int32_t *block_table; /* pages of the sequence, in order */
};

/* Rows of one sequence that read the same KV head, consecutive in token-major order. */
struct qd_cpu_attention_block {
    struct qd_cpu_attention_keys keys;
    int32_t head_dim;
    int n_rows;
    int first_row;                      /* rows before it see no key of this tile nor of a later one */
    int32_t visible[QD_CPU_BLOCK_ROWS]; /* a row sees keys 0 .. visible-1; never falls with the row */
    float scale;                        /* hd^-0.5 */
    int64_t score_stride;               /* elements */
    float *q;                           /* [n_rows][hd] */
    float *out;                         /* [n_rows][hd] sum of p*v so far */
    float *scores;                      /* [n_rows][score_stride] scores, then probabilities */
    float *wide;                        /* [64 * hd] a tile in fp32, used when rows are many */
};

/* The pages of one tile, of K or of V. */
struct qd_cpu_attention_tile {
    int32_t first_key;
    int n_pages;                             /* 1 .. 4 */
    const qd_bf16 *pages[QD_CPU_TILE_PAGES]; /* n_pages of them */
    const qd_bf16 *ahead[QD_CPU_TILE_PAGES]; /* what to prefetch meanwhile: the pages needed next */
};

/* Pages of keys->k or keys->v (`base`) from first_key on, as far as the block's last row sees, with those of
 * `ahead_base` from ahead_key on as the pages needed next. */
static inline struct qd_cpu_attention_tile
qd_cpu_attention_tile_at(const struct qd_cpu_attention_block *block, const qd_bf16 *base, int32_t first_key,
                         const qd_bf16 *ahead_base, int32_t ahead_key)
{
    const struct qd_cpu_attention_keys *keys = &block->keys;
    int32_t n_pages = (block->visible[block->n_rows - 1] + QD_KV_BLOCK_SIZE - 1) / QD_KV_BLOCK_SIZE;
    int32_t page = first_key / QD_KV_BLOCK_SIZE, ahead = ahead_key / QD_KV_BLOCK_SIZE;
    struct qd_cpu_attention_tile tile = {.first_key = first_key};
    for (int i = 0; i < QD_CPU_TILE_PAGES && page + i < n_pages; i++) {
        tile.pages[i] = base + keys->block_table[page + i] * keys->page_stride;
        tile.ahead[i] = ahead + i < n_pages ? ahead_base + keys->block_table[ahead + i] * keys->page_stride
                                            : tile.pages[i];
        tile.n_pages = i + 1;
    }
    return tile;
}

/* scores[r][j] = q[r] . key first_key + j, unscaled, for the rows from first_row on; `scores` is the column
 * of the tile's first key. Columns of keys that a row does not see hold anything afterwards. */
void QD_CPU_FN(qd_cpu_attention_scores)(const struct qd_cpu_attention_block *block,
                                        const struct qd_cpu_attention_tile *tile, float *scores);

/* out[r] += sum over the visible keys j of p[r][j] * value first_key + j, for the rows from first_row on; `p`
 * is the column of the tile's first key. Values that a row does not see are never multiplied for it: they may
 * be NaN. */
void QD_CPU_FN(qd_cpu_attention_values)(const struct qd_cpu_attention_block *block,
                                        const struct qd_cpu_attention_tile *tile, const float *p);

/* hf numerics: out[r] = sum of r(softmax(r(r(q.k) * scale))) * v, in two passes over the keys. */
void QD_CPU_FN(qd_cpu_attention_hf)(struct qd_cpu_attention_block *block);

#endif
