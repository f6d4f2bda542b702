#include "tests/support/test.h"

#include "tests/support/tokenizer.h"

qd_tokenizer_t *load_tokenizer(const char *dir)
{
    char err[QD_ERR_LEN] = "";
    qd_tokenizer_t *tokenizer;
    ASSERT_OK(qd_tokenizer_load(dir, &tokenizer, err, sizeof err), err);
    return tokenizer;
}

int each_json_line(const char *path, void (*visit)(const cJSON *line, void *context), void *context)
{
    char err[QD_ERR_LEN] = "", *text;
    size_t len;
    int n_lines = 0;
    ASSERT_OK(qd_file_read(path, 1 << 26, &text, &len, err, sizeof err), err);
    for (char *line = text, *end = text + len; line < end; n_lines++) {
        char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t line_len = (size_t)((newline != NULL ? newline : end) - line);
        cJSON *value;
        ASSERT_OK(qd_json_parse(line, line_len, NULL, &value, err, sizeof err), err);
        visit(value, context);
        cJSON_Delete(value);
        line += line_len + 1;
    }
    free(text);
    return n_lines;
}

int32_t *ids_of(const cJSON *array, size_t *n)
{
    assert_true(cJSON_IsArray(array));
    int32_t *ids = calloc((size_t)cJSON_GetArraySize(array) + 1, sizeof *ids);
    assert_non_null(ids);
    *n = 0;
    for (const cJSON *item = array->child; item != NULL; item = item->next) ids[(*n)++] = item->valueint;
    return ids;
}

void assert_same_ids(const int32_t *ids, size_t n, const int32_t *expected, size_t n_expected,
                     const char *what)
{
    bool same = n == n_expected;
    for (size_t i = 0; i < n && i < n_expected && same; i++) same = ids[i] == expected[i];
    if (same) return;
    printf("%s\n  is ", what);
    for (size_t i = 0; i < n; i++) printf(" %d", ids[i]);
    printf("\n  not");
    for (size_t i = 0; i < n_expected; i++) printf(" %d", expected[i]);
    printf("\n");
    fail_msg("ids differ");
}
