/* The shared memory of a replica's ranks: how they make their pointers known to each other. What they do with
 * it is declared in kernels/cpu/cpu.h. */
#ifndef QD_KERNELS_CPU_HOST_COMM_H
#define QD_KERNELS_CPU_HOST_COMM_H

#include "kernels/cpu/cpu.h"

/* Joins this rank to the others. Collective over the bootstrap; leaves cpu->comm NULL when there is one rank.
 */
qd_status qd_cpu_comm_open(struct qd_cpu *cpu, char *err, size_t errlen);
void qd_cpu_comm_close(struct qd_cpu *cpu);

qd_status qd_cpu_all_gather(struct qd_cpu *cpu, const struct qd_all_gather_args *args);
qd_status qd_cpu_all_reduce(struct qd_cpu *cpu, const struct qd_all_reduce_args *args);

#endif
