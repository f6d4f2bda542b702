/* Lists of whole numbers and matrices as options write them (the forms of ranges: range.c). */
#include "tests/support/test.h"

#include "harness/result/matrix.h"

static void check(const char *text, int n, const int64_t *expected)
{
    char err[QD_ERR_LEN] = "";
    struct qd_int_list list;
    ASSERT_OK(qd_int_list_parse("x", text, 1, 100000, &list, err, sizeof err), err);
    assert_int_equal(list.n, n);
    for (int i = 0; i < n; i++) assert_int_equal(list.value[i], expected[i]);
}

static void test_lists_and_ranges(void **state)
{
    (void)state;
    check("7", 1, (int64_t[]){7});
    check("4,1,2", 3, (int64_t[]){4, 1, 2});
    check("1-4", 4, (int64_t[]){1, 2, 3, 4});
    check("16-64+16", 4, (int64_t[]){16, 32, 48, 64});
    check("1-8*2", 4, (int64_t[]){1, 2, 4, 8});
    check("64-5000*4", 4, (int64_t[]){64, 256, 1024, 4096});
    check("3,8-10", 4, (int64_t[]){3, 8, 9, 10});
    check("5-5", 1, (int64_t[]){5});
}

static void check_refused(const char *text, const char *reason)
{
    char err[QD_ERR_LEN] = "";
    struct qd_int_list list;
    assert_int_equal(qd_int_list_parse("--tp", text, 1, 1000, &list, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "--tp: ");
    ASSERT_CONTAINS(err, reason);
}

static void test_bad_lists_are_refused_with_the_reason(void **state)
{
    (void)state;
    check_refused("", "empty");
    check_refused("two", "'two' is no whole number");
    check_refused("-1", "no whole number");
    check_refused("1.5", "no whole number");
    check_refused("1 ", "no whole number");
    check_refused("0-4", "no whole number from 1 to 1000");
    check_refused("0", "no whole number from 1 to 1000");
    check_refused("1001", "no whole number from 1 to 1000");
    check_refused("99999999999999999999", "no whole number");
    check_refused("4-1", "no range");
    check_refused("2,1-4", "2 appears twice");
    check_refused("1-1000", "more than 256 values");
}

static void test_matrix(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_matrix m;
    ASSERT_OK(qd_matrix_parse("budget=64,256;tp=1-2;dp=1-8*2;gpus=8", &m, err, sizeof err), err);
    assert_int_equal(m.tp.n, 2);
    assert_int_equal(m.dp.n, 4);
    assert_int_equal(m.budget.value[1], 256);
    assert_int_equal(m.max_gpus, 8);
}

static void check_matrix_refused(const char *text, const char *reason)
{
    char err[QD_ERR_LEN] = "";
    struct qd_matrix m;
    assert_int_equal(qd_matrix_parse(text, &m, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, reason);
}

static void test_bad_matrices_are_refused(void **state)
{
    (void)state;
    check_matrix_refused("", "is not of the form");
    check_matrix_refused("tp=1;dp=1", "lacks budget");
    check_matrix_refused("dp=1;budget=1", "lacks tp");
    check_matrix_refused("tp=1;dp=1;budget=1;pp=2", "unknown axis 'pp'");
    check_matrix_refused("tp=1;dp=0;budget=1", "matrix dp: '0' is no whole number");
    check_matrix_refused("tp=1;dp=1;budget=1;gpus=1,2", "one number");
    check_matrix_refused("tp=1;dp=1;budget=1;", "is not of the form");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists_and_ranges),
        cmocka_unit_test(test_bad_lists_are_refused_with_the_reason),
        cmocka_unit_test(test_matrix),
        cmocka_unit_test(test_bad_matrices_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
