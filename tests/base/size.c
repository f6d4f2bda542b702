#include "tests/support/test.h"

#include "kernels/base/clock.h"
#include "kernels/base/size.h"

static void overflow_is_seen_and_leaves_the_result_alone(void **state)
{
    (void)state;
    size_t out = 7;
    assert_true(qd_size_mul(SIZE_MAX / 2, 2, &out));
    assert_true(out == SIZE_MAX - 1);
    assert_false(qd_size_mul(SIZE_MAX / 2 + 1, 2, &out));
    assert_true(out == SIZE_MAX - 1);
    assert_true(qd_size_mul(0, SIZE_MAX, &out));
    assert_int_equal(out, 0);
    assert_true(qd_size_add(SIZE_MAX, 0, &out));
    assert_true(out == SIZE_MAX);
    assert_false(qd_size_add(SIZE_MAX, 1, &out));
    assert_true(out == SIZE_MAX);
}

static void rounding_up_is_exact(void **state)
{
    (void)state;
    for (size_t n = 0; n < 100; n++) {
        for (size_t m = 1; m < 20; m++) {
            size_t up = qd_round_up(n, m);
            assert_true(up % m == 0 && up >= n && up < n + m);
            assert_int_equal(qd_div_up((int64_t)n, (int64_t)m), up / m);
        }
    }
}

static void the_clock_rises(void **state)
{
    (void)state;
    int64_t before = qd_clock_now_ns();
    usleep(2000);
    int64_t passed = qd_clock_now_ns() - before;
    assert_true(passed >= 2000000 && passed < 2000000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflow_is_seen_and_leaves_the_result_alone),
        cmocka_unit_test(rounding_up_is_exact),
        cmocka_unit_test(the_clock_rises),
    };
    return cmocka_run_group_tests_name("size and clock", tests, NULL, NULL);
}
