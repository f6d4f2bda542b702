#include "models/chat.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "models/directory.h"
#include "kernels/base/hash.h"

enum { MAX_TEMPLATE_BYTES = 1 << 24 };

/* FNV-1a, 64 bits, of the published templates that render as this file does. They differ only in what they
 * make of content that is no text, which is refused here. Those of the Instruct and Thinking models of July
 * 2025 render otherwise. */
static const uint64_t QWEN3_TEMPLATES[] = {
    UINT64_C(0x2bfdb7aa9754484e), /* 4116 bytes */
    UINT64_C(0x959a4551391a6549), /* 4168 bytes */
};

static qd_status check_template_text(const char *path, const char *text, size_t len, char *err, size_t errlen)
{
    uint64_t hash = qd_hash(QD_HASH_START, text, len);
    for (size_t i = 0; i < sizeof QWEN3_TEMPLATES / sizeof QWEN3_TEMPLATES[0]; i++)
        if (hash == QWEN3_TEMPLATES[i]) return QD_OK;
    return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                   "%s: the chat template (%zu bytes, FNV-1a %016" PRIx64
                   ") is none of Qwen3's that are implemented",
                   path, len, hash);
}

static qd_status check_config(const char *path, char *err, size_t errlen)
{
    cJSON *config;
    QD_TRY(qd_json_read_file(path, MAX_TEMPLATE_BYTES, &config, err, errlen));
    const cJSON *template = cJSON_GetObjectItemCaseSensitive(config, "chat_template");
    qd_status status;
    if (template == NULL || cJSON_IsNull(template))
        status = qd_fail(QD_ERR_NOT_FOUND, err, errlen, "%s: no chat_template", path);
    else if (!cJSON_IsString(template))
        status = qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: chat_template is not a string", path);
    else
        status = check_template_text(path, template->valuestring, strlen(template->valuestring), err, errlen);
    cJSON_Delete(config);
    return status;
}

qd_status qd_chat_check_template(const char *dir, char *err, size_t errlen)
{
    char folder[QD_PATH_LEN], path[QD_PATH_LEN], *text;
    size_t len;
    QD_TRY(qd_model_dir_resolve(dir, folder, sizeof folder, err, errlen));
    QD_TRY(qd_model_path(folder, "chat_template.jinja", path, sizeof path, err, errlen));
    qd_status status = qd_file_read(path, MAX_TEMPLATE_BYTES, &text, &len, err, errlen);
    if (status == QD_OK) {
        status = check_template_text(path, text, len, err, errlen);
        free(text);
        return status;
    }
    if (status != QD_ERR_NOT_FOUND) return status;
    QD_TRY(qd_model_path(folder, "tokenizer_config.json", path, sizeof path, err, errlen));
    return check_config(path, err, errlen);
}

/* A part of a string, as the template's split and strip make them. */
struct span {
    const char *text;
    size_t len;
};

static struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

static struct span strip_newlines_left(struct span span)
{
    while (span.len > 0 && span.text[0] == '\n') span = (struct span){span.text + 1, span.len - 1};
    return span;
}

static struct span strip_newlines_right(struct span span)
{
    while (span.len > 0 && span.text[span.len - 1] == '\n') span.len--;
    return span;
}

/* What stands before the first `mark`, or all of it: split(mark)[0]. */
static struct span before_first(struct span span, const char *mark)
{
    const char *at = memmem(span.text, span.len, mark, strlen(mark));
    return at != NULL ? (struct span){span.text, (size_t)(at - span.text)} : span;
}

/* What stands behind the last `mark`, or all of it: split(mark)[-1]. */
static struct span behind_last(struct span span, const char *mark)
{
    size_t n = strlen(mark);
    for (const char *at; (at = memmem(span.text, span.len, mark, n)) != NULL;)
        span = (struct span){at + n, span.len - (size_t)(at - span.text) - n};
    return span;
}

static bool contains(struct span span, const char *mark)
{
    return memmem(span.text, span.len, mark, strlen(mark)) != NULL;
}

static bool starts_with(struct span span, const char *mark)
{
    size_t n = strlen(mark);
    return span.len >= n && memcmp(span.text, mark, n) == 0;
}

