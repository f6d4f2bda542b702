/* A replica: one data-parallel engine, looping schedule -> prepare -> launch -> wait -> output over its
 * scheduler, its KV pool and its group of ranks; on a thread of its own, or stepped from outside (stepper.h).
 */
#ifndef QD_HARNESS_ENGINE_REPLICA_H
#define QD_HARNESS_ENGINE_REPLICA_H

#include "harness/clock.h"
#include "harness/engine/events.h"
#include "harness/engine/router.h"
#include "harness/engine/scheduler.h"
#include "harness/engine/step_row.h"

typedef struct qd_replica qd_replica_t;

struct qd_replica_config {
    int index;
    qd_group_t *group;
    struct qd_scheduler_config scheduler;
    int32_t vocab_size;
    int32_t n_eos;
    const int32_t *eos_ids; /* [n_eos], borrowed; n_eos is 0 where nothing executes */
    size_t max_requests;
    bool async_scheduling;
    struct qd_step_recorder recorder;
    size_t n_step_rows;       /* room for rows that nobody has taken yet; 0: none are kept */
    struct qd_events *events; /* borrowed */
    const struct qd_clock *clock; /* borrowed; virtual only when stepped */
    bool is_stepped;              /* without a thread */
};

/* Starts the thread, unless stepped. */
qd_status qd_replica_open(const struct qd_replica_config *config, qd_replica_t **out, char *err,
                          size_t errlen);

/* Asks the thread to end after its current step, without waiting for it. Accepts NULL. */
void qd_replica_stop(qd_replica_t *replica);

/* Joins, frees living requests. Accepts NULL. The events must be closed first, or a full ring would keep it.
 */
void qd_replica_close(qd_replica_t *replica);

/* Queues a chain of requests that enter the scheduler in one step. */
void qd_replica_submit(qd_replica_t *replica, struct qd_live_request *first, struct qd_live_request *last);

/* False when the request is not (or no longer) here. */
bool qd_replica_abort(qd_replica_t *replica, uint64_t id);

/* Why it died, or NULL; the text lives as long as the replica. A dead replica ends every request it has or
 * gets with QD_FINISH_ERROR. */
const char *qd_replica_failure(const qd_replica_t *replica);

/* As of the end of its last step; n_in_flight is not known here. */
struct qd_replica_load qd_replica_get_load(const qd_replica_t *replica);

/* Up to max of the oldest step rows, by one thread; a step without room for its row is dropped. */
size_t qd_replica_take_steps(qd_replica_t *replica, struct qd_step_row *rows, size_t max);
uint64_t qd_replica_n_dropped_steps(const qd_replica_t *replica);

/* Both wait until the replica has nothing to do; stepped, until launched steps have ended. A reset also drops
 * the rows that nobody has taken. */
struct qd_replica_stats qd_replica_get_stats(qd_replica_t *replica);
void qd_replica_reset_stats(qd_replica_t *replica);

/* Stepped, by one thread at a time. A turn has two halves: */

/* Takes what the clients asked for and launches what may be in flight; nothing while a step must end before.
 * Whether steps are in flight now. */
bool qd_replica_begin(qd_replica_t *replica);
/* Ends the oldest launched step; in real time it waits for it. */
void qd_replica_end(qd_replica_t *replica);

/* Whether any request is alive here, submissions that it has not seen yet among them. */
bool qd_replica_has_requests(qd_replica_t *replica);

/* In virtual time: the device takes up, at `ns`, what was launched and not begun, one after another. */
void qd_replica_start(qd_replica_t *replica, int64_t ns);

/* When the oldest launched step ends; INT64_MAX: none is launched, or none begun; 0: unknown, it has to be
 * waited for. */
int64_t qd_replica_next_end_ns(const qd_replica_t *replica);

#endif
