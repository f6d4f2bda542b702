/* Cutting text by a regular expression: what is cut, what is refused. */
#include "tests/support/test.h"

#include "models/pretokenize.h"

#define QWEN                                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"      \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Cuts text and joins the pieces with '|'. */
static void check(const char *pattern, const char *text, const char *expected)
{
    char err[QD_ERR_LEN] = "", joined[512] = "";
    qd_splitter_t *splitter;
    struct qd_split_walk walk;
    size_t begin, end, n = 0;
    ASSERT_OK(qd_splitter_create(pattern, strlen(pattern), &splitter, err, sizeof err), err);
    ASSERT_OK(qd_split_walk_init(&walk, splitter, err, sizeof err), err);
    qd_split_walk_start(&walk, text, strlen(text));
    for (;;) {
        ASSERT_OK(qd_split_walk_next(&walk, &begin, &end, err, sizeof err), err);
        if (begin == end) break;
        if (n > 0) joined[n++] = '|';
        memcpy(joined + n, text + begin, end - begin);
        n += end - begin;
    }
    assert_int_equal(begin, strlen(text));
    joined[n] = 0;
    assert_string_equal(joined, expected);
    qd_split_walk_free(&walk);
    qd_splitter_destroy(splitter);
}

static void test_qwen(void **state)
{
    (void)state;
    check(QWEN, "", "");
    check(QWEN, "Hello world", "Hello| world");
    check(QWEN, "It's 42!!\n\n  x", "It|'s| |4|2|!!\n\n| | x");
    check(QWEN, "we'LL IT'S", "we|'LL| IT|'S");
    check(QWEN, "it'\xc5\xbftop", "it|'\xc5\xbf|top"); /* U+017F counts as s */
    check(QWEN, "a   b \n c  ", "a|  | b| \n| c|  ");
    check(QWEN,
          "a\xe1\xa0\x8e"
          "b",
          "a|\xe1\xa0\x8e"
          "b"); /* U+180E is no white space: it leads a word */
    check(QWEN, " \xe1\xa0\x8e", " \xe1\xa0\x8e");
    check(QWEN, "\xe3\x80\x80\xc2\x85x", "\xe3\x80\x80|\xc2\x85x"); /* U+3000 and U+0085 are */
}

static void test_what_lies_between_matches_is_kept(void **state)
{
    (void)state;
    check("b+", "abbcba", "a|bb|c|b|a");
    check("z", "abc", "abc");
    check("\\S+", "ab \t\xc2\xa0 c", "ab| \t\xc2\xa0 |c");
    check("[ab](?=c)|(?<=c)d", "acdab", "a|c|d|ab");
}

static void test_differences_between_engines_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *reason;
    } cases[] = {
        {"\\h+", "character 0 of the expression: this escape"},
        {"a\\w", "character 1 of the expression: this escape"},
        {"\\K", "this escape"},
        {"\\x{41}", "this escape"},
        {"\\", "this escape"},
        {"\\pL", "this escape"},
        {"[\\S]", "this escape"},
        {"[a[b]]", "'[' inside a class"},
        {"[a&&b]", "'&&' inside a class"},
        {"(*UTF)a", "this kind of group"},
        {"(?<name>a)", "this kind of group"},
        {"(?R)", "this kind of group"},
        {"a{1,2}+", "'+' behind '}'"},
        {"^a", "'^', '$' or '.'"},
        {"a$", "'^', '$' or '.'"},
        {".", "'^', '$' or '.'"},
        {"a*", "matches no character"},
        {"(?:a|)", "matches no character"},
        {"(a", "does not compile"},
        {"[a", "does not compile"},
        {"\\p{Nonsense}", "does not compile"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char err[QD_ERR_LEN] = "";
        qd_splitter_t *splitter;
        qd_status status =
            qd_splitter_create(cases[i].pattern, strlen(cases[i].pattern), &splitter, err, sizeof err);
        if (status == QD_OK) fail_msg("accepted: %s", cases[i].pattern);
        assert_true(status == QD_ERR_UNSUPPORTED || status == QD_ERR_INPUT);
        assert_null(splitter);
        ASSERT_CONTAINS(err, cases[i].reason);
    }
    char err[QD_ERR_LEN] = "";
    qd_splitter_t *splitter;
    assert_int_equal(qd_splitter_create("a\0b", 3, &splitter, err, sizeof err), QD_ERR_UNSUPPORTED);
    static char large[5000];
    memset(large, 's', sizeof large);
    assert_int_equal(qd_splitter_create(large, sizeof large, &splitter, err, sizeof err), QD_ERR_TOO_LARGE);
    for (size_t i = 0; i < 4096; i += 2) large[i] = '\\'; /* the longest translation there is */
    assert_int_equal(qd_splitter_create(large, 4096, &splitter, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "does not compile");
}

static void test_endless_backtracking_is_an_error(void **state)
{
    (void)state;
    const char *pattern = "(?:a+)+[bd]", *text = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac";
    char err[QD_ERR_LEN] = "";
    qd_splitter_t *splitter;
    struct qd_split_walk walk;
    size_t begin, end;
    ASSERT_OK(qd_splitter_create(pattern, strlen(pattern), &splitter, err, sizeof err), err);
    ASSERT_OK(qd_split_walk_init(&walk, splitter, err, sizeof err), err);
    qd_split_walk_start(&walk, text, strlen(text));
    assert_int_equal(qd_split_walk_next(&walk, &begin, &end, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "byte 0: splitting the text into words: ");
    qd_split_walk_free(&walk);
    qd_splitter_destroy(splitter);
}

/* Nested groups exhaust the machine code's 32 KiB of stack on a long text; the interpreter takes over. */
static void test_deep_backtracking_falls_back(void **state)
{
    (void)state;
    enum { N = 100000 };
    const char *pattern = "(?:a|bc?)+";
    char err[QD_ERR_LEN] = "", *text = malloc(N);
    qd_splitter_t *splitter;
    struct qd_split_walk walk;
    size_t begin, end;
    assert_non_null(text);
    for (size_t i = 0; i < N; i++) text[i] = "ab"[i % 2];
    ASSERT_OK(qd_splitter_create(pattern, strlen(pattern), &splitter, err, sizeof err), err);
    ASSERT_OK(qd_split_walk_init(&walk, splitter, err, sizeof err), err);
    qd_split_walk_start(&walk, text, N);
    ASSERT_OK(qd_split_walk_next(&walk, &begin, &end, err, sizeof err), err);
    assert_int_equal(begin, 0);
    assert_int_equal(end, N);
    qd_split_walk_free(&walk);
    qd_splitter_destroy(splitter);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qwen),
        cmocka_unit_test(test_what_lies_between_matches_is_kept),
        cmocka_unit_test(test_differences_between_engines_are_refused),
        cmocka_unit_test(test_endless_backtracking_is_an_error),
        cmocka_unit_test(test_deep_backtracking_falls_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
