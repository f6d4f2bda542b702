/* qdyno tokenize between two streams: every direction, whole and by lines, and what is refused. */
#include "tests/support/test.h"

#include "harness/cli/tokenize_stream.h"
#include "tests/support/tokenizer.h"

static qd_status convert(const struct qd_tokenize_mode *mode, const char *input, size_t len, char **output,
                         size_t *n_output, char *err)
{
    qd_tokenizer_t *tokenizer = load_tokenizer(TINY_MODEL);
    FILE *in = tmpfile(), *out = open_memstream(output, n_output);
    assert_true(in != NULL && out != NULL);
    assert_int_equal(fwrite(input, 1, len, in), len);
    rewind(in);
    qd_status status = qd_tokenize_stream(tokenizer, mode, in, out, err, QD_ERR_LEN);
    fclose(in);
    fclose(out);
    qd_tokenizer_free(tokenizer);
    return status;
}

static void check_bytes(const struct qd_tokenize_mode *mode, const char *input, size_t len,
                        const char *expected, size_t n_expected)
{
    char err[QD_ERR_LEN] = "", *output;
    size_t n;
    ASSERT_OK(convert(mode, input, len, &output, &n, err), err);
    assert_string_equal(output, expected);
    assert_int_equal(n, n_expected);
    assert_memory_equal(output, expected, n);
    free(output);
}

static void check(const struct qd_tokenize_mode *mode, const char *input, const char *expected)
{
    check_bytes(mode, input, strlen(input), expected, strlen(expected));
}

static void refuse(const struct qd_tokenize_mode *mode, const char *input, const char *reason,
                   const char *written)
{
    char err[QD_ERR_LEN] = "", *output;
    size_t n;
    assert_int_equal(convert(mode, input, strlen(input), &output, &n, err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, reason);
    assert_string_equal(output, written);
    free(output);
}

#define NEED_TINY() NEED_FILE(TINY_MODEL "/tokenizer.json")

static void test_encode(void **state)
{
    (void)state;
    NEED_TINY();
    struct qd_tokenize_mode mode = {.direction = QD_TOKENIZE_ENCODE};
    check(&mode, "", "[]\n");
    check(&mode, "Tell me a story about Dorothy.<|im_end|>\n", "[51,419,370,258,1688,563,640,13,2027,198]\n");
    check_bytes(&mode, "a\0b", 3, "[64,188,65]\n", 12);
    refuse(&mode, "abc\xff", "byte 3: invalid UTF-8", "");
    mode.jsonl = true;
    check(&mode, "", "");
    check(&mode, "\"\"\n\"a\\u0000b\"\n \"\\ud83d\\ude00\" ", "[]\n[64,188,65]\n[172,253,246,222]\n");
    refuse(&mode, "\"a\"\nb\n", "line 2: byte 0: expected a value", "[64]\n");
    refuse(&mode, "\"a\"\n\n", "line 2: byte 0: the text ends too early", "[64]\n");
    refuse(&mode, "[1]\n", "line 1: expected a JSON string", "");
    refuse(&mode, "\"a\xff\"\n", "line 1: byte 2: invalid UTF-8", "");
    refuse(&mode, "\"\\ud800\"\n", "line 1: byte 1: bad escape", "");
}

static void test_decode(void **state)
{
    (void)state;
    NEED_TINY();
    struct qd_tokenize_mode mode = {.direction = QD_TOKENIZE_DECODE};
    check(&mode, "[51,419,370,258,1688,563,640,13,2027,198]", "Tell me a story about Dorothy.<|im_end|>\n");
    check_bytes(&mode, "[64,188,65]\n", 12, "a\0b", 3);
    check(&mode, "[]", "");
    check(&mode, "[64,2051,2147483647,65]", "ab"); /* ids without a token */
    refuse(&mode, "[64,-1]", "element 1 is no token id", "");
    refuse(&mode, "[0.5]", "element 0 is no token id", "");
    refuse(&mode, "[2147483648]", "element 0 is no token id", "");
    refuse(&mode, "[\"a\"]", "element 0 is no token id", "");
    refuse(&mode, "\"a\"", "expected a JSON array", "");
    refuse(&mode, "[1", "byte 2: the text ends too early", "");
    mode.jsonl = mode.skip_special = true;
    check(&mode, "[64,2027,188,65]\n[172]\n[]\n", "\"a\\u0000b\"\n\"\xef\xbf\xbd\"\n\"\"\n");
    refuse(&mode, "[64]\n7\n", "line 2: expected a JSON array", "\"a\"\n");
}

static void test_chat(void **state)
{
    (void)state;
    NEED_TINY();
    struct qd_tokenize_mode mode = {.direction = QD_TOKENIZE_CHAT, .chat.no_generation_prompt = true};
    const char *messages = "[{\"role\":\"user\",\"content\":\"Tell me a story about Dorothy.\"}]";
    const char *expected = "{\"text\":\"<|im_start|>user\\nTell me a story about Dorothy.<|im_end|>\\n\","
                           "\"ids\":[2026,493,269,198,51,419,370,258,1688,563,640,13,2027,198]}\n";
    check(&mode, messages, expected);
    mode.jsonl = true;
    check(&mode, messages, expected);
    refuse(&mode, "[]\n", "line 1: no messages", "");
    refuse(&mode, "[{\"role\":\"user\"}]\n", "line 1: message 0: content: missing", "");
}

/* Lines in, lines out, the same lines back. */
static void test_round_trip(void **state)
{
    (void)state;
    NEED_TINY();
    const char *lines = "\"It was \\u0000 dark\\r\\n\"\n\"\\\"quoted\\\" \\\\ caf\xc3\xa9 "
                        "\xf0\x9f\x98\x80\"\n\"<think>\\n\"\n";
    struct qd_tokenize_mode mode = {.direction = QD_TOKENIZE_ENCODE, .jsonl = true};
    char err[QD_ERR_LEN] = "", *ids;
    size_t n;
    ASSERT_OK(convert(&mode, lines, strlen(lines), &ids, &n, err), err);
    mode.direction = QD_TOKENIZE_DECODE;
    check_bytes(&mode, ids, n, lines, strlen(lines));
    free(ids);
}

static void test_output_that_cannot_be_written(void **state)
{
    (void)state;
    NEED_TINY();
    NEED_FILE("/dev/full");
    struct qd_tokenize_mode mode = {.direction = QD_TOKENIZE_ENCODE};
    char err[QD_ERR_LEN] = "", input[] = "text";
    qd_tokenizer_t *tokenizer = load_tokenizer(TINY_MODEL);
    FILE *in = fmemopen(input, 4, "r"), *out = fopen("/dev/full", "w");
    assert_true(in != NULL && out != NULL);
    assert_int_equal(qd_tokenize_stream(tokenizer, &mode, in, out, err, sizeof err), QD_ERR_IO);
    ASSERT_CONTAINS(err, "writing the output");
    fclose(out);
    fclose(in);
    qd_tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_output_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
