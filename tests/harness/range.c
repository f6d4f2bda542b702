/* Ranges of a sweep: what each form expands to, and what is refused. */
#include "tests/support/test.h"

#include "harness/result/range.h"

static void expect(const char *text, size_t n, const char *const *values)
{
    struct qd_range range;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_range_expand(text, &range, err, sizeof err), err);
    assert_int_equal(range.n, n);
    for (size_t i = 0; i < n; i++) assert_string_equal(range.values[i], values[i]);
    qd_range_free(&range);
}

#define EXPECT(text, ...)                                                                                    \
    expect(text, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), (const char *[]){__VA_ARGS__})

static void lists_and_ranges_expand(void **state)
{
    (void)state;
    EXPECT("7", "7");
    EXPECT("1,2,4", "1", "2", "4");
    EXPECT("1-8*2", "1", "2", "4", "8");
    EXPECT("1-9*2", "1", "2", "4", "8");
    EXPECT("64-200+64", "64", "128", "192");
    EXPECT("3-5", "3", "4", "5");
    EXPECT("5-5", "5");
    EXPECT("1,4-16*4,100", "1", "4", "16", "100");
    EXPECT("0.5,1e-3", "0.5", "1e-3");
    EXPECT("8M,16M", "8M", "16M");
    EXPECT("9223372036854775806-9223372036854775807", "9223372036854775806", "9223372036854775807");
}

static void sizes_have_suffixes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double factor;
        size_t len;
    } cases[] = {
        {"", 1, 0},
        {"-b=1", 1, 0},
        {"K", 1024, 1},
        {"k,", 1024, 1},
        {"MiB", 1 << 20, 3},
        {"gB-x", 1 << 30, 2},
        {"T", 1024.0 * (1 << 30), 1},
        {"Mi", 1, 0},
        {"Mx", 1, 0},
        {"GB2", 1, 0},
        {"B", 1, 0},
        {"P", 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double factor;
        const char *end = qd_size_suffix(cases[i].text, &factor);
        if (end != cases[i].text + cases[i].len || factor < cases[i].factor || factor > cases[i].factor)
            fail_msg("\"%s\": factor %g, %td bytes", cases[i].text, factor, end - cases[i].text);
    }
}

static void refuse(const char *text, const char *reason)
{
    struct qd_range range;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_range_expand(text, &range, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, reason);
    assert_null(range.values);
}

static void malformed_ranges_are_refused(void **state)
{
    (void)state;
    refuse("", "empty");
    refuse("1,,2", "empty");
    refuse("1,", "empty");
    refuse("8-1", "no range");
    refuse("1-8*1", "no range");
    refuse("0-8*2", "no range");
    refuse("1-8+0", "no range");
    refuse("1-8/2", "no range");
    refuse("1-", "no range");
    refuse("1-2-3", "no range");
    refuse("1-99999999999999999999", "no range");
    refuse("1,2,1", "appears twice");
    refuse("1-4,2", "appears twice");
    refuse("1-2000", "more than");
}

static void a_list_is_known_by_its_form(void **state)
{
    (void)state;
    assert_true(qd_range_is_list("1,2"));
    assert_true(qd_range_is_list("1-8*2"));
    assert_false(qd_range_is_list("12"));
    assert_false(qd_range_is_list("1e-3"));
    assert_false(qd_range_is_list("-3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_and_ranges_expand),
        cmocka_unit_test(sizes_have_suffixes),
        cmocka_unit_test(malformed_ranges_are_refused),
        cmocka_unit_test(a_list_is_known_by_its_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
