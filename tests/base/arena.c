#include "tests/support/test.h"

#include "kernels/base/arena.h"

static void pieces_are_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_arena arena;
    ASSERT_OK(qd_arena_init(&arena, 10000, err, sizeof err), err);
    assert_true(arena.capacity >= 10000);
    static const size_t aligns[] = {1, 2, 64, 4096, 64, 1};
    unsigned char *end = arena.base;
    for (size_t i = 0; i < sizeof aligns / sizeof *aligns; i++) {
        unsigned char *piece = qd_arena_take(&arena, 100 + i, aligns[i]);
        assert_non_null(piece);
        assert_int_equal((uintptr_t)piece % aligns[i], 0);
        assert_true(piece >= end);
        for (size_t k = 0; k < 100 + i; k++) assert_int_equal(piece[k], 0);
        memset(piece, 0xff, 100 + i);
        end = piece + 100 + i;
    }
    assert_true(end == arena.base + arena.used);
    qd_arena_free(&arena);
    assert_null(arena.base);
    qd_arena_free(&arena); /* harmless */
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_arena arena;
    ASSERT_OK(qd_arena_init(&arena, 1, err, sizeof err), err);
    size_t all = arena.capacity;
    assert_null(qd_arena_take(&arena, all + 1, 1));
    assert_null(qd_arena_take(&arena, SIZE_MAX, 64));
    assert_int_equal(arena.used, 0); /* a refusal takes nothing */
    assert_non_null(qd_arena_take(&arena, all, 1));
    assert_null(qd_arena_take(&arena, 1, 1));
    assert_non_null(qd_arena_take(&arena, 0, 1));
    qd_arena_free(&arena);
}

static void the_base_can_hold_huge_pages(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_arena arena;
    for (size_t capacity = 1; capacity < (size_t)9 << 20; capacity = capacity * 3 + 1) {
        ASSERT_OK(qd_arena_init(&arena, capacity, err, sizeof err), err);
        assert_int_equal((uintptr_t)arena.base % ((size_t)2 << 20), 0);
        assert_in_range(arena.capacity, capacity, capacity + 4095); /* and takes no more than was asked for */
        arena.base[0] = arena.base[arena.capacity - 1] = 1; /* all of it is mapped */
        qd_arena_free(&arena);
    }
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_arena arena;
    assert_int_equal(qd_arena_init(&arena, SIZE_MAX, err, sizeof err), QD_ERR_TOO_LARGE);
    assert_int_equal(qd_arena_init(&arena, SIZE_MAX / 2, err, sizeof err), QD_ERR_NO_MEMORY);
    ASSERT_CONTAINS(err, "cannot map");
    assert_null(arena.base);
    ASSERT_OK(qd_arena_init(&arena, 0, err, sizeof err), err);
    assert_null(qd_arena_take(&arena, 1, 1));
    qd_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_zeroed_aligned_and_apart),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(the_base_can_hold_huge_pages),
        cmocka_unit_test(impossible_sizes_are_refused),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
