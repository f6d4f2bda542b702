#include "tests/support/test.h"

static void every_status_has_a_name_and_a_text(void **state)
{
    (void)state;
    static const qd_status all[] = {
#define VALUE(name, value, text) name,
        QD_STATUS_LIST(VALUE)
#undef VALUE
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(all[i], -(int)i); /* values are part of the interface */
        assert_true(strncmp(qd_status_name(all[i]), i == 0 ? "QD_OK" : "QD_ERR_", 5) == 0);
        for (size_t k = 0; k < i; k++) {
            assert_string_not_equal(qd_status_name(all[i]), qd_status_name(all[k]));
            assert_string_not_equal(qd_status_str(all[i]), qd_status_str(all[k]));
        }
    }
    assert_string_equal(qd_status_name(QD_ERR_RANK), "QD_ERR_RANK");
    assert_string_equal(qd_status_str(QD_ERR_RANK), "a rank failed");
    assert_string_equal(qd_status_name((qd_status)-99), "QD_ERR_?");
    assert_string_equal(qd_status_str((qd_status)1), "unknown status");
}

static void failures_keep_their_detail(void **state)
{
    (void)state;
    char err[8] = "before";
    assert_int_equal(qd_fail(QD_ERR_INPUT, err, sizeof err, "%d", 42), QD_ERR_INPUT);
    assert_string_equal(err, "42");
    assert_int_equal(qd_fail(QD_ERR_IO, err, sizeof err, "%s", "longer than the buffer"), QD_ERR_IO);
    assert_string_equal(err, "longer ");
    assert_int_equal(qd_fail(QD_ERR_IO, err, 0, "nothing is written"), QD_ERR_IO);
    assert_string_equal(err, "longer ");
    assert_int_equal(qd_fail(QD_ERR_IO, NULL, 100, "nowhere to write"), QD_ERR_IO);
}

static qd_status returns_early(qd_status first, int *reached)
{
    QD_TRY(first);
    (*reached)++;
    return QD_OK;
}

static qd_status cleans_up(qd_status first, int *reached, int *cleaned)
{
    qd_status st;
    QD_TRY_GOTO(first, st, cleanup);
    (*reached)++;
cleanup:
    (*cleaned)++;
    return st;
}

static void try_macros_stop_at_a_failure(void **state)
{
    (void)state;
    int reached = 0, cleaned = 0;
    assert_int_equal(returns_early(QD_ERR_FULL, &reached), QD_ERR_FULL);
    assert_int_equal(cleans_up(QD_ERR_FULL, &reached, &cleaned), QD_ERR_FULL);
    assert_int_equal(reached, 0);
    assert_int_equal(returns_early(QD_OK, &reached), QD_OK);
    assert_int_equal(cleans_up(QD_OK, &reached, &cleaned), QD_OK);
    assert_int_equal(reached, 2);
    assert_int_equal(cleaned, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_name_and_a_text),
        cmocka_unit_test(failures_keep_their_detail),
        cmocka_unit_test(try_macros_stop_at_a_failure),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
