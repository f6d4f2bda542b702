/* The step buffer: sizes, layout, validation of every field, hash. */
#include "kernels/step.h"

#include <limits.h>
#include <math.h>

#include "tests/support/steps.h"
#include "tests/support/test.h"

enum { VOCAB = 101, SLOTS = 4 };

/* Sequence 0 decodes its 33rd token, sequence 1 prefills 5 tokens after 15, sequence 2 starts with 17. */
static const struct chunk chunks[] = {{0, 32, 1}, {1, 15, 5}, {2, 0, 17}};
enum { N_CHUNKS = 3, N_TOKENS = 23, N_BLOCKS = 3 + 2 + 2 };

static struct qd_step *make(struct page_deal *deal)
{
    *deal = page_deal_init(N_CHUNKS, 48, 5);
    return new_step(deal, chunks, N_CHUNKS);
}

static qd_status validate(const struct qd_step *step, size_t bytes, const struct page_deal *deal, char *err)
{
    return qd_step_validate(step, bytes, deal->n_kv_blocks, VOCAB, SLOTS, err, QD_ERR_LEN);
}

static void valid_step_passes(void **state)
{
    (void)state;
    struct page_deal deal;
    struct qd_step *step = make(&deal);
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(validate(step, step->used_bytes, &deal, err), err);
    step->flags = QD_STEP_WANT_LOGITS;
    step->step_index = UINT64_MAX;
    qd_step_token_source(step)[3] = -SLOTS; /* the last slot */
    qd_step_sampling(step)[1] =
        (struct qd_sampling){.temperature = 1.5f, .top_p = 0.1f, .top_k = INT_MAX, .slot = SLOTS - 1};
    ASSERT_OK(validate(step, step->used_bytes + 1000, &deal, err), err);
    free(step);
    page_deal_free(&deal);
}

static void empty_step_passes(void **state)
{
    (void)state;
    const struct qd_step_limits limits = {0, 0, 0, 0};
    struct qd_step *step = malloc(qd_step_capacity(&limits));
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_step_begin(step, &limits, 0, 0, 0, 0), QD_OK);
    qd_step_cu_seqlens_q(step)[0] = qd_step_block_offset(step)[0] = 0;
    ASSERT_OK(qd_step_validate(step, step->used_bytes, 0, 1, 0, err, sizeof err), err);
    free(step);
}

/* Every way to damage one field: a name that the error must contain, and the damage. */
struct damage {
    const char *field;
    void (*apply)(struct qd_step *step);
};

#define DAMAGE(name, statement)                                                                              \
    static void name(struct qd_step *s)                                                                      \
    {                                                                                                        \
        statement;                                                                                           \
    }
