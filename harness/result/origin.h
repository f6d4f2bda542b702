/* Collects where the runs of an experiment come from (struct qd_origin) out of their result files. */
#ifndef QD_HARNESS_RESULT_ORIGIN_H
#define QD_HARNESS_RESULT_ORIGIN_H

#include "harness/result/cells.h"

/* Adds an array of runs of one variant; what is absent is left out. QD_ERR_NO_MEMORY. */
qd_status qd_origin_list_add(struct qd_origin_list *list, const char *variant, const cJSON *runs);

#endif
