/* Traces: JSONL as Mooncake publishes them, and CSV by the names of its columns. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness/result/csv.h"
#include "harness/workload/build.h"
#include "models/json.h"

/* No model takes longer prompts, and a slip of the pen must not fill the memory. */
enum { MAX_LINE_DEPTH = 4, BLOCK_TOKENS = 512, MAX_TOKENS = 1 << 24 };

/* What a row says of its request. */
struct row {
    double arrival_s; /* on the trace's own clock */
    bool has_arrival;
    int64_t input_len, output_len; /* output_len 0: not said */
    const cJSON *hash_ids;         /* or NULL */
};

struct reader {
    const struct qd_trace_spec *spec;
    struct qd_workload *out;
    double first_s, last_s;
};

/* ---- a row becomes a request ---- */

/* Blocks with the same hash id get the same run of ids; without hash ids the prompt is one run of its own. */
static qd_status fill_prompt(const struct reader *reader, const struct row *row, size_t index,
                             struct qd_workload_request *request, char *err, size_t errlen)
{
    const struct qd_trace_spec *spec = reader->spec;
    request->n_prompt = (int32_t)row->input_len;
    request->prompt = malloc((size_t)row->input_len * sizeof *request->prompt);
    if (request->prompt == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    if (row->hash_ids == NULL) {
        int64_t at = qd_workload_draw(spec->seed, QD_STREAM_OFFSET, index, 0, spec->ids.n - 1);
        qd_workload_fill_run(&spec->ids, at, request->prompt, row->input_len);
        return QD_OK;
    }
    int64_t begin = 0;
    const cJSON *id;
    cJSON_ArrayForEach (id, row->hash_ids) {
        if (!cJSON_IsNumber(id) || id->valuedouble != floor(id->valuedouble) ||
            fabs(id->valuedouble) > 0x1p53)
            return qd_fail(QD_ERR_INPUT, err, errlen, "\"hash_ids\" holds something that is no whole number");
        int64_t left = row->input_len - begin, n = left < BLOCK_TOKENS ? left : BLOCK_TOKENS;
        int64_t at = qd_workload_draw(spec->seed, QD_STREAM_BLOCK, (uint64_t)(int64_t)id->valuedouble, 0,
                                      spec->ids.n - 1);
        if (n <= 0) break;
        qd_workload_fill_run(&spec->ids, at, request->prompt + begin, n);
        begin += n;
    }
    if (begin < row->input_len || id != NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%d hash_ids for an input_length of %lld: one is %d tokens",
                       cJSON_GetArraySize(row->hash_ids), (long long)row->input_len, BLOCK_TOKENS);
    return QD_OK;
}

static qd_status set_arrival(struct reader *reader, const struct row *row,
                             struct qd_workload_request *request, char *err, size_t errlen)
{
    bool is_first = reader->out->n == 1;
    if (is_first) reader->first_s = row->arrival_s;
    if (!is_first && row->arrival_s < reader->last_s)
        return qd_fail(QD_ERR_INPUT, err, errlen, "it arrives %g s before the one above it",
                       reader->last_s - row->arrival_s);
    reader->last_s = row->arrival_s;
    double offset_ns = (row->arrival_s - reader->first_s) / reader->spec->speedup * 1e9;
    if (!(offset_ns < 0x1p62))
        return qd_fail(QD_ERR_INPUT, err, errlen, "it arrives after %g s", offset_ns * 1e-9);
    request->arrival_ns = (int64_t)llround(offset_ns);
    return QD_OK;
}

static qd_status add_request(struct reader *reader, const struct row *row, char *err, size_t errlen)
{
    const struct qd_trace_spec *spec = reader->spec;
    int64_t output_len = spec->output_len > 0 ? spec->output_len : row->output_len;
    if (output_len < 1)
        return qd_fail(QD_ERR_INPUT, err, errlen, "no output tokens, and --output-len is not given");
    struct qd_workload_request *request = qd_workload_append(reader->out);
    if (request == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    request->max_tokens = (int32_t)output_len;
    if (row->has_arrival) QD_TRY(set_arrival(reader, row, request, err, errlen));
    reader->out->has_arrivals = row->has_arrival;
    return fill_prompt(reader, row, reader->out->n - 1, request, err, errlen);
}

static bool has_enough(const struct reader *reader)
{
    return reader->spec->n > 0 && reader->out->n == (size_t)reader->spec->n;
}

/* ---- JSONL ---- */

static qd_status parse_line(const cJSON *object, struct row *row, char *err, size_t errlen)
{
    if (!cJSON_IsObject(object)) return qd_fail(QD_ERR_INPUT, err, errlen, "no JSON object");
    QD_TRY(qd_json_get_number(object, "timestamp", &row->arrival_s, err, errlen));
    QD_TRY(qd_json_get_int(object, "input_length", 1, MAX_TOKENS, &row->input_len, err, errlen));
    QD_TRY(qd_json_get_int(object, "output_length", 0, MAX_TOKENS, &row->output_len, err, errlen));
    row->arrival_s /= 1e3;
    row->has_arrival = true;
    row->hash_ids = cJSON_GetObjectItemCaseSensitive(object, "hash_ids");
    if (row->hash_ids != NULL && !cJSON_IsArray(row->hash_ids))
        return qd_fail(QD_ERR_INPUT, err, errlen, "\"hash_ids\" is no list");
    return QD_OK;
}

static qd_status read_line(void *arg, const char *line, size_t len, bool *stop, char *err, size_t errlen)
{
    struct reader *reader = arg;
    struct qd_json_limits limits = {.max_depth = MAX_LINE_DEPTH};
    struct row row = {0};
    cJSON *object;
    QD_TRY(qd_json_parse(line, len, &limits, &object, err, errlen));
    qd_status status = parse_line(object, &row, err, errlen);
    if (status == QD_ERR_NOT_FOUND) status = QD_ERR_INPUT; /* of a key, not of a file */
    if (status == QD_OK) status = add_request(reader, &row, err, errlen);
    cJSON_Delete(object);
    *stop = has_enough(reader);
    return status;
}

/* ---- CSV ---- */

/* Names of the columns; an empty one is not there. */
struct columns {
    const char *preset;
    const char *arrival, *input, *output;
    const char *only_column, *only_value; /* rows to take, or NULL: all; and only those with output */
};

static const struct columns presets[] = {
    {"vidur", "request_arrived_at", "request_num_prefill_tokens", "request_num_decode_tokens", NULL, NULL},
    {"azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens", NULL, NULL},
    /* vLLM takes the GPT-4 rows that have response tokens. */
    {"burstgpt", "Timestamp", "Request tokens", "Response tokens", "Model", "GPT-4"},
};
enum { N_PRESETS = sizeof presets / sizeof *presets };

static bool has_columns(const struct qd_csv *csv, const struct columns *columns)
{
    return qd_csv_column(csv, columns->arrival) >= 0 && qd_csv_column(csv, columns->input) >= 0 &&
           qd_csv_column(csv, columns->output) >= 0;
}

/* "ARRIVAL,INPUT,OUTPUT" cut in place. */
static bool split_names(char *text, struct columns *out)
{
    char *input = strchr(text, ','), *output = input != NULL ? strchr(input + 1, ',') : NULL;
    if (output == NULL || strchr(output + 1, ',') != NULL || output == input + 1) return false;
    *input = *output = '\0';
    *out = (struct columns){.arrival = text, .input = input + 1, .output = output + 1};
    return true;
}

static qd_status choose_columns(const struct qd_trace_spec *spec, const struct qd_csv *csv, char *names,
                                struct columns *out, char *err, size_t errlen)
{
    bool any = strcmp(spec->columns, "auto") == 0;
    for (int i = 0; i < N_PRESETS; i++) {
        *out = presets[i];
        if (any ? has_columns(csv, out) : strcmp(spec->columns, presets[i].preset) == 0) return QD_OK;
    }
    if (any)
        return qd_fail(
            QD_ERR_INPUT, err, errlen,
            "%s: its columns are none of the known traces': name them (--trace-columns ARRIVAL,INPUT,OUTPUT)",
            csv->name);
    if (!split_names(names, out))
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--trace-columns: \"%s\" is no preset and not ARRIVAL,INPUT,OUTPUT", spec->columns);
    return QD_OK;
}

/* Index of a column, -1 for an empty name. */
static qd_status find_column(const struct qd_csv *csv, const char *name, int *out, char *err, size_t errlen)
{
    *out = name == NULL || name[0] == '\0' ? -1 : qd_csv_column(csv, name);
    if (*out < 0 && name != NULL && name[0] != '\0')
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: no column \"%s\"", csv->name, name);
    return QD_OK;
}

