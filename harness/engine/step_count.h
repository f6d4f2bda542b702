/* What a schedule holds, counted into its step's row and a replica's totals.
 */
#ifndef QD_HARNESS_ENGINE_STEP_COUNT_H
#define QD_HARNESS_ENGINE_STEP_COUNT_H

#include "harness/engine/engine.h"
#include "harness/engine/request.h"

/* Tokens, sequences, admissions, preemptions and hits. Requests that are scheduled for the first time are
 * given now_ns; all of them remember what will have been computed. Once per schedule. */
void qd_step_count(const struct qd_schedule *schedule, int64_t now_ns, struct qd_step_row *row);

/* Adds a counted row to the totals. */
void qd_step_count_add(const struct qd_step_row *row, const struct qd_schedule *schedule,
                       struct qd_replica_stats *stats);

#endif
