#include "kernels/step_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

enum { ALIGN = 8 };

void qd_step_file_write_header(FILE *stream, const struct qd_step_file_header *header)
{
    struct qd_step_file_header out = *header;
    out.magic = QD_STEP_FILE_MAGIC;
    out.version = QD_STEP_FILE_VERSION;
    fwrite(&out, sizeof out, 1, stream);
}

static void write_padded(FILE *stream, const void *data, size_t n_bytes)
{
    static const unsigned char zeros[ALIGN];
    fwrite(data, 1, n_bytes, stream);
    fwrite(zeros, 1, qd_round_up(n_bytes, ALIGN) - n_bytes, stream);
}

void qd_step_file_write(FILE *stream, int replica, const struct qd_step *step, const int32_t *ids,
                        int64_t span_ns, uint32_t flags)
{
    const struct qd_step_record record = {.magic = QD_STEP_RECORD_MAGIC,
                                          .flags = flags,
                                          .step_bytes = step->used_bytes,
                                          .span_ns = span_ns,
                                          .n_ids = step->n_logit_rows,
                                          .replica = replica};
    flockfile(stream);
    fwrite(&record, sizeof record, 1, stream);
    write_padded(stream, step, step->used_bytes);
    write_padded(stream, ids, (size_t)record.n_ids * sizeof *ids);
    funlockfile(stream);
}

/* ---- reading ---- */

static qd_status check_header(struct qd_step_file *file, char *err, size_t errlen)
{
    struct qd_step_file_header *h = &file->header;
    if (file->n_bytes < sizeof *h)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %zu bytes are no file of steps", file->path,
                       file->n_bytes);
    memcpy(h, file->data, sizeof *h);
    if (h->magic != QD_STEP_FILE_MAGIC)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: magic: %#x: this is no file of steps", file->path,
                       h->magic);
    if (h->version != QD_STEP_FILE_VERSION)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: version: %u, expected %d", file->path, h->version,
                       QD_STEP_FILE_VERSION);
    const struct {
        const char *name;
        int32_t value, least;
    } fields[] = {
        {"max_tokens", h->limits.max_tokens, 1}, {"max_seqs", h->limits.max_seqs, 1},
        {"max_blocks", h->limits.max_blocks, 1}, {"max_logit_rows", h->limits.max_logit_rows, 1},
        {"max_model_len", h->max_model_len, 2},  {"n_kv_blocks", h->n_kv_blocks, 2},
        {"vocab_size", h->vocab_size, 1},        {"n_replicas", h->n_replicas, 1},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value < fields[i].least)
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %s: %d", file->path, fields[i].name,
                           fields[i].value);
    if (h->n_replicas > QD_STEP_FILE_MAX_REPLICAS)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: n_replicas: %d, at most %d", file->path, h->n_replicas,
                       QD_STEP_FILE_MAX_REPLICAS);
    qd_step_file_rewind(file);
    return QD_OK;
}

void qd_step_file_rewind(struct qd_step_file *file)
{
    file->at = qd_round_up(sizeof file->header, ALIGN);
    file->n_read = 0;
}

