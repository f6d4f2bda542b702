#include "kernels/step.h"

#include <math.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/base/hash.h"

enum { ALIGNMENT = 16 };

/* Lengths of the arrays. */
struct counts {
    int32_t n_tokens, n_seqs, n_blocks, n_logit_rows;
};

/* Places `count` elements at *end, which moves past them and their padding. */
static bool place(uint64_t *offset, size_t *end, int64_t count, size_t element_bytes)
{
    size_t bytes, next;
    if (!qd_size_mul((size_t)count, element_bytes, &bytes)) return false;
    if (!qd_size_add(*end, bytes, &next) || !qd_size_add(next, ALIGNMENT - 1, &next)) return false;
    *offset = *end;
    *end = next / ALIGNMENT * ALIGNMENT;
    return true;
}

/* Writes offsets and used_bytes for these counts: the one place that knows the order of the arrays. Only
 * logit_row, sampling and used_bytes depend on n_blocks. */
static bool lay_out(struct qd_step *header, const struct counts *n)
{
    size_t end = qd_round_up(sizeof *header, ALIGNMENT);
    bool fits = place(&header->token_source, &end, n->n_tokens, sizeof(int32_t)) &&
                place(&header->position, &end, n->n_tokens, sizeof(int32_t)) &&
                place(&header->slot_mapping, &end, n->n_tokens, sizeof(int64_t)) &&
                place(&header->cu_seqlens_q, &end, (int64_t)n->n_seqs + 1, sizeof(int32_t)) &&
                place(&header->kv_len, &end, n->n_seqs, sizeof(int32_t)) &&
                place(&header->block_offset, &end, (int64_t)n->n_seqs + 1, sizeof(int32_t)) &&
                place(&header->block_table, &end, n->n_blocks, sizeof(int32_t)) &&
                place(&header->logit_row, &end, n->n_logit_rows, sizeof(int32_t)) &&
                place(&header->sampling, &end, n->n_logit_rows, sizeof(struct qd_sampling));
    header->used_bytes = end;
    return fits;
}

size_t qd_step_capacity(const struct qd_step_limits *limits)
{
    const struct counts largest = {limits->max_tokens, limits->max_seqs, limits->max_blocks,
                                   limits->max_logit_rows};
    struct qd_step header;
    if (largest.n_tokens < 0 || largest.n_seqs < 0 || largest.n_blocks < 0 || largest.n_logit_rows < 0)
        return 0;
    return lay_out(&header, &largest) ? (size_t)header.used_bytes : 0;
}

/* Zeroes the padding behind an array, so that equal steps are equal bytes. */
static void clear_padding(struct qd_step *step, uint64_t offset, int64_t count, size_t element_bytes)
{
    size_t bytes = (size_t)count * element_bytes, padding = qd_round_up(bytes, ALIGNMENT) - bytes;
    memset((unsigned char *)step + offset + bytes, 0, padding);
}

qd_status qd_step_begin(struct qd_step *step, const struct qd_step_limits *limits, int32_t n_tokens,
                        int32_t n_seqs, int32_t n_blocks, int32_t n_logit_rows)
{
    if (n_tokens < 0 || n_seqs < 0 || n_blocks < 0 || n_logit_rows < 0) return QD_ERR_ARGUMENT;
    if (n_tokens > limits->max_tokens || n_seqs > limits->max_seqs || n_blocks > limits->max_blocks ||
        n_logit_rows > limits->max_logit_rows)
        return QD_ERR_FULL;

    const struct counts n = {n_tokens, n_seqs, n_blocks, n_logit_rows};
    *step = (struct qd_step){.magic = QD_STEP_MAGIC,
                             .version = QD_STEP_VERSION,
                             .n_tokens = n_tokens,
                             .n_seqs = n_seqs,
                             .n_logit_rows = n_logit_rows};
    if (!lay_out(step, &n)) return QD_ERR_TOO_LARGE;
    clear_padding(step, step->token_source, n_tokens, sizeof(int32_t));
    clear_padding(step, step->position, n_tokens, sizeof(int32_t));
    clear_padding(step, step->slot_mapping, n_tokens, sizeof(int64_t));
    clear_padding(step, step->cu_seqlens_q, (int64_t)n_seqs + 1, sizeof(int32_t));
    clear_padding(step, step->kv_len, n_seqs, sizeof(int32_t));
    clear_padding(step, step->block_offset, (int64_t)n_seqs + 1, sizeof(int32_t));
    clear_padding(step, step->block_table, n_blocks, sizeof(int32_t));
    clear_padding(step, step->logit_row, n_logit_rows, sizeof(int32_t));
    return QD_OK;
}

/* What qd_step_validate passes to its parts. */
struct check {
    const struct qd_step *step;
    int32_t n_kv_blocks, vocab_size, max_slots;
    char *err;
    size_t errlen;
};

