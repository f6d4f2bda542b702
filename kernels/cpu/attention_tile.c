#include "kernels/cpu/attention_tile.h"

#define KERNEL static inline __attribute__((always_inline)) void

enum {
    PAGE = QD_KV_BLOCK_SIZE,
    GROUP_ROWS = VF_ACCUMULATORS / 2, /* rows a kernel works on together at 16 columns each */
    MAX_GROUP_ROWS = 6,               /* of any instruction set */
    MAX_NARROW_GROUPS = 2,            /* that convert keys and values in registers */
    LINE_VECTORS = 4,                 /* vectors of bf16 in a cache line */
};

_Static_assert(QD_KV_BLOCK_SIZE == 2 * VF_LANES, "a page is two vectors of keys");
_Static_assert((int)GROUP_ROWS <= (int)MAX_GROUP_ROWS, "kernels exist for up to six rows");

/* Sixteen elements from `index` on: in order in fp32 (wide), interleaved in bf16. */
static inline void load_pair(const bool wide, const void *base, int64_t index, vf pair[2])
{
    if (wide) {
        pair[0] = vf_load((const float *)base + index);
        pair[1] = vf_load((const float *)base + index + VF_LANES);
    } else {
        vf_load_bf16_pairs((const qd_bf16 *)base + index, &pair[0], &pair[1]);
    }
}

/* scores[m][16 * n_pages] = q[m][hd] x pages[n_pages][hd][16] */
KERNEL scores_kernel(const int m, const int n_pages, const bool wide, const float *q, int64_t head_dim,
                     const void *const *pages, const qd_bf16 *const *ahead, float *scores, int64_t stride)
{
    vf acc[MAX_GROUP_ROWS][QD_CPU_TILE_PAGES][2];
    VF_UNROLL
    for (int r = 0; r < m; r++) {
        VF_UNROLL
        for (int p = 0; p < n_pages; p++) acc[r][p][0] = acc[r][p][1] = vf_zero();
    }
    for (int64_t d = 0; d < head_dim; d++) {
        vf k[QD_CPU_TILE_PAGES][2];
        VF_UNROLL
        for (int p = 0; p < n_pages; p++) {
            load_pair(wide, pages[p], d * PAGE, k[p]);
            if (!wide) __builtin_prefetch(ahead[p] + d * PAGE, 0, 2);
        }
        VF_UNROLL
        for (int r = 0; r < m; r++) {
            vf x = vf_set1(q[r * head_dim + d]);
            VF_UNROLL
            for (int p = 0; p < n_pages; p++) {
                acc[r][p][0] = vf_fma(x, k[p][0], acc[r][p][0]);
                acc[r][p][1] = vf_fma(x, k[p][1], acc[r][p][1]);
            }
        }
    }
    VF_UNROLL
    for (int r = 0; r < m; r++) {
        VF_UNROLL
        for (int p = 0; p < n_pages; p++) {
            vf_store(scores + r * stride + p * PAGE, acc[r][p][0]);
            vf_store(scores + r * stride + p * PAGE + VF_LANES, acc[r][p][1]);
        }
    }
}

/* out[m][8 * n_vectors] += p[m][begin .. end) x pages[..][begin .. end)[8 * n_vectors]; keys of a page are
 * key_stride elements apart, output rows are head_dim apart. */
KERNEL values_kernel(const int m, const int n_vectors, const bool wide, const float *p, int64_t stride,
                     const void *const *pages, const qd_bf16 *const *ahead, int64_t key_stride, int begin,
                     int end, float *out, int64_t head_dim)
{
    vf acc[MAX_GROUP_ROWS][2 * QD_CPU_TILE_PAGES];
    VF_UNROLL
    for (int r = 0; r < m; r++) {
        VF_UNROLL
        for (int c = 0; c < n_vectors; c++) acc[r][c] = vf_load(out + r * head_dim + c * VF_LANES);
    }
    for (int key = begin; key < end;) {
        int page = key / PAGE, page_end = (page + 1) * PAGE < end ? (page + 1) * PAGE : end;
        for (int64_t at = key % PAGE * key_stride; key < page_end; key++, at += key_stride) {
            vf v[2 * QD_CPU_TILE_PAGES];
            VF_UNROLL
            for (int c = 0; c < n_vectors; c += 2) {
                load_pair(wide, pages[page], at + c * VF_LANES, v + c);
                if (!wide && c % LINE_VECTORS == 0) __builtin_prefetch(ahead[page] + at + c * VF_LANES, 0, 2);
            }
            VF_UNROLL
            for (int r = 0; r < m; r++) {
                vf x = vf_set1(p[r * stride + key]);
                VF_UNROLL
                for (int c = 0; c < n_vectors; c++) acc[r][c] = vf_fma(x, v[c], acc[r][c]);
            }
        }
    }
    VF_UNROLL
    for (int r = 0; r < m; r++) {
        VF_UNROLL
        for (int c = 0; c < n_vectors; c++) vf_store(out + r * head_dim + c * VF_LANES, acc[r][c]);
    }
}

