#include "tests/support/test.h"

#include "harness/engine/kv_pool.h"

static void page_zero_is_never_handed_out(void **state)
{
    (void)state;
    struct qd_kv_pool pool;
    int32_t pages[8];
    assert_int_equal(qd_kv_pool_init(&pool, 8, false), QD_OK);
    assert_int_equal(pool.n_free, 7);
    assert_int_equal(qd_kv_pool_capacity(8), 7);
    assert_true(qd_kv_pool_take(&pool, 7, pages));
    for (int i = 0; i < 7; i++) assert_int_equal(pages[i], i + 1);
    assert_false(qd_kv_pool_take(&pool, 1, pages));
    qd_kv_pool_free(&pool);
}

static void taking_is_all_or_nothing(void **state)
{
    (void)state;
    struct qd_kv_pool pool;
    int32_t pages[8] = {-7, -7, -7, -7, -7, -7, -7, -7};
    assert_int_equal(qd_kv_pool_init(&pool, 4, false), QD_OK);
    assert_false(qd_kv_pool_take(&pool, 4, pages));
    assert_int_equal(pool.n_free, 3);
    assert_int_equal(pages[0], -7);
    assert_true(qd_kv_pool_take(&pool, 0, pages));
    assert_int_equal(pages[0], -7);
    qd_kv_pool_free(&pool);
}

static void freed_pages_are_reused_first(void **state)
{
    (void)state;
    struct qd_kv_pool pool;
    int32_t pages[4], again[3];
    assert_int_equal(qd_kv_pool_init(&pool, 16, false), QD_OK);
    assert_true(qd_kv_pool_take(&pool, 4, pages));
    qd_kv_pool_give(&pool, pages + 1, 3);
    assert_int_equal(pool.n_free, 14);
    assert_true(qd_kv_pool_take(&pool, 3, again));
    assert_memory_equal(again, pages + 1, sizeof again);
    qd_kv_pool_free(&pool);
}

static void too_small_a_pool_is_refused(void **state)
{
    (void)state;
    struct qd_kv_pool pool;
    assert_int_equal(qd_kv_pool_init(&pool, 1, false), QD_ERR_ARGUMENT);
    assert_int_equal(qd_kv_pool_init(&pool, 0, false), QD_ERR_ARGUMENT);
    qd_kv_pool_free(&pool); /* harmless after a failure */
}

static const int32_t text[4 * QD_KV_BLOCK_SIZE] = {7, 1, 2, 3, [16] = 5, [32] = 9};

static struct qd_block_hash hash_of(int n_pages)
{
    struct qd_block_hash hash = {{0, 0}};
    for (int i = 0; i < n_pages; i++) hash = qd_block_hash_next(hash, text + i * QD_KV_BLOCK_SIZE);
    return hash;
}

static void a_hash_depends_on_every_token_and_on_what_was_before(void **state)
{
    (void)state;
    struct qd_block_hash seen[2 * QD_KV_BLOCK_SIZE + 2];
    int32_t tokens[QD_KV_BLOCK_SIZE];
    int n = 0;
    seen[n++] = hash_of(1);
    seen[n++] = qd_block_hash_next(hash_of(1), text);
    for (int i = 0; i < 2 * QD_KV_BLOCK_SIZE; i++) {
        memcpy(tokens, text, sizeof tokens);
        tokens[i / 2] += i % 2 == 0 ? 1 : 1 << 17;
        seen[n++] = qd_block_hash_next((struct qd_block_hash){{0, 0}}, tokens);
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            assert_true(seen[i].word[0] != seen[j].word[0]);
            assert_true(seen[i].word[1] != seen[j].word[1]);
        }
    assert_true(qd_block_hash_equal(hash_of(3), qd_block_hash_next(hash_of(2), text + 2 * QD_KV_BLOCK_SIZE)));
}

