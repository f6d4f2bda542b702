/* The tokenizer's edges: odd text, malformed and foreign files, threads. Correct ids: tokenizer_goldens.c. */
#include "tests/support/test.h"

#include <pthread.h>

#include "tests/support/tokenizer.h"

static char *tiny_json; /* tokenizer.json of the tiny model, terminated */
static size_t tiny_len;
static qd_tokenizer_t *tiny;

static int set_up(void **state)
{
    (void)state;
    char err[QD_ERR_LEN];
    if (qd_file_read(TINY_MODEL "/tokenizer.json", 1 << 20, &tiny_json, &tiny_len, err, sizeof err) != QD_OK)
        return 0; /* each test says that it is missing */
    return qd_tokenizer_parse(tiny_json, tiny_len, &tiny, err, sizeof err) == QD_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    qd_tokenizer_free(tiny);
    free(tiny_json);
    return 0;
}

/* The file with the first `from` replaced; the caller frees it. */
static char *with(const char *from, const char *to)
{
    char *at = strstr(tiny_json, from);
    if (at == NULL) fail_msg("the file does not hold %s", from);
    char *changed = malloc(tiny_len + strlen(to) + 1);
    assert_non_null(changed);
    size_t before = (size_t)(at - tiny_json);
    memcpy(changed, tiny_json, before);
    strcpy(changed + before, to);
    strcat(changed + before, at + strlen(from));
    return changed;
}

static void refuse_text(const char *json, qd_status expected, const char *reason)
{
    char err[QD_ERR_LEN] = "";
    qd_tokenizer_t *tokenizer;
    qd_status status = qd_tokenizer_parse(json, strlen(json), &tokenizer, err, sizeof err);
    if (status != expected) fail_msg("%s, not %s: %s", qd_status_name(status), qd_status_name(expected), err);
    assert_null(tokenizer);
    ASSERT_CONTAINS(err, reason);
}

static void refuse(const char *from, const char *to, qd_status expected, const char *reason)
{
    char *json = with(from, to);
    refuse_text(json, expected, reason);
    free(json);
}

#define NEED_TINY() NEED_FILE(TINY_MODEL "/tokenizer.json")

