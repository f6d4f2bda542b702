/* Byte-pair encoding against the plainest way to do it, and words too long for a quadratic one. */
#include "tests/support/test.h"

#include "kernels/base/random.h"
#include "models/bpe.h"

enum { N_LETTERS = 4, N_IDS = 64, MAX_WORD = 200 };

/* Ids 0 .. 3 are the letters; each further id is a merge of two earlier ones, ranked by a shuffled number. */
struct table {
    struct qd_bpe bpe;
    int32_t left[N_IDS], right[N_IDS], rank[N_IDS];
};

static uint32_t draw(uint64_t key, uint64_t counter, uint32_t n)
{
    return qd_philox(key, 0, counter).word[0] % n;
}

static void make_table(struct table *table, uint64_t key)
{
    char err[QD_ERR_LEN] = "";
    *table = (struct table){0};
    for (int i = 0; i < 256; i++) table->bpe.byte_id[i] = i % N_LETTERS;
    for (int32_t id = N_LETTERS; id < N_IDS; id++) {
        bool taken;
        do {
            table->left[id] = (int32_t)draw(key, (uint64_t)id * 7 + 1, (uint32_t)id);
            table->right[id] = (int32_t)draw(key, (uint64_t)id * 7 + 2, (uint32_t)id);
            taken = false;
            for (int32_t other = N_LETTERS; other < id; other++)
                if (table->left[other] == table->left[id] && table->right[other] == table->right[id])
                    taken = true;
            key++;
        } while (taken);
        table->rank[id] = (int32_t)((unsigned)id * 37u % 61u); /* all different: 37 and 61 share no factor */
        ASSERT_OK(
            qd_bpe_add(&table->bpe, table->left[id], table->right[id], table->rank[id], id, err, sizeof err),
            err);
    }
}

/* Looks for the best pair of the whole word, merges it, starts again. */
static size_t encode_plainly(const struct table *table, const char *word, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++) ids[i] = table->bpe.byte_id[(unsigned char)word[i]];
    for (;;) {
        int32_t best = -1;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (int32_t id = N_LETTERS; id < N_IDS; id++)
                if (table->left[id] == ids[i] && table->right[id] == ids[i + 1] &&
                    (best < 0 || table->rank[id] < table->rank[best])) {
                    best = id;
                    at = i;
                }
        if (best < 0) return n;
        ids[at] = best;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void test_equals_plain_merging(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", word[MAX_WORD];
    struct qd_bpe_scratch scratch = {0};
    int n_merged = 0;
    for (uint64_t key = 1; key <= 20; key++) {
        struct table table;
        make_table(&table, key * 1000);
        for (uint32_t len = 1; len <= MAX_WORD; len += len < 20 ? 1 : 13) {
            int32_t ids[MAX_WORD], expected[MAX_WORD];
            size_t n, n_expected;
            for (uint32_t i = 0; i < len; i++) word[i] = (char)('a' + draw(key, 1000 * len + i, N_LETTERS));
            n_expected = encode_plainly(&table, word, len, expected);
            ASSERT_OK(qd_bpe_encode(&table.bpe, &scratch, word, len, ids, &n, err, sizeof err), err);
            assert_int_equal(n, n_expected);
            assert_memory_equal(ids, expected, n * sizeof *ids);
            if (n < len) n_merged++;
        }
        qd_bpe_free(&table.bpe);
    }
    assert_true(n_merged > 100);
    qd_bpe_scratch_free(&scratch);
}

static void test_later_rank_of_a_pair_counts(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_bpe bpe = {0};
    struct qd_bpe_scratch scratch = {0};
    int32_t ids[3];
    size_t n;
    for (int i = 0; i < 256; i++) bpe.byte_id[i] = i;
    ASSERT_OK(qd_bpe_add(&bpe, 'a', 'b', 0, 300, err, sizeof err), err);
    ASSERT_OK(qd_bpe_add(&bpe, 'b', 'c', 1, 301, err, sizeof err), err);
    ASSERT_OK(qd_bpe_encode(&bpe, &scratch, "abc", 3, ids, &n, err, sizeof err), err);
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], 300);
    ASSERT_OK(qd_bpe_add(&bpe, 'a', 'b', 2, 300, err, sizeof err), err);
    ASSERT_OK(qd_bpe_encode(&bpe, &scratch, "abc", 3, ids, &n, err, sizeof err), err);
    assert_int_equal(ids[1], 301);
    qd_bpe_scratch_free(&scratch);
    qd_bpe_free(&bpe);
}

/* Quadratic work on this word would take minutes. */
static void test_long_word(void **state)
{
    (void)state;
    enum { LEN = 1 << 20 };
    char err[QD_ERR_LEN] = "", *word = malloc(LEN);
    int32_t *ids = malloc(LEN * sizeof *ids);
    struct qd_bpe bpe = {0};
    struct qd_bpe_scratch scratch = {0};
    size_t n;
    assert_true(word != NULL && ids != NULL);
    memset(word, 'a', LEN);
    for (int i = 0; i < 256; i++) bpe.byte_id[i] = i;
    for (int32_t power = 0; power < 10; power++) {
        int32_t half = power == 0 ? 'a' : 999 + power;
        ASSERT_OK(qd_bpe_add(&bpe, half, half, power, 1000 + power, err, sizeof err), err);
    }
    ASSERT_OK(qd_bpe_encode(&bpe, &scratch, word, LEN - 1, ids, &n, err, sizeof err), err);
    /* 2^20 - 1 letters: 1023 tokens of 1024, and one of each smaller power. */
    assert_int_equal(n, 1023 + 10);
    for (size_t i = 0; i < 1023; i++) assert_int_equal(ids[i], 1009);
    for (int32_t i = 0; i < 10; i++) assert_int_equal(ids[1023 + i], i == 9 ? 'a' : 1008 - i);
    qd_bpe_scratch_free(&scratch);
    qd_bpe_free(&bpe);
    free(ids);
    free(word);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_plain_merging),
        cmocka_unit_test(test_later_rank_of_a_pair_counts),
        cmocka_unit_test(test_long_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
