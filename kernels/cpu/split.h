/* When the small ops of the CPU device use the team. */
#ifndef QD_KERNELS_CPU_SPLIT_H
#define QD_KERNELS_CPU_SPLIT_H

#include "kernels/cpu/cpu.h"

/* About 2 us of work: what waking and waiting for a team costs. */
enum { QD_CPU_TEAM_ELEMENTS = 16384 };

/* Runs fn on the team when there are at least two rows and enough elements in all, else on the caller alone.
 */
static inline void qd_cpu_run_rows(struct qd_cpu *cpu, qd_team_fn fn, void *arg, int64_t n_rows, int64_t dim)
{
    if (n_rows >= 2 && n_rows * dim >= QD_CPU_TEAM_ELEMENTS)
        qd_team_run(cpu->team, fn, arg);
    else if (n_rows > 0)
        fn(arg, 0, 1);
}

#endif
