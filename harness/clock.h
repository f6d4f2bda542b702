/* Time as an engine and its clients see it: the machine's, or virtual time that steps and waiting move on.
 *
 * Arrivals, stamps of requests and whatever is computed from them take their time from here. Host segments of
 * the ledger never do: what the host costs is always real.
 */
#ifndef QD_HARNESS_CLOCK_H
#define QD_HARNESS_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "kernels/base/clock.h"

struct qd_clock {
    bool is_virtual;
    _Atomic int64_t now_ns; /* of a virtual one, moved by one thread at a time */
};

/* Where virtual time begins: records of requests take 0 for "never". */
#define QD_CLOCK_VIRTUAL_BEGIN_NS INT64_C(1000000000)

static inline void qd_clock_init(struct qd_clock *clock, bool is_virtual)
{
    clock->is_virtual = is_virtual;
    atomic_init(&clock->now_ns, QD_CLOCK_VIRTUAL_BEGIN_NS);
}

static inline int64_t qd_clock_read(const struct qd_clock *clock)
{
    return clock->is_virtual ? atomic_load(&clock->now_ns) : qd_clock_now_ns();
}

/* Sleeps until then; virtual time is there at once. Never goes back. */
static inline void qd_clock_wait_until(struct qd_clock *clock, int64_t ns)
{
    int64_t left_ns = ns - qd_clock_read(clock);
    if (left_ns <= 0) return;
    if (clock->is_virtual) {
        atomic_store(&clock->now_ns, ns);
        return;
    }
    struct timespec until = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0) continue;
}

#endif
