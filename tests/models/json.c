#include "tests/support/test.h"

#include <math.h>
#include <sys/stat.h>

#include "models/json.h"
#include "models/json_scan.h"

static cJSON *parse(const char *text)
{
    char err[QD_ERR_LEN] = "";
    cJSON *root;
    ASSERT_OK(qd_json_parse(text, strlen(text), NULL, &root, err, sizeof err), err);
    return root;
}

static void refuse_bytes(const char *text, size_t len, const char *reason)
{
    /* A copy of exact size lets the address sanitizer see any read beyond the text. */
    char *exact = malloc(len > 0 ? len : 1);
    assert_non_null(exact);
    memcpy(exact, text, len);
    char err[QD_ERR_LEN] = "";
    cJSON *root;
    qd_status status = qd_json_parse(exact, len, NULL, &root, err, sizeof err);
    free(exact);
    if (status == QD_OK) fail_msg("accepted: %s", text);
    assert_null(root);
    assert_int_equal(status, QD_ERR_INPUT);
    ASSERT_CONTAINS(err, reason);
}

static void refuse(const char *text, const char *reason)
{
    refuse_bytes(text, strlen(text), reason);
}

static void test_values(void **state)
{
    (void)state;
    cJSON *root = parse(" {\"a\":[1,-2.5e3,true,false,null,\"x\\ny\\u00e9\\ud83d\\ude00\"],\"b\":{}} \n");
    cJSON *array = cJSON_GetObjectItemCaseSensitive(root, "a");
    assert_int_equal(cJSON_GetArraySize(array), 6);
    assert_true(cJSON_GetArrayItem(array, 1)->valuedouble == -2500.0);
    assert_string_equal(cJSON_GetArrayItem(array, 5)->valuestring, "x\ny\xc3\xa9\xf0\x9f\x98\x80");
    assert_true(cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(root, "b")));
    cJSON_Delete(root);
    root = parse("7");
    assert_true(root->valuedouble == 7.0);
    cJSON_Delete(root);
}

static void test_syntax_errors_name_the_byte(void **state)
{
    (void)state;
    refuse("", "byte 0: the text ends too early");
    refuse("  ", "byte 2: the text ends too early");
    refuse("{", "byte 1: the text ends too early");
    refuse("[1", "byte 2: the text ends too early");
    refuse("[1,", "byte 3: the text ends too early");
    refuse("[1,]", "byte 3: expected a value");
    refuse("[1 2]", "byte 3: expected ',' or ']'");
    refuse("[1}", "byte 2: expected ',' or ']'");
    refuse("{\"a\":1,}", "byte 7: expected a key");
    refuse("{\"a\" 1}", "byte 5: expected ':'");
    refuse("{\"a\":}", "byte 5: expected a value");
    refuse("{a:1}", "byte 1: expected a key");
    refuse("{\"a\":1 \"b\":2}", "byte 7: expected ',' or '}'");
    refuse("nul", "byte 0: expected a value");
    refuse("nulll", "byte 4: something follows the value");
    refuse("1 2", "byte 2: something follows the value");
    refuse("{} x", "byte 3: something follows the value");
    refuse("\"abc", "byte 0: string without an end");
    refuse("\"a\tb\"", "byte 2: control character");
    refuse("\"\\x\"", "byte 1: bad escape");
    refuse("\"\\u12g4\"", "byte 1: bad escape");
    refuse("\"\\ud800\"", "byte 1: bad escape");
    refuse("\"\\udc00\"", "byte 1: bad escape");
    refuse("\"\\ud800\\u0041\"", "byte 1: bad escape");
    refuse("'a'", "byte 0: expected a value");
    refuse("\xef\xbb\xbf{}", "byte 0: expected a value"); /* no byte order mark */
    refuse("[1]\v", "byte 3: something follows");
    refuse_bytes("1\0", 2, "byte 1: something follows");
}

