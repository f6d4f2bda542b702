#include "harness/workload/recorded_steps.h"

#include <inttypes.h>
#include <stdlib.h>

#include "harness/workload/build.h"
#include "models/json.h"

/* Whole numbers that JSON holds exactly; sums of three stay far from overflow. */
static const int64_t MAX_NS = INT64_C(1) << 53;

struct steps_of_one {
    int64_t *ns; /* [room] */
    uint64_t n, room;
    int64_t end_ns; /* of the last step */
};

struct reader {
    struct steps_of_one *replicas; /* [dp] */
    int dp;
};

static qd_status append(struct steps_of_one *steps, int64_t ns)
{
    if (steps->n == steps->room) {
        uint64_t room = steps->room > 0 ? 2 * steps->room : 256;
        int64_t *grown = realloc(steps->ns, room * sizeof *grown);
        if (grown == NULL) return QD_ERR_NO_MEMORY;
        steps->ns = grown;
        steps->room = room;
    }
    steps->ns[steps->n++] = ns;
    return QD_OK;
}

/* When the step began and ended for its replica, by whichever clock its run had. */
static qd_status read_times(const cJSON *row, struct steps_of_one *steps, int64_t *begin_ns, int64_t *end_ns,
                            char *err, size_t errlen)
{
    int64_t wait_begin_ns, wait_ns, output_ns;
    const cJSON *virtual_begin = cJSON_GetObjectItemCaseSensitive(row, "virtual_begin_ns");
    if (virtual_begin != NULL && !cJSON_IsNull(virtual_begin)) {
        QD_TRY(qd_json_get_int(row, "virtual_begin_ns", -MAX_NS, MAX_NS, begin_ns, err, errlen));
        return qd_json_get_int(row, "virtual_end_ns", -MAX_NS, MAX_NS, end_ns, err, errlen);
    }
    QD_TRY(qd_json_get_int(row, "begin_ns", -MAX_NS, MAX_NS, begin_ns, err, errlen));
    QD_TRY(qd_json_get_int(row, "wait_begin_ns", -MAX_NS, MAX_NS, &wait_begin_ns, err, errlen));
    QD_TRY(qd_json_get_int(row, "wait_ns", 0, MAX_NS, &wait_ns, err, errlen));
    QD_TRY(qd_json_get_int(row, "output_ns", 0, MAX_NS, &output_ns, err, errlen));
    *end_ns = wait_begin_ns + wait_ns + output_ns;
    if (steps->n > 0 && steps->end_ns > *begin_ns) *begin_ns = steps->end_ns;
    return QD_OK;
}

static qd_status read_row(struct reader *reader, const cJSON *row, char *err, size_t errlen)
{
    int64_t replica, index, begin_ns, end_ns;
    QD_TRY(qd_json_get_int(row, "replica", 0, MAX_NS, &replica, err, errlen));
    if (replica >= reader->dp)
        return qd_fail(QD_ERR_INPUT, err, errlen, "replica: %" PRId64 ", but the run has %d", replica,
                       reader->dp);
    struct steps_of_one *steps = &reader->replicas[replica];
    QD_TRY(qd_json_get_int(row, "index", 0, MAX_NS, &index, err, errlen));
    if ((uint64_t)index != steps->n)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "index: %" PRId64 ", expected %" PRIu64 " of replica %" PRId64, index, steps->n,
                       replica);
    QD_TRY(read_times(row, steps, &begin_ns, &end_ns, err, errlen));
    if (end_ns < begin_ns)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "the step ends at %" PRId64 " ns and begins at %" PRId64 " ns", end_ns, begin_ns);
    steps->end_ns = end_ns;
    qd_status status = append(steps, end_ns - begin_ns);
    return status == QD_OK ? QD_OK
                           : qd_fail(status, err, errlen, "no memory for %" PRIu64 " steps", steps->n);
}

static qd_status read_line(void *arg, const char *line, size_t len, bool *stop, char *err, size_t errlen)
{
    cJSON *row = NULL;
    (void)stop;
    QD_TRY(qd_json_parse(line, len, NULL, &row, err, errlen));
    qd_status status = cJSON_IsObject(row) ? read_row(arg, row, err, errlen)
                                           : qd_fail(QD_ERR_INPUT, err, errlen, "no JSON object");
    cJSON_Delete(row);
    return status == QD_ERR_NOT_FOUND ? QD_ERR_INPUT : status; /* of a member, not of the file */
}

/* What was read becomes the result's; after a failure it is freed. */
static qd_status hand_over(struct reader *reader, const char *path, qd_status status,
                           struct qd_recorded_steps *out, char *err, size_t errlen)
{
    for (int r = 0; r < reader->dp && status == QD_OK; r++)
        if (reader->replicas[r].n == 0)
            status = qd_fail(QD_ERR_INPUT, err, errlen, "%s: no step of replica %d, but the run has %d", path,
                             r, reader->dp);
    for (int r = 0; r < reader->dp; r++)
        out->replicas[r] = (struct qd_null_steps){reader->replicas[r].ns, reader->replicas[r].n, path};
    free(reader->replicas);
    if (status != QD_OK) qd_recorded_steps_free(out);
    return status;
}

static qd_status begin_reading(int dp, struct reader *reader, struct qd_recorded_steps *out, char *err,
                               size_t errlen)
{
    *reader = (struct reader){.replicas = calloc((size_t)dp, sizeof *reader->replicas), .dp = dp};
    *out = (struct qd_recorded_steps){.replicas = calloc((size_t)dp, sizeof *out->replicas), .dp = dp};
    if (reader->replicas != NULL && out->replicas != NULL) return QD_OK;
    free(reader->replicas);
    qd_recorded_steps_free(out);
    return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for the steps of %d replicas", dp);
}

qd_status qd_recorded_steps_parse(const char *path, const char *text, size_t len, int dp,
                                  struct qd_recorded_steps *out, char *err, size_t errlen)
{
    struct reader reader;
    QD_TRY(begin_reading(dp, &reader, out, err, errlen));
    qd_status status = qd_workload_each_line(path, text, len, read_line, &reader, err, errlen);
    return hand_over(&reader, path, status, out, err, errlen);
}

qd_status qd_recorded_steps_read(const char *path, int dp, struct qd_recorded_steps *out, char *err,
                                 size_t errlen)
{
    struct reader reader;
    QD_TRY(begin_reading(dp, &reader, out, err, errlen));
    qd_status status = qd_workload_each_line_of_file(path, read_line, &reader, err, errlen);
    return hand_over(&reader, path, status, out, err, errlen);
}

void qd_recorded_steps_free(struct qd_recorded_steps *steps)
{
    for (int r = 0; r < steps->dp && steps->replicas != NULL; r++) free((int64_t *)steps->replicas[r].ns);
    free(steps->replicas);
    *steps = (struct qd_recorded_steps){0};
}
