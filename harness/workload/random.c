#include <math.h>
#include <stdlib.h>

#include "harness/workload/workload.h"
#include "harness/workload/build.h"

static int64_t draw_length(const struct qd_random_spec *spec, enum qd_workload_stream stream, uint64_t i,
                           int64_t len)
{
    double l = (double)len;
    int64_t low = (int64_t)floor(l * (1 - spec->range_ratio));
    int64_t high = (int64_t)ceil(l * (1 + spec->range_ratio));
    return qd_workload_draw(spec->seed, stream, i, low < 1 ? 1 : low, high);
}

static qd_status fill_request(const struct qd_random_spec *spec, int64_t i,
                              struct qd_workload_request *request)
{
    int64_t n_inner = draw_length(spec, QD_STREAM_INPUT, (uint64_t)i, spec->input_len);
    int64_t last_id = spec->ids.n - 1;
    int64_t offset = qd_workload_draw(spec->seed, QD_STREAM_OFFSET, (uint64_t)i, 0, last_id);
    request->n_prompt = (int32_t)(spec->prefix_len + n_inner);
    request->max_tokens = (int32_t)draw_length(spec, QD_STREAM_OUTPUT, (uint64_t)i, spec->output_len);
    request->prompt = malloc((size_t)request->n_prompt * sizeof *request->prompt);
    if (request->prompt == NULL) return QD_ERR_NO_MEMORY;
    for (int64_t j = 0; j < spec->prefix_len; j++) {
        int64_t at = qd_workload_draw(spec->seed, QD_STREAM_PREFIX, (uint64_t)j, 0, last_id);
        qd_workload_fill_run(&spec->ids, at, request->prompt + j, 1);
    }
    qd_workload_fill_run(&spec->ids, offset + i, request->prompt + spec->prefix_len, n_inner);
    return QD_OK;
}

qd_status qd_workload_random(const struct qd_random_spec *spec, struct qd_workload *out, char *err,
                             size_t errlen)
{
    *out = (struct qd_workload){.ignore_eos = true};
    if (spec->n < 1 || spec->input_len < 1 || spec->output_len < 1 || spec->ids.n < 1 ||
        !(spec->range_ratio >= 0 && spec->range_ratio < 1))
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "random workload: lengths and counts must be positive");
    if (spec->prefix_len + 2 * spec->input_len + 1 > INT32_MAX || 2 * spec->output_len + 1 > INT32_MAX)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "random workload: lengths above 2^31");
    out->requests = calloc((size_t)spec->n, sizeof *out->requests);
    if (out->requests == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "random workload");
    out->n = (size_t)spec->n;
    for (int64_t i = 0; i < spec->n; i++) {
        qd_status status = fill_request(spec, i, &out->requests[i]);
        if (status != QD_OK) {
            qd_workload_free(out);
            return qd_fail(status, err, errlen, "random workload: request %lld", (long long)i);
        }
    }
    qd_workload_seal(out);
    return QD_OK;
}
