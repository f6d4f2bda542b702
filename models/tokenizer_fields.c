#include "models/tokenizer_fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/vocab.h"

enum { MAX_ADDED = 1 << 17 };

const char *const qd_tokenizer_top_fields[] = {
    "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", NULL,
};
const char *const qd_tokenizer_model_fields[] = {
    "type",          "dropout",       "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
    "byte_fallback", "ignore_merges", NULL,
};

static const cJSON *get(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return value == NULL || cJSON_IsNull(value) ? NULL : value;
}

/* Refuses a value by field name, showing it as JSON. */
static qd_status refuse(const char *path, const char *key, const cJSON *value, char *err, size_t errlen)
{
    char *text = cJSON_PrintUnformatted(value);
    qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s%s%s: %.200s is not implemented", path,
            path[0] != 0 ? "." : "", key, text != NULL ? text : "this value");
    cJSON_free(text);
    return QD_ERR_UNSUPPORTED;
}

/* The member must be absent or null; with `or_empty` it may also be "". */
static qd_status check_unset(const cJSON *object, const char *path, const char *key, bool or_empty, char *err,
                             size_t errlen)
{
    const cJSON *value = get(object, key);
    if (value == NULL) return QD_OK;
    if (or_empty && cJSON_IsString(value) && value->valuestring[0] == 0) return QD_OK;
    return refuse(path, key, value, err, errlen);
}

/* The member must be false; `absent` is what Hugging Face takes when it is not there. */
static qd_status check_false(const cJSON *object, const char *path, const char *key, bool absent, char *err,
                             size_t errlen)
{
    const cJSON *value = get(object, key);
    if (value == NULL && absent) return qd_fail(QD_ERR_INPUT, err, errlen, "%s.%s: missing", path, key);
    if (value == NULL || cJSON_IsFalse(value)) return QD_OK;
    return refuse(path, key, value, err, errlen);
}

/* The member must be this string. */
static qd_status check_text(const cJSON *object, const char *path, const char *key, const char *text,
                            char *err, size_t errlen)
{
    const cJSON *value = get(object, key);
    if (value == NULL) return qd_fail(QD_ERR_INPUT, err, errlen, "%s.%s: missing", path, key);
    if (cJSON_IsString(value) && strcmp(value->valuestring, text) == 0) return QD_OK;
    return refuse(path, key, value, err, errlen);
}

static qd_status check_model(const cJSON *model, char *err, size_t errlen)
{
    if (model == NULL) return qd_fail(QD_ERR_INPUT, err, errlen, "model: missing");
    QD_TRY(check_text(model, "model", "type", "BPE", err, errlen));
    QD_TRY(check_unset(model, "model", "dropout", false, err, errlen));
    QD_TRY(check_unset(model, "model", "unk_token", false, err, errlen));
    QD_TRY(check_unset(model, "model", "continuing_subword_prefix", true, err, errlen));
    QD_TRY(check_unset(model, "model", "end_of_word_suffix", true, err, errlen));
    QD_TRY(check_false(model, "model", "byte_fallback", false, err, errlen));
    return check_false(model, "model", "ignore_merges", false, err, errlen);
}

static qd_status check_split(const cJSON *split, const char *path, const cJSON **pattern, char *err,
                             size_t errlen)
{
    QD_TRY(check_text(split, path, "type", "Split", err, errlen));
    QD_TRY(check_text(split, path, "behavior", "Isolated", err, errlen));
    QD_TRY(check_false(split, path, "invert", true, err, errlen));
    const cJSON *value = get(split, "pattern");
    *pattern = get(value, "Regex");
    if (value == NULL) return qd_fail(QD_ERR_INPUT, err, errlen, "%s.pattern: missing", path);
    return cJSON_IsString(*pattern) ? QD_OK : refuse(path, "pattern", value, err, errlen);
}

/* Hugging Face has true for both where they are absent. */
static qd_status check_byte_level(const cJSON *byte_level, const char *path, char *err, size_t errlen)
{
    QD_TRY(check_text(byte_level, path, "type", "ByteLevel", err, errlen));
    QD_TRY(check_false(byte_level, path, "add_prefix_space", true, err, errlen));
    return check_false(byte_level, path, "use_regex", true, err, errlen);
}

