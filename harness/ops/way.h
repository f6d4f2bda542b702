/* The ways that an op of several ranks may go where the device has a choice (kernels/device.h: collectives,
 * shots), and what sets them beside each other: bandwidths as nccl-tests computes them, and the message size
 * from which on one way is faster than another.
 */
#ifndef QD_HARNESS_OPS_WAY_H
#define QD_HARNESS_OPS_WAY_H

#include "harness/ops/case.h"

/* "one_shot", ...; "" for QD_OP_WAY_AUTO. */
const char *qd_op_way_name(enum qd_op_way way);

/* Whether the case's op goes that way on a device: AUTO where there is no choice, else each of the others
 * that it has. */
bool qd_op_has_way(const struct qd_device_ops *ops, const struct qd_op_case *c, enum qd_op_way way);
/* The way that --collectives auto takes for the case, or own collectives alone; AUTO where there is no
 * choice. */
enum qd_op_way qd_op_auto_way(const struct qd_device_ops *ops, const struct qd_op_case *c);
enum qd_op_way qd_op_own_way(const struct qd_device_ops *ops, const struct qd_op_case *c);
/* What a device is opened with for the case to go its way. */
void qd_op_way_configure(enum qd_op_way way, struct qd_device_config *config);

/* Bytes that nccl-tests calls the size: what a rank puts into a sum, what it has in the end of a gathering;
 * 0: the case has no such collective. Of reduce_add_rmsnorm: of the sum that is fused. */
size_t qd_op_message_bytes(const struct qd_op_case *c);
/* Bus bandwidth over algorithm bandwidth: 2 (n - 1) / n of a sum over n ranks, (n - 1) / n of a gathering
 * (nccl-tests, doc/PERFORMANCE.md). */
double qd_op_bus_factor(const struct qd_op_case *c);

/* The same op at one message size, by two ways. */
struct qd_op_pair {
    size_t bytes;
    double a_us, b_us;
};

/* Where b becomes faster than a for good, of the sizes that were measured. */
struct qd_op_crossover {
    size_t below; /* the largest size at which b is not faster; 0: it always is */
    size_t from;  /* the next one, from which on b is faster at every size; SIZE_MAX: at none */
};

/* pairs[n], in any order, are sorted by size; n >= 1. */
struct qd_op_crossover qd_op_crossover_find(struct qd_op_pair *pairs, size_t n);
/* Whether taking a up to `limit` bytes, and b beyond, is the faster way at every size that was measured
 * behind the crossover, and a at the one before it. */
bool qd_op_crossover_agrees(struct qd_op_crossover crossover, size_t limit);

#endif
