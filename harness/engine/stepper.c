#include "harness/engine/stepper.h"

/* Every replica that may schedule does, with what was submitted until now. */
static void begin_steps(struct qd_stepper *stepper)
{
    for (int i = 0; i < stepper->dp; i++) qd_replica_begin(stepper->replicas[i]);
    if (!stepper->clock->is_virtual) return;
    int64_t now_ns = qd_clock_read(stepper->clock);
    for (int i = 0; i < stepper->dp; i++) qd_replica_start(stepper->replicas[i], now_ns);
}

static int64_t next_end_ns(const struct qd_stepper *stepper)
{
    int64_t next_ns = INT64_MAX;
    for (int i = 0; i < stepper->dp; i++) {
        int64_t end_ns = qd_replica_next_end_ns(stepper->replicas[i]);
        if (end_ns < next_ns) next_ns = end_ns;
    }
    return next_ns;
}

static void end_steps(struct qd_stepper *stepper)
{
    int64_t now_ns = qd_clock_read(stepper->clock);
    for (int i = 0; i < stepper->dp; i++)
        if (qd_replica_next_end_ns(stepper->replicas[i]) <= now_ns) qd_replica_end(stepper->replicas[i]);
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
        int64_t next_ns = next_end_ns(stepper);
        if (next_ns > limit_ns) {
            if (has_limit) qd_clock_wait_until(stepper->clock, limit_ns);
            break;
        }
        qd_clock_wait_until(stepper->clock, next_ns);
        end_steps(stepper);
    }
    pthread_mutex_unlock(&stepper->mutex);
    return n;
}