static qd_status check_pre_tokenizer(const cJSON *fields, const cJSON **pattern, char *err, size_t errlen)
{
    const cJSON *pre_tokenizer = get(fields, "pre_tokenizer");
    QD_TRY(check_text(pre_tokenizer, "pre_tokenizer", "type", "Sequence", err, errlen));
    const cJSON *steps = get(pre_tokenizer, "pretokenizers");
    if (!cJSON_IsArray(steps) || cJSON_GetArraySize(steps) != 2)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                       "pre_tokenizer.pretokenizers: only a Split and a ByteLevel are implemented");
    QD_TRY(check_split(steps->child, "pre_tokenizer.pretokenizers[0]", pattern, err, errlen));
    return check_byte_level(steps->child->next, "pre_tokenizer.pretokenizers[1]", err, errlen);
}

qd_status qd_tokenizer_read_settings(const cJSON *fields, const cJSON *model,
                                     struct qd_tokenizer_settings *out, char *err, size_t errlen)
{
    *out = (struct qd_tokenizer_settings){0};
    QD_TRY(check_model(model, err, errlen));
    out->normalise = get(fields, "normalizer") != NULL;
    if (out->normalise)
        QD_TRY(check_text(get(fields, "normalizer"), "normalizer", "type", "NFC", err, errlen));
    QD_TRY(check_pre_tokenizer(fields, &out->pattern, err, errlen));
    QD_TRY(check_text(get(fields, "decoder"), "decoder", "type", "ByteLevel", err, errlen));
    /* ByteLevel after encoding changes offsets only. */
    if (get(fields, "post_processor") != NULL)
        QD_TRY(check_text(get(fields, "post_processor"), "post_processor", "type", "ByteLevel", err, errlen));
    QD_TRY(check_unset(fields, "", "truncation", false, err, errlen));
    return check_unset(fields, "", "padding", false, err, errlen);
}

static qd_status read_added_token(const cJSON *item, struct qd_added_token *token, char *err, size_t errlen)
{
    static const char *const not_implemented[] = {"lstrip", "rstrip", "single_word", "normalized"};
    int64_t id;
    QD_TRY(qd_json_get_int(item, "id", 0, QD_VOCAB_MAX_ID, &id, err, errlen));
    token->id = (int32_t)id;
    QD_TRY(qd_json_get_bool(item, "special", &token->special, err, errlen));
    for (size_t i = 0; i < sizeof not_implemented / sizeof not_implemented[0]; i++) {
        bool set;
        QD_TRY(qd_json_get_bool(item, not_implemented[i], &set, err, errlen));
        if (set)
            return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "id %d: %s true is not implemented", token->id,
                           not_implemented[i]);
    }
    const cJSON *content = get(item, "content");
    if (content == NULL) return qd_fail(QD_ERR_INPUT, err, errlen, "content: missing");
    if (qd_json_text(content, &token->content, &token->len) == QD_ERR_NO_MEMORY)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "content");
    if (token->len == 0) return qd_fail(QD_ERR_INPUT, err, errlen, "content: not a string, or empty");
    return QD_OK;
}

qd_status qd_tokenizer_read_added(const cJSON *fields, struct qd_added *added, char *err, size_t errlen)
{
    const cJSON *list = get(fields, "added_tokens");
    if (list == NULL) return QD_OK;
    int n = cJSON_GetArraySize(list);
    if (!cJSON_IsArray(list) || n > MAX_ADDED)
        return qd_fail(QD_ERR_INPUT, err, errlen, "added_tokens: not a list of at most %d", MAX_ADDED);
    if (n == 0) return QD_OK;
    added->tokens = calloc((size_t)n, sizeof *added->tokens);
    if (added->tokens == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "added_tokens");
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        char reason[QD_ERR_LEN];
        qd_status status = read_added_token(item, &added->tokens[added->n++], reason, sizeof reason);
        if (status == QD_ERR_NOT_FOUND) status = QD_ERR_INPUT; /* a missing key is a malformed file */
        if (status != QD_OK)
            return qd_fail(status, err, errlen, "added_tokens[%zu]: %s", added->n - 1, reason);
    }
    return QD_OK;
}
