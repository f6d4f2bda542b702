#include "tests/support/steps.h"

#include "tests/support/memory.h"
#include "tests/support/test.h"

struct page_deal page_deal_init(int32_t n_seqs, int32_t max_len, uint64_t seed)
{
    struct page_deal deal = {.n_seqs = n_seqs};
    deal.pages_per_seq = (max_len + QD_KV_BLOCK_SIZE - 1) / QD_KV_BLOCK_SIZE;
    deal.n_kv_blocks = n_seqs * deal.pages_per_seq + 3;
    deal.page = malloc((size_t)deal.n_kv_blocks * sizeof *deal.page);
    assert_non_null(deal.page);
    for (int32_t i = 0; i < deal.n_kv_blocks; i++) deal.page[i] = i;
    for (int32_t i = deal.n_kv_blocks - 1; i > 0; i--) { /* Fisher, Yates */
        const uint32_t j = random_below(seed, (uint64_t)i, (uint32_t)i + 1);
        const int32_t page = deal.page[i];
        deal.page[i] = deal.page[j];
        deal.page[j] = page;
    }
    return deal;
}

void page_deal_free(struct page_deal *deal)
{
    free(deal->page);
    *deal = (struct page_deal){0};
}

int32_t count_tokens(const struct chunk *chunks, int32_t n_chunks)
{
    int32_t n = 0;
    for (int32_t i = 0; i < n_chunks; i++) n += chunks[i].q_len;
    return n;
}

static int32_t pages_of(const struct chunk *chunk)
{
    return (chunk->prior + chunk->q_len + QD_KV_BLOCK_SIZE - 1) / QD_KV_BLOCK_SIZE;
}

/* Fills sequence s of the step from its chunk; arrays before it are filled already. */
static void write_chunk(struct qd_step *step, int32_t s, const struct page_deal *deal,
                        const struct chunk *chunk)
{
    const int32_t first = qd_step_cu_seqlens_q(step)[s], table_start = qd_step_block_offset(step)[s];
    const int32_t *page = deal->page + chunk->seq * deal->pages_per_seq;
    for (int32_t i = 0; i < pages_of(chunk); i++) qd_step_block_table(step)[table_start + i] = page[i];
    for (int32_t i = 0; i < chunk->q_len; i++) {
        const int32_t t = first + i, position = chunk->prior + i;
        qd_step_token_source(step)[t] = (7 * chunk->seq + 13 * position) % 101;
        qd_step_position(step)[t] = position;
        qd_step_slot_mapping(step)[t] =
            (int64_t)page[position / QD_KV_BLOCK_SIZE] * QD_KV_BLOCK_SIZE + position % QD_KV_BLOCK_SIZE;
    }
    qd_step_kv_len(step)[s] = chunk->prior + chunk->q_len;
    qd_step_cu_seqlens_q(step)[s + 1] = first + chunk->q_len;
    qd_step_block_offset(step)[s + 1] = table_start + pages_of(chunk);
    qd_step_logit_row(step)[s] = first + chunk->q_len - 1;
    qd_step_sampling(step)[s] = (struct qd_sampling){.top_p = 1, .slot = -1};
}

struct qd_step *new_step(const struct page_deal *deal, const struct chunk *chunks, int32_t n_chunks)
{
    struct qd_step_limits limits = {count_tokens(chunks, n_chunks), n_chunks, 0, n_chunks};
    for (int32_t i = 0; i < n_chunks; i++) limits.max_blocks += pages_of(&chunks[i]);
    struct qd_step *step = malloc(qd_step_capacity(&limits));
    assert_non_null(step);
    assert_int_equal(qd_step_begin(step, &limits, limits.max_tokens, n_chunks, limits.max_blocks, n_chunks),
                     QD_OK);
    qd_step_cu_seqlens_q(step)[0] = 0;
    qd_step_block_offset(step)[0] = 0;
    for (int32_t i = 0; i < n_chunks; i++) {
        assert_in_range(chunks[i].seq, 0, deal->n_seqs - 1);
        assert_in_range(pages_of(&chunks[i]), 1, deal->pages_per_seq);
        write_chunk(step, i, deal, &chunks[i]);
    }
    return step;
}

struct qd_step *new_sampling_step(const struct qd_sampling *sampling, int32_t n_rows)
{
    struct page_deal deal = page_deal_init(n_rows, 1, 1);
    struct chunk *chunks = malloc((size_t)n_rows * sizeof *chunks);
    assert_non_null(chunks);
    for (int32_t i = 0; i < n_rows; i++) chunks[i] = (struct chunk){.seq = i, .q_len = 1};
    struct qd_step *step = new_step(&deal, chunks, n_rows);
    for (int32_t i = 0; i < n_rows; i++) qd_step_sampling(step)[i] = sampling[i];
    free(chunks);
    page_deal_free(&deal);
    return step;
}
