#include "harness/engine/stepper.h"

/* Whose turn it is decides; when all have, their steps begin. */
static void begin_round(struct qd_stepper *stepper)
{
    struct qd_coupling *coupling = stepper->coupling;
    int64_t now_ns = qd_clock_read(stepper->clock);
    for (int i = 0; i < stepper->dp; i++)
        if (qd_replica_has_requests(stepper->replicas[i])) qd_coupling_arrive(coupling, i, now_ns);
    for (int i = 0; i < stepper->dp; i++) {
        if (!qd_coupling_may_decide(coupling, i, now_ns)) continue;
        qd_coupling_decide(coupling, i, qd_replica_begin(stepper->replicas[i]));
    }
    if (!qd_coupling_begin_round(coupling, now_ns)) return;
    for (int i = 0; i < stepper->dp; i++) qd_replica_start(stepper->replicas[i], now_ns);
}

/* Every replica that may schedule does, with what was submitted until now. */
static void begin_steps(struct qd_stepper *stepper)
{
    if (stepper->coupling != NULL) {
        begin_round(stepper);
        return;
    }
    for (int i = 0; i < stepper->dp; i++) qd_replica_begin(stepper->replicas[i]);
    if (!stepper->clock->is_virtual) return;
    int64_t now_ns = qd_clock_read(stepper->clock);
    for (int i = 0; i < stepper->dp; i++) qd_replica_start(stepper->replicas[i], now_ns);
}

/* A step ends, or a replica that ran a dummy decides. */
static int64_t next_ns_of(const struct qd_stepper *stepper)
{
    int64_t next_ns = stepper->coupling != NULL ? qd_coupling_next_ns(stepper->coupling) : INT64_MAX;
    for (int i = 0; i < stepper->dp; i++) {
        int64_t end_ns = qd_replica_next_end_ns(stepper->replicas[i]);
        if (end_ns < next_ns) next_ns = end_ns;
    }
    return next_ns;
}

static void end_steps(struct qd_stepper *stepper)
{
    int64_t now_ns = qd_clock_read(stepper->clock);
    for (int i = 0; i < stepper->dp; i++) {
        qd_replica_t *replica = stepper->replicas[i];
        if (qd_replica_next_end_ns(replica) > now_ns) continue;
        qd_replica_end(replica);
        if (stepper->coupling != NULL)
            qd_coupling_end(stepper->coupling, i, qd_replica_has_requests(replica), now_ns);
    }
}

size_t qd_stepper_poll(struct qd_stepper *stepper, struct qd_event *events, size_t max, int64_t timeout_ns)
{
    if (max == 0) return 0;
    pthread_mutex_lock(&stepper->mutex);
    int64_t now_ns = qd_clock_read(stepper->clock);
    bool has_limit = timeout_ns >= 0 && timeout_ns < INT64_MAX - now_ns;
    int64_t limit_ns = has_limit ? now_ns + timeout_ns : INT64_MAX - 1;
    size_t n;
    while ((n = qd_events_poll(stepper->events, events, max, 0)) == 0) {
        begin_steps(stepper);
        if ((n = qd_events_poll(stepper->events, events, max, 0)) > 0) break; /* of aborts */
        int64_t next_ns = next_ns_of(stepper);
        if (next_ns > limit_ns) {
            if (has_limit) qd_clock_wait_until(stepper->clock, limit_ns);
            break;
        }
        qd_clock_wait_until(stepper->clock, next_ns);
        end_steps(stepper);
        if (has_limit && qd_clock_read(stepper->clock) >= limit_ns) {
            n = qd_events_poll(stepper->events, events, max, 0);
            break;
        }
    }
    pthread_mutex_unlock(&stepper->mutex);
    return n;
}
