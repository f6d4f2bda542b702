/* Shared by the builders of this room; not for others. */
#ifndef QD_HARNESS_WORKLOAD_BUILD_H
#define QD_HARNESS_WORKLOAD_BUILD_H

#include "harness/workload/workload.h"

/* Larger data sets are refused. */
enum { QD_WORKLOAD_MAX_BYTES = 1 << 30 };

/* The draws of a workload use separate streams of the counter, so that changing one distribution leaves the
 * others alone. */
enum qd_workload_stream {
    QD_STREAM_INPUT,
    QD_STREAM_OUTPUT,
    QD_STREAM_OFFSET,
    QD_STREAM_PREFIX,
    QD_STREAM_ARRIVAL,
    QD_STREAM_BLOCK,
    QD_STREAM_SHUFFLE,
};

/* Uniform integer in [low, high], from a 64-bit draw (bias below 2^-32 for our ranges). */
int64_t qd_workload_draw(uint64_t seed, enum qd_workload_stream stream, uint64_t i, int64_t low,
                         int64_t high);

/* out[j] = the (offset + j)-th id of those to use, wrapping: vLLM's arithmetic runs. */
void qd_workload_fill_run(const struct qd_id_set *ids, int64_t offset, int32_t *out, int64_t n);

/* A zeroed request at the end of the list, which grows by doubling; NULL: no memory. */
struct qd_workload_request *qd_workload_append(struct qd_workload *workload);

/* Hands the lines of a text that are not blank to `read`, until it sets *stop. err names file and line. */
typedef qd_status (*qd_workload_line)(void *arg, const char *line, size_t len, bool *stop, char *err,
                                      size_t errlen);
qd_status qd_workload_each_line(const char *path, const char *text, size_t len, qd_workload_line read,
                                void *arg, char *err, size_t errlen);

/* The same of a whole file, of at most QD_WORKLOAD_MAX_BYTES. */
qd_status qd_workload_each_line_of_file(const char *path, qd_workload_line read, void *arg, char *err,
                                        size_t errlen);

/* Encodes text[0..len) as the request's prompt. `what` names it in QD_ERR_INPUT: no tokens, or too many. */
qd_status qd_workload_encode(const qd_tokenizer_t *tokenizer, const char *what, const char *text, size_t len,
                             struct qd_workload_request *request, char *err, size_t errlen);

/* The end of every builder that reads a file: what `status` left is freed, a file without requests and one
 * with fewer than n (0: any number) are refused, and the hash is computed. */
qd_status qd_workload_finish(const char *path, int64_t n, qd_status status, struct qd_workload *out,
                             char *err, size_t errlen);

/* Computes the hash of a finished workload; also after arrivals were changed. */
void qd_workload_seal(struct qd_workload *workload);

#endif