DAMAGE(bad_magic, s->magic ^= 1)
DAMAGE(bad_version, s->version++)
DAMAGE(used_above_buffer, s->used_bytes += 16)
DAMAGE(used_below_header, s->used_bytes = 16)
DAMAGE(used_huge, s->used_bytes = UINT64_MAX)
DAMAGE(used_too_small, s->used_bytes -= 16)
DAMAGE(tokens_negative, s->n_tokens = -1)
DAMAGE(tokens_huge, s->n_tokens = INT32_MAX)
DAMAGE(seqs_negative, s->n_seqs = -1)
DAMAGE(seqs_above_tokens, s->n_seqs = N_TOKENS + 1)
DAMAGE(rows_negative, s->n_logit_rows = -1)
DAMAGE(rows_above_tokens, s->n_logit_rows = N_TOKENS + 1)
DAMAGE(flags_unknown, s->flags = 2)
DAMAGE(token_source_offset, s->token_source += 16)
DAMAGE(position_offset, s->position = UINT64_MAX - 3)
DAMAGE(slot_mapping_offset, s->slot_mapping -= 16)
DAMAGE(cu_offset, s->cu_seqlens_q = 0)
DAMAGE(kv_len_offset, s->kv_len += 4)
DAMAGE(block_offset_offset, s->block_offset = s->used_bytes)
DAMAGE(block_table_offset, s->block_table += 16)
DAMAGE(logit_row_offset, s->logit_row += 16)
DAMAGE(sampling_offset, s->sampling = 1)
DAMAGE(cu_start, qd_step_cu_seqlens_q(s)[0] = 1)
DAMAGE(cu_end, qd_step_cu_seqlens_q(s)[N_CHUNKS] = N_TOKENS - 1)
DAMAGE(cu_falls, qd_step_cu_seqlens_q(s)[1] = 7)
DAMAGE(cu_empty_sequence, qd_step_cu_seqlens_q(s)[1] = 0)
DAMAGE(cu_far, qd_step_cu_seqlens_q(s)[1] = INT32_MAX)
DAMAGE(block_offset_start, qd_step_block_offset(s)[0] = -1)
DAMAGE(block_offset_falls, qd_step_block_offset(s)[1] = 6)
DAMAGE(block_offset_far, qd_step_block_offset(s)[2] = INT32_MIN)
DAMAGE(block_offset_end_negative, qd_step_block_offset(s)[N_CHUNKS] = -5)
DAMAGE(block_offset_end_huge, qd_step_block_offset(s)[N_CHUNKS] = INT32_MAX)
DAMAGE(kv_len_short, qd_step_kv_len(s)[1] = 4)
DAMAGE(kv_len_negative, qd_step_kv_len(s)[1] = INT32_MIN)
DAMAGE(kv_len_beyond_pages, qd_step_kv_len(s)[1] = 33)
DAMAGE(kv_len_huge, qd_step_kv_len(s)[1] = INT32_MAX)
DAMAGE(kv_len_moves_positions, qd_step_kv_len(s)[1] = 21)
DAMAGE(page_negative, qd_step_block_table(s)[4] = -1)
DAMAGE(page_beyond_pool, qd_step_block_table(s)[4] = 1000)
DAMAGE(position_wrong, qd_step_position(s)[2]++)
DAMAGE(position_negative, qd_step_position(s)[0] = -1)
DAMAGE(slot_wrong, qd_step_slot_mapping(s)[22]--)
DAMAGE(slot_negative, qd_step_slot_mapping(s)[0] = -1)
DAMAGE(token_beyond_vocabulary, qd_step_token_source(s)[5] = VOCAB)
DAMAGE(token_slot_beyond, qd_step_token_source(s)[5] = -SLOTS - 1)
DAMAGE(token_slot_far, qd_step_token_source(s)[5] = INT32_MIN)
DAMAGE(row_negative, qd_step_logit_row(s)[0] = -1)
DAMAGE(row_beyond, qd_step_logit_row(s)[2] = N_TOKENS)
DAMAGE(row_repeated, qd_step_logit_row(s)[1] = qd_step_logit_row(s)[0])
DAMAGE(temperature_negative, qd_step_sampling(s)[1].temperature = -0.5f)
DAMAGE(temperature_nan, qd_step_sampling(s)[1].temperature = NAN)
DAMAGE(temperature_infinite, qd_step_sampling(s)[1].temperature = INFINITY)
DAMAGE(top_p_zero, qd_step_sampling(s)[1].top_p = 0)
DAMAGE(top_p_above_one, qd_step_sampling(s)[1].top_p = 1.5f)
DAMAGE(top_p_nan, qd_step_sampling(s)[1].top_p = NAN)
DAMAGE(top_k_negative, qd_step_sampling(s)[1].top_k = -1)
DAMAGE(slot_row_negative, qd_step_sampling(s)[1].slot = -2)
DAMAGE(slot_row_beyond, qd_step_sampling(s)[1].slot = SLOTS)

