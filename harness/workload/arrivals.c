#include <math.h>

#include "harness/workload/build.h"
#include "kernels/base/random.h"

/* Numbers of one request: a few of the counter's blocks, each for one try of the rejection below. */
struct draws {
    uint64_t seed, request;
    uint32_t n;
};

static struct qd_philox_block next_block(struct draws *draws)
{
    return qd_philox(draws->seed, (uint64_t)QD_STREAM_ARRIVAL << 32 | draws->n++, draws->request);
}

static double uniform(uint32_t high, uint32_t low)
{
    return ((double)((uint64_t)high << 20 | low >> 12) + 0.5) * 0x1p-52; /* (0, 1) */
}

/* Standard gamma of shape >= 1 (Marsaglia and Tsang, ACM TOMS 26, 2000). */
static double gamma_above_one(struct draws *draws, double shape)
{
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        struct qd_philox_block a = next_block(draws), b = next_block(draws);
        double radius = sqrt(-2 * log(uniform(a.word[0], a.word[1])));
        double normal = radius * cos(2 * 3.14159265358979323846 * uniform(a.word[2], a.word[3]));
        double v = 1 + c * normal;
        if (v <= 0) continue;
        v = v * v * v;
        if (log(uniform(b.word[0], b.word[1])) < normal * normal / 2 + d - d * v + d * log(v)) return d * v;
    }
}

static double standard_gamma(struct draws *draws, double shape)
{
    if (shape >= 1) return gamma_above_one(draws, shape);
    struct qd_philox_block block = next_block(draws);
    return gamma_above_one(draws, shape + 1) * pow(uniform(block.word[0], block.word[1]), 1 / shape);
}

/* Requests a second around request i of n. */
static double rate_of(const struct qd_arrivals_spec *spec, size_t i, size_t n)
{
    double progress = n > 1 ? (double)i / (double)(n - 1) : 0;
    switch (spec->ramp) {
    case QD_RAMP_NONE: break;
    case QD_RAMP_LINEAR: return spec->start_rate + (spec->end_rate - spec->start_rate) * progress;
    case QD_RAMP_EXPONENTIAL: return spec->start_rate * pow(spec->end_rate / spec->start_rate, progress);
    }
    return spec->rate;
}

static qd_status check_spec(const struct qd_arrivals_spec *spec, char *err, size_t errlen)
{
    bool ramps = spec->ramp != QD_RAMP_NONE;
    if (!ramps && !(spec->rate > 0 && isfinite(spec->rate)))
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a request rate of %g", spec->rate);
    if (!(spec->burstiness > 0))
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a burstiness of %g", spec->burstiness);
    if (ramps && !(spec->start_rate > 0 && spec->end_rate > 0 && isfinite(spec->start_rate) &&
                   isfinite(spec->end_rate)))
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a ramp from %g to %g requests a second",
                       spec->start_rate, spec->end_rate);
    return QD_OK;
}

qd_status qd_workload_set_arrivals(const struct qd_arrivals_spec *spec, struct qd_workload *workload,
                                   char *err, size_t errlen)
{
    QD_TRY(check_spec(spec, err, errlen));
    double sum = 0, scale = 1, last = 0;
    for (int pass = 0; pass < 2; pass++) { /* the first only finds the last time */
        sum = 0;
        for (size_t i = 0; i < workload->n; i++) {
            double rate = rate_of(spec, i, workload->n);
            struct draws draws = {.seed = spec->seed, .request = i};
            sum += isinf(spec->burstiness)
                       ? 1 / rate
                       : standard_gamma(&draws, spec->burstiness) / (rate * spec->burstiness);
            workload->requests[i].arrival_ns = (int64_t)(sum * scale * 1e9);
        }
        last = sum;
        if (spec->ramp == QD_RAMP_NONE && last > 0) scale = (double)workload->n / spec->rate / last;
    }
    if (last * scale * 1e9 > 0x1p62)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "the last request would arrive after %g seconds",
                       last * scale);
    workload->has_arrivals = true;
    qd_workload_seal(workload);
    return QD_OK;
}
