/* Number lists and ranges as options write them, and the TP x DP x token-budget matrix of a sweep. */
#ifndef QD_HARNESS_RESULT_MATRIX_H
#define QD_HARNESS_RESULT_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum { QD_INT_LIST_MAX = 256 };

struct qd_int_list {
    int n;
    int64_t value[QD_INT_LIST_MAX]; /* in the order written; no value twice */
};

/* Whole numbers of a list or range (range.h), each within [min, max]. QD_ERR_INPUT names `name`, the value
 * and the reason; more than QD_INT_LIST_MAX values are one. */
qd_status qd_int_list_parse(const char *name, const char *text, int64_t min, int64_t max,
                            struct qd_int_list *out, char *err, size_t errlen);

/* Limits of the three axes. */
enum { QD_MAX_PARALLEL = 65536, QD_MAX_BUDGET = 1 << 30 };

struct qd_matrix {
    struct qd_int_list tp, dp, budget;
    int64_t max_gpus; /* cells with tp * dp above it are not part of the matrix; 0: no limit */
};

/* Parses "tp=1,2;dp=1-8*2;budget=64,256[;gpus=8]"; the three axes are required, in any order. */
qd_status qd_matrix_parse(const char *text, struct qd_matrix *out, char *err, size_t errlen);

#endif