static bool ends_with(struct span span, const char *mark)
{
    size_t n = strlen(mark);
    return span.len >= n && memcmp(span.text + span.len - n, mark, n) == 0;
}

/* The text so far. When memory runs out `text` is NULL and stays so. */
struct writer {
    char *text;
    size_t len, room;
};

static void put_span(struct writer *writer, struct span span)
{
    if (writer->text == NULL) return;
    if (writer->room - writer->len <= span.len) {
        writer->room = 2 * (writer->len + span.len) + 64;
        char *grown = realloc(writer->text, writer->room);
        if (grown == NULL) free(writer->text);
        writer->text = grown;
        if (grown == NULL) return;
    }
    if (span.len > 0) memcpy(writer->text + writer->len, span.text, span.len);
    writer->len += span.len;
    writer->text[writer->len] = 0;
}

static void put(struct writer *writer, const char *text)
{
    put_span(writer, span_of(text));
}

static struct span content_of(const struct qd_chat_message *message)
{
    return (struct span){message->content, message->content_len};
}

static bool has_role(const struct qd_chat_message *message, const char *role)
{
    return strcmp(message->role, role) == 0;
}

/* The index of the last message in which a user asks (and does not hand in a tool's response), or of the last
 * message when there is none. */
static size_t find_last_query(const struct qd_chat_message *messages, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        if (!has_role(&messages[i], "user")) continue;
        struct span content = content_of(&messages[i]);
        if (!starts_with(content, "<tool_response>") || !ends_with(content, "</tool_response>")) return i;
    }
    return n - 1;
}

static void put_message(struct writer *writer, const struct qd_chat_message *message)
{
    put(writer, "<|im_start|>");
    put(writer, message->role);
    put(writer, "\n");
    put_span(writer, content_of(message));
    put(writer, "<|im_end|>\n");
}

static void put_assistant(struct writer *writer, const struct qd_chat_message *message, bool after_query,
                          bool last)
{
    struct span content = content_of(message), reasoning = {"", 0};
    if (message->reasoning != NULL) {
        reasoning = (struct span){message->reasoning, message->reasoning_len};
    } else if (contains(content, "</think>")) {
        reasoning = strip_newlines_right(before_first(content, "</think>"));
        reasoning = strip_newlines_left(behind_last(reasoning, "<think>"));
        content = strip_newlines_left(behind_last(content, "</think>"));
    }
    put(writer, "<|im_start|>assistant\n");
    if (after_query && (last || reasoning.len > 0)) {
        put(writer, "<think>\n");
        put_span(writer, strip_newlines_right(strip_newlines_left(reasoning)));
        put(writer, "\n</think>\n\n");
        content = strip_newlines_left(content);
    }
    put_span(writer, content);
    put(writer, "<|im_end|>\n");
}

/* Tool responses in a row share one message of the user. */
static void put_tool(struct writer *writer, const struct qd_chat_message *messages, size_t i, size_t n)
{
    if (i == 0 || !has_role(&messages[i - 1], "tool")) put(writer, "<|im_start|>user");
    put(writer, "\n<tool_response>\n");
    put_span(writer, content_of(&messages[i]));
    put(writer, "\n</tool_response>");
    if (i + 1 == n || !has_role(&messages[i + 1], "tool")) put(writer, "<|im_end|>\n");
}

qd_status qd_chat_render(const struct qd_chat_message *messages, size_t n,
                         const struct qd_chat_options *options, char **text, size_t *len, char *err,
                         size_t errlen)
{
    *text = NULL;
    *len = 0;
    if (n == 0) return qd_fail(QD_ERR_INPUT, err, errlen, "no messages");
    size_t last_query = find_last_query(messages, n);
    struct writer writer = {.text = calloc(1, 64), .room = 64};
    for (size_t i = 0; i < n; i++) {
        const struct qd_chat_message *message = &messages[i];
        if (has_role(message, "user") || has_role(message, "system")) {
            put_message(&writer, message);
        } else if (has_role(message, "assistant")) {
            put_assistant(&writer, message, i > last_query, i + 1 == n);
        } else if (has_role(message, "tool")) {
            put_tool(&writer, messages, i, n);
        } else {
            free(writer.text);
            return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "message %zu: role \"%.100s\" is not implemented",
                           i, message->role);
        }
    }
    if (!options->no_generation_prompt) {
        put(&writer, "<|im_start|>assistant\n");
        if (options->thinking == QD_THINKING_OFF) put(&writer, "<think>\n\n</think>\n\n");
    }
    if (writer.text == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "chat text");
    *text = writer.text;
    *len = writer.len;
    return QD_OK;
}

