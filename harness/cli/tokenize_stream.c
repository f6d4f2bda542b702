#include "harness/cli/tokenize_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/stream.h"
#include "models/json.h"

enum { MAX_INPUT_BYTES = 1 << 30 };

static void print_ids(FILE *out, const int32_t *ids, size_t n)
{
    putc('[', out);
    for (size_t i = 0; i < n; i++) fprintf(out, "%s%d", i > 0 ? "," : "", ids[i]);
    putc(']', out);
}

static qd_status quote(const char *text, size_t len, char **quoted, char *err, size_t errlen)
{
    *quoted = qd_json_quote(text, len);
    if (*quoted == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu bytes of text", len);
    return QD_OK;
}

static qd_status encode(const qd_tokenizer_t *tokenizer, const char *text, size_t len, FILE *out, char *err,
                        size_t errlen)
{
    int32_t *ids;
    size_t n;
    QD_TRY(qd_tokenizer_encode(tokenizer, text, len, &ids, &n, err, errlen));
    print_ids(out, ids, n);
    free(ids);
    return QD_OK;
}

/* The text of a JSON string to ids. */
static qd_status encode_string(const qd_tokenizer_t *tokenizer, const cJSON *value, FILE *out, char *err,
                               size_t errlen)
{
    char *text;
    size_t len;
    if (!cJSON_IsString(value)) return qd_fail(QD_ERR_INPUT, err, errlen, "expected a JSON string");
    qd_status status = qd_json_text(value, &text, &len);
    if (status != QD_OK) return qd_fail(status, err, errlen, "text");
    status = encode(tokenizer, text, len, out, err, errlen);
    free(text);
    return status;
}

/* Ids of a JSON array; any id is taken, one without a token decodes to nothing. */
static qd_status read_ids(const cJSON *array, int32_t **ids, size_t *n, char *err, size_t errlen)
{
    *n = 0;
    if (!cJSON_IsArray(array)) return qd_fail(QD_ERR_INPUT, err, errlen, "expected a JSON array of ids");
    *ids = calloc((size_t)cJSON_GetArraySize(array) + 1, sizeof **ids);
    if (*ids == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "ids");
    for (const cJSON *item = array->child; item != NULL; item = item->next) {
        double id = item->valuedouble;
        if (!cJSON_IsNumber(item) || !(id >= 0 && id <= INT32_MAX) || id != (int32_t)id) {
            free(*ids);
            return qd_fail(QD_ERR_INPUT, err, errlen, "element %zu is no token id", *n);
        }
        (*ids)[(*n)++] = (int32_t)id;
    }
    return QD_OK;
}

static qd_status decode(const qd_tokenizer_t *tokenizer, const struct qd_tokenize_mode *mode,
                        const cJSON *array, FILE *out, char *err, size_t errlen)
{
    int32_t *ids = NULL;
    size_t n, len;
    char *text, *quoted = NULL;
    QD_TRY(read_ids(array, &ids, &n, err, errlen));
    qd_status status = qd_tokenizer_decode(tokenizer, ids, n, mode->skip_special, &text, &len, err, errlen);
    free(ids);
    if (status != QD_OK) return status;
    if (!mode->jsonl)
        fwrite(text, 1, len, out);
    else if ((status = quote(text, len, &quoted, err, errlen)) == QD_OK)
        fputs(quoted, out);
    free(quoted);
    free(text);
    return status;
}

static qd_status encode_chat(const qd_tokenizer_t *tokenizer, const struct qd_tokenize_mode *mode,
                             const cJSON *messages, FILE *out, char *err, size_t errlen)
{
    char *text, *quoted;
    size_t len;
    QD_TRY(qd_chat_render_json(messages, &mode->chat, &text, &len, err, errlen));
    qd_status status = quote(text, len, &quoted, err, errlen);
    if (status == QD_OK) {
        fprintf(out, "{\"text\":%s,\"ids\":", quoted);
        status = encode(tokenizer, text, len, out, err, errlen);
        putc('}', out);
    }
    free(quoted);
    free(text);
    return status;
}

/* Converts one JSON value. */
static qd_status convert_json(const qd_tokenizer_t *tokenizer, const struct qd_tokenize_mode *mode,
                              const char *json, size_t len, FILE *out, char *err, size_t errlen)
{
    cJSON *value;
    qd_status status = qd_json_parse(json, len, NULL, &value, err, errlen);
    if (status != QD_OK) return status;
    switch (mode->direction) {
    case QD_TOKENIZE_ENCODE: status = encode_string(tokenizer, value, out, err, errlen); break;
    case QD_TOKENIZE_DECODE: status = decode(tokenizer, mode, value, out, err, errlen); break;
    case QD_TOKENIZE_CHAT: status = encode_chat(tokenizer, mode, value, out, err, errlen); break;
    }
    cJSON_Delete(value);
    return status;
}

static qd_status convert_lines(const qd_tokenizer_t *tokenizer, const struct qd_tokenize_mode *mode, FILE *in,
                               FILE *out, char *err, size_t errlen)
{
    char *line = NULL;
    size_t room = 0;
    qd_status status = QD_OK;
    for (size_t number = 1; status == QD_OK; number++) {
        char reason[QD_ERR_LEN];
        ssize_t len = getline(&line, &room, in);
        if (len < 0) break;
        if (line[len - 1] == '\n') len--;
        status = convert_json(tokenizer, mode, line, (size_t)len, out, reason, sizeof reason);
        if (status != QD_OK)
            qd_fail(status, err, errlen, "line %zu: %s", number, reason);
        else
            putc('\n', out);
    }
    free(line);
    if (status == QD_OK && !feof(in))
        status = qd_fail(QD_ERR_IO, err, errlen, "reading the input: %s", strerror(errno));
    return status;
}

static qd_status convert_whole(const qd_tokenizer_t *tokenizer, const struct qd_tokenize_mode *mode, FILE *in,
                               FILE *out, char *err, size_t errlen)
{
    char *text;
    size_t len;
    QD_TRY(qd_stream_read(in, MAX_INPUT_BYTES, &text, &len, err, errlen));
    qd_status status = mode->direction == QD_TOKENIZE_ENCODE
                           ? encode(tokenizer, text, len, out, err, errlen)
                           : convert_json(tokenizer, mode, text, len, out, err, errlen);
    free(text);
    /* Text goes out as it is, so that decoding gives back what was encoded. */
    if (status == QD_OK && mode->direction != QD_TOKENIZE_DECODE) putc('\n', out);
    return status;
}

qd_status qd_tokenize_stream(const qd_tokenizer_t *tokenizer, const struct qd_tokenize_mode *mode, FILE *in,
                             FILE *out, char *err, size_t errlen)
{
    qd_status status = mode->jsonl ? convert_lines(tokenizer, mode, in, out, err, errlen)
                                   : convert_whole(tokenizer, mode, in, out, err, errlen);
    char flush_err[QD_ERR_LEN];
    qd_status flushed = qd_stream_flush(out, flush_err, sizeof flush_err);
    return status != QD_OK || flushed == QD_OK ? status : qd_fail(flushed, err, errlen, "%s", flush_err);
}
