#include "harness/ops/check_sample.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/random.h"

/* How far a running sum of probabilities may be from the specification's: an exponent rounds some four times
 * at 2^-24 of itself, a weight at 2^-22, fixed point drops less than 2^-42 of the largest; a share of the
 * total doubles it. */
static double sum_tolerance(const double *probs, int64_t n)
{
    double largest = 0, error = 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, probs[i]);
    for (int64_t i = 0; i < n; i++)
        if (probs[i] > 0) error += probs[i] * (1 + log(largest / probs[i])) * 0x1p-22 + largest * 0x1p-42;
    return 2 * error;
}

/* Whether the uniform lies in id's part of the running sum, give or take the tolerance. */
static bool may_be_drawn(const double *probs, int64_t n, const struct qd_sampling *sampling, int32_t id)
{
    double u = (double)qd_uniform_open(qd_philox(sampling->seed, 0, sampling->output_index).word[0]);
    double tolerance = sum_tolerance(probs, n), before = 0;
    for (int32_t i = 0; i < id; i++) before += probs[i];
    return probs[id] > 0 && u >= before - tolerance && u < before + probs[id] + tolerance;
}

/* The cut of top-p may fall to either side of an id whose running sum is within rounding of it. */
static bool is_within_rounding(double *probs, const float *logits, int64_t n,
                               const struct qd_sampling *sampling, int32_t id)
{
    for (int nudge = -1; nudge <= 1; nudge++) {
        struct qd_sampling nudged = *sampling;
        if (nudged.top_p < 1) nudged.top_p *= 1.0f + (float)nudge * 0x1p-19f;
        if (qd_ref_sample_probabilities(logits, n, &nudged, probs) > 0 && may_be_drawn(probs, n, &nudged, id))
            return true;
    }
    return false;
}

qd_status qd_op_check_id(struct qd_op_error *error, int64_t row, const float *logits, int64_t n,
                         const struct qd_sampling *sampling, int32_t id, char *err, size_t errlen)
{
    static const struct qd_op_tolerance exact = {.moved = 1};
    int32_t want = qd_ref_sample_row(logits, n, sampling);
    double *probs = malloc((size_t)n * sizeof *probs);
    if (want < 0 || probs == NULL) {
        free(probs);
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for %lld probabilities", (long long)n);
    }
    bool may_differ = id != want && id >= 0 && id < n && sampling->temperature > 0;
    if (may_differ && is_within_rounding(probs, logits, n, sampling, id)) want = id;
    float got_id = (float)id, want_id = (float)want; /* vocabularies are below 2^24 */
    qd_op_compare_f32(error, "ids", exact, row, &got_id, &want_id, 1);
    free(probs);
    return QD_OK;
}
