#include "tests/gpu/attention_rig.h"

#include <math.h>

#include "kernels/base/random.h"
#include "kernels/base/size.h"
#include "kernels/ref/ref.h"

enum { SPARE_PAGES = 5 }; /* that no sequence has */

static const float MAX_SCORE = 80.0f;

/* Bounds for |values| <= 1. p is rounded to bf16 before it is summed up: half a unit in the last place, 2^-8
 * of each term and so of max |v|; in hf the specification rounds its p as well. fp32 sums of scores and
 * products stay under 2 % of that. Both results are rounded to bf16: twice 2^-8 of the result. Seen beyond
 * the relative part, emulated: 0.0012 of 0.0040 (fused), 0.0024 of 0.0080 (hf). */
static const float ATOL_FUSED = 1.02f * 0x1p-8f, ATOL_HF = 1.02f * 0x1p-7f, RTOL = 0x1p-7f;

static int32_t pages_for(int32_t n_keys)
{
    return (int32_t)qd_div_up(n_keys, QD_KV_BLOCK_SIZE);
}

/* Elements of a page, all KV heads. */
static size_t page_elements(const struct attention_rig *rig)
{
    return (size_t)rig->heads.n_kv_heads * QD_KV_BLOCK_SIZE * (size_t)rig->heads.head_dim;
}

static size_t pool_bytes(const struct attention_rig *rig)
{
    return 2 * (size_t)rig->n_pages * page_elements(rig) * sizeof(qd_bf16);
}

static void random_row(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                       int32_t position, qd_bf16 *row)
{
    const uint64_t seed =
        (((uint64_t)what * 256 + (uint64_t)seq) * 256 + (uint64_t)head) * 65536 + (uint64_t)position;
    gpu_random_bf16(row, (size_t)rig->heads.head_dim, 1.0f, seed);
    if (rig->numerics == QD_NUMERICS_FUSED || what == RIG_VALUE) return;
    for (int32_t i = 0; i < rig->heads.head_dim; i++)
        row[i] = qd_bf16_from_f32(nearbyintf(qd_bf16_to_f32(row[i]) * 8.0f) / 8.0f);
}

/* A query of sqrt(hd) in the first dimension, so that a key's first element is its score. */
static void scored_row(const struct attention_rig *rig, enum rig_what what, float score, int32_t seq,
                       int32_t head, int32_t position, qd_bf16 *row)
{
    if (what == RIG_VALUE) {
        random_row(rig, what, seq, head, position, row);
        return;
    }
    memset(row, 0, (size_t)rig->heads.head_dim * sizeof *row);
    row[0] = qd_bf16_from_f32(what == RIG_QUERY ? sqrtf((float)rig->heads.head_dim) : score);
}

/* -80 .. 80 over the positions a sequence may have, in halves: exact in bf16. */
static float rising_score(const struct attention_rig *rig, int32_t position)
{
    const float step = 2.0f * MAX_SCORE / (float)(rig->pages_per_seq * QD_KV_BLOCK_SIZE);
    return nearbyintf(2.0f * ((float)position * step - MAX_SCORE)) / 2.0f;
}

void rig_rising_scores(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                       int32_t position, qd_bf16 *row)
{
    scored_row(rig, what, rising_score(rig, position), seq, head, position, row);
}

void rig_falling_scores(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                        int32_t position, qd_bf16 *row)
{
    scored_row(rig, what, -rising_score(rig, position), seq, head, position, row);
}

void rig_alternating_scores(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                            int32_t position, qd_bf16 *row)
{
    scored_row(rig, what, position % 2 == 0 ? -MAX_SCORE : MAX_SCORE, seq, head, position, row);
}

void rig_equal_scores(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                      int32_t position, qd_bf16 *row)
{
    scored_row(rig, what, 3.0f, seq, head, position, row);
}

static void deal_pages(struct attention_rig *rig, uint64_t seed)
{
    for (int32_t i = 0; i < rig->n_pages; i++) rig->page[i] = i;
    for (int32_t i = rig->n_pages - 1; i > 0; i--) { /* Fisher, Yates */
        const uint32_t j = qd_philox(seed, 0, (uint64_t)i).word[0] % (uint32_t)(i + 1);
        const int32_t page = rig->page[i];
        rig->page[i] = rig->page[j];
        rig->page[j] = page;
    }
}

