/* Recorded steps executed again: groups without scheduler, requests or workload, so that what differs from
 * the run that recorded them is what scheduling costs.
 */
#ifndef QD_HARNESS_ENGINE_REPLAY_H
#define QD_HARNESS_ENGINE_REPLAY_H

#include "harness/engine/engine.h"
#include "kernels/step_file.h"

/* The steps of one replica, and what came of them. */
struct qd_replay_replica {
    const struct qd_recorded_step *steps; /* [n_steps] in the order of launch, the warm-up first */
    struct qd_step_row *rows;             /* [n_steps] likewise; of a warm-up's row only the tokens count */
    uint64_t n_steps, n_warmup_steps;
    uint64_t n_ids, n_different_ids; /* sampled by all steps; of those: not as recorded */
    int64_t recorded_span_ns;        /* of the measured steps, when they were recorded */
    struct qd_replica_stats stats;   /* of the measured steps */
};

/* Zero-initialise. */
struct qd_replay {
    int dp;
    struct qd_replay_replica *replicas; /* [dp] */
    struct qd_recorded_step *steps;     /* of all replicas; they point into the file */
    struct qd_step_row *rows;           /* likewise */
};

/* Checks every record of the file and sorts them by replica; the file must stay open. What a step does not
 * tell a row guesses: a chunk of one token behind others is a decode. QD_ERR_INPUT names file, record and
 * reason (a warm-up behind measured steps among them), or says that no step was measured; QD_ERR_NO_MEMORY.
 */
qd_status qd_replay_load(struct qd_step_file *file, struct qd_replay *out, char *err, size_t errlen);
/* Accepts what was never loaded. */
void qd_replay_free(struct qd_replay *replay);

/* Executes the steps, once: every replica on its group by a thread of its own, with up to two in flight when
 * `async`; measured steps begin when all warm-ups have ended. A replica that has ended idles until the last
 * one has. groups[dp] were opened for the file's header and are idle. Errors of a group, after which the
 * other replicas end early too. */
qd_status qd_replay_run(struct qd_replay *replay, qd_group_t *const *groups, bool async, char *err,
                        size_t errlen);

#endif