#define BAD(check, ...) qd_fail(QD_ERR_INPUT, (check)->err, (check)->errlen, "step: " __VA_ARGS__)

static qd_status check_offset(const struct check *c, const char *field, uint64_t found, uint64_t expected)
{
    if (found == expected) return QD_OK;
    return BAD(c, "%s: offset %llu, expected %llu", field, (unsigned long long)found,
               (unsigned long long)expected);
}

/* Counts, offsets and sizes. The length of block_table is read from block_offset, once that is known to lie
 * inside the buffer. */
static qd_status check_layout(const struct check *c, size_t buffer_bytes)
{
    const struct qd_step *s = c->step;
    if (buffer_bytes < sizeof *s)
        return BAD(c, "used_bytes: a buffer of %zu bytes is shorter than the header", buffer_bytes);
    if (s->magic != QD_STEP_MAGIC) return BAD(c, "magic: %#x", s->magic);
    if (s->version != QD_STEP_VERSION) return BAD(c, "version: %u, expected %d", s->version, QD_STEP_VERSION);
    if (s->used_bytes > buffer_bytes)
        return BAD(c, "used_bytes: %llu of a buffer of %zu", (unsigned long long)s->used_bytes, buffer_bytes);
    if (s->n_tokens < 0) return BAD(c, "n_tokens: %d", s->n_tokens);
    if (s->n_seqs < 0 || s->n_seqs > s->n_tokens)
        return BAD(c, "n_seqs: %d with %d tokens", s->n_seqs, s->n_tokens);
    if (s->n_logit_rows < 0 || s->n_logit_rows > s->n_tokens)
        return BAD(c, "n_logit_rows: %d with %d tokens", s->n_logit_rows, s->n_tokens);
    if ((s->flags & ~(uint32_t)QD_STEP_WANT_LOGITS) != 0) return BAD(c, "flags: %#x", s->flags);

    struct qd_step expected;
    struct counts n = {s->n_tokens, s->n_seqs, 0, s->n_logit_rows};
    if (!lay_out(&expected, &n) || expected.block_table > s->used_bytes)
        return BAD(c, "used_bytes: %llu does not hold %d tokens and %d sequences",
                   (unsigned long long)s->used_bytes, s->n_tokens, s->n_seqs);
    QD_TRY(check_offset(c, "token_source", s->token_source, expected.token_source));
    QD_TRY(check_offset(c, "position", s->position, expected.position));
    QD_TRY(check_offset(c, "slot_mapping", s->slot_mapping, expected.slot_mapping));
    QD_TRY(check_offset(c, "cu_seqlens_q", s->cu_seqlens_q, expected.cu_seqlens_q));
    QD_TRY(check_offset(c, "kv_len", s->kv_len, expected.kv_len));
    QD_TRY(check_offset(c, "block_offset", s->block_offset, expected.block_offset));

    n.n_blocks = qd_step_block_offset(s)[s->n_seqs];
    if (n.n_blocks < 0) return BAD(c, "block_offset[%d]: %d", s->n_seqs, n.n_blocks);
    if (!lay_out(&expected, &n) || expected.used_bytes != s->used_bytes)
        return BAD(c, "used_bytes: %llu, but the arrays end at %llu", (unsigned long long)s->used_bytes,
                   (unsigned long long)expected.used_bytes);
    QD_TRY(check_offset(c, "block_table", s->block_table, expected.block_table));
    QD_TRY(check_offset(c, "logit_row", s->logit_row, expected.logit_row));
    return check_offset(c, "sampling", s->sampling, expected.sampling);
}

/* One sequence's chunk: its tokens, its pages, and where its tokens' keys go. cu_seqlens_q and block_offset
 * are known to rise, so every index below lies inside its array. */
static qd_status check_sequence(const struct check *c, int32_t seq)
{
    const struct qd_step *s = c->step;
    const int32_t first = qd_step_cu_seqlens_q(s)[seq], q_len = qd_step_cu_seqlens_q(s)[seq + 1] - first;
    const int32_t kv_len = qd_step_kv_len(s)[seq];
    const int32_t table_start = qd_step_block_offset(s)[seq];
    const int32_t n_blocks = qd_step_block_offset(s)[seq + 1] - table_start;
    const int32_t *table = qd_step_block_table(s) + table_start;

    if (kv_len < q_len) return BAD(c, "kv_len[%d]: %d keys for a chunk of %d tokens", seq, kv_len, q_len);
    const int32_t start = kv_len - q_len;
    if (kv_len > (int64_t)n_blocks * QD_KV_BLOCK_SIZE)
        return BAD(c, "block_offset[%d]: %d pages for %d keys", seq + 1, n_blocks, kv_len);
    for (int32_t i = 0; i < n_blocks; i++) {
        if (table[i] < 0 || table[i] >= c->n_kv_blocks)
            return BAD(c, "block_table[%d]: page %d of %d", table_start + i, table[i], c->n_kv_blocks);
    }
    for (int32_t i = 0; i < q_len; i++) {
        const int32_t t = first + i, position = start + i;
        const int64_t slot =
            (int64_t)table[position / QD_KV_BLOCK_SIZE] * QD_KV_BLOCK_SIZE + position % QD_KV_BLOCK_SIZE;
        if (qd_step_position(s)[t] != position)
            return BAD(c, "position[%d]: %d, expected %d (kv_len[%d] is %d)", t, qd_step_position(s)[t],
                       position, seq, kv_len);
        if (qd_step_slot_mapping(s)[t] != slot)
            return BAD(c, "slot_mapping[%d]: %lld, expected %lld from the block table", t,
                       (long long)qd_step_slot_mapping(s)[t], (long long)slot);
    }
    return QD_OK;
}