static const struct damage damages[] = {
    {"magic", bad_magic},
    {"version", bad_version},
    {"used_bytes", used_above_buffer},
    {"used_bytes", used_below_header},
    {"used_bytes", used_huge},
    {"used_bytes", used_too_small},
    {"n_tokens", tokens_negative},
    {"used_bytes", tokens_huge},
    {"n_seqs", seqs_negative},
    {"n_seqs", seqs_above_tokens},
    {"n_logit_rows", rows_negative},
    {"n_logit_rows", rows_above_tokens},
    {"flags", flags_unknown},
    {"token_source", token_source_offset},
    {"position", position_offset},
    {"slot_mapping", slot_mapping_offset},
    {"cu_seqlens_q", cu_offset},
    {"kv_len", kv_len_offset},
    {"block_offset", block_offset_offset},
    {"block_table", block_table_offset},
    {"logit_row", logit_row_offset},
    {"sampling", sampling_offset},
    {"cu_seqlens_q[0]", cu_start},
    {"cu_seqlens_q[3]", cu_end},
    {"cu_seqlens_q[2]", cu_falls},
    {"cu_seqlens_q[1]", cu_empty_sequence},
    {"cu_seqlens_q[2]", cu_far},
    {"block_offset[0]", block_offset_start},
    {"block_offset[2]", block_offset_falls},
    {"block_offset[2]", block_offset_far},
    {"block_offset[3]", block_offset_end_negative},
    {"used_bytes", block_offset_end_huge},
    {"kv_len[1]", kv_len_short},
    {"kv_len[1]", kv_len_negative},
    {"block_offset[2]", kv_len_beyond_pages},
    {"block_offset[2]", kv_len_huge},
    {"position[1]", kv_len_moves_positions},
    {"block_table[4]", page_negative},
    {"block_table[4]", page_beyond_pool},
    {"position[2]", position_wrong},
    {"position[0]", position_negative},
    {"slot_mapping[22]", slot_wrong},
    {"slot_mapping[0]", slot_negative},
    {"token_source[5]", token_beyond_vocabulary},
    {"token_source[5]", token_slot_beyond},
    {"token_source[5]", token_slot_far},
    {"logit_row[0]", row_negative},
    {"logit_row[2]", row_beyond},
    {"logit_row[1]", row_repeated},
    {"sampling[1].temperature", temperature_negative},
    {"sampling[1].temperature", temperature_nan},
    {"sampling[1].temperature", temperature_infinite},
    {"sampling[1].top_p", top_p_zero},
    {"sampling[1].top_p", top_p_above_one},
    {"sampling[1].top_p", top_p_nan},
    {"sampling[1].top_k", top_k_negative},
    {"sampling[1].slot", slot_row_negative},
    {"sampling[1].slot", slot_row_beyond},
};

static void every_damaged_field_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct page_deal deal;
        struct qd_step *step = make(&deal);
        const size_t bytes = step->used_bytes;
        char err[QD_ERR_LEN] = "", want[64];
        damages[i].apply(step);
        snprintf(want, sizeof want, "step: %s:", damages[i].field);
        if (validate(step, bytes, &deal, err) != QD_ERR_INPUT)
            fail_msg("damage %zu to %s was accepted", i, damages[i].field);
        ASSERT_CONTAINS(err, want);
        free(step);
        page_deal_free(&deal);
    }
}

/* Whatever bytes arrive, validation ends and reads inside the buffer (the sanitizers watch). */
static void random_bytes_are_refused(void **state)
{
    (void)state;
    srand(7);
    for (int round = 0; round < 2000; round++) {
        struct page_deal deal;
        struct qd_step *original = make(&deal);
        const size_t bytes = original->used_bytes;
        unsigned char *copy = malloc(bytes); /* exact, so that a read behind it is seen */
        char err[QD_ERR_LEN] = "";
        memcpy(copy, original, bytes);
        for (int i = 0; i < 3; i++) copy[(size_t)rand() % bytes] = (unsigned char)rand();
        const qd_status status = validate((const struct qd_step *)copy, bytes, &deal, err);
        assert_true(status == QD_OK || (status == QD_ERR_INPUT && err[0] != '\0'));
        free(copy);
        free(original);
        page_deal_free(&deal);
    }
}

static void short_buffers_are_refused(void **state)
{
    (void)state;
    struct page_deal deal;
    struct qd_step *step = make(&deal);
    for (size_t bytes = 0; bytes < step->used_bytes; bytes++) {
        unsigned char *copy = malloc(bytes + 1);
        char err[QD_ERR_LEN] = "";
        memcpy(copy, step, bytes);
        assert_int_equal(validate((const struct qd_step *)copy, bytes, &deal, err), QD_ERR_INPUT);
        ASSERT_CONTAINS(err, "used_bytes");
        free(copy);
    }
    free(step);
    page_deal_free(&deal);
}