struct attention_rig attention_rig_init(struct rig_heads heads, int32_t n_seqs, int32_t max_len,
                                        uint64_t seed)
{
    struct attention_rig rig = {.heads = heads, .n_sms = 132, .values = random_row, .n_seqs = n_seqs};
    rig.pages_per_seq = pages_for(max_len);
    rig.n_pages = n_seqs * rig.pages_per_seq + SPARE_PAGES;
    rig.page = gpu_host_alloc((size_t)rig.n_pages * sizeof *rig.page);
    deal_pages(&rig, seed);
    rig.pool = gpu_host_alloc(pool_bytes(&rig));
    return rig;
}

/* The pool as the specification reads it: where it would begin if the pages below first_page existed. K and V
 * of the pages that do exist lie side by side. */
static struct qd_kv_layer host_kv(const struct attention_rig *rig)
{
    const uintptr_t missing = (uintptr_t)rig->first_page * page_elements(rig) * sizeof(qd_bf16);
    return (struct qd_kv_layer){.data = (qd_bf16 *)((uintptr_t)rig->pool - missing),
                                .n_blocks = rig->n_pages,
                                .n_kv_heads = rig->heads.n_kv_heads,
                                .head_dim = rig->heads.head_dim};
}

/* The pool on the device, with all pages: those below first_page are never touched. */
static struct qd_kv_layer device_kv(const struct attention_rig *rig)
{
    const size_t half = pool_bytes(rig) / 2,
                 below = (size_t)rig->first_page * page_elements(rig) * sizeof(qd_bf16);
    unsigned char *pool;
    if (rig->first_page == 0) {
        pool = gpu_upload(rig->pool, 2 * half);
    } else {
        pool = gpu_alloc_sparse(2 * (below + half));
        gpu_write(pool + below, rig->pool, half);
        gpu_write(pool + 2 * below + half, (const unsigned char *)rig->pool + half, half);
    }
    return (struct qd_kv_layer){.data = (qd_bf16 *)pool,
                                .n_blocks = (int64_t)rig->first_page + rig->n_pages,
                                .n_kv_heads = rig->heads.n_kv_heads,
                                .head_dim = rig->heads.head_dim};
}

static void fill_position(struct attention_rig *rig, int32_t seq, int32_t position)
{
    const size_t hd = (size_t)rig->heads.head_dim, rows_of_v = (size_t)rig->n_pages * page_elements(rig);
    const int32_t page = rig->page[seq * rig->pages_per_seq + position / QD_KV_BLOCK_SIZE];
    for (int32_t h = 0; h < rig->heads.n_kv_heads; h++) {
        qd_bf16 *k = rig->pool + (size_t)page * page_elements(rig) +
                     ((size_t)h * QD_KV_BLOCK_SIZE + (size_t)(position % QD_KV_BLOCK_SIZE)) * hd;
        rig->values(rig, RIG_KEY, seq, h, position, k);
        rig->values(rig, RIG_VALUE, seq, h, position, k + rows_of_v);
    }
}

void attention_rig_fill(struct attention_rig *rig, const struct rig_chunk *chunks, int32_t n_chunks)
{
    memset(rig->pool, 0xff, pool_bytes(rig));
    for (int32_t i = 0; i < n_chunks; i++)
        for (int32_t j = 0; j < chunks[i].prior + chunks[i].q_len; j++) fill_position(rig, chunks[i].seq, j);
}

int32_t attention_rig_tokens(const struct rig_chunk *chunks, int32_t n_chunks)
{
    int32_t n = 0;
    for (int32_t i = 0; i < n_chunks; i++) n += chunks[i].q_len;
    return n;
}

size_t attention_rig_elements(const struct attention_rig *rig, const struct rig_chunk *chunks,
                              int32_t n_chunks)
{
    return (size_t)attention_rig_tokens(chunks, n_chunks) *
           (size_t)(rig->heads.n_heads * rig->heads.head_dim);
}

