/* Recorded steps executed again: a group without scheduler, requests or workload, so that what differs from
 * the run that recorded them is what scheduling costs.
 */
#ifndef QD_HARNESS_ENGINE_REPLAY_H
#define QD_HARNESS_ENGINE_REPLAY_H

#include "kernels/group.h"
#include "kernels/step_file.h"

/* Of the measured steps, but for n_warmup_steps. */
struct qd_replay_result {
    uint64_t n_steps, n_warmup_steps;
    uint64_t n_ids, n_different_ids; /* sampled by all steps; of those: not as recorded */
    int64_t wall_ns;                 /* from the first launch to the last end, read apart from the next two */
    int64_t launch_ns, wait_ns;      /* of this thread */
    int64_t span_ns;                 /* of rank 0 */
    int64_t recorded_span_ns;        /* the same when they were recorded */
};

/* Checks every record of the file before the first is launched, then executes all in order, warm-up included,
 * with up to two in flight when `async`. The group was opened for the header's limits and is idle.
 * QD_ERR_INPUT names file, record and reason, or says that no step was measured; errors of the group. */
qd_status qd_replay_run(qd_group_t *group, struct qd_step_file *file, bool async,
                        struct qd_replay_result *out, char *err, size_t errlen);

#endif