/* The kernels there are: rows, and vectors of scores or output columns a row. */
#define SHAPE(m, v) ((m)*16 + (v))
#define SHAPES(X)   X(1, 8) X(1, 4) X(1, 2) X(2, 4) X(2, 2) X(3, 4) X(3, 2) X(4, 2) X(5, 2) X(6, 2)

/* With few rows, two vectors a row are too few independent sums to hide the latency of the multiply-add. */
static int vectors_at_once(int m, int64_t available)
{
    int v = 8;
    while (v > 2 && (v * m > VF_ACCUMULATORS || v > available)) v /= 2;
    return v;
}

/* Row groups of nearly equal size; group g is [group_begin(g), group_begin(g + 1)). */
struct groups {
    int first_row, n_rows, n_groups;
    int largest; /* rows of the largest group */
    bool wide;   /* groups enough to pay for a tile in fp32; converting for each is as exact */
};

static struct groups groups_of(const struct qd_cpu_attention_block *block)
{
    int n_rows = block->n_rows - block->first_row;
    int n_groups = (n_rows + GROUP_ROWS - 1) / GROUP_ROWS;
    return (struct groups){.first_row = block->first_row,
                           .n_rows = n_rows,
                           .n_groups = n_groups,
                           .largest = (n_rows + n_groups - 1) / n_groups,
                           .wide = n_groups > MAX_NARROW_GROUPS};
}

static int group_begin(const struct groups *groups, int g)
{
    return groups->first_row + groups->n_rows * g / groups->n_groups;
}

KERNEL scores_of_pages(const bool wide, const struct qd_cpu_attention_block *block,
                       const struct qd_cpu_attention_tile *tile, const void *const *pages, float *scores)
{
    const struct groups groups = groups_of(block);
    const int64_t head_dim = block->head_dim, stride = block->score_stride;
    for (int page = 0; page < tile->n_pages;) {
        int v = vectors_at_once(groups.largest, 2 * (tile->n_pages - page));
        for (int g = 0; g < groups.n_groups; g++) {
            int row = group_begin(&groups, g), end = group_begin(&groups, g + 1);
            if (block->visible[end - 1] <= tile->first_key + page * PAGE) continue;
            const float *q = block->q + row * head_dim;
            float *to = scores + row * stride + page * PAGE;
            switch (SHAPE(end - row, v)) {
#define CASE(m, v)                                                                                           \
    case SHAPE(m, v):                                                                                        \
        scores_kernel(m, (v) / 2, wide, q, head_dim, pages + page, tile->ahead + page, to, stride);          \
        break;
                SHAPES(CASE)
#undef CASE
            default: QD_ASSERT(false && "a kernel for these rows");
            }
        }
        page += v / 2;
    }
}

/* 16 interleaved bf16 to fp32 in order. */
static inline void widen(const qd_bf16 *from, float *to)
{
    vf pair[2];
    load_pair(false, from, 0, pair);
    vf_store(to, pair[0]);
    vf_store(to + VF_LANES, pair[1]);
}

