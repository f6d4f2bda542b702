/* Stop strings: wherever tokens cut the text, it ends before the first; and nothing else is lost or given too
 * early. */
#include "tests/support/test.h"

#include "harness/cli/stop_text.h"

struct test_case {
    const char *text;
    const char *stops[3];
    const char *expected; /* what goes out when every byte is a token of its own */
};

static const struct test_case CASES[] = {
    {"one two three", {"two"}, "one "},
    {"one two three", {"four"}, "one two three"},
    {"one two three", {NULL}, "one two three"},
    {"one two three", {"three", "two"}, "one "},
    {"stop", {"stop"}, ""},
    {"aaab", {"aab"}, "a"}, /* a start that fails is the start of the next */
    {"ababac", {"abac"}, "ab"},
    {"abababab!", {"abab!"}, "abab"},
    {"x", {"y"}, "x"},
    {"", {"y"}, ""},
    {"the end, the e", {"the end."}, "the end, the e"}, /* the start of a stop string stays at the end */
    {"caf\xc3\xa9 \xf0\x9f\x98\x80 end", {"\xf0\x9f\x98\x80"}, "caf\xc3\xa9 "},
    {"caf\xc3\xa9 \xf0\x9f\x98\x81 end", {"\xf0\x9f\x98\x80"}, "caf\xc3\xa9 \xf0\x9f\x98\x81 end"},
    {"a\nb\n\nc", {"\n\n"}, "a\nb"},
    {"<|im_end|>", {"<|", "im"}, ""},
};

static int count(const struct test_case *test)
{
    int n = 0;
    while (n < 3 && test->stops[n] != NULL) n++;
    return n;
}

/* Feeds the text in pieces of `width` bytes. */
static void run_case(const struct test_case *test, size_t width)
{
    struct qd_stop_text stop;
    char err[QD_ERR_LEN] = "", out[64];
    size_t n_out = 0, len = strlen(test->text);
    bool has_ended = false;
    const char *given;
    size_t n;
    qd_stop_text_init(&stop, test->stops, count(test));
    for (size_t at = 0; at < len && !has_ended; at += width) {
        size_t part = len - at < width ? len - at : width;
        ASSERT_OK(qd_stop_text_push(&stop, test->text + at, part, &given, &n, &has_ended, err, sizeof err),
                  err);
        if (n > 0) memcpy(out + n_out, given, n);
        n_out += n;
        if (stop.n_stops == 0) assert_int_equal(n, part); /* without stop strings nothing waits */
    }
    qd_stop_text_finish(&stop, &given, &n);
    if (has_ended) assert_int_equal(n, 0);
    if (n > 0) memcpy(out + n_out, given, n);
    out[n_out + n] = '\0';
    if (strcmp(out, test->expected) != 0)
        fail_msg("\"%s\" in pieces of %zu: \"%s\", expected \"%s\"", test->text, width, out, test->expected);
    qd_stop_text_free(&stop);
}

static void a_text_ends_before_the_stop_string(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        for (size_t width = 1; width < 8; width++)
            if (width == 1 || count(&CASES[i]) < 2) run_case(&CASES[i], width);
}

/* "b" comes first in the text, "c" first in the list. */
static void the_list_decides_within_a_token(void **state)
{
    (void)state;
    const struct test_case together = {"abcd", {"c", "b"}, "ab"}, apart = {"abcd", {"c", "b"}, "a"};
    run_case(&together, 4);
    run_case(&apart, 1);
}

/* No more is held back than the start of a stop string can need, and never half a character. */
static void little_is_held_back(void **state)
{
    (void)state;
    static const char *const stops[] = {"wxyz"};
    struct qd_stop_text stop;
    char err[QD_ERR_LEN] = "";
    const char *given;
    size_t n;
    bool has_ended;
    qd_stop_text_init(&stop, stops, 1);
    ASSERT_OK(qd_stop_text_push(&stop, "abcdef", 6, &given, &n, &has_ended, err, sizeof err), err);
    assert_int_equal(n, 3);
    assert_memory_equal(given, "abc", 3);
    ASSERT_OK(qd_stop_text_push(&stop, "\xf0\x9f\x98\x80", 4, &given, &n, &has_ended, err, sizeof err), err);
    assert_int_equal(n, 3);
    assert_memory_equal(given, "def", 3);
    qd_stop_text_finish(&stop, &given, &n);
    assert_int_equal(n, 4);
    assert_memory_equal(given, "\xf0\x9f\x98\x80", 4);
    qd_stop_text_free(&stop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_ends_before_the_stop_string),
        cmocka_unit_test(the_list_decides_within_a_token),
        cmocka_unit_test(little_is_held_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