static void test_numbers_follow_the_grammar(void **state)
{
    (void)state;
    static const char *const bad[] = {"01",   "-",   "+1",       ".5",        "1.",    "1.e3", "1e", "1e+",
                                      "0x10", "NaN", "Infinity", "-Infinity", "1_000", "--1",  "00"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) refuse(bad[i], "byte ");
    refuse("1e400", "byte 0: number out of range");
    refuse("[-1e400]", "byte 1: number out of range");
    refuse("1234567890123456789012345678901234567890123456789012345678901234", "longer than 63 bytes");
}

static void test_inexact_integers_are_refused(void **state)
{
    (void)state;
    refuse("9007199254740993", "exactly");
    refuse("-9007199254740993", "exactly");
    refuse("9007199254740992.5", "exactly");
    refuse("1.00000000000000000001", "exactly");
    refuse("0.99999999999999999999", "exactly");
    refuse("1e-400", "exactly");
    refuse("0.1e-99999999999999999999", "exactly");
    static const struct {
        const char *text;
        double value;
    } good[] = {
        {"9007199254740992", 0x1p53},
        {"-9007199254740992", -0x1p53},
        {"9007199254740991", 0x1p53 - 1},
        {"9007199254740994", 0x1p53 + 2},
        {"1000000000000000019884624838656", 1e30},
        {"1.50", 1.5},
        {"15e-1", 1.5},
        {"120e-1", 12},
        {"1.0", 1},
        {"0.0012e4", 12},
        {"-0", 0},
        {"0.0e5", 0},
        {"1e15", 1e15},
        {"1E+2", 100},
        {"0e99999999999999999999", 0},
        {"1e-06", 1e-6},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        cJSON *root = parse(good[i].text);
        if (root->valuedouble != good[i].value) fail_msg("%s: %.17g", good[i].text, root->valuedouble);
        cJSON_Delete(root);
    }
}

static void test_invalid_utf8(void **state)
{
    (void)state;
    refuse("\"a\xff\"", "byte 2: invalid UTF-8");
    refuse("\"\xc0\x80\"", "byte 1: invalid UTF-8");     /* overlong */
    refuse("\"\xed\xa0\x80\"", "byte 1: invalid UTF-8"); /* surrogate */
    refuse("\"0123456789\xe2\x82\"", "byte 11: invalid UTF-8");
    refuse("\"\xf4\x90\x80\x80\"", "byte 1: invalid UTF-8"); /* above U+10FFFF */
}

