#include "tests/support/test.h"

#include "harness/engine/kv_pool.h"

static void page_zero_is_never_handed_out(void **state)
{
    (void)state;
    struct qd_kv_pool pool;
    int32_t pages[8];
    assert_int_equal(qd_kv_pool_init(&pool, 8), QD_OK);
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
    assert_int_equal(qd_kv_pool_init(&pool, 4), QD_OK);
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
    assert_int_equal(qd_kv_pool_init(&pool, 16), QD_OK);
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
    assert_int_equal(qd_kv_pool_init(&pool, 1), QD_ERR_ARGUMENT);
    assert_int_equal(qd_kv_pool_init(&pool, 0), QD_ERR_ARGUMENT);
    qd_kv_pool_free(&pool); /* harmless after a failure */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_zero_is_never_handed_out),
        cmocka_unit_test(taking_is_all_or_nothing),
        cmocka_unit_test(freed_pages_are_reused_first),
        cmocka_unit_test(too_small_a_pool_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