qd_status qd_step_file_parse(const char *path, const void *data, size_t n_bytes, struct qd_step_file *out,
                             char *err, size_t errlen)
{
    *out = (struct qd_step_file){.path = path, .n_bytes = n_bytes, .data = malloc(n_bytes + 1)};
    if (out->data == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: no memory for %zu bytes", path, n_bytes);
    if (n_bytes > 0) memcpy(out->data, data, n_bytes);
    qd_status st = check_header(out, err, errlen);
    if (st != QD_OK) qd_step_file_close(out);
    return st;
}

static qd_status read_stream(FILE *stream, struct qd_step_file *out, char *err, size_t errlen)
{
    long n_bytes = fseek(stream, 0, SEEK_END) == 0 ? ftell(stream) : -1;
    if (n_bytes < 0 || fseek(stream, 0, SEEK_SET) != 0)
        return qd_fail(QD_ERR_IO, err, errlen, "%s: %s", out->path, strerror(errno));
    out->n_bytes = (size_t)n_bytes;
    out->data = malloc(out->n_bytes + 1);
    if (out->data == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: no memory for %ld bytes", out->path, n_bytes);
    if (fread(out->data, 1, out->n_bytes, stream) != out->n_bytes)
        return qd_fail(QD_ERR_IO, err, errlen, "%s: cannot be read", out->path);
    return QD_OK;
}

qd_status qd_step_file_open(const char *path, struct qd_step_file *out, char *err, size_t errlen)
{
    *out = (struct qd_step_file){.path = path};
    FILE *stream = fopen(path, "rb");
    if (stream == NULL)
        return qd_fail(errno == ENOENT ? QD_ERR_NOT_FOUND : QD_ERR_IO, err, errlen, "%s: %s", path,
                       strerror(errno));
    qd_status st = read_stream(stream, out, err, errlen);
    fclose(stream);
    if (st == QD_OK) st = check_header(out, err, errlen);
    if (st != QD_OK) qd_step_file_close(out);
    return st;
}

void qd_step_file_close(struct qd_step_file *file)
{
    free(file->data);
    *file = (struct qd_step_file){0};
}

static qd_status bad_record(const struct qd_step_file *file, const char *reason, char *err, size_t errlen)
{
    return qd_fail(QD_ERR_INPUT, err, errlen, "%s: record %llu: %s", file->path,
                   (unsigned long long)file->n_read, reason);
}

/* Bytes from `at` on, without their padding, or NULL when the file ends before; *at moves behind the padding.
 */
static const void *take(const struct qd_step_file *file, size_t *at, uint64_t n_bytes)
{
    size_t left = file->n_bytes - *at;
    if (n_bytes > left || qd_round_up((size_t)n_bytes, ALIGN) > left) return NULL;
    const void *bytes = file->data + *at;
    *at += qd_round_up((size_t)n_bytes, ALIGN);
    return bytes;
}

/* What qd_step_validate leaves to limits that it does not know. */
static const char *find_excess(const struct qd_step_file *file, const struct qd_step *step)
{
    const struct qd_step_file_header *h = &file->header;
    if (step->n_tokens < 1) return "n_tokens: the step is empty";
    if (step->n_tokens > h->limits.max_tokens) return "n_tokens: more than max_tokens";
    if (step->n_seqs > h->limits.max_seqs) return "n_seqs: more than max_seqs";
    if (step->n_logit_rows > h->limits.max_logit_rows) return "n_logit_rows: more than max_logit_rows";
    if (qd_step_block_offset(step)[step->n_seqs] > h->limits.max_blocks)
        return "block_table: more than max_blocks";
    if (step->flags != 0) return "flags: logits are not recorded";
    for (int32_t s = 0; s < step->n_seqs; s++)
        if (qd_step_kv_len(step)[s] > h->max_model_len) return "kv_len: more than max_model_len";
    return NULL;
}

static qd_status check_step(const struct qd_step_file *file, const struct qd_step *step, uint64_t n_bytes,
                            char *err, size_t errlen)
{
    char reason[QD_ERR_LEN];
    const struct qd_step_file_header *h = &file->header;
    if (qd_step_validate(step, (size_t)n_bytes, h->n_kv_blocks, h->vocab_size, h->limits.max_seqs, reason,
                         sizeof reason) != QD_OK)
        return bad_record(file, reason, err, errlen);
    if (step->used_bytes != n_bytes)
        return bad_record(file, "step_bytes: not those of the step", err, errlen);
    const char *excess = find_excess(file, step);
    return excess != NULL ? bad_record(file, excess, err, errlen) : QD_OK;
}

static qd_status check_ids(const struct qd_step_file *file, const struct qd_recorded_step *r, char *err,
                           size_t errlen)
{
    if (r->n_ids != r->step->n_logit_rows) return bad_record(file, "n_ids: not one a logit row", err, errlen);
    for (int32_t i = 0; i < r->n_ids; i++)
        if (r->ids[i] < 0 || r->ids[i] >= file->header.vocab_size)
            return bad_record(file, "ids: outside the vocabulary", err, errlen);
    return QD_OK;
}

qd_status qd_step_file_next(struct qd_step_file *file, struct qd_recorded_step *out, char *err, size_t errlen)
{
    *out = (struct qd_recorded_step){0};
    if (file->at == file->n_bytes) return QD_OK;
    size_t at = file->at;
    const struct qd_step_record *record = take(file, &at, sizeof *record);
    if (record == NULL) return bad_record(file, "the file ends in it", err, errlen);
    if (record->magic != QD_STEP_RECORD_MAGIC)
        return bad_record(file, "magic: this is no record", err, errlen);
    if ((record->flags & ~(uint32_t)QD_STEP_RECORD_MEASURED) != 0)
        return bad_record(file, "flags: unknown", err, errlen);
    if (record->replica < 0 || record->replica >= file->header.n_replicas)
        return bad_record(file, "replica: not one of n_replicas", err, errlen);
    if (record->n_ids < 0) return bad_record(file, "n_ids: negative", err, errlen);
    if (record->span_ns < 0) return bad_record(file, "span_ns: negative", err, errlen);
    const struct qd_step *step = take(file, &at, record->step_bytes);
    const int32_t *ids = step != NULL ? take(file, &at, (uint64_t)record->n_ids * sizeof *ids) : NULL;
    if (ids == NULL) return bad_record(file, "the file ends in it", err, errlen);
    struct qd_recorded_step found = {.step = step,
                                     .ids = ids,
                                     .n_ids = record->n_ids,
                                     .replica = record->replica,
                                     .span_ns = record->span_ns,
                                     .is_measured = (record->flags & QD_STEP_RECORD_MEASURED) != 0};
    QD_TRY(check_step(file, step, record->step_bytes, err, errlen));
    QD_TRY(check_ids(file, &found, err, errlen));
    file->at = at;
    file->n_read++;
    *out = found;
    return QD_OK;
}