static void limits_hold(void **state)
{
    (void)state;
    const struct qd_step_limits limits = {8, 4, 16, 5};
    struct qd_step *step = malloc(qd_step_capacity(&limits));
    assert_int_equal(qd_step_begin(step, &limits, 8, 4, 16, 5), QD_OK);
    assert_int_equal(step->used_bytes, qd_step_capacity(&limits));
    assert_int_equal(qd_step_begin(step, &limits, 9, 4, 16, 5), QD_ERR_FULL);
    assert_int_equal(qd_step_begin(step, &limits, 8, 5, 16, 5), QD_ERR_FULL);
    assert_int_equal(qd_step_begin(step, &limits, 8, 4, 17, 5), QD_ERR_FULL);
    assert_int_equal(qd_step_begin(step, &limits, 8, 4, 16, 6), QD_ERR_FULL);
    assert_int_equal(qd_step_begin(step, &limits, -1, 4, 16, 5), QD_ERR_ARGUMENT);
    assert_int_equal(qd_step_begin(step, &limits, 8, 4, -16, 5), QD_ERR_ARGUMENT);
    free(step);
}

static void capacity_counts_bytes(void **state)
{
    (void)state;
    /* header 112; 3 tokens: 16 + 16 + 32; 2 sequences: 16 + 16 + 16; 5 pages: 32; 1 row: 16 + 32 */
    assert_int_equal(qd_step_capacity(&(struct qd_step_limits){3, 2, 5, 1}),
                     112 + 16 + 16 + 32 + 16 + 16 + 16 + 32 + 16 + 32);
    assert_int_equal(qd_step_capacity(&(struct qd_step_limits){-1, 2, 5, 1}), 0);
    assert_int_equal(qd_step_capacity(&(struct qd_step_limits){3, 2, 5, -7}), 0);
    assert_true(qd_step_capacity(&(struct qd_step_limits){INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}) >
                (size_t)64 * INT32_MAX);
}

static void equal_steps_hash_alike(void **state)
{
    (void)state;
    struct page_deal deal;
    struct qd_step *a = make(&deal);
    page_deal_free(&deal);
    struct qd_step *b = make(&deal);
    a->step_index = 3;
    b->step_index = 4;
    assert_int_equal(qd_step_hash(a), qd_step_hash(b));

    /* Every byte but those of step_index counts. */
    const uint64_t hash = qd_step_hash(b), index_at = offsetof(struct qd_step, step_index);
    for (uint64_t i = 0; i < b->used_bytes; i++) {
        if (i >= offsetof(struct qd_step, used_bytes) && i < index_at + sizeof b->step_index) continue;
        ((unsigned char *)b)[i] ^= 0x10;
        if (qd_step_hash(b) == hash) fail_msg("byte %llu does not count", (unsigned long long)i);
        ((unsigned char *)b)[i] ^= 0x10;
    }
    free(a);
    free(b);
    page_deal_free(&deal);
}

/* Memory that was dirty before must not show in the hash: padding is cleared. */
static void padding_does_not_count(void **state)
{
    (void)state;
    const struct qd_step_limits limits = {1, 1, 1, 1};
    const size_t bytes = qd_step_capacity(&limits);
    uint64_t hash[2];
    for (int i = 0; i < 2; i++) {
        struct qd_step *step = malloc(bytes);
        memset(step, i == 0 ? 0x00 : 0xee, bytes);
        assert_int_equal(qd_step_begin(step, &limits, 1, 1, 1, 1), QD_OK);
        qd_step_token_source(step)[0] = 5;
        qd_step_position(step)[0] = 0;
        qd_step_slot_mapping(step)[0] = 0;
        qd_step_cu_seqlens_q(step)[0] = qd_step_block_offset(step)[0] = 0;
        qd_step_cu_seqlens_q(step)[1] = qd_step_block_offset(step)[1] = 1;
        qd_step_kv_len(step)[0] = 1;
        qd_step_block_table(step)[0] = 0;
        qd_step_logit_row(step)[0] = 0;
        qd_step_sampling(step)[0] = (struct qd_sampling){.top_p = 1, .slot = -1};
        hash[i] = qd_step_hash(step);
        free(step);
    }
    assert_int_equal(hash[0], hash[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_step_passes),
        cmocka_unit_test(empty_step_passes),
        cmocka_unit_test(every_damaged_field_is_named),
        cmocka_unit_test(random_bytes_are_refused),
        cmocka_unit_test(short_buffers_are_refused),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(capacity_counts_bytes),
        cmocka_unit_test(equal_steps_hash_alike),
        cmocka_unit_test(padding_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
