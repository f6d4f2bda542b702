/* Runs the replicas of a stepped engine, one thing after another, on the thread of whoever polls its events.
 *
 * In virtual time what happens next is the earliest of the ends of the replicas' steps and the time until
 * which the caller waits; time jumps there. Steps that end at the same time end in the order of the replicas,
 * all of them before the caller sees their events or that his time is over; what he submits then enters the
 * steps that begin at that time. So a run is a function of its inputs. In real time launched steps end in the order of the replicas.
 * Coupled replicas, of virtual time only, begin their steps together (coupling.h).
 */
#ifndef QD_HARNESS_ENGINE_STEPPER_H
#define QD_HARNESS_ENGINE_STEPPER_H

#include "harness/engine/coupling.h"
#include "harness/engine/replica.h"

struct qd_stepper {
    pthread_mutex_t mutex; /* one caller steps at a time */
    struct qd_clock *clock;
    struct qd_events *events;
    qd_replica_t *const *replicas; /* [dp] */
    int dp;
    struct qd_coupling *coupling; /* NULL: none */
};

/* As qd_engine_poll_events, running replicas until there is an event. */
size_t qd_stepper_poll(struct qd_stepper *stepper, struct qd_event *events, size_t max, int64_t timeout_ns);

#endif
