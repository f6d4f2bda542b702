#include <math.h>
#include <stdlib.h>

#include "harness/workload/workload.h"
#include "harness/workload/build.h"
#include "kernels/base/random.h"

/* The three draws of a request use separate streams of the counter, so that changing one length distribution
 * leaves the others alone. */
enum random_stream { STREAM_INPUT, STREAM_OUTPUT, STREAM_OFFSET, STREAM_PREFIX };

/* Uniform integer in [low, high], from a 64-bit draw (bias below 2^-32 for our ranges). */
static int64_t draw(const struct qd_random_spec *spec, enum random_stream stream, uint64_t i, int64_t low,
                    int64_t high)
{
    struct qd_philox_block block = qd_philox(spec->seed, (uint64_t)stream, i);
    uint64_t word = (uint64_t)block.word[0] << 32 | block.word[1];
    uint64_t span = (uint64_t)(high - low) + 1;
    return low + (int64_t)(word % span);
}

static int64_t draw_length(const struct qd_random_spec *spec, enum random_stream stream, uint64_t i,
                           int64_t len)
{
    double l = (double)len;
    int64_t low = (int64_t)floor(l * (1 - spec->range_ratio));
    int64_t high = (int64_t)ceil(l * (1 + spec->range_ratio));
    return draw(spec, stream, i, low < 1 ? 1 : low, high);
}

static int32_t allowed_id(const struct qd_random_spec *spec, int64_t index)
{
    int64_t wrapped = index % spec->n_allowed;
    return spec->allowed != NULL ? spec->allowed[wrapped] : (int32_t)wrapped;
}

static qd_status fill_request(const struct qd_random_spec *spec, int64_t i,
                              struct qd_workload_request *request)
{
    int64_t n_inner = draw_length(spec, STREAM_INPUT, (uint64_t)i, spec->input_len);
    int64_t offset = draw(spec, STREAM_OFFSET, (uint64_t)i, 0, spec->n_allowed - 1);
    request->n_prompt = (int32_t)(spec->prefix_len + n_inner);
    request->max_tokens = (int32_t)draw_length(spec, STREAM_OUTPUT, (uint64_t)i, spec->output_len);
    request->prompt = malloc((size_t)request->n_prompt * sizeof *request->prompt);
    if (request->prompt == NULL) return QD_ERR_NO_MEMORY;
    for (int64_t j = 0; j < spec->prefix_len; j++)
        request->prompt[j] =
            allowed_id(spec, draw(spec, STREAM_PREFIX, (uint64_t)j, 0, spec->n_allowed - 1));
    for (int64_t j = 0; j < n_inner; j++)
        request->prompt[spec->prefix_len + j] = allowed_id(spec, offset + i + j);
    return QD_OK;
}

qd_status qd_workload_random(const struct qd_random_spec *spec, struct qd_workload *out, char *err,
                             size_t errlen)
{
    *out = (struct qd_workload){.ignore_eos = true};
    if (spec->n < 1 || spec->input_len < 1 || spec->output_len < 1 || spec->n_allowed < 1 ||
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
