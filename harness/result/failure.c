#include "harness/result/failure.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "harness/result/files.h"
#include "harness/result/json_put.h"
#include "harness/result/matrix.h"
#include "harness/result/schema.h"
#include "models/json.h"

enum { MAX_BYTES = 1 << 20 };

static const char *const KIND_NAMES[] = {"refused", "crashed", "timeout"};

const char *qd_failure_kind_name(enum qd_failure_kind kind)
{
    return KIND_NAMES[kind];
}

void qd_failure_set_lines(struct qd_failure *failure, const char *text, size_t len)
{
    while (len > 0 && text[len - 1] == '\n')
        len--;
    size_t begin = len;
    for (int n = 0; begin > 0; begin--)
        if (text[begin - 1] == '\n' && ++n == QD_FAILURE_LINES) break;
    failure->n_lines = 0;
    while (begin < len && failure->n_lines < QD_FAILURE_LINES) {
        const char *end = memchr(text + begin, '\n', len - begin);
        size_t line_len = end != NULL ? (size_t)(end - text) - begin : len - begin;
        int shown = line_len < QD_FAILURE_LINE_LEN ? (int)line_len : QD_FAILURE_LINE_LEN - 1;
        snprintf(failure->lines[failure->n_lines++], QD_FAILURE_LINE_LEN, "%.*s", shown, text + begin);
        begin += line_len + 1;
    }
}

static void put_or_null(cJSON *o, const char *key, int64_t value, bool known, bool *ok)
{
    if (known)
        qd_json_put_int(o, key, value, ok);
    else
        qd_json_put_null(o, key, ok);
}

static cJSON *to_json(const struct qd_failure *f)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o != NULL;
    qd_json_put_int(o, "schema_version", QD_RESULT_SCHEMA_VERSION, &ok);
    qd_json_put_text(o, "status", qd_failure_kind_name(f->kind), &ok);
    qd_json_put_int(o, "tensor_parallel_size", f->tp, &ok);
    qd_json_put_int(o, "data_parallel_size", f->dp, &ok);
    qd_json_put_int(o, "max_num_batched_tokens", f->budget, &ok);
    qd_json_put_text(o, "variant", f->variant[0] != '\0' ? f->variant : NULL, &ok);
    put_or_null(o, "run_number", f->run_number, f->run_number >= 0, &ok);
    qd_json_put_text(o, "phase", f->phase, &ok);
    put_or_null(o, "exit_code", f->exit_code, f->exit_code >= 0, &ok);
    put_or_null(o, "signal", f->signal, f->signal > 0, &ok);
    put_or_null(o, "needed_bytes", f->needed_bytes, f->needed_bytes >= 0, &ok);
    put_or_null(o, "available_bytes", f->available_bytes, f->available_bytes >= 0, &ok);
    qd_json_put_text(o, "reason", f->reason, &ok);
    cJSON *lines = qd_json_put_array(o, "last_lines", &ok);
    for (int i = 0; i < f->n_lines; i++)
        qd_json_append_text(lines, f->lines[i], &ok);
    if (ok) return o;
    cJSON_Delete(o);
    return NULL;
}

qd_status qd_failure_write(const struct qd_failure *failure, const char *path, char *err, size_t errlen)
{
    cJSON *o = to_json(failure);
    if (o == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: out of memory", path);
    qd_status st = qd_file_write_json(path, o, err, errlen);
    cJSON_Delete(o);
    return st;
}

/* An integer member that may be null or absent: *out keeps its value then. */
static qd_status get_optional_int(const cJSON *o, const char *key, int64_t max, int64_t *out, char *err,
                                  size_t errlen)
{
    qd_status st = qd_json_get_int(o, key, 0, max, out, err, errlen);
    return st == QD_ERR_NOT_FOUND ? QD_OK : st;
}

static qd_status read_kind(const cJSON *o, enum qd_failure_kind *kind, char *err, size_t errlen)
{
    const char *status;
    QD_TRY(qd_json_get_string(o, "status", &status, err, errlen));
    for (int i = 0; i < 3; i++) {
        if (strcmp(status, KIND_NAMES[i]) != 0) continue;
        *kind = (enum qd_failure_kind)i;
        return QD_OK;
    }
    return qd_fail(QD_ERR_INPUT, err, errlen, "status: '%s' is not refused, crashed or timeout", status);
}

static qd_status read_lines(const cJSON *o, struct qd_failure *f, char *err, size_t errlen)
{
    const cJSON *lines = cJSON_GetObjectItemCaseSensitive(o, "last_lines"), *line;
    if (lines != NULL && !cJSON_IsArray(lines))
        return qd_fail(QD_ERR_INPUT, err, errlen, "last_lines: is not an array");
    cJSON_ArrayForEach (line, lines) {
        if (!cJSON_IsString(line))
            return qd_fail(QD_ERR_INPUT, err, errlen, "last_lines: holds something that is not text");
        if (f->n_lines < QD_FAILURE_LINES)
            snprintf(f->lines[f->n_lines++], QD_FAILURE_LINE_LEN, "%s", line->valuestring);
    }
    return QD_OK;
}

static qd_status from_json(const cJSON *o, struct qd_failure *f, char *err, size_t errlen)
{
    int64_t run_number = -1, exit_code = -1, signal = 0;
    QD_TRY(qd_schema_check(o, err, errlen));
    QD_TRY(read_kind(o, &f->kind, err, errlen));
    QD_TRY(qd_json_get_int(o, "tensor_parallel_size", 1, QD_MAX_PARALLEL, &f->tp, err, errlen));
    QD_TRY(qd_json_get_int(o, "data_parallel_size", 1, QD_MAX_PARALLEL, &f->dp, err, errlen));
    QD_TRY(qd_json_get_int(o, "max_num_batched_tokens", 1, QD_MAX_BUDGET, &f->budget, err, errlen));
    QD_TRY(get_optional_int(o, "run_number", INT_MAX, &run_number, err, errlen));
    QD_TRY(get_optional_int(o, "exit_code", INT_MAX, &exit_code, err, errlen));
    QD_TRY(get_optional_int(o, "signal", INT_MAX, &signal, err, errlen));
    QD_TRY(get_optional_int(o, "needed_bytes", INT64_C(1) << 53, &f->needed_bytes, err, errlen));
    QD_TRY(get_optional_int(o, "available_bytes", INT64_C(1) << 53, &f->available_bytes, err, errlen));
    f->run_number = (int)run_number;
    f->exit_code = (int)exit_code;
    f->signal = (int)signal;
    const char *text;
    QD_TRY(qd_variant_get(o, &text, err, errlen));
    snprintf(f->variant, sizeof f->variant, "%s", text);
    QD_TRY(qd_json_get_string(o, "phase", &text, err, errlen));
    snprintf(f->phase, sizeof f->phase, "%s", text);
    QD_TRY(qd_json_get_string(o, "reason", &text, err, errlen));
    snprintf(f->reason, sizeof f->reason, "%s", text);
    return read_lines(o, f, err, errlen);
}

qd_status qd_failure_read(const char *path, struct qd_failure *failure, char *err, size_t errlen)
{
    cJSON *o = NULL;
    char detail[QD_ERR_LEN] = "";
    *failure = (struct qd_failure){.needed_bytes = -1, .available_bytes = -1};
    QD_TRY(qd_json_read_file(path, MAX_BYTES, &o, err, errlen));
    qd_status st = from_json(o, failure, detail, sizeof detail);
    cJSON_Delete(o);
    return qd_fail_in_file(st, path, detail, err, errlen);
}
