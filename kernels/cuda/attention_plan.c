#include "kernels/cuda/attention.h"

#include "kernels/base/size.h"

enum {
    ALIGNMENT = 16,
    MIN_CHUNK_PAGES = 8, /* a shorter part of the keys is not worth a merge */
    BLOCKS_PER_SM = 2,   /* decode blocks that fit an SM at a time */
};

/* Counts that decide sizes; 64-bit until they are known to fit. */
struct counts {
    int64_t prefill, decode, merge, parts;
};

static int32_t saturated(int64_t n)
{
    return n > INT32_MAX ? INT32_MAX : (int32_t)n;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

struct qd_cuda_attention_limits qd_cuda_attention_capacity(const struct qd_cuda_attention_config *config,
                                                           const struct qd_step_limits *limits)
{
    /* Most tiles: as many chunks as may be, each as short as may be; then every further tile costs its first
     * row and what fills the tile before it. */
    const int64_t shortest = config->batch_invariant ? 1 : 2;
    const int64_t seqs = smaller(limits->max_seqs, limits->max_tokens);
    const int64_t chunks = smaller(seqs, limits->max_tokens / shortest);
    const int64_t rest = limits->max_tokens - chunks * shortest;
    const int64_t tiles = chunks == 0 ? 0 : chunks + rest / (QD_CUDA_PREFILL_ROWS + 1 - shortest);

    /* Decodes are split only into what fits the device, in parts of MIN_CHUNK_PAGES and one shorter part
     * each. */
    const int64_t decodes = config->batch_invariant ? 0 : seqs;
    const bool may_split = decodes > 0 && limits->max_blocks > MIN_CHUNK_PAGES;
    const int64_t pieces = decodes + limits->max_blocks / MIN_CHUNK_PAGES;
    const int64_t parts =
        may_split ? smaller((int64_t)BLOCKS_PER_SM * config->n_sms, pieces * config->n_kv_heads) : 0;
    return (struct qd_cuda_attention_limits){
        .max_prefill_items = saturated(tiles * config->n_heads),
        .max_decode_items = saturated(larger(decodes * config->n_kv_heads, parts)),
        .max_merge_items = saturated(smaller(decodes * config->n_kv_heads, parts / 2)),
        .max_parts = saturated(parts),
    };
}

/* Writes the arrays' offsets for these counts; the bytes of the whole. */
static size_t lay_out(struct qd_cuda_attention_plan *plan, const struct counts *n)
{
    plan->prefill = qd_round_up(sizeof *plan, ALIGNMENT);
    plan->decode =
        plan->prefill + qd_round_up((size_t)n->prefill * sizeof(struct qd_cuda_prefill_item), ALIGNMENT);
    plan->merge =
        plan->decode + qd_round_up((size_t)n->decode * sizeof(struct qd_cuda_decode_item), ALIGNMENT);
    return plan->merge + qd_round_up((size_t)n->merge * sizeof(struct qd_cuda_merge_item), ALIGNMENT);
}

size_t qd_cuda_attention_plan_bytes(const struct qd_cuda_attention_limits *limits)
{
    const struct counts most = {limits->max_prefill_items, limits->max_decode_items, limits->max_merge_items,
                                limits->max_parts};
    struct qd_cuda_attention_plan plan;
    return lay_out(&plan, &most);
}

size_t qd_cuda_attention_parts_bytes(const struct qd_cuda_attention_config *config,
                                     const struct qd_cuda_attention_limits *limits)
{
    const size_t rows = (size_t)limits->max_parts * (size_t)(config->n_heads / config->n_kv_heads);
    return rows * ((size_t)config->head_dim + QD_CUDA_PART_STATS) * sizeof(float);
}

/* What the steps of planning share. */
struct planner {
    const struct qd_cuda_attention_config *config;
    const struct qd_step *step;
    struct qd_cuda_attention_plan *plan;
    int64_t chunk; /* keys of a part of a decode, a multiple of the page */
};

static int32_t q_len_of(const struct planner *p, int32_t seq)
{
    return qd_step_cu_seqlens_q(p->step)[seq + 1] - qd_step_cu_seqlens_q(p->step)[seq];
}

static int32_t kv_len_of(const struct planner *p, int32_t seq)
{
    return qd_step_kv_len(p->step)[seq];
}

static bool is_decode(const struct planner *p, int32_t seq)
{
    return !p->config->batch_invariant && q_len_of(p, seq) == 1;
}

/* Parts of a decode's keys. */
static int64_t parts_of(const struct planner *p, int32_t seq)
{
    return qd_div_up(kv_len_of(p, seq), p->chunk);
}

/* Items of all kinds under the chunk chosen. */
static struct counts count_items(const struct planner *p)
{
    struct counts n = {0, 0, 0, 0};
    for (int32_t s = 0; s < p->step->n_seqs; s++) {
        if (!is_decode(p, s)) {
            n.prefill += qd_div_up(q_len_of(p, s), QD_CUDA_PREFILL_ROWS) * p->config->n_heads;
            continue;
        }
        const int64_t parts = parts_of(p, s) * p->config->n_kv_heads;
        n.decode += parts;
        if (parts > p->config->n_kv_heads) {
            n.merge += p->config->n_kv_heads;
            n.parts += parts;
        }
    }
    return n;
}

/* The smallest chunk of at least MIN_CHUNK_PAGES under which all items run at once; without one, the longest
 * sequence's length: nothing is split. */
static void choose_chunk(struct planner *p)
{
    int64_t longest = MIN_CHUNK_PAGES;
    for (int32_t s = 0; s < p->step->n_seqs; s++)
        if (is_decode(p, s)) longest = larger(longest, qd_div_up(kv_len_of(p, s), QD_KV_BLOCK_SIZE));
    int64_t low = MIN_CHUNK_PAGES, high = longest;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        p->chunk = middle * QD_KV_BLOCK_SIZE;
        if (count_items(p).decode <= (int64_t)BLOCKS_PER_SM * p->config->n_sms)
            high = middle;
        else
            low = middle + 1;
    }
    p->chunk = low * QD_KV_BLOCK_SIZE;
}

