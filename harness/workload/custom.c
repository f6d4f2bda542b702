#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "harness/workload/build.h"
#include "harness/workload/workload.h"
#include "models/json.h"

enum { MAX_FILE_BYTES = 1 << 30, MAX_LINE_DEPTH = 16 };

/* The output length of a row: --output-len, else its own output_tokens, else the default. */
static qd_status row_output_len(const struct qd_custom_spec *spec, const cJSON *row, int64_t *out, char *err,
                                size_t errlen)
{
    *out = spec->output_len > 0 ? spec->output_len : spec->default_output_len;
    if (spec->output_len > 0) return QD_OK;
    qd_status status = qd_json_get_int(row, "output_tokens", 1, INT32_MAX, out, err, errlen);
    if (status == QD_ERR_NOT_FOUND && *out > 0) return QD_OK;
    return status;
}

static qd_status encode_prompt(const struct qd_custom_spec *spec, const cJSON *row,
                               struct qd_workload_request *request, char *err, size_t errlen)
{
    const cJSON *prompt = cJSON_GetObjectItemCaseSensitive(row, "prompt");
    if (!cJSON_IsString(prompt)) return qd_fail(QD_ERR_INPUT, err, errlen, "\"prompt\" is no text");
    char *text;
    size_t len, n_ids;
    QD_TRY(qd_json_text(prompt, &text, &len));
    qd_status status =
        qd_tokenizer_encode(spec->tokenizer, text, len, &request->prompt, &n_ids, err, errlen);
    free(text);
    if (status != QD_OK) return status;
    if (n_ids == 0 || n_ids > INT32_MAX)
        return qd_fail(QD_ERR_INPUT, err, errlen, "\"prompt\" has %zu tokens", n_ids);
    request->n_prompt = (int32_t)n_ids;
    return QD_OK;
}

static qd_status read_row(const struct qd_custom_spec *spec, const char *line, size_t len,
                          struct qd_workload_request *request, char *err, size_t errlen)
{
    cJSON *row;
    struct qd_json_limits limits = {.max_depth = MAX_LINE_DEPTH};
    QD_TRY(qd_json_parse(line, len, &limits, &row, err, errlen));
    int64_t output_len = 0;
    qd_status status = QD_OK;
    if (!cJSON_IsObject(row)) status = qd_fail(QD_ERR_INPUT, err, errlen, "no JSON object");
    if (status == QD_OK) status = row_output_len(spec, row, &output_len, err, errlen);
    if (status == QD_OK) status = encode_prompt(spec, row, request, err, errlen);
    request->max_tokens = (int32_t)output_len;
    cJSON_Delete(row);
    return status;
}

static bool is_blank(const char *line, size_t len)
{
    return strspn(line, " \t\r") >= len;
}

/* Rows one after another; *out grows by doubling. */
static qd_status read_rows(const struct qd_custom_spec *spec, const char *text, size_t len,
                           struct qd_workload *out, char *err, size_t errlen)
{
    size_t room = 0, line_number = 0;
    for (const char *line = text, *end = text + len; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t line_len = (size_t)((newline != NULL ? newline : end) - line);
        line_number++;
        if (!is_blank(line, line_len)) {
            if (out->n == room) {
                room = room == 0 ? 64 : 2 * room;
                void *grown = realloc(out->requests, room * sizeof *out->requests);
                if (grown == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s", spec->path);
                out->requests = grown;
            }
            struct qd_workload_request *request = &out->requests[out->n++];
            *request = (struct qd_workload_request){0};
            char reason[QD_ERR_LEN];
            qd_status status = read_row(spec, line, line_len, request, reason, sizeof reason);
            if (status != QD_OK)
                return qd_fail(status, err, errlen, "%s: line %zu: %s", spec->path, line_number, reason);
            if (spec->n > 0 && out->n == (size_t)spec->n) return QD_OK;
        }
        line += line_len + 1;
    }
    return QD_OK;
}

qd_status qd_workload_custom(const struct qd_custom_spec *spec, struct qd_workload *out, char *err,
                             size_t errlen)
{
    *out = (struct qd_workload){.ignore_eos = spec->ignore_eos};
    char *text;
    size_t len;
    QD_TRY(qd_file_read(spec->path, MAX_FILE_BYTES, &text, &len, err, errlen));
    qd_status status = read_rows(spec, text, len, out, err, errlen);
    free(text);
    if (status == QD_OK && out->n == 0) status = qd_fail(QD_ERR_INPUT, err, errlen, "%s: no rows", spec->path);
    if (status == QD_OK && out->n < (size_t)spec->n)
        status = qd_fail(QD_ERR_INPUT, err, errlen, "%s: %zu rows, fewer than --num-prompts %" PRId64,
                         spec->path, out->n, spec->n);
    if (status != QD_OK) {
        qd_workload_free(out);
        return status;
    }
    qd_workload_seal(out);
    return QD_OK;
}
