/* The machine record: what a run was measured on, and how busy that machine was with other things. */
#ifndef QD_HARNESS_RESULT_MACHINE_H
#define QD_HARNESS_RESULT_MACHINE_H

#include <stdint.h>

#include "harness/result/json_put.h"
#include "kernels/base/status.h"

/* What does not change during a run. */
struct qd_machine {
    char cpu_model[128]; /* as the kernel names it; "unknown" where it does not */
    char cpu_isa[64];    /* of avx2 fma avx512f avx512bf16 avx512vnni, those the processor has */
    char kernel[128];    /* "Linux 6.1.0 x86_64" */
    int n_cores;         /* logical processors this process may run on */
    int n_cores_online;  /* logical processors of the machine */
    int threads_per_core;
    int64_t memory_bytes;
};

/* A reading of the processors this process may run on; differences of two readings say what others took. */
struct qd_machine_load {
    double load_1min, load_5min, load_15min; /* load averages of the whole machine; -1: not known */
    int64_t total_ns, idle_ns, steal_ns;     /* processor time since boot; 0: not known */
    int64_t own_ns;                          /* processor time of this process, all threads */
};

/* Shares of the processors' time between two readings. */
struct qd_machine_shares {
    double own, foreign, steal, idle; /* 0 .. 1; all 0 when not known */
};

void qd_machine_read(struct qd_machine *machine);
void qd_machine_load_read(struct qd_machine_load *load);

/* What happened between two readings. Kernel counters tick in 10 ms, so short intervals are coarse. */
struct qd_machine_shares qd_machine_load_between(const struct qd_machine_load *before,
                                                 const struct qd_machine_load *after);

/* Marks (marks.h) of a run with n_ranks = tp * dp threads' worth of devices between the two readings;
 * intervals under one second are too coarse for marks about other processes. */
uint32_t qd_machine_marks(const struct qd_machine *machine, const struct qd_machine_load *before,
                          const struct qd_machine_load *after, int n_ranks);

/* {"cpu_model", "cpu_isa", ...} as a new object, NULL when out of memory. */
cJSON *qd_machine_to_json(const struct qd_machine *machine);

/* {"before": {...}, "after": {...}, "between": {...}} as a new object, NULL when out of memory. */
cJSON *qd_machine_load_to_json(const struct qd_machine_load *before, const struct qd_machine_load *after);

#endif
