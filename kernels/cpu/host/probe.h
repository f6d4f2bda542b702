/* The machine's limits as this process can reach them now: what every speed figure of the CPU device is
 * divided by. Machines are shared and their limits move, so a measurement probes on both sides. */
#ifndef QD_KERNELS_CPU_HOST_PROBE_H
#define QD_KERNELS_CPU_HOST_PROBE_H

#include "kernels/cpu/cpu.h"

struct qd_cpu_probe {
    double read_gbps;  /* GB/s (1e9) that the team reads from memory together */
    double fma_gflops; /* fp32 GFLOP/s (1e9) of the team; on portable of a multiply and an add */
};

/* Bytes to read so that no cache serves a part worth mentioning: four times the last level, or 256 MiB. */
size_t qd_cpu_probe_bytes(void);

/* Best of several passes over data [bytes], which must have been written (else every page is the same
 * zeroes); 64-byte aligned. Takes eight times bytes / bandwidth. */
double qd_cpu_probe_read_gbps(const struct qd_cpu_kernels *kernels, qd_team_t *team, const void *data,
                              size_t bytes);

/* Best of several passes of a few milliseconds. */
double qd_cpu_probe_fma_gflops(const struct qd_cpu_kernels *kernels, qd_team_t *team);

/* Both, with memory of its own that is given back; under half a second at 10 GB/s. QD_ERR_NO_MEMORY when the
 * memory is refused. */
qd_status qd_cpu_probe(const struct qd_cpu_kernels *kernels, qd_team_t *team, struct qd_cpu_probe *out,
                       char *err, size_t errlen);

/* The instruction set and a team on the cores that a rank alone in the process would get (n_threads 0: all
 * cores of the calling thread, which stays pinned until the team is destroyed). The team sleeps between
 * probes: a rank may own the same cores. Errors of qd_cpu_isa_select, qd_cpu_cores_share and qd_team_create.
 */
qd_status qd_cpu_probe_team(const char *isa, int n_threads, const struct qd_cpu_kernels **kernels,
                            qd_team_t **team, char *err, size_t errlen);

/* qd_cpu_probe by such a team; no rank may be at work. */
qd_status qd_cpu_probe_cores(const char *isa, int n_threads, struct qd_cpu_probe *out, char *err,
                             size_t errlen);

#endif