/* Seconds: a number, or a date and time of UTC with any fraction. */
static bool parse_time(const char *text, double *out)
{
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    if (end != text && *end == '\0') return isfinite(*out);
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%d", &tm);
    if (rest == NULL || (*rest != ' ' && *rest != 'T')) return false;
    rest = strptime(rest + 1, "%H:%M:%S", &tm);
    if (rest == NULL) return false;
    double fraction = 0;
    if (*rest == '.') {
        fraction = strtod(rest, &end);
        rest = end;
    }
    if (*rest != '\0' && strcmp(rest, "Z") != 0 && strcmp(rest, "+00:00") != 0) return false;
    *out = (double)timegm(&tm) + fraction;
    return true;
}

static qd_status parse_length(const char *name, const char *text, int64_t least, int64_t *out, char *err,
                              size_t errlen)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || value != floor(value) ||
        !(value >= (double)least && value <= MAX_TOKENS))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: \"%s\" is no number of tokens from %lld to %d", name,
                       text, (long long)least, MAX_TOKENS);
    *out = (int64_t)value;
    return QD_OK;
}

/* Indices of the columns in use, -1 for those that are not. */
struct layout {
    const struct columns *names;
    int arrival, input, output, only;
};

/* *taken is false for a row that the preset leaves out. */
static qd_status parse_csv_row(const struct qd_csv *csv, size_t r, const struct layout *layout,
                               struct row *row, bool *taken, char *err, size_t errlen)
{
    *row = (struct row){.has_arrival = layout->arrival >= 0};
    *taken = layout->only < 0 ||
             strcmp(qd_csv_field(csv, r, (size_t)layout->only), layout->names->only_value) == 0;
    if (!*taken) return QD_OK;
    QD_TRY(parse_length(layout->names->input, qd_csv_field(csv, r, (size_t)layout->input), 1, &row->input_len,
                        err, errlen));
    if (layout->output >= 0)
        QD_TRY(parse_length(layout->names->output, qd_csv_field(csv, r, (size_t)layout->output), 0,
                            &row->output_len, err, errlen));
    *taken = layout->only < 0 || row->output_len > 0;
    if (layout->arrival >= 0 && !parse_time(qd_csv_field(csv, r, (size_t)layout->arrival), &row->arrival_s))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: \"%s\" is neither seconds nor a date and time",
                       layout->names->arrival, qd_csv_field(csv, r, (size_t)layout->arrival));
    return QD_OK;
}

