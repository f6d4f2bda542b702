/* Which cores a rank's threads run on. Ranks of the process divide the threads evenly, in the order of their
 * global index; threads are pinned, and may spin, only while every one of them has a core of its own. */
#ifndef QD_KERNELS_CPU_HOST_CORES_H
#define QD_KERNELS_CPU_HOST_CORES_H

#include <sched.h>
#include <stdbool.h>

#include "kernels/base/status.h"

struct qd_cpu_cores {
    int n_threads;          /* of this rank, >= 1 */
    bool own_cores;         /* cores[] holds: pin, and spin between regions */
    int cores[CPU_SETSIZE]; /* [n_threads] core numbers */
};

/* The share of rank `rank` of `n_ranks` in `n_threads` threads (0: one per core) over the cores in
 * `available`. Every rank gets at least one thread. QD_ERR_ARGUMENT when a number is out of range. */
qd_status qd_cpu_cores_share(const cpu_set_t *available, int n_threads, int rank, int n_ranks,
                             struct qd_cpu_cores *out, char *err, size_t errlen);

#endif