static qd_status check_count(const char *what, int64_t n, int32_t most, char *err, size_t errlen)
{
    if (n <= most) return QD_OK;
    return qd_fail(QD_ERR_FULL, err, errlen, "attention plan: %lld %s, but the limit is %d", (long long)n,
                   what, most);
}

/* An array of items as the sort sees them: rows of 32-bit words. */
struct item_list {
    const struct planner *planner;
    int32_t *words;
    int64_t width;                                                       /* words an item */
    int32_t (*keys)(const struct planner *planner, const int32_t *item); /* that an item reads: its work */
};

/* Most work first, then in the order of the words: never equal, so that the order is the same everywhere. */
static bool goes_first(const struct item_list *list, int64_t a, int64_t b)
{
    const int32_t *x = list->words + a * list->width, *y = list->words + b * list->width;
    const int32_t x_keys = list->keys(list->planner, x), y_keys = list->keys(list->planner, y);
    if (x_keys != y_keys) return x_keys > y_keys;
    for (int64_t i = 0; i < list->width; i++)
        if (x[i] != y[i]) return x[i] < y[i];
    return false;
}

static void swap_items(const struct item_list *list, int64_t a, int64_t b)
{
    for (int64_t i = 0; i < list->width; i++) {
        const int32_t word = list->words[a * list->width + i];
        list->words[a * list->width + i] = list->words[b * list->width + i];
        list->words[b * list->width + i] = word;
    }
}

/* Moves item `at` down the heap of n items whose root goes last. */
static void sift_down(const struct item_list *list, int64_t at, int64_t n)
{
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n) return;
        if (child + 1 < n && goes_first(list, child, child + 1)) child++;
        if (goes_first(list, child, at)) return;
        swap_items(list, at, child);
        at = child;
    }
}

/* Heapsort: in place, no allocation, the same time for any order. */
static void sort_items(const struct item_list *list, int64_t n)
{
    for (int64_t at = n / 2 - 1; at >= 0; at--) sift_down(list, at, n);
    for (int64_t end = n - 1; end > 0; end--) {
        swap_items(list, 0, end);
        sift_down(list, 0, end);
    }
}

static int32_t prefill_keys(const struct planner *p, const int32_t *words)
{
    const struct qd_cuda_prefill_item *item = (const void *)words;
    const int32_t rows_end = (int32_t)smaller(item->q_begin + QD_CUDA_PREFILL_ROWS, q_len_of(p, item->seq));
    return kv_len_of(p, item->seq) - q_len_of(p, item->seq) + rows_end;
}

/* Tiles are sorted, then repeated for every head: heads of one tile stay neighbours and share keys in the L2.
 */