static qd_status read_rows(struct reader *reader, const struct qd_csv *csv, const struct columns *columns,
                           char *err, size_t errlen)
{
    struct layout layout = {.names = columns};
    QD_TRY(find_column(csv, columns->arrival, &layout.arrival, err, errlen));
    QD_TRY(find_column(csv, columns->input, &layout.input, err, errlen));
    QD_TRY(find_column(csv, columns->output, &layout.output, err, errlen));
    QD_TRY(find_column(csv, columns->only_column, &layout.only, err, errlen));
    for (size_t r = 0; r < csv->n_rows && !has_enough(reader); r++) {
        char reason[QD_ERR_LEN] = "";
        struct row row;
        bool taken;
        qd_status status = parse_csv_row(csv, r, &layout, &row, &taken, reason, sizeof reason);
        if (status == QD_OK && taken) status = add_request(reader, &row, reason, sizeof reason);
        if (status != QD_OK)
            return qd_fail(status, err, errlen, "%s: line %zu: %s", csv->name, csv->lines[r + 1], reason);
    }
    return QD_OK;
}

static qd_status read_csv(struct reader *reader, const char *text, size_t len, char *err, size_t errlen)
{
    struct qd_csv csv = {0};
    struct columns columns;
    char *names = strdup(reader->spec->columns); /* `columns` may point into it */
    qd_status status = names != NULL ? QD_OK : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "out of memory");
    if (status == QD_OK) status = qd_csv_parse(reader->spec->path, text, len, &csv, err, errlen);
    if (status == QD_OK) status = choose_columns(reader->spec, &csv, names, &columns, err, errlen);
    if (status == QD_OK) status = read_rows(reader, &csv, &columns, err, errlen);
    qd_csv_free(&csv);
    free(names);
    return status;
}

qd_status qd_workload_trace_parse(const struct qd_trace_spec *spec, const char *text, size_t len,
                                  struct qd_workload *out, char *err, size_t errlen)
{
    *out = (struct qd_workload){.ignore_eos = true}; /* the trace says how long outputs are */
    if (!(spec->speedup > 0) || spec->ids.n < 1)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a speedup of %g over %d ids", spec->speedup,
                       spec->ids.n);
    struct reader reader = {.spec = spec, .out = out};
    size_t begin = 0;
    while (begin < len && strchr(" \t\r\n", text[begin]) != NULL) begin++;
    bool is_json = begin < len && text[begin] == '{';
    qd_status status = is_json ? qd_workload_each_line(spec->path, text, len, read_line, &reader, err, errlen)
                               : read_csv(&reader, text, len, err, errlen);
    return qd_workload_finish(spec->path, spec->n, status, out, err, errlen);
}

qd_status qd_workload_trace(const struct qd_trace_spec *spec, struct qd_workload *out, char *err,
                            size_t errlen)
{
    *out = (struct qd_workload){0};
    char *text;
    size_t len;
    QD_TRY(qd_file_read(spec->path, QD_WORKLOAD_MAX_BYTES, &text, &len, err, errlen));
    qd_status status = qd_workload_trace_parse(spec, text, len, out, err, errlen);
    free(text);
    return status;
}