static void test_other_kinds_are_refused_by_name(void **state)
{
    (void)state;
    NEED_TINY();
    static const struct {
        const char *from, *to, *reason;
    } cases[] = {
        {"\"type\": \"BPE\"", "\"type\": \"WordPiece\"", "model.type: \"WordPiece\" is not implemented"},
        {"\"dropout\": null", "\"dropout\": 0.1", "model.dropout: 0.1"},
        {"\"unk_token\": null", "\"unk_token\": \"<unk>\"", "model.unk_token: \"<unk>\""},
        {"\"continuing_subword_prefix\": \"\"", "\"continuing_subword_prefix\": \"##\"",
         "model.continuing_subword_prefix: \"##\""},
        {"\"end_of_word_suffix\": \"\"", "\"end_of_word_suffix\": \"</w>\"", "model.end_of_word_suffix"},
        {"\"byte_fallback\": false", "\"byte_fallback\": true", "model.byte_fallback: true"},
        {"\"ignore_merges\": false", "\"ignore_merges\": true", "model.ignore_merges: true"},
        {"\"type\": \"NFC\"", "\"type\": \"NFKC\"", "normalizer.type: \"NFKC\""},
        {"\"type\": \"Sequence\"", "\"type\": \"Metaspace\"", "pre_tokenizer.type: \"Metaspace\""},
        {"\"type\": \"Split\"", "\"type\": \"Digits\"", "pre_tokenizer.pretokenizers[0].type: \"Digits\""},
        {"\"behavior\": \"Isolated\"", "\"behavior\": \"Removed\"", "pretokenizers[0].behavior: \"Removed\""},
        {"\"invert\": false", "\"invert\": true", "pretokenizers[0].invert: true"},
        {"\"Regex\"", "\"String\"", "pretokenizers[0].pattern: {\"String\""},
        {"(?i:'s", "\\\\h|(?i:'s", "pattern.Regex: character 0 of the expression: this escape"},
        {"\"use_regex\": false", "\"use_regex\": true", "pretokenizers[1].use_regex: true"},
        {"\"add_prefix_space\": false", "\"add_prefix_space\": true",
         "pretokenizers[1].add_prefix_space: true"},
        {"\"truncation\": null", "\"truncation\": {\"max_length\": 4}", "truncation: {\"max_length\":4}"},
        {"\"padding\": null", "\"padding\": {}", "padding: {}"},
        {"\"single_word\": false", "\"single_word\": true", "added_tokens[0]: id 2025: single_word"},
        {"\"lstrip\": false", "\"lstrip\": true", "added_tokens[0]: id 2025: lstrip"},
        {"\"rstrip\": false", "\"rstrip\": true", "added_tokens[0]: id 2025: rstrip"},
        {"\"normalized\": false", "\"normalized\": true", "added_tokens[0]: id 2025: normalized"},
        {"\"\xc4\x80\":", "\"\xe4\xb8\xad\":", "\"\xe4\xb8\xad\" is not in the byte-level alphabet"},
        {"\"\xc4\x80\":", "\"\xc4\x80\xc4\x80\xc4\x80\":", "model.vocab: no token for byte 0x00"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refuse(cases[i].from, cases[i].to, QD_ERR_UNSUPPORTED, cases[i].reason);
}

/* The last "type": "ByteLevel" belongs to the decoder, the one before to the post-processor. */
static void test_other_steps_after_encoding_are_refused(void **state)
{
    (void)state;
    NEED_TINY();
    refuse("\"post_processor\": {\n    \"type\": \"ByteLevel\"",
           "\"post_processor\": {\n    \"type\": \"BertProcessing\"", QD_ERR_UNSUPPORTED,
           "post_processor.type: \"BertProcessing\"");
    refuse("\"decoder\": {\n    \"type\": \"ByteLevel\"", "\"decoder\": {\n    \"type\": \"WordPiece\"",
           QD_ERR_UNSUPPORTED, "decoder.type: \"WordPiece\"");
    refuse("\"decoder\": {", "\"decoder\": null, \"old\": {", QD_ERR_INPUT, "decoder.type: missing");
}

static void test_malformed_files(void **state)
{
    (void)state;
    NEED_TINY();
    static const struct {
        const char *from, *to, *reason;
    } cases[] = {
        {"\"model\": {", "\"modell\": {", "model: missing"},
        {"\"model\": {", "\"model\": [], \"old\": {", "expected an object (model)"},
        {"\"vocab\": {", "\"vocabulary\": {", "model.vocab: missing"},
        {"\"vocab\": {", "\"vocab\": 7, \"old\": {", "expected an object (model.vocab)"},
        {"\"merges\": [", "\"rules\": [", "model.merges: missing"},
        {"\"merges\": [", "\"merges\": {}, \"old\": [", "expected a list (model.merges)"},
        {"\"merges\": [", "\"merges\": [7, ", "model.merges: expected a pair"},
        {"\"merges\": [", "\"merges\": [\"ab\", ", "model.merges: expected two tokens"},
        {"\"merges\": [", "\"merges\": [[\"a\"], ", "expected a token (model.merges)"},
        {"\"merges\": [", "\"merges\": [[\"a\",\"b\",\"c\"], ", "expected the end of a pair"},
        {"\"merges\": [", "\"merges\": [[\"z\",\"zqz\"], ", "a token that is not in model.vocab"},
        {"\"merges\": [", "\"merges\": [[\"z\",\"Q\"], ", "a token that is not in model.vocab"},
        {"\"vocab\": {", "\"vocab\": {\"zqz\": -1, ", "an id is an integer in 0 .."},
        {"\"vocab\": {", "\"vocab\": {\"zqz\": 1.5, ", "an id is an integer in 0 .."},
        {"\"vocab\": {", "\"vocab\": {\"zqz\": 4194304, ", "an id is an integer in 0 .. 4194303"},
        {"\"vocab\": {", "\"vocab\": {\"zqz\": \"a\", ", "expected an id"},
        {"\"vocab\": {", "\"vocab\": {\"zqz\": 64, ", "id 64 is given twice"},
        {"\"vocab\": {", "\"vocab\": {\"a\": 3000, ", "are the same token"},
        {"\"vocab\": {", "\"vocab\": {}, \"vocab\": {", "duplicate key \"model.vocab\""},
        {"\"merges\": [", "\"merges\": [], \"merges\": [", "duplicate key \"model.merges\""},
        {"\"model\": {", "\"model\": {}, \"model\": {", "duplicate key \"model\""},
        {"\"truncation\": null", "\"truncation\": null, \"truncation\": null",
         "duplicate key \"truncation\""},
        {"\"id\": 2025", "\"id\": 2026", "id 2026 belongs to another token"},
        {"\"id\": 2025", "\"id\": 7", "\"<|endoftext|>\": id 7 belongs to another token"},
        {"\"id\": 2025", "\"id\": -1", "added_tokens[0]: id: -1 is outside"},
        {"\"id\": 2025", "\"idd\": 2025", "added_tokens[0]: id: missing"},
        {"\"<|endoftext|>\"", "\"<|im_start|>\"", "added_tokens: \"<|im_start|>\" occurs twice"},
        {"\"<|endoftext|>\"", "\"a\"", "added_tokens: \"a\": id 2025, but in model.vocab it is 64"},
        {"\"<|endoftext|>\"", "\"\"", "added_tokens[0]: content: not a string, or empty"},
        {"\"special\": true", "\"special\": 1", "added_tokens[0]: special: not true or false"},
        {"\"added_tokens\": [", "\"added_tokens\": {}, \"old\": [", "added_tokens: not a list"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refuse(cases[i].from, cases[i].to, QD_ERR_INPUT, cases[i].reason);
    refuse_text("", QD_ERR_INPUT, "byte 0: the text ends too early");
    refuse_text("[]", QD_ERR_INPUT, "byte 0: expected an object");
    refuse_text("{}", QD_ERR_INPUT, "model: missing");
    refuse_text("{\"model\": {\"vocab\": {\"a\": 1}", QD_ERR_INPUT, "the text ends too early");
}

static void test_files_that_are_not_there(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    qd_tokenizer_t *tokenizer;
    assert_int_equal(qd_tokenizer_load("tests/data", &tokenizer, err, sizeof err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "tests/data/tokenizer.json");
    assert_null(tokenizer);
}

static void assert_encodes(const qd_tokenizer_t *tokenizer, const char *text, size_t len,
                           const int32_t *expected, size_t n_expected)
{
    char err[QD_ERR_LEN] = "", *back;
    int32_t *ids;
    size_t n, n_back;
    ASSERT_OK(qd_tokenizer_encode(tokenizer, text, len, &ids, &n, err, sizeof err), err);
    assert_same_ids(ids, n, expected, n_expected, text);
    ASSERT_OK(qd_tokenizer_decode(tokenizer, ids, n, false, &back, &n_back, err, sizeof err), err);
    assert_int_equal(n_back, len);
    assert_memory_equal(back, text, len + 1);
    free(back);
    free(ids);
}

/* The same tokenizer written otherwise: merges as "a b", in front of the vocabulary, unknown fields around.
 */
static void test_merges_as_strings_before_the_vocabulary(void **state)
{
    (void)state;
    NEED_TINY();
    char err[QD_ERR_LEN] = "";
    cJSON *file;
    ASSERT_OK(qd_json_parse(tiny_json, tiny_len, NULL, &file, err, sizeof err), err);
    cJSON *model = cJSON_GetObjectItemCaseSensitive(file, "model"), *merges = cJSON_CreateArray();
    cJSON *pairs = cJSON_DetachItemFromObjectCaseSensitive(model, "merges");
    for (const cJSON *pair = pairs->child; pair != NULL; pair = pair->next) {
        char both[256];
        snprintf(both, sizeof both, "%s %s", pair->child->valuestring, pair->child->next->valuestring);
        cJSON_AddItemToArray(merges, cJSON_CreateString(both));
    }
    cJSON_Delete(pairs);
    cJSON *vocab = cJSON_DetachItemFromObjectCaseSensitive(model, "vocab");
    cJSON_AddItemToObject(model, "merges", merges);
    cJSON_AddItemToObject(model, "vocab", vocab);
    cJSON_AddStringToObject(file, "comment", "unknown fields change nothing");
    char *json = cJSON_PrintUnformatted(file);
    cJSON_Delete(file);
    qd_tokenizer_t *tokenizer;
    ASSERT_OK(qd_tokenizer_parse(json, strlen(json), &tokenizer, err, sizeof err), err);
    free(json);
    const char *text =
        "Dorothy said: \"I don't know the way to the Emerald City!\"\n\n  \xc3\xa9\xe4\xb8\xad";
    int32_t *ids;
    size_t n;
    ASSERT_OK(qd_tokenizer_encode(tiny, text, strlen(text), &ids, &n, err, sizeof err), err);
    assert_encodes(tokenizer, text, strlen(text), ids, n);
    free(ids);
    qd_tokenizer_free(tokenizer);
}

static void test_zero_is_text(void **state)
{
    (void)state;
    NEED_TINY();
    static const int32_t alone[] = {188}, within[] = {64, 188, 65, 188};
    assert_encodes(tiny, "\0", 1, alone, 1);
    assert_encodes(tiny, "a\0b\0", 4, within, 4);
    assert_encodes(tiny, "", 0, NULL, 0);
}

static void test_invalid_utf8_names_the_byte(void **state)
{
    (void)state;
    NEED_TINY();
    static const struct {
        const char *text;
        size_t len;
        const char *reason;
    } cases[] = {
        {"\xff", 1, "byte 0: invalid UTF-8"},         {"abcdefgh\x80z", 10, "byte 8: invalid UTF-8"},
        {"ab\xe2\x82", 4, "byte 2: invalid UTF-8"},   {"a\xed\xa0\x80", 4, "byte 1: invalid UTF-8"},
        {"\0\0\xc0\x80", 4, "byte 2: invalid UTF-8"}, {"<|im_end|>\xf5", 11, "byte 10: invalid UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char err[QD_ERR_LEN] = "";
        int32_t *ids;
        size_t n;
        assert_int_equal(qd_tokenizer_encode(tiny, cases[i].text, cases[i].len, &ids, &n, err, sizeof err),
                         QD_ERR_INPUT);
        assert_null(ids);
        ASSERT_CONTAINS(err, cases[i].reason);
    }
}

static void test_added_tokens(void **state)
{
    (void)state;
    NEED_TINY();
    static const int32_t two[] = {2026, 2027}, cut[] = {27, 91, 2027, 91, 29};
    assert_encodes(tiny, "<|im_start|><|im_end|>", 22, two, 2);
    assert_encodes(tiny, "<|<|im_end|>|>", 14, cut, 5);
    assert_int_equal(qd_tokenizer_find_added(tiny, "<|im_end|>"), 2027);
    assert_int_equal(qd_tokenizer_find_added(tiny, "<|im_end|"), -1);
    assert_int_equal(qd_tokenizer_find_added(tiny, "the"), -1);
    /* Of tokens that start at one place the longest counts, wherever it stands in the file. */
    char err[QD_ERR_LEN] = "", *json = with("\"<|endoftext|>\"", "\"<|im_end|><\"");
    qd_tokenizer_t *tokenizer;
    ASSERT_OK(qd_tokenizer_parse(json, strlen(json), &tokenizer, err, sizeof err), err);
    static const int32_t longest[] = {2025, 2027};
    assert_encodes(tokenizer, "<|im_end|><<|im_end|>", 21, longest, 2);
    qd_tokenizer_free(tokenizer);
    free(json);
}

/* A token that no merge leads to is never taken for a word, though the vocabulary holds it. */
static void test_tokens_without_merges(void **state)
{
    (void)state;
    NEED_TINY();
    char err[QD_ERR_LEN] = "", *json = with("\"vocab\": {", "\"vocab\": {\"zqz\": 3000, ");
    qd_tokenizer_t *tokenizer;
    ASSERT_OK(qd_tokenizer_parse(json, strlen(json), &tokenizer, err, sizeof err), err);
    static const int32_t bytes[] = {89, 80, 89};
    for (int time = 0; time < 3; time++) assert_encodes(tokenizer, "zqz", 3, bytes, 3);
    assert_int_equal(qd_tokenizer_base_size(tokenizer), 3001);
    qd_tokenizer_free(tokenizer);
    free(json);
}

static void test_queries(void **state)
{
    (void)state;
    NEED_TINY();
    const char *bytes;
    size_t len;
    assert_int_equal(qd_tokenizer_vocab_size(tiny), 2051);
    assert_int_equal(qd_tokenizer_base_size(tiny), 2025);
    int n_special = 0;
    for (int32_t id = -1; id < 3000; id++) n_special += qd_tokenizer_is_special(tiny, id);
    assert_int_equal(n_special, 14);
    assert_true(qd_tokenizer_is_special(tiny, 2027));
    assert_false(qd_tokenizer_is_special(tiny, 2049)); /* <think> */
    assert_true(qd_tokenizer_get(tiny, 220, &bytes, &len));
    assert_int_equal(len, 1);
    assert_int_equal(bytes[0], ' ');
    assert_false(qd_tokenizer_get(tiny, 2051, &bytes, &len));
    assert_false(qd_tokenizer_get(tiny, -1, &bytes, &len));
    assert_false(qd_tokenizer_get(tiny, INT32_MAX, &bytes, &len));
}

/* The ids of the tokens of single bytes. */
static void ids_of_bytes(const char *bytes, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++) {
        for (ids[i] = 0;; ids[i]++) {
            const char *token;
            size_t len;
            assert_true(qd_tokenizer_get(tiny, ids[i], &token, &len));
            if (len == 1 && token[0] == bytes[i]) break;
        }
    }
}

static void test_decoding_ill_formed_bytes(void **state)
{
    (void)state;
    NEED_TINY();
#define BAD "\xef\xbf\xbd"
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"\xe2\x82\xac", "\xe2\x82\xac"},
        {"\xe2\x82", BAD},
        {"\xe2\x82"
         "a",
         BAD "a"},
        {"\xe2\x82\xe2\x82\xac", BAD "\xe2\x82\xac"},
        {"\xc0\x80", BAD BAD},
        {"\xed\xa0\x80", BAD BAD BAD},
        {"\xf0\x9f\x98", BAD},
        {"\xf0\x9f\x98\xf0", BAD BAD},
        {"\xf4\x90\x80\x80", BAD BAD BAD BAD},
        {"\x80\x80x", BAD BAD "x"},
        {"a\xf0\x9f\x98\x80"
         "b",
         "a\xf0\x9f\x98\x80"
         "b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char err[QD_ERR_LEN] = "", *text, joined[64] = "";
        int32_t ids[16];
        size_t n = strlen(cases[i].bytes), len;
        ids_of_bytes(cases[i].bytes, n, ids);
        ASSERT_OK(qd_tokenizer_decode(tiny, ids, n, false, &text, &len, err, sizeof err), err);
        assert_string_equal(text, cases[i].text);
        free(text);
        struct qd_detokenizer stream;
        qd_detokenizer_init(&stream, tiny, false);
        for (size_t k = 0; k <= n; k++) {
            const char *part;
            if (k < n)
                ASSERT_OK(qd_detokenizer_push(&stream, ids[k], &part, &len, err, sizeof err), err);
            else
                ASSERT_OK(qd_detokenizer_finish(&stream, &part, &len, err, sizeof err), err);
            strncat(joined, part, len);
        }
        assert_string_equal(joined, cases[i].text);
        qd_detokenizer_free(&stream);
    }
}

static void *encode_often(void *expected)
{
    char err[QD_ERR_LEN];
    const char *text = "It was a dark and stormy night; the wizard of Oz didn't sleep at all.";
    for (int i = 0; i < 200; i++) {
        int32_t *ids;
        size_t n;
        if (qd_tokenizer_encode(tiny, text, strlen(text), &ids, &n, err, sizeof err) != QD_OK)
            return "failed";
        bool same = memcmp(ids, expected, n * sizeof *ids) == 0;
        free(ids);
        if (!same) return "differs";
    }
    return NULL;
}

static void test_threads_share_a_tokenizer(void **state)
{
    (void)state;
    NEED_TINY();
    char err[QD_ERR_LEN] = "";
    const char *text = "It was a dark and stormy night; the wizard of Oz didn't sleep at all.";
    int32_t *expected;
    size_t n;
    qd_tokenizer_t *fresh = load_tokenizer(TINY_MODEL);
    ASSERT_OK(qd_tokenizer_encode(fresh, text, strlen(text), &expected, &n, err, sizeof err), err);
    qd_tokenizer_free(fresh);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, expected), 0);
    for (int i = 0; i < 4; i++) {
        void *failure;
        assert_int_equal(pthread_join(threads[i], &failure), 0);
        assert_null(failure);
    }
    free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_share_a_tokenizer),
        cmocka_unit_test(test_other_kinds_are_refused_by_name),
        cmocka_unit_test(test_other_steps_after_encoding_are_refused),
        cmocka_unit_test(test_malformed_files),
        cmocka_unit_test(test_files_that_are_not_there),
        cmocka_unit_test(test_merges_as_strings_before_the_vocabulary),
        cmocka_unit_test(test_zero_is_text),
        cmocka_unit_test(test_invalid_utf8_names_the_byte),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_tokens_without_merges),
        cmocka_unit_test(test_queries),
        cmocka_unit_test(test_decoding_ill_formed_bytes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