static struct qd_step_limits exact_limits(const struct rig_chunk *chunks, int32_t n_chunks)
{
    struct qd_step_limits limits = {attention_rig_tokens(chunks, n_chunks), n_chunks, 0, 0};
    for (int32_t i = 0; i < n_chunks; i++) limits.max_blocks += pages_for(chunks[i].prior + chunks[i].q_len);
    return limits;
}

/* Sequence s of the step; those before it are written already. */
static void write_chunk(const struct attention_rig *rig, struct qd_step *step, int32_t s,
                        struct rig_chunk chunk)
{
    const int32_t first = qd_step_cu_seqlens_q(step)[s], table = qd_step_block_offset(step)[s];
    const int32_t *page = rig->page + chunk.seq * rig->pages_per_seq;
    const int32_t n_pages = pages_for(chunk.prior + chunk.q_len);
    GPU_EXPECT(n_pages <= rig->pages_per_seq, "a chunk of %d pages", n_pages);
    for (int32_t i = 0; i < n_pages; i++) qd_step_block_table(step)[table + i] = rig->first_page + page[i];
    for (int32_t i = 0; i < chunk.q_len; i++) {
        const int32_t position = chunk.prior + i;
        qd_step_token_source(step)[first + i] = 0;
        qd_step_position(step)[first + i] = position;
        qd_step_slot_mapping(step)[first + i] =
            (int64_t)(rig->first_page + page[position / QD_KV_BLOCK_SIZE]) * QD_KV_BLOCK_SIZE +
            position % QD_KV_BLOCK_SIZE;
    }
    qd_step_kv_len(step)[s] = chunk.prior + chunk.q_len;
    qd_step_cu_seqlens_q(step)[s + 1] = first + chunk.q_len;
    qd_step_block_offset(step)[s + 1] = table + n_pages;
}

struct qd_step *attention_rig_step(const struct attention_rig *rig, const struct rig_chunk *chunks,
                                   int32_t n_chunks)
{
    const struct qd_step_limits limits = exact_limits(chunks, n_chunks);
    const size_t bytes = qd_step_capacity(&limits);
    struct qd_step *step = gpu_host_alloc(bytes);
    char err[QD_ERR_LEN] = "";
    GPU_EXPECT(qd_step_begin(step, &limits, limits.max_tokens, n_chunks, limits.max_blocks, 0) == QD_OK,
               "step");
    qd_step_cu_seqlens_q(step)[0] = 0;
    qd_step_block_offset(step)[0] = 0;
    for (int32_t i = 0; i < n_chunks; i++) write_chunk(rig, step, i, chunks[i]);
    GPU_EXPECT(qd_step_validate(step, bytes, rig->first_page + rig->n_pages, 1, 1, err, sizeof err) == QD_OK,
               "%s", err);
    return step;
}

qd_bf16 *attention_rig_queries(const struct attention_rig *rig, const struct rig_chunk *chunks,
                               int32_t n_chunks)
{
    qd_bf16 *queries = gpu_host_alloc(attention_rig_elements(rig, chunks, n_chunks) * sizeof *queries),
            *row = queries;
    for (int32_t i = 0; i < n_chunks; i++)
        for (int32_t j = 0; j < chunks[i].q_len; j++)
            for (int32_t h = 0; h < rig->heads.n_heads; h++, row += rig->heads.head_dim)
                rig->values(rig, RIG_QUERY, chunks[i].seq, h, chunks[i].prior + j, row);
    return queries;
}

struct qd_cuda_attention_config attention_rig_config(const struct attention_rig *rig)
{
    return (struct qd_cuda_attention_config){.n_heads = rig->heads.n_heads,
                                             .n_kv_heads = rig->heads.n_kv_heads,
                                             .head_dim = rig->heads.head_dim,
                                             .n_sms = rig->n_sms,
                                             .batch_invariant = rig->batch_invariant};
}