static void test_depth(void **state)
{
    (void)state;
    char text[2 * 600 + 1], err[QD_ERR_LEN];
    cJSON *root;
    struct qd_json_limits limits = {.max_depth = 3};
    ASSERT_OK(qd_json_parse("[[{}]]", 6, &limits, &root, err, sizeof err), err);
    cJSON_Delete(root);
    assert_int_equal(qd_json_parse("[[{\"a\":[]}]]", 12, &limits, &root, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "byte 7: nested deeper than 3");
    memset(text, '[', 600);
    memset(text + 600, ']', 600);
    text[1200] = 0;
    refuse(text, "byte 512: nested deeper than 512");
    assert_int_equal(qd_json_parse(text + 88, 1024, NULL, &root, err, sizeof err), QD_OK);
    cJSON_Delete(root);
}

static void test_duplicate_keys(void **state)
{
    (void)state;
    refuse("{\"a\":1,\"b\":2,\"a\":3}", "duplicate key \"a\"");
    refuse("[{\"x\":{\"k\":1,\"\\u006b\":1}}]", "duplicate key \"k\"");
    cJSON_Delete(parse("{\"a\":1,\"A\":2,\"b\":{\"a\":1}}"));
    char err[QD_ERR_LEN];
    cJSON *root;
    struct qd_json_limits limits = {.allow_duplicate_keys = true};
    ASSERT_OK(qd_json_parse("{\"a\":1,\"a\":2}", 13, &limits, &root, err, sizeof err), err);
    cJSON_Delete(root);
}

static void test_zero_survives(void **state)
{
    (void)state;
    cJSON *root = parse("[\"a\\u0000b\\\\u0000\",{\"k\\u0000\":1,\"k\":2}]");
    char *text;
    size_t len;
    assert_int_equal(qd_json_text(root->child, &text, &len), QD_OK);
    assert_int_equal(len, 9);
    assert_memory_equal(text, "a\0b\\u0000", 10);
    char *quoted = qd_json_quote(text, len);
    assert_string_equal(quoted, "\"a\\u0000b\\\\u0000\"");
    free(quoted);
    free(text);
    assert_int_equal(qd_json_text(root->child->next, &text, &len), QD_ERR_INPUT);
    cJSON_Delete(root);
    refuse("{\"k\\u0000\":1,\"k\\u0000\":2}", "duplicate key");
}

static void test_quote(void **state)
{
    (void)state;
    char *quoted = qd_json_quote("\"\\\b\f\n\r\t\x01\x7f\xc3\xa9/", 12);
    assert_string_equal(quoted, "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\x7f\xc3\xa9/\"");
    free(quoted);
    quoted = qd_json_quote("", 0);
    assert_string_equal(quoted, "\"\"");
    free(quoted);
}

static void test_typed_members(void **state)
{
    (void)state;
    char err[QD_ERR_LEN];
    cJSON *root =
        parse("{\"i\":42,\"f\":1.5,\"s\":\"x\",\"t\":true,\"n\":null,\"big\":1e17,\"max\":9007199254740992}");
    int64_t i;
    double f;
    bool b;
    const char *s;
    ASSERT_OK(qd_json_get_int(root, "i", 42, 42, &i, err, sizeof err), err);
    assert_int_equal(i, 42);
    ASSERT_OK(qd_json_get_int(root, "max", 0, INT64_MAX, &i, err, sizeof err), err);
    assert_true(i == (int64_t)1 << 53);
    ASSERT_OK(qd_json_get_number(root, "f", &f, err, sizeof err), err);
    assert_true(f == 1.5);
    ASSERT_OK(qd_json_get_bool(root, "t", &b, err, sizeof err), err);
    assert_true(b);
    ASSERT_OK(qd_json_get_string(root, "s", &s, err, sizeof err), err);
    assert_string_equal(s, "x");
    assert_int_equal(qd_json_get_int(root, "i", 0, 41, &i, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "i: 42 is outside 0 .. 41");
    assert_int_equal(qd_json_get_int(root, "f", 0, 41, &i, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "f: 1.5 is not an integer");
    assert_int_equal(qd_json_get_int(root, "big", 0, INT64_MAX, &i, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "beyond 2^53");
    assert_int_equal(qd_json_get_int(root, "s", 0, 1, &i, err, sizeof err), QD_ERR_INPUT);
    assert_int_equal(qd_json_get_bool(root, "i", &b, err, sizeof err), QD_ERR_INPUT);
    assert_int_equal(qd_json_get_string(root, "t", &s, err, sizeof err), QD_ERR_INPUT);
    assert_int_equal(qd_json_get_string(root, "n", &s, err, sizeof err), QD_ERR_NOT_FOUND);
    assert_int_equal(qd_json_get_int(root, "I", 0, 99, &i, err, sizeof err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "I: missing");
    cJSON_Delete(root);
}

static void test_files(void **state)
{
    (void)state;
    char path[] = "/tmp/qd-json-XXXXXX", err[QD_ERR_LEN], *text;
    size_t len;
    cJSON *root;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "{\"a\":}", 6), 6);
    close(fd);
    ASSERT_OK(qd_file_read(path, 6, &text, &len, err, sizeof err), err);
    assert_int_equal(len, 6);
    assert_string_equal(text, "{\"a\":}");
    free(text);
    assert_int_equal(qd_file_read(path, 5, &text, &len, err, sizeof err), QD_ERR_TOO_LARGE);
    assert_null(text);
    assert_int_equal(qd_json_read_file(path, 100, &root, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, path);
    ASSERT_CONTAINS(err, "byte 5: expected a value");
    unlink(path);
    assert_int_equal(qd_json_read_file(path, 100, &root, err, sizeof err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(qd_file_read(path, 5, &text, &len, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "not a regular file");
    unlink(path);
    assert_int_equal(qd_file_read("tests", 5, &text, &len, err, sizeof err), QD_ERR_INPUT);
}

static void test_reader_tokens(void **state)
{
    (void)state;
    const char *text = "{\"a\\t\":[1,{}],\"b\":\"\\u0000\"}";
    static const enum qd_json_kind kinds[] = {
        QD_JSON_OBJECT, QD_JSON_KEY,        QD_JSON_ARRAY,     QD_JSON_NUMBER,
        QD_JSON_OBJECT, QD_JSON_OBJECT_END, QD_JSON_ARRAY_END, QD_JSON_KEY,
        QD_JSON_STRING, QD_JSON_OBJECT_END, QD_JSON_END,       QD_JSON_END,
    };
    struct qd_json_reader reader;
    struct qd_json_token token;
    char err[QD_ERR_LEN], bytes[8];
    ASSERT_OK(qd_json_reader_init(&reader, text, strlen(text), 0, err, sizeof err), err);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        ASSERT_OK(qd_json_read(&reader, &token, err, sizeof err), err);
        assert_int_equal(token.kind, kinds[i]);
        if (i == 1) {
            assert_true(token.escaped);
            assert_int_equal(qd_json_unescape(text + token.begin, token.len, bytes), 2);
            assert_memory_equal(bytes, "a\t", 2);
        }
        if (i == 3) assert_true(qd_json_number(&reader, &token) == 1.0);
        if (i == 8) {
            assert_true(token.zero);
            assert_int_equal(qd_json_unescape(text + token.begin, token.len, bytes), 1);
            assert_int_equal(bytes[0], 0);
        }
    }
}

static void test_reader_skips_values(void **state)
{
    (void)state;
    const char *text = "{\"skip\":[[1,{\"x\":2}],3],\"one\":4,\"end\":[5]}";
    struct qd_json_reader reader;
    struct qd_json_token token;
    char err[QD_ERR_LEN];
    size_t end, begins[3], ends[3], n = 0;
    ASSERT_OK(qd_json_reader_init(&reader, text, strlen(text), 0, err, sizeof err), err);
    ASSERT_OK(qd_json_read(&reader, &token, err, sizeof err), err);
    for (;;) {
        ASSERT_OK(qd_json_read(&reader, &token, err, sizeof err), err);
        if (token.kind == QD_JSON_OBJECT_END) break;
        assert_int_equal(token.kind, QD_JSON_KEY);
        ASSERT_OK(qd_json_read(&reader, &token, err, sizeof err), err);
        begins[n] = token.begin;
        ASSERT_OK(qd_json_skip(&reader, &token, &end, err, sizeof err), err);
        ends[n++] = end;
    }
    assert_int_equal(n, 3);
    assert_int_equal(ends[0], strstr(text, ",\"one\"") - text);
    assert_int_equal(ends[1], strstr(text, ",\"end\"") - text);
    assert_int_equal(ends[2], strlen(text) - 1);
    assert_int_equal(begins[0], strstr(text, "[[1") - text);
    assert_int_equal(begins[1], strstr(text, "4,") - text);
    assert_int_equal(begins[2], strstr(text, "[5]") - text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_syntax_errors_name_the_byte),
        cmocka_unit_test(test_numbers_follow_the_grammar),
        cmocka_unit_test(test_inexact_integers_are_refused),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_duplicate_keys),
        cmocka_unit_test(test_zero_survives),
        cmocka_unit_test(test_quote),
        cmocka_unit_test(test_typed_members),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_reader_tokens),
        cmocka_unit_test(test_reader_skips_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