static void a_labelled_page_is_found_until_it_is_handed_out_again(void **state)
{
    (void)state;
    struct qd_kv_pool pool;
    int32_t pages[3], rest[3];
    assert_int_equal(qd_kv_pool_init(&pool, 4, true), QD_OK);
    assert_true(qd_kv_pool_take(&pool, 3, pages));
    assert_int_equal(qd_kv_pool_find(&pool, hash_of(1)), 0);
    qd_kv_pool_label(&pool, pages[0], hash_of(1));
    qd_kv_pool_label(&pool, pages[1], hash_of(2));
    assert_int_equal(qd_kv_pool_find(&pool, hash_of(1)), pages[0]);
    qd_kv_pool_give(&pool, pages, 3);
    assert_int_equal(qd_kv_pool_find(&pool, hash_of(2)), pages[1]);
    /* The page without a label goes first, then the end of the prefix. */
    assert_true(qd_kv_pool_take(&pool, 2, rest));
    assert_int_equal(rest[0], pages[2]);
    assert_int_equal(rest[1], pages[1]);
    assert_int_equal(qd_kv_pool_find(&pool, hash_of(2)), 0);
    assert_int_equal(qd_kv_pool_find(&pool, hash_of(1)), pages[0]);
    qd_kv_pool_free(&pool);
}

static void a_shared_page_is_free_when_its_last_user_gives_it_back(void **state)
{
    (void)state;
    struct qd_kv_pool pool;
    int32_t page;
    assert_int_equal(qd_kv_pool_init(&pool, 4, true), QD_OK);
    assert_true(qd_kv_pool_take(&pool, 1, &page));
    qd_kv_pool_label(&pool, page, hash_of(1));
    qd_kv_pool_share(&pool, page);
    qd_kv_pool_give(&pool, &page, 1);
    assert_int_equal(pool.n_free, 2);
    qd_kv_pool_give(&pool, &page, 1);
    assert_int_equal(pool.n_free, 3);
    qd_kv_pool_share(&pool, page);
    assert_int_equal(pool.n_free, 2);
    qd_kv_pool_give(&pool, &page, 1);
    qd_kv_pool_free(&pool);
}

static void labelled_pages_are_reused_in_order_of_their_last_use(void **state)
{
    (void)state;
    struct qd_kv_pool pool;
    int32_t pages[3], again[3];
    assert_int_equal(qd_kv_pool_init(&pool, 4, true), QD_OK);
    assert_true(qd_kv_pool_take(&pool, 3, pages));
    for (int i = 0; i < 3; i++) qd_kv_pool_label(&pool, pages[i], hash_of(i + 1));
    qd_kv_pool_give(&pool, &pages[0], 1);
    qd_kv_pool_give(&pool, &pages[1], 1);
    qd_kv_pool_give(&pool, &pages[2], 1);
    qd_kv_pool_share(&pool, pages[0]); /* used once more: it is the youngest now */
    qd_kv_pool_give(&pool, &pages[0], 1);
    assert_true(qd_kv_pool_take(&pool, 3, again));
    assert_int_equal(again[0], pages[1]);
    assert_int_equal(again[1], pages[2]);
    assert_int_equal(again[2], pages[0]);
    qd_kv_pool_free(&pool);
}

static void pages_that_hold_the_same_are_found_one_after_the_other(void **state)
{
    (void)state;
    struct qd_kv_pool pool;
    int32_t pages[3], first;
    assert_int_equal(qd_kv_pool_init(&pool, 4, true), QD_OK);
    assert_true(qd_kv_pool_take(&pool, 3, pages));
    for (int i = 0; i < 3; i++) qd_kv_pool_label(&pool, pages[i], hash_of(1));
    assert_int_equal(qd_kv_pool_find(&pool, hash_of(1)), pages[0]);
    qd_kv_pool_give(&pool, &pages[1], 1);
    assert_true(qd_kv_pool_take(&pool, 1, &first)); /* the middle of the chain is forgotten */
    assert_int_equal(qd_kv_pool_find(&pool, hash_of(1)), pages[0]);
    qd_kv_pool_give(&pool, &pages[0], 1);
    assert_true(qd_kv_pool_take(&pool, 1, &first));
    assert_int_equal(qd_kv_pool_find(&pool, hash_of(1)), pages[2]);
    qd_kv_pool_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_zero_is_never_handed_out),
        cmocka_unit_test(taking_is_all_or_nothing),
        cmocka_unit_test(freed_pages_are_reused_first),
        cmocka_unit_test(too_small_a_pool_is_refused),
        cmocka_unit_test(a_hash_depends_on_every_token_and_on_what_was_before),
        cmocka_unit_test(a_labelled_page_is_found_until_it_is_handed_out_again),
        cmocka_unit_test(a_shared_page_is_free_when_its_last_user_gives_it_back),
        cmocka_unit_test(labelled_pages_are_reused_in_order_of_their_last_use),
        cmocka_unit_test(pages_that_hold_the_same_are_found_one_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
