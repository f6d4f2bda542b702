/* Percentiles and descriptions of samples, against values of numpy. */
#include "tests/support/test.h"

#include "harness/result/result.h"

static void assert_near(double value, double expected)
{
    double tolerance = 1e-12 * (expected < 0 ? -expected : expected);
    if (!(value - expected <= tolerance && expected - value <= tolerance))
        fail_msg("%.17g, expected %.17g", value, expected);
}

static void test_one_value(void **state)
{
    (void)state;
    const double one[] = {3.5};
    for (int p = 0; p <= 100; p += 25)
        assert_near(qd_percentile(one, 1, p), 3.5);
}

static void test_no_value(void **state)
{
    (void)state;
    assert_near(qd_percentile(NULL, 0, 50), 0);
    struct qd_distribution d = qd_distribution_of(NULL, 0);
    assert_int_equal(d.n, 0);
    assert_near(d.mean, 0);
    assert_near(d.p99, 0);
}

/* numpy.percentile([1, 2, 4, 8, 16], [0, 10, 50, 90, 95, 99, 100]) */
static void test_linear_interpolation(void **state)
{
    (void)state;
    const double values[] = {1, 2, 4, 8, 16};
    const double p[] = {0, 10, 50, 90, 95, 99, 100}, expected[] = {1, 1.4, 4, 12.8, 14.4, 15.68, 16};
    for (int i = 0; i < 7; i++)
        assert_near(qd_percentile(values, 5, p[i]), expected[i]);
}

/* p99 of two samples is an interpolation: 1 + 0.99 * 2. */
static void test_two_values(void **state)
{
    (void)state;
    const double values[] = {1, 3};
    assert_near(qd_percentile(values, 2, 50), 2);
    assert_near(qd_percentile(values, 2, 99), 2.98);
}

/* numpy: mean 31/7, std (population) of the same values. */
static void test_distribution_sorts_and_describes(void **state)
{
    (void)state;
    double values[] = {9, 1, 5, 3, 2, 7, 4};
    struct qd_distribution d = qd_distribution_of(values, 7);
    assert_int_equal(d.n, 7);
    assert_near(d.mean, 31.0 / 7);
    assert_near(d.std, 2.610809554642438);
    assert_near(d.min, 1);
    assert_near(d.max, 9);
    assert_near(d.p50, 4);
    assert_near(d.p90, 7.8);
    assert_near(d.p95, 8.4);
    assert_near(d.p99, 8.88);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_value),
        cmocka_unit_test(test_no_value),
        cmocka_unit_test(test_linear_interpolation),
        cmocka_unit_test(test_two_values),
        cmocka_unit_test(test_distribution_sorts_and_describes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
