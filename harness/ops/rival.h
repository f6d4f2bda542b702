/* The same product by another library (qd_rival_ops), on the same operands, stream and clock. */
#ifndef QD_HARNESS_OPS_RIVAL_H
#define QD_HARNESS_OPS_RIVAL_H

#include "harness/ops/time.h"

struct qd_op_rival {
    int n_algorithms; /* that its heuristics propose */
    int algorithm;    /* the library's number of the fastest */
    double median_us; /* a call of the fastest; it may sum in another order each time it is built */
    double first_us;  /* of the most promising one, which is what frameworks take */
};

/* Of an open session of a projection, verified and timed before: `ours` says how long a sample lasts. The
 * fastest one's product is compared with the specification. QD_ERR_NOT_FOUND, QD_ERR_ENVIRONMENT,
 * QD_ERR_UNSUPPORTED as qd_rival_ops.prepare, or for operands with gaps between rows; QD_ERR_INTERNAL for a
 * wrong product. The session goes on after any of them. */
qd_status qd_op_time_rival(qd_op_session_t *session, const struct qd_op_timing *ours, struct qd_op_rival *out,
                           char *err, size_t errlen);

#endif
