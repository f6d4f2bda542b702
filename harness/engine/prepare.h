/* Turns a schedule into the flat step buffer that a group executes. */
#ifndef QD_HARNESS_ENGINE_PREPARE_H
#define QD_HARNESS_ENGINE_PREPARE_H

#include "harness/engine/scheduler.h"
#include "kernels/step.h"

/* Limits that hold every step of a scheduler with this configuration: no page is shared, so all block tables
 * together are no longer than the pool. */
struct qd_step_limits qd_prepare_limits(const struct qd_scheduler_config *config);

/* Fills `step` (qd_step_capacity(limits) bytes). Requests in the schedule are live requests; every token id
 * is known on the host. One sequence per entry, in order; one logit row per entry that samples, keyed by
 * (request seed, output index). The group numbers the steps. QD_ERR_FULL when the schedule exceeds the
 * limits. */
qd_status qd_prepare_step(const struct qd_schedule *schedule, const struct qd_step_limits *limits,
                          struct qd_step *step);

#endif