qd_bf16 *attention_rig_launch(const struct attention_rig *rig, const struct qd_step *step,
                              const qd_bf16 *queries, const struct qd_cuda_attention_plan *plan,
                              const struct qd_cuda_attention_limits *limits)
{
    const struct rig_heads *h = &rig->heads;
    const struct qd_cuda_attention_config config = attention_rig_config(rig);
    const size_t bytes = (size_t)step->n_tokens * (size_t)(h->n_heads * h->head_dim) * sizeof(qd_bf16);
    const struct qd_step *d_step = gpu_upload(step, step->used_bytes);
    struct qd_cuda_attention_args args = {
        .plan = gpu_upload(plan, plan->used_bytes),
        .limits = *limits,
        .cu_seqlens_q = (const void *)((const char *)d_step + step->cu_seqlens_q),
        .kv_len = (const void *)((const char *)d_step + step->kv_len),
        .block_offset = (const void *)((const char *)d_step + step->block_offset),
        .block_table = (const void *)((const char *)d_step + step->block_table),
        .q = gpu_upload(queries, bytes),
        .n_heads = h->n_heads,
        .n_kv_heads = h->n_kv_heads,
        .head_dim = h->head_dim,
        .kv = device_kv(rig),
        .numerics = rig->numerics,
        .parts = gpu_alloc_output(qd_cuda_attention_parts_bytes(&config, limits)),
        .out = gpu_alloc_output(bytes),
    };
    GPU_LAUNCH(qd_cuda_attention, &args);
    qd_bf16 *out = gpu_host_alloc(bytes);
    gpu_download(out, args.out, bytes);
    return out;
}

qd_bf16 *attention_rig_run(const struct attention_rig *rig, const struct rig_chunk *chunks, int32_t n_chunks)
{
    const struct qd_cuda_attention_config config = attention_rig_config(rig);
    const struct qd_step_limits step_limits = exact_limits(chunks, n_chunks);
    struct qd_cuda_attention_limits limits = qd_cuda_attention_capacity(&config, &step_limits);
    struct qd_cuda_attention_plan *plan = gpu_host_alloc(qd_cuda_attention_plan_bytes(&limits));
    const struct qd_step *step = attention_rig_step(rig, chunks, n_chunks);
    char err[QD_ERR_LEN] = "";
    GPU_EXPECT(qd_cuda_attention_plan(&config, &limits, step, plan, err, sizeof err) == QD_OK, "%s", err);
    limits = (struct qd_cuda_attention_limits){
        plan->n_prefill + rig->grid_padding, plan->n_decode + rig->grid_padding,
        plan->n_merge + rig->grid_padding, plan->n_parts + rig->grid_padding};
    return attention_rig_launch(rig, step, attention_rig_queries(rig, chunks, n_chunks), plan, &limits);
}

qd_bf16 *attention_rig_reference(const struct attention_rig *rig, const struct rig_chunk *chunks,
                                 int32_t n_chunks)
{
    qd_bf16 *out = gpu_host_alloc(attention_rig_elements(rig, chunks, n_chunks) * sizeof *out);
    const struct qd_attention_args args = {.step = attention_rig_step(rig, chunks, n_chunks),
                                           .q = attention_rig_queries(rig, chunks, n_chunks),
                                           .n_heads = rig->heads.n_heads,
                                           .n_kv_heads = rig->heads.n_kv_heads,
                                           .head_dim = rig->heads.head_dim,
                                           .kv = host_kv(rig),
                                           .out = out};
    qd_ref_attention(&args, rig->numerics);
    return out;
}

void attention_rig_check(const char *what, struct attention_rig *rig, const struct rig_chunk *chunks,
                         int32_t n_chunks)
{
    attention_rig_fill(rig, chunks, n_chunks);
    const size_t n = attention_rig_elements(rig, chunks, n_chunks);
    const qd_bf16 *got = attention_rig_run(rig, chunks, n_chunks);
    const qd_bf16 *want = attention_rig_reference(rig, chunks, n_chunks);
    gpu_expect_close_bf16(what, got, want, n, RTOL, rig->numerics == QD_NUMERICS_HF ? ATOL_HF : ATOL_FUSED);
    gpu_expect_same_bits(what, got, n * sizeof *got);
}