void QD_CPU_FN(qd_cpu_attention_scores)(const struct qd_cpu_attention_block *block,
                                        const struct qd_cpu_attention_tile *tile, float *scores)
{
    const void *pages[QD_CPU_TILE_PAGES] = {0};
    const bool wide = groups_of(block).wide;
    const int64_t page_size = (int64_t)PAGE * block->head_dim;
    for (int p = 0; p < tile->n_pages; p++) {
        pages[p] = tile->pages[p];
        if (!wide) continue;
        float *to = block->wide + p * page_size;
        for (int64_t i = 0; i < page_size; i += PAGE) widen(tile->pages[p] + i, to + i);
        pages[p] = to;
    }
    if (wide)
        scores_of_pages(true, block, tile, pages, scores);
    else
        scores_of_pages(false, block, tile, pages, scores);
}

/* Where one range of output columns finds its values. */
struct columns {
    const void *pages[QD_CPU_TILE_PAGES];
    const qd_bf16 *ahead[QD_CPU_TILE_PAGES];
    int64_t key_stride; /* elements */
    int n_vectors;
};

KERNEL values_of_rows(const bool wide, const struct qd_cpu_attention_block *block,
                      const struct columns *columns, int row, int m, int key_begin, int key_end,
                      const float *p, float *out)
{
    const int64_t head_dim = block->head_dim, stride = block->score_stride;
    switch (SHAPE(m, columns->n_vectors)) {
#define CASE(m, v)                                                                                           \
    case SHAPE(m, v):                                                                                        \
        values_kernel(m, v, wide, p + row * stride, stride, columns->pages, columns->ahead,                  \
                      wide ? PAGE : columns->key_stride, key_begin, key_end, out + row * head_dim,           \
                      head_dim);                                                                             \
        break;
        SHAPES(CASE)
#undef CASE
    default: QD_ASSERT(false && "a kernel for these rows");
    }
}

/* All rows of a group together as far as the first of them sees, then each of the others alone. */
KERNEL values_of_columns(const bool wide, const struct qd_cpu_attention_block *block,
                         const struct columns *columns, int32_t first_key, const float *p, float *out)
{
    const struct groups groups = groups_of(block);
    for (int g = 0; g < groups.n_groups; g++) {
        int row = group_begin(&groups, g), end = group_begin(&groups, g + 1);
        int common = block->visible[row] - first_key;
        if (common > QD_CPU_TILE_KEYS) common = QD_CPU_TILE_KEYS;
        values_of_rows(wide, block, columns, row, end - row, 0, common, p, out);
        for (int r = row + 1; r < end && common < QD_CPU_TILE_KEYS; r++) {
            int visible = block->visible[r] - first_key;
            if (visible > QD_CPU_TILE_KEYS) visible = QD_CPU_TILE_KEYS;
            if (visible > common) values_of_rows(wide, block, columns, r, 1, common, visible, p, out);
        }
    }
}

/* V pages as panels of 16 columns: wide[hd/16][64][16]. */
static void widen_values(const struct qd_cpu_attention_block *block, const struct qd_cpu_attention_tile *tile)
{
    const int64_t head_dim = block->head_dim;
    float *to = block->wide;
    for (int64_t c = 0; c < head_dim; c += PAGE, to = block->wide + c * QD_CPU_TILE_KEYS) {
        for (int page = 0; page < tile->n_pages; page++) {
            const qd_bf16 *from = tile->pages[page] + c;
            for (int key = 0; key < PAGE; key++, from += head_dim, to += PAGE) widen(from, to);
        }
    }
}

void QD_CPU_FN(qd_cpu_attention_values)(const struct qd_cpu_attention_block *block,
                                        const struct qd_cpu_attention_tile *tile, const float *p)
{
    const struct groups groups = groups_of(block);
    const bool wide = groups.wide;
    if (wide) widen_values(block, tile);
    struct columns columns = {.key_stride = block->head_dim};
    for (int64_t c = 0; c < block->head_dim; c += columns.n_vectors * VF_LANES) {
        columns.n_vectors = vectors_at_once(groups.largest, (block->head_dim - c) / VF_LANES);
        for (int i = 0; i < tile->n_pages; i++) {
            columns.pages[i] = tile->pages[i] + c;
            columns.ahead[i] = tile->ahead[i] + c;
            if (wide) columns.pages[i] = block->wide + c * QD_CPU_TILE_KEYS + i * PAGE * PAGE;
        }
        if (wide)
            values_of_columns(true, block, &columns, tile->first_key, p, block->out + c);
        else
            values_of_columns(false, block, &columns, tile->first_key, p, block->out + c);
    }
}
