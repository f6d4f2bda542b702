/* The scheduler alone under a steady load: what a step costs, without replicas, devices or threads.
 *
 * `n_running` requests decode, `n_waiting` stand in line and are never admitted. A request that reaches its
 * length is replaced by a new one, so that every step has the same kind of work.
 */
#ifndef QD_HARNESS_ENGINE_SCHED_BENCH_H
#define QD_HARNESS_ENGINE_SCHED_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum { QD_SCHED_MIN_PREEMPTING = 4 }; /* fewer requests may all fit in half a pool */

struct qd_sched_load {
    int32_t n_running, n_waiting; /* >= 1, >= 0 */
    bool prefix_caching;          /* every prompt begins with the same 256 tokens */
    bool preempt; /* a pool for half of what n_running (>= 4) requests need when they are longest */
    int n_steps;  /* measured, after as many that are not */
};

struct qd_sched_cost {
    double step_ns;     /* median over steps: scheduling, and taking the sampled tokens */
    double worst_ns;    /* the slowest step */
    double row_ns;      /* all time / all rows of all schedules */
    double rows;        /* a step, mean */
    double preemptions; /* a step, mean */
    double hit_share;   /* prompt tokens found in the prefix cache / looked up; 0 without one */
};

/* QD_ERR_ARGUMENT for a load outside the limits above, QD_ERR_NO_MEMORY. */
qd_status qd_sched_bench(const struct qd_sched_load *load, struct qd_sched_cost *out, char *err,
                         size_t errlen);

#endif
