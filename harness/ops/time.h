/* What one call of a case's op costs on a device: verified, warmed up, then timed in the same context on the
 * same buffers. By events on the stream where the device has such (qd_device_time_begin), else by the host's
 * clock around ops that return when they are done.
 */
#ifndef QD_HARNESS_OPS_TIME_H
#define QD_HARNESS_OPS_TIME_H

#include "harness/ops/session.h"

enum { QD_OP_MAX_SAMPLES = 1000 };

struct qd_op_timing {
    int n_samples; /* of `batch` calls each */
    int batch;
    int n_copies;                     /* of the operands, taken in turn */
    bool is_cold;                     /* together they exceed three times the last cache */
    double median_us, min_us, max_us; /* a call; of ranks that meet, the slowest's */
    double p10_us, p90_us;            /* likewise, interpolated between samples */
    double mad_us;                    /* median distance from the median */
};

/* Copies of the case's operands to rotate through so that what a call reads is in no cache, 1 where one copy
 * exceeds three times the cache; *is_cold is false when they do not, because the op touches only a part of an
 * operand. */
qd_status qd_op_copies(const struct qd_op_options *options, const struct qd_op_case *c, int *n_copies,
                       bool *is_cold, char *err, size_t errlen);

/* Times an open session of n_copies that was verified; n_samples 1 .. QD_OP_MAX_SAMPLES. Errors as
 * qd_op_session_run. */
qd_status qd_op_time(qd_op_session_t *session, int n_samples, struct qd_op_timing *out, char *err,
                     size_t errlen);

/* The median of values[n], which are sorted by it; n >= 1. */
double qd_op_median(double *values, int n);

#endif
