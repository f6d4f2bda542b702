#include "harness/ops/time.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness/result/result.h"
#include "kernels/base/clock.h"

enum {
    CACHE_FACTOR = 3,
    MEMORY_FACTOR = 4, /* of that, copies may take so much */
    MAX_COPIES = 4096,
    MAX_BATCH = 1024,
    WARM_UP_CALLS = 3,
    MAX_WARM_UP = 1 << 18,  /* calls */
    SAMPLE_NS = 200000,     /* a pair of events is good to about a microsecond */
    WARM_UP_NS = 200000000, /* GPUs raise their clocks in so long */
    MAX_RANKS = 8,
};

/* ---- copies ---- */

static qd_status last_cache_bytes(const struct qd_device_ops *ops, size_t *out, char *err, size_t errlen)
{
    if (ops->cache_bytes != NULL) return ops->cache_bytes(0, out, err, errlen);
    long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    *out = bytes > 0 ? (size_t)bytes : 32 << 20;
    return QD_OK;
}

qd_status qd_op_copies(const struct qd_op_options *options, const struct qd_op_case *c, int *n_copies,
                       bool *is_cold, char *err, size_t errlen)
{
    size_t cache, bytes, touched = (size_t)qd_op_traffic(c).bytes;
    QD_TRY(last_cache_bytes(options->ops, &cache, err, errlen));
    QD_TRY(qd_op_operand_bytes(c, options->ops, &bytes, err, errlen));
    size_t wanted = CACHE_FACTOR * cache, copies = wanted / (touched + 1) + 1;
    size_t most =
        bytes > 0 ? MEMORY_FACTOR * wanted / bytes : 1; /* where only a part of an operand is touched */
    if (copies > most) copies = most;
    if (copies > MAX_COPIES) copies = MAX_COPIES;
    *n_copies = copies > 1 ? (int)copies : 1;
    *is_cold = touched * (size_t)*n_copies >= wanted;
    return QD_OK;
}

/* ---- timing ---- */

/* What all ranks are told, and what each has found. */
struct timing {
    int n_warm_up, n_samples, batch;
    int64_t ns[MAX_RANKS][QD_OP_MAX_SAMPLES]; /* of `batch` calls */
};

static qd_status call_batch(struct qd_op_rank *r, const struct qd_step *launched, int n, int *copy,
                            int32_t *ids)
{
    for (int i = 0; i < n; i++) {
        QD_TRY(qd_op_call(r, launched, *copy, ids));
        *copy = (*copy + 1) % r->operands.n_copies;
    }
    return QD_OK;
}

static qd_status time_batch(struct qd_op_rank *r, const struct qd_step *launched, int n, int *copy,
                            int32_t *ids, int64_t *ns)
{
    if (r->device.ops->time_begin == NULL) {
        int64_t begin = qd_clock_now_ns();
        QD_TRY(call_batch(r, launched, n, copy, ids));
        *ns = qd_clock_now_ns() - begin;
        return QD_OK;
    }
    QD_TRY(qd_device_time_begin(r->device));
    QD_TRY(call_batch(r, launched, n, copy, ids));
    return qd_device_time_end(r->device, ns);
}

static qd_status time_rank(void *arg, struct qd_op_rank *r, const struct qd_step *step, int32_t *ids,
                           char *err, size_t errlen)
{
    struct timing *t = arg;
    const struct qd_step *launched;
    int copy = 0;
    QD_TRY(qd_op_begin(r, step, &launched, err, errlen));
    qd_status st = call_batch(r, launched, t->n_warm_up, &copy, ids);
    for (int i = 0; i < t->n_samples && st == QD_OK; i++)
        st = time_batch(r, launched, t->batch, &copy, ids, &t->ns[r->rank][i]);
    if (st == QD_OK) st = qd_op_end(r, ids);
    return st == QD_OK ? QD_OK : qd_fail(st, err, errlen, "%s", qd_device_error_text(r->device));
}

/* The slowest rank's of each sample, a call, in ns. */
static void reduce_ranks(const struct timing *t, int n_ranks, double *samples)
{
    for (int i = 0; i < t->n_samples; i++) {
        int64_t slowest = 1; /* a clock that stands still gives no division by zero */
        for (int rank = 0; rank < n_ranks; rank++)
            slowest = t->ns[rank][i] > slowest ? t->ns[rank][i] : slowest;
        samples[i] = (double)slowest / t->batch;
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double qd_op_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    return n % 2 != 0 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void summarise(double *samples, int n, struct qd_op_timing *out)
{
    double middle = qd_op_median(samples, n); /* sorts */
    out->median_us = middle * 1e-3;
    out->min_us = samples[0] * 1e-3;
    out->max_us = samples[n - 1] * 1e-3;
    out->p10_us = qd_percentile(samples, (uint64_t)n, 10) * 1e-3;
    out->p90_us = qd_percentile(samples, (uint64_t)n, 90) * 1e-3;
    for (int i = 0; i < n; i++) samples[i] = fabs(samples[i] - middle);
    out->mad_us = qd_op_median(samples, n) * 1e-3;
}

/* How many calls make a sample long enough, and how many warm the device up: from a few calls. */
static qd_status calibrate(qd_op_session_t *session, struct timing *t, char *err, size_t errlen)
{
    double samples[WARM_UP_CALLS];
    *t = (struct timing){.n_warm_up = 1, .n_samples = WARM_UP_CALLS, .batch = 1};
    QD_TRY(qd_op_session_run(session, time_rank, t, 0, true, err, errlen));
    reduce_ranks(t, qd_op_session_ranks(session), samples);
    double ns = qd_op_median(samples, WARM_UP_CALLS), batch = ceil(SAMPLE_NS / ns), warm_up = 1;
    if (qd_op_session_ops(session)->time_begin != NULL) warm_up = ceil(WARM_UP_NS / ns);
    t->batch = batch < MAX_BATCH ? (int)batch : MAX_BATCH;
    t->n_warm_up = warm_up < MAX_WARM_UP ? (int)warm_up : MAX_WARM_UP;
    return QD_OK;
}

qd_status qd_op_time(qd_op_session_t *session, int n_samples, struct qd_op_timing *out, char *err,
                     size_t errlen)
{
    if (n_samples < 1 || n_samples > QD_OP_MAX_SAMPLES)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "%d samples: it is 1 to %d", n_samples,
                       QD_OP_MAX_SAMPLES);
    struct timing *t = malloc(sizeof *t);
    double *samples = malloc((size_t)n_samples * sizeof *samples);
    qd_status st = t != NULL && samples != NULL
                       ? calibrate(session, t, err, errlen)
                       : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for samples");
    if (st == QD_OK) {
        t->n_samples = n_samples;
        st = qd_op_session_run(session, time_rank, t, 0, true, err, errlen);
    }
    if (st == QD_OK) {
        *out = (struct qd_op_timing){
            .n_samples = n_samples, .batch = t->batch, .n_copies = qd_op_session_copies(session)};
        reduce_ranks(t, qd_op_session_ranks(session), samples);
        summarise(samples, n_samples, out);
    }
    free(samples);
    free(t);
    return st;
}
