/* Recorded steps: a file of what the groups of a run were given and what they sampled, to be executed again
 * without a scheduler.
 *
 *     header, then per step: record, the step's used bytes, its sampled ids (int32), padded with zeros to 8
 * bytes
 *
 * Records of a replica come in the order of its steps; those of several replicas mix, in the order in which
 * steps ended.
 * In the byte order of the machine that wrote it; a reader trusts nothing.
 */
#ifndef QD_KERNELS_STEP_FILE_H
#define QD_KERNELS_STEP_FILE_H

#include <stdio.h>

#include "kernels/step.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    QD_STEP_FILE_MAGIC = 0x46545351,   /* "QSTF" */
    QD_STEP_RECORD_MAGIC = 0x52545351, /* "QSTR" */
    QD_STEP_FILE_VERSION = 2,
    QD_STEP_FILE_MAX_REPLICAS = 64,
};

/* What every replica's group must have room for to execute its steps. */
struct qd_step_file_header {
    uint32_t magic, version;
    struct qd_step_limits limits;
    int32_t max_model_len; /* longest kv_len */
    int32_t n_kv_blocks;   /* pages, the null page included */
    int32_t vocab_size;
    int32_t n_replicas; /* 1 .. QD_STEP_FILE_MAX_REPLICAS */
};

enum qd_step_record_flags {
    QD_STEP_RECORD_MEASURED = 1, /* else of the warm-up, which leaves keys and values behind */
};

struct qd_step_record {
    uint32_t magic, flags; /* enum qd_step_record_flags */
    uint64_t step_bytes;
    int64_t span_ns;   /* on rank 0; 0: not known */
    int32_t n_ids;     /* one a logit row */
    int32_t replica;   /* whose step it was */
};

/* Both write to a stream whose error flag tells whether they could; magics, versions and sizes are filled in.
 * Threads may write steps to one stream at the same time. */
void qd_step_file_write_header(FILE *stream, const struct qd_step_file_header *header);
void qd_step_file_write(FILE *stream, int replica, const struct qd_step *step, const int32_t *ids,
                        int64_t span_ns, uint32_t flags);

/* A file in memory; zero-initialise. */
struct qd_step_file {
    const char *path;    /* borrowed, for errors */
    unsigned char *data; /* [n_bytes] owned, 8-byte aligned */
    size_t n_bytes, at;  /* at: of the next record */
    uint64_t n_read;     /* records */
    struct qd_step_file_header header;
};

/* One record in the file's memory. */
struct qd_recorded_step {
    const struct qd_step *step; /* NULL: there are no more */
    const int32_t *ids;         /* [n_ids] */
    int32_t n_ids;
    int32_t replica;
    int64_t span_ns;
    bool is_measured;
};

/* Reads `path` and checks its header. QD_ERR_NOT_FOUND, QD_ERR_IO, QD_ERR_NO_MEMORY; QD_ERR_INPUT names file,
 * field and reason. */
qd_status qd_step_file_open(const char *path, struct qd_step_file *out, char *err, size_t errlen);
/* The same for bytes that are copied; `path` only names them in errors. */
qd_status qd_step_file_parse(const char *path, const void *data, size_t n_bytes, struct qd_step_file *out,
                             char *err, size_t errlen);
void qd_step_file_close(struct qd_step_file *file);

/* The next record, checked against the header (qd_step_validate, and every count and length), or an empty one
 * at the end. QD_ERR_INPUT names file, record, field and reason. */
qd_status qd_step_file_next(struct qd_step_file *file, struct qd_recorded_step *out, char *err,
                            size_t errlen);
/* Back to the first record. */
void qd_step_file_rewind(struct qd_step_file *file);

#ifdef __cplusplus
}
#endif

#endif
