/* Machine profiles: bandwidth and peak that a floor is made of (bench/machines/README.md). */
#ifndef QD_HARNESS_OPS_MACHINE_H
#define QD_HARNESS_OPS_MACHINE_H

#include <stdbool.h>

#include "kernels/base/status.h"
#include "kernels/traffic.h"

struct qd_op_machine {
    char name[64], title[128];
    double memory_gbps; /* GB/s, 1e9 bytes */
    double bf16_gflops; /* GFLOP/s, 1e9, dense, fp32 accumulation */
};

/* A profile by name ("H100-SXM", ...) or, with a '/' or ".json" in it, from a file. QD_ERR_NOT_FOUND lists
 * the names; QD_ERR_INPUT names file, field and reason. */
qd_status qd_op_machine_get(const char *name, struct qd_op_machine *out, char *err, size_t errlen);

/* The larger of bytes / bandwidth and operations / peak, in microseconds; *compute_bound: which it is. */
double qd_op_floor_us(const struct qd_op_machine *machine, struct qd_traffic traffic, bool *compute_bound);

#endif
