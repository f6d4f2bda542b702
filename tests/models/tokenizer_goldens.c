/* Every case that Hugging Face made: encoding, decoding at once and token by token. */
#include "tests/support/test.h"

#include "tests/support/tokenizer.h"

static void check_encoding(const cJSON *line, void *context)
{
    const qd_tokenizer_t *tokenizer = context;
    char err[QD_ERR_LEN] = "", *text;
    size_t len, n, n_expected;
    int32_t *ids, *expected = ids_of(cJSON_GetObjectItemCaseSensitive(line, "ids"), &n_expected);
    assert_int_equal(qd_json_text(cJSON_GetObjectItemCaseSensitive(line, "text"), &text, &len), QD_OK);
    ASSERT_OK(qd_tokenizer_encode(tokenizer, text, len, &ids, &n, err, sizeof err), err);
    assert_same_ids(ids, n, expected, n_expected, text);
    free(ids);
    free(text);
    free(expected);
}

static void assert_same_text(const char *text, size_t len, const char *expected, size_t n_expected)
{
    if (len != n_expected || memcmp(text, expected, len) != 0)
        fail_msg("\"%s\" is not \"%s\"", text, expected);
}

/* Each token's text is complete UTF-8, and all of it joined is the expected text. */
static void check_stream(const qd_tokenizer_t *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                         const char *expected, size_t n_expected)
{
    char err[QD_ERR_LEN] = "";
    struct qd_detokenizer stream;
    qd_detokenizer_init(&stream, tokenizer, skip_special);
    size_t joined = 0;
    for (size_t i = 0; i <= n; i++) {
        const char *text;
        size_t len;
        if (i < n)
            ASSERT_OK(qd_detokenizer_push(&stream, ids[i], &text, &len, err, sizeof err), err);
        else
            ASSERT_OK(qd_detokenizer_finish(&stream, &text, &len, err, sizeof err), err);
        assert_int_equal(qd_utf8_check(text, len), len);
        assert_true(joined + len <= n_expected);
        assert_memory_equal(text, expected + joined, len);
        joined += len;
    }
    assert_int_equal(joined, n_expected);
    qd_detokenizer_free(&stream);
}

static void check_decoding(const qd_tokenizer_t *tokenizer, const cJSON *line, const char *text_key,
                           bool skip_special)
{
    char err[QD_ERR_LEN] = "", *expected, *text;
    size_t n_expected, len, n;
    int32_t *ids = ids_of(cJSON_GetObjectItemCaseSensitive(line, "ids"), &n);
    assert_int_equal(qd_json_text(cJSON_GetObjectItemCaseSensitive(line, text_key), &expected, &n_expected),
                     QD_OK);
    ASSERT_OK(qd_tokenizer_decode(tokenizer, ids, n, skip_special, &text, &len, err, sizeof err), err);
    assert_same_text(text, len, expected, n_expected);
    check_stream(tokenizer, ids, n, skip_special, expected, n_expected);
    free(text);
    free(expected);
    free(ids);
}

static void check_both_decodings(const cJSON *line, void *context)
{
    check_decoding(context, line, "text", false);
    check_decoding(context, line, "text_skip_special", true);
}

static void check_one_decoding(const cJSON *line, void *context)
{
    check_decoding(context, line, "text",
                   cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(line, "skip_special_tokens")));
}

static void test_tiny(void **state)
{
    (void)state;
    NEED_FILE(TINY_MODEL "/tokenizer.json");
    qd_tokenizer_t *tokenizer = load_tokenizer(TINY_MODEL);
    assert_true(each_json_line(TINY_DATA "tiny-cases.jsonl", check_encoding, tokenizer) == 399);
    assert_true(each_json_line(TINY_DATA "tiny-decode.jsonl", check_one_decoding, tokenizer) == 240);
    qd_tokenizer_free(tokenizer);
}

static void test_qwen3_encoding(void **state)
{
    (void)state;
    NEED_FILE(QWEN3_TOKENIZER "/tokenizer.json");
    NEED_FILE(QWEN3_DATA "cases.jsonl");
    qd_tokenizer_t *tokenizer = load_tokenizer(QWEN3_TOKENIZER);
    assert_int_equal(qd_tokenizer_vocab_size(tokenizer), 151669);
    assert_int_equal(qd_tokenizer_base_size(tokenizer), 151643);
    assert_int_equal(qd_tokenizer_find_added(tokenizer, "<|im_end|>"), 151645);
    assert_int_equal(each_json_line(QWEN3_DATA "cases.jsonl", check_encoding, tokenizer), 3785);
    /* Once more: now every word that is one token is known to be one. */
    assert_int_equal(each_json_line(QWEN3_DATA "cases.jsonl", check_encoding, tokenizer), 3785);
    qd_tokenizer_free(tokenizer);
}

static void test_qwen3_decoding(void **state)
{
    (void)state;
    NEED_FILE(QWEN3_TOKENIZER "/tokenizer.json");
    NEED_FILE(QWEN3_DATA "decode.jsonl");
    qd_tokenizer_t *tokenizer = load_tokenizer(QWEN3_TOKENIZER);
    assert_int_equal(each_json_line(QWEN3_DATA "decode.jsonl", check_both_decodings, tokenizer), 1260);
    qd_tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_qwen3_encoding),
        cmocka_unit_test(test_qwen3_decoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
