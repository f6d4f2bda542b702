/* Shared by the builders of this room; not for others. */
#ifndef QD_HARNESS_WORKLOAD_BUILD_H
#define QD_HARNESS_WORKLOAD_BUILD_H

#include "harness/workload/workload.h"

/* Computes the hash of a finished workload. */
void qd_workload_seal(struct qd_workload *workload);

#endif
