#include "harness/workload/workload.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "harness/workload/build.h"
#include "kernels/base/hash.h"
#include "kernels/base/random.h"
#include "models/json.h"

int64_t qd_workload_draw(uint64_t seed, enum qd_workload_stream stream, uint64_t i, int64_t low, int64_t high)
{
    struct qd_philox_block block = qd_philox(seed, (uint64_t)stream, i);
    uint64_t word = (uint64_t)block.word[0] << 32 | block.word[1];
    uint64_t span = (uint64_t)(high - low) + 1;
    return low + (int64_t)(word % span);
}

void qd_workload_fill_run(const struct qd_id_set *ids, int64_t offset, int32_t *out, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        int64_t at = (offset + j) % ids->n;
        out[j] = ids->allowed != NULL ? ids->allowed[at] : (int32_t)at;
    }
}

struct qd_workload_request *qd_workload_append(struct qd_workload *workload)
{
    if (workload->n == workload->room) {
        size_t room = workload->room == 0 ? 64 : 2 * workload->room;
        void *grown = realloc(workload->requests, room * sizeof *workload->requests);
        if (grown == NULL) return NULL;
        workload->requests = grown;
        workload->room = room;
    }
    struct qd_workload_request *request = &workload->requests[workload->n++];
    *request = (struct qd_workload_request){0};
    return request;
}

/* The text need not end in a zero. */
static bool is_blank(const char *line, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    return true;
}

qd_status qd_workload_each_line(const char *path, const char *text, size_t len, qd_workload_line read,
                                void *arg, char *err, size_t errlen)
{
    size_t number = 0;
    bool stop = false;
    for (const char *line = text, *end = text + len; line < end && !stop;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t line_len = (size_t)((newline != NULL ? newline : end) - line);
        char reason[QD_ERR_LEN] = "";
        number++;
        qd_status status = QD_OK;
        if (!is_blank(line, line_len))
            status = read(arg, line, line_len, &stop, reason, sizeof reason);
        if (status != QD_OK) return qd_fail(status, err, errlen, "%s: line %zu: %s", path, number, reason);
        line += line_len + 1;
    }
    return QD_OK;
}

qd_status qd_workload_each_line_of_file(const char *path, qd_workload_line read, void *arg, char *err,
                                        size_t errlen)
{
    char *text;
    size_t len;
    QD_TRY(qd_file_read(path, QD_WORKLOAD_MAX_BYTES, &text, &len, err, errlen));
    qd_status status = qd_workload_each_line(path, text, len, read, arg, err, errlen);
    free(text);
    return status;
}

qd_status qd_workload_encode(const qd_tokenizer_t *tokenizer, const char *what, const char *text, size_t len,
                             struct qd_workload_request *request, char *err, size_t errlen)
{
    size_t n_ids;
    QD_TRY(qd_tokenizer_encode(tokenizer, text, len, &request->prompt, &n_ids, err, errlen));
    if (n_ids == 0 || n_ids > INT32_MAX)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s has %zu tokens", what, n_ids);
    request->n_prompt = (int32_t)n_ids;
    return QD_OK;
}

qd_status qd_workload_finish(const char *path, int64_t n, qd_status status, struct qd_workload *out,
                             char *err, size_t errlen)
{
    if (status == QD_OK && out->n == 0) status = qd_fail(QD_ERR_INPUT, err, errlen, "%s: no requests", path);
    if (status == QD_OK && out->n < (size_t)n)
        status = qd_fail(QD_ERR_INPUT, err, errlen, "%s: %zu requests, fewer than --num-prompts %" PRId64,
                         path, out->n, n);
    if (status != QD_OK) {
        qd_workload_free(out);
        return status;
    }
    qd_workload_seal(out);
    return QD_OK;
}

void qd_workload_seal(struct qd_workload *workload)
{
    uint64_t hash = QD_HASH_START;
    for (size_t i = 0; i < workload->n; i++) {
        const struct qd_workload_request *request = &workload->requests[i];
        hash = qd_hash(hash, &request->n_prompt, sizeof request->n_prompt);
        hash = qd_hash(hash, &request->max_tokens, sizeof request->max_tokens);
        hash = qd_hash(hash, request->prompt, (size_t)request->n_prompt * sizeof *request->prompt);
        if (workload->has_arrivals) hash = qd_hash(hash, &request->arrival_ns, sizeof request->arrival_ns);
    }
    workload->hash = qd_hash(hash, &workload->ignore_eos, sizeof workload->ignore_eos);
}

void qd_workload_free(struct qd_workload *workload)
{
    for (size_t i = 0; i < workload->n; i++) free(workload->requests[i].prompt);
    free(workload->requests);
    *workload = (struct qd_workload){0};
}

qd_status qd_records_create(const struct qd_workload *workload, struct qd_request_record **out, char *err,
                            size_t errlen)
{
    struct qd_request_record *records = calloc(workload->n > 0 ? workload->n : 1, sizeof *records);
    if (records == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu request records", workload->n);
    for (size_t i = 0; i < workload->n; i++) {
        size_t room = (size_t)workload->requests[i].max_tokens;
        records[i] = (struct qd_request_record){
            .prompt_len = workload->requests[i].n_prompt,
            .max_tokens = workload->requests[i].max_tokens,
            .finish = "none",
            .token_ns = calloc(room, sizeof(int64_t)),
        };
        if (records[i].token_ns == NULL) {
            qd_records_free(records, i);
            return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "token times of request %zu", i);
        }
    }
    *out = records;
    return QD_OK;
}

void qd_records_free(struct qd_request_record *records, size_t n)
{
    if (records == NULL) return;
    for (size_t i = 0; i < n; i++) {
        free(records[i].token_ns);
        free((char *)(uintptr_t)records[i].error);
    }
    free(records);
}