static void write_prefill(const struct planner *p)
{
    struct qd_cuda_prefill_item *items = (void *)((unsigned char *)p->plan + p->plan->prefill);
    const int32_t n_heads = p->config->n_heads;
    int64_t n_tiles = 0;
    for (int32_t s = 0; s < p->step->n_seqs; s++) {
        if (is_decode(p, s)) continue;
        for (int32_t q = 0; q < q_len_of(p, s); q += QD_CUDA_PREFILL_ROWS)
            items[n_tiles++] = (struct qd_cuda_prefill_item){s, 0, q};
    }
    const struct item_list list = {p, (int32_t *)items, sizeof *items / sizeof(int32_t), prefill_keys};
    sort_items(&list, n_tiles);
    for (int64_t i = n_tiles - 1; i >= 0; i--) { /* from the end: a tile is read before it is overwritten */
        const struct qd_cuda_prefill_item tile = items[i];
        for (int32_t h = 0; h < n_heads; h++)
            items[i * n_heads + h] = (struct qd_cuda_prefill_item){tile.seq, h, tile.q_begin};
    }
}

static int32_t decode_keys(const struct planner *p, const int32_t *words)
{
    const struct qd_cuda_decode_item *item = (const void *)words;
    (void)p;
    return item->kv_end - item->kv_begin;
}

/* The pieces of one KV head's decodes, with the parts of KV head 0; how many. */
static int64_t write_pieces(const struct planner *p, struct qd_cuda_decode_item *items)
{
    int64_t n = 0, next_part = 0;
    for (int32_t s = 0; s < p->step->n_seqs; s++) {
        if (!is_decode(p, s)) continue;
        const int64_t n_parts = parts_of(p, s), kv_len = kv_len_of(p, s);
        for (int64_t i = 0; i < n_parts; i++)
            items[n++] = (struct qd_cuda_decode_item){.seq = s,
                                                      .kv_begin = (int32_t)(i * p->chunk),
                                                      .kv_end = (int32_t)smaller((i + 1) * p->chunk, kv_len),
                                                      .part = n_parts == 1 ? -1 : (int32_t)(next_part + i)};
        if (n_parts > 1) next_part += n_parts * p->config->n_kv_heads;
    }
    return n;
}

/* Pieces are sorted, then repeated for every KV head: the heads' tiles of a page are neighbours in memory. */
static void write_decode(const struct planner *p)
{
    struct qd_cuda_decode_item *items = (void *)((unsigned char *)p->plan + p->plan->decode);
    const int32_t n_kv_heads = p->config->n_kv_heads;
    const int64_t n_pieces = write_pieces(p, items);
    const struct item_list list = {p, (int32_t *)items, sizeof *items / sizeof(int32_t), decode_keys};
    sort_items(&list, n_pieces);
    for (int64_t i = n_pieces - 1; i >= 0; i--) { /* from the end: a piece is read before it is overwritten */
        const struct qd_cuda_decode_item piece = items[i];
        for (int32_t h = 0; h < n_kv_heads; h++) {
            struct qd_cuda_decode_item *item = &items[i * n_kv_heads + h];
            *item = piece;
            item->kv_head = h;
            if (piece.part >= 0) item->part += (int32_t)(h * parts_of(p, piece.seq));
        }
    }
}

/* Parts were given out sequence by sequence, KV head by KV head, in order of keys. Merges are too short to be
 * worth sorting. */
static void write_merges(const struct planner *p)
{
    struct qd_cuda_merge_item *item = (void *)((unsigned char *)p->plan + p->plan->merge);
    int32_t next_part = 0;
    for (int32_t s = 0; s < p->step->n_seqs; s++) {
        if (!is_decode(p, s) || parts_of(p, s) == 1) continue;
        const int32_t n_parts = (int32_t)parts_of(p, s);
        for (int32_t h = 0; h < p->config->n_kv_heads; h++, next_part += n_parts)
            *item++ = (struct qd_cuda_merge_item){s, h, next_part, n_parts};
    }
}

qd_status qd_cuda_attention_plan(const struct qd_cuda_attention_config *config,
                                 const struct qd_cuda_attention_limits *limits, const struct qd_step *step,
                                 struct qd_cuda_attention_plan *plan, char *err, size_t errlen)
{
    struct planner p = {config, step, plan, 0};
    choose_chunk(&p);
    const struct counts n = count_items(&p);
    QD_TRY(check_count("prefill items", n.prefill, limits->max_prefill_items, err, errlen));
    QD_TRY(check_count("decode items", n.decode, limits->max_decode_items, err, errlen));
    QD_TRY(check_count("merge items", n.merge, limits->max_merge_items, err, errlen));
    QD_TRY(check_count("parts", n.parts, limits->max_parts, err, errlen));
    *plan = (struct qd_cuda_attention_plan){.n_prefill = (int32_t)n.prefill,
                                            .n_decode = (int32_t)n.decode,
                                            .n_merge = (int32_t)n.merge,
                                            .n_parts = (int32_t)n.parts};
    plan->used_bytes = lay_out(plan, &n);
    write_prefill(&p);
    write_decode(&p);
    write_merges(&p);
    return QD_OK;
}
