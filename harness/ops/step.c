#include "harness/ops/step.h"

#include "kernels/base/random.h"
#include "kernels/base/size.h"

enum {
    FILL_TOKENS = 256, /* of a step that fills the pool */
    SPARE_PAGES = 5,   /* that no sequence has */
    PAGE_STRIDE = 7,   /* neighbours of a sequence lie so far apart in the pool */
};

int32_t qd_op_n_chunks(const struct qd_op_case *c)
{
    if (c->op == QD_OP_ATTENTION_DECODE) return c->n_tokens;
    return c->op == QD_OP_ATTENTION_MIXED ? 1 + c->n_tokens / 2 : 1;
}

struct qd_op_chunk qd_op_chunk(const struct qd_op_case *c, int32_t i)
{
    int32_t prior = qd_op_is_attention(c->op) ? c->context : 0;
    if (c->op == QD_OP_ATTENTION_DECODE) return (struct qd_op_chunk){i, prior, 1};
    if (c->op == QD_OP_ATTENTION_MIXED && i > 0) return (struct qd_op_chunk){i, prior, 1};
    return (struct qd_op_chunk){0, prior,
                                c->op == QD_OP_ATTENTION_MIXED ? c->n_tokens - c->n_tokens / 2 : c->n_tokens};
}

struct qd_attention_load qd_op_attention_load(const struct qd_op_case *c)
{
    struct qd_attention_load load = {.n_tokens = c->n_tokens};
    for (int32_t i = 0; i < qd_op_n_chunks(c); i++) {
        struct qd_op_chunk chunk = qd_op_chunk(c, i);
        int64_t n = chunk.q_len;
        load.n_visible += n * chunk.prior + n * (n + 1) / 2;
        load.n_kv += chunk.prior + n;
    }
    return load;
}

struct qd_op_pages qd_op_pages(const struct qd_op_case *c)
{
    struct qd_op_chunk longest = qd_op_chunk(c, 0);
    struct qd_op_pages pages = {.n_seqs = qd_op_n_chunks(c),
                                .per_seq =
                                    (int32_t)qd_div_up(longest.prior + longest.q_len, QD_KV_BLOCK_SIZE)};
    pages.n_blocks = pages.n_seqs * pages.per_seq + SPARE_PAGES;
    if (pages.n_blocks % PAGE_STRIDE == 0) pages.n_blocks++; /* coprime: every page is dealt once */
    return pages;
}

static int32_t page_of(const struct qd_op_pages *pages, int32_t seq, int32_t i)
{
    int64_t index = (int64_t)seq * pages->per_seq + i;
    return (int32_t)((index * PAGE_STRIDE + SPARE_PAGES) % pages->n_blocks);
}

struct qd_step_limits qd_op_limits(const struct qd_op_case *c)
{
    struct qd_op_pages pages = qd_op_pages(c);
    int32_t fill = qd_op_is_attention(c->op) ? (c->context < FILL_TOKENS ? c->context : FILL_TOKENS) : 0;
    return (struct qd_step_limits){
        .max_tokens = c->n_tokens > fill ? c->n_tokens : fill,
        .max_seqs = c->op == QD_OP_SAMPLE ? c->n_tokens : pages.n_seqs,
        .max_blocks = pages.n_seqs * pages.per_seq,
        .max_logit_rows = c->n_tokens,
    };
}

/* Tokens that are ids, and every fifth one what a slot sampled last: nothing yet, so id 0. */
static int32_t token_source(const struct qd_op_case *c, uint64_t seed, int32_t t)
{
    if (t % 5 == 4) return -1;
    uint32_t word = qd_philox(seed, 1, (uint64_t)t).word[0];
    return (int32_t)(((uint64_t)word * (uint64_t)c->shape.vocab_size) >> 32);
}

static struct qd_sampling row_sampling(uint64_t seed, int32_t row, bool greedy)
{
    struct qd_sampling sampling = {.top_p = 1, .slot = row, .seed = seed, .output_index = (uint64_t)row};
    if (greedy || row % 4 == 0) return sampling;
    sampling.temperature = row % 4 == 1 ? 1.0f : 0.8f;
    if (row % 4 == 2) sampling.top_k = 5;
    if (row % 4 == 3) sampling.top_p = 0.6f;
    return sampling;
}

static void write_logit_rows(const struct qd_op_case *c, uint64_t seed, bool greedy, struct qd_step *step)
{
    int32_t stride = c->op == QD_OP_FINAL_NORM ? 2 : 1;
    for (int32_t r = 0; r < step->n_logit_rows; r++) {
        qd_step_logit_row(step)[r] = r * stride;
        qd_step_sampling(step)[r] = row_sampling(seed, r, greedy);
        if (c->op != QD_OP_SAMPLE) qd_step_sampling(step)[r].slot = -1;
    }
}

static int32_t n_logit_rows(const struct qd_op_case *c)
{
    bool wanted = c->op == QD_OP_FINAL_NORM || c->op == QD_OP_LM_HEAD || c->op == QD_OP_SAMPLE;
    return wanted ? (int32_t)qd_op_rows(c) : 0;
}

void qd_op_step_write(const struct qd_op_case *c, const struct qd_op_chunk *chunks, int32_t n_chunks,
                      uint64_t seed, bool greedy, struct qd_step *step)
{
    struct qd_op_pages pages = qd_op_pages(c);
    struct qd_step_limits limits = qd_op_limits(c);
    int32_t n_tokens = 0, n_blocks = 0;
    for (int32_t i = 0; i < n_chunks; i++) {
        n_tokens += chunks[i].q_len;
        n_blocks += (int32_t)qd_div_up(chunks[i].prior + chunks[i].q_len, QD_KV_BLOCK_SIZE);
    }
    qd_status st = qd_step_begin(step, &limits, n_tokens, n_chunks, n_blocks, n_logit_rows(c));
    QD_ASSERT(st == QD_OK); /* the limits are the case's own */
    int32_t t = 0, b = 0;
    for (int32_t i = 0; i < n_chunks; i++) {
        int32_t kv_len = chunks[i].prior + chunks[i].q_len;
        qd_step_cu_seqlens_q(step)[i] = t;
        qd_step_kv_len(step)[i] = kv_len;
        qd_step_block_offset(step)[i] = b;
        for (int32_t p = 0; p < qd_div_up(kv_len, QD_KV_BLOCK_SIZE); p++)
            qd_step_block_table(step)[b++] = page_of(&pages, chunks[i].seq, p);
        for (int32_t position = chunks[i].prior; position < kv_len; position++, t++) {
            qd_step_token_source(step)[t] = token_source(c, seed, t);
            qd_step_position(step)[t] = position;
            qd_step_slot_mapping(step)[t] =
                (int64_t)page_of(&pages, chunks[i].seq, position / QD_KV_BLOCK_SIZE) * QD_KV_BLOCK_SIZE +
                position % QD_KV_BLOCK_SIZE;
        }
    }
    qd_step_cu_seqlens_q(step)[n_chunks] = t;
    qd_step_block_offset(step)[n_chunks] = b;
    write_logit_rows(c, seed, greedy, step);
}
