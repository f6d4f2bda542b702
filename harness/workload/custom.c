#include <stdlib.h>

#include "harness/workload/build.h"
#include "harness/workload/workload.h"
#include "models/json.h"

enum { MAX_LINE_DEPTH = 16 };

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
    size_t len;
    QD_TRY(qd_json_text(prompt, &text, &len));
    qd_status status = qd_workload_encode(spec->tokenizer, "\"prompt\"", text, len, request, err, errlen);
    free(text);
    return status;
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

struct reader {
    const struct qd_custom_spec *spec;
    struct qd_workload *out;
};

static qd_status read_line(void *arg, const char *line, size_t len, bool *stop, char *err, size_t errlen)
{
    struct reader *reader = arg;
    struct qd_workload_request *request = qd_workload_append(reader->out);
    if (request == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    *stop = reader->spec->n > 0 && reader->out->n == (size_t)reader->spec->n;
    return read_row(reader->spec, line, len, request, err, errlen);
}

qd_status qd_workload_custom(const struct qd_custom_spec *spec, struct qd_workload *out, char *err,
                             size_t errlen)
{
    *out = (struct qd_workload){.ignore_eos = spec->ignore_eos};
    struct reader reader = {spec, out};
    qd_status status = qd_workload_each_line_of_file(spec->path, read_line, &reader, err, errlen);
    return qd_workload_finish(spec->path, spec->n, status, out, err, errlen);
}