/* A member that must be text, with its U+0000 restored, to be freed by the caller. */
static qd_status get_text(const cJSON *object, const char *key, char **text, size_t *len, char *err,
                          size_t errlen)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, key);
    qd_status status = qd_json_text(member, text, len);
    if (status == QD_ERR_INPUT)
        return qd_fail(status, err, errlen, "%s: %s", key, member == NULL ? "missing" : "not a string");
    return status == QD_OK ? QD_OK : qd_fail(status, err, errlen, "%s", key);
}

static qd_status read_message(const cJSON *item, struct qd_chat_message *message, char *err, size_t errlen)
{
    char *text;
    if (!cJSON_IsObject(item)) return qd_fail(QD_ERR_INPUT, err, errlen, "not an object");
    const cJSON *calls = cJSON_GetObjectItemCaseSensitive(item, "tool_calls");
    if (calls != NULL && !cJSON_IsNull(calls) && !(cJSON_IsArray(calls) && calls->child == NULL))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "tool_calls are not implemented");
    QD_TRY(qd_json_get_string(item, "role", &message->role, err, errlen));
    QD_TRY(get_text(item, "content", &text, &message->content_len, err, errlen));
    message->content = text;
    const cJSON *reasoning = cJSON_GetObjectItemCaseSensitive(item, "reasoning_content");
    if (reasoning == NULL || cJSON_IsNull(reasoning)) return QD_OK;
    QD_TRY(get_text(item, "reasoning_content", &text, &message->reasoning_len, err, errlen));
    message->reasoning = text;
    return QD_OK;
}

qd_status qd_chat_render_json(const cJSON *list, const struct qd_chat_options *options, char **text,
                              size_t *len, char *err, size_t errlen)
{
    *text = NULL;
    *len = 0;
    if (!cJSON_IsArray(list)) return qd_fail(QD_ERR_INPUT, err, errlen, "expected a list of messages");
    size_t n = (size_t)cJSON_GetArraySize(list), n_read = 0;
    struct qd_chat_message *messages = calloc(n + 1, sizeof *messages);
    if (messages == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu messages", n);
    qd_status status = QD_OK;
    for (const cJSON *item = list->child; item != NULL && status == QD_OK; item = item->next) {
        char reason[QD_ERR_LEN];
        status = read_message(item, &messages[n_read++], reason, sizeof reason);
        if (status == QD_ERR_NOT_FOUND) status = QD_ERR_INPUT;
        if (status != QD_OK) qd_fail(status, err, errlen, "message %zu: %s", n_read - 1, reason);
    }
    if (status == QD_OK) status = qd_chat_render(messages, n, options, text, len, err, errlen);
    for (size_t i = 0; i < n_read; i++) {
        free((char *)messages[i].content);
        free((char *)messages[i].reasoning);
    }
    free(messages);
    return status;
}

qd_status qd_chat_parse_thinking(const char *text, enum qd_thinking *out, char *err, size_t errlen)
{
    *out = QD_THINKING_NOT_GIVEN;
    if (text == NULL) return QD_OK;
    bool on = strcmp(text, "true") == 0;
    if (!on && strcmp(text, "false") != 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "enable_thinking: \"%.100s\" is neither true nor false",
                       text);
    *out = on ? QD_THINKING_ON : QD_THINKING_OFF;
    return QD_OK;
}

qd_status qd_chat_single(const char *dir, const char *content, size_t content_len,
                         const char *enable_thinking, char **text, size_t *len, char *err, size_t errlen)
{
    struct qd_chat_message message = {.role = "user", .content = content, .content_len = content_len};
    struct qd_chat_options options = {0};
    *text = NULL;
    *len = 0;
    QD_TRY(qd_chat_parse_thinking(enable_thinking, &options.thinking, err, errlen));
    QD_TRY(qd_chat_check_template(dir, err, errlen));
    return qd_chat_render(&message, 1, &options, text, len, err, errlen);
}
