/* Collects where the runs of an experiment come from (struct qd_origin) out of their result files. */
#ifndef QD_HARNESS_RESULT_ORIGIN_H
#define QD_HARNESS_RESULT_ORIGIN_H

#include "harness/result/cells.h"

/* Adds an array of runs; what is absent is left out. */
void qd_origin_add(struct qd_origin *origin, const cJSON *runs);

#endif