static qd_status check_sequences(const struct check *c)
{
    const struct qd_step *s = c->step;
    const int32_t *cu = qd_step_cu_seqlens_q(s), *block_offset = qd_step_block_offset(s);
    if (cu[0] != 0) return BAD(c, "cu_seqlens_q[0]: %d, expected 0", cu[0]);
    if (block_offset[0] != 0) return BAD(c, "block_offset[0]: %d, expected 0", block_offset[0]);
    if (cu[s->n_seqs] != s->n_tokens)
        return BAD(c, "cu_seqlens_q[%d]: %d, expected n_tokens %d", s->n_seqs, cu[s->n_seqs], s->n_tokens);
    /* Rising from 0 to a last value that fits bounds all of them before any is used as an index. */
    for (int32_t i = 0; i < s->n_seqs; i++) {
        if (cu[i + 1] <= cu[i])
            return BAD(c, "cu_seqlens_q[%d]: %d does not rise above %d", i + 1, cu[i + 1], cu[i]);
        if (block_offset[i + 1] < block_offset[i])
            return BAD(c, "block_offset[%d]: %d falls below %d", i + 1, block_offset[i + 1], block_offset[i]);
    }
    for (int32_t i = 0; i < s->n_seqs; i++) QD_TRY(check_sequence(c, i));
    return QD_OK;
}

static qd_status check_token_sources(const struct check *c)
{
    const struct qd_step *s = c->step;
    for (int32_t t = 0; t < s->n_tokens; t++) {
        const int32_t source = qd_step_token_source(s)[t];
        if (source >= c->vocab_size)
            return BAD(c, "token_source[%d]: id %d of a vocabulary of %d", t, source, c->vocab_size);
        if (source < 0 && -((int64_t)source + 1) >= c->max_slots)
            return BAD(c, "token_source[%d]: slot %lld of %d", t, (long long)-((int64_t)source + 1),
                       c->max_slots);
    }
    return QD_OK;
}

/* Comparisons are written so that NaN fails them. */
static qd_status check_logit_rows(const struct check *c)
{
    const struct qd_step *s = c->step;
    int32_t last = -1;
    for (int32_t i = 0; i < s->n_logit_rows; i++) {
        const int32_t row = qd_step_logit_row(s)[i];
        const struct qd_sampling *p = &qd_step_sampling(s)[i];
        if (row <= last || row >= s->n_tokens)
            return BAD(c, "logit_row[%d]: token %d after %d of %d", i, row, last, s->n_tokens);
        if (!(p->temperature >= 0) || isinf(p->temperature))
            return BAD(c, "sampling[%d].temperature: %g", i, (double)p->temperature);
        if (!(p->top_p > 0 && p->top_p <= 1)) return BAD(c, "sampling[%d].top_p: %g", i, (double)p->top_p);
        if (p->top_k < 0) return BAD(c, "sampling[%d].top_k: %d", i, p->top_k);
        if (p->slot < -1 || p->slot >= c->max_slots)
            return BAD(c, "sampling[%d].slot: %d of %d", i, p->slot, c->max_slots);
        last = row;
    }
    return QD_OK;
}

qd_status qd_step_validate(const struct qd_step *step, size_t buffer_bytes, int32_t n_kv_blocks,
                           int32_t vocab_size, int32_t max_slots, char *err, size_t errlen)
{
    const struct check c = {step, n_kv_blocks, vocab_size, max_slots, err, errlen};
    QD_TRY(check_layout(&c, buffer_bytes));
    QD_TRY(check_sequences(&c));
    QD_TRY(check_token_sources(&c));
    return check_logit_rows(&c);
}

uint64_t qd_step_hash(const struct qd_step *step)
{
    const unsigned char *bytes = (const unsigned char *)step;
    const size_t index_at = offsetof(struct qd_step, step_index);
    const size_t after = index_at + sizeof step->step_index;
    uint64_t hash = qd_hash(QD_HASH_START, bytes, index_at);
    return qd_hash(hash, bytes + after, (size_t)step->used_bytes - after);
}
