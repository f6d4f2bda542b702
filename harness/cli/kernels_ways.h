/* Ways of the same op beside each other (harness/ops/way.h): NCCL's time on the rows of own collectives,
 * which way the device would take, and the sizes from which on another way is faster, beside the limits that
 * the device was compiled with.
 */
#ifndef QD_HARNESS_CLI_KERNELS_WAYS_H
#define QD_HARNESS_CLI_KERNELS_WAYS_H

#include "harness/cli/kernels_rows.h"
#include "harness/ops/way.h"

/* Fills in is_chosen and nccl_us of every row. Rows of one case lie together, as kernels_cases.h has them. */
void qd_kernels_ways_mark(const struct qd_device_ops *ops, struct qd_kernels_row *rows, size_t n);

/* From which message on one way is faster than another, of an op at a TP. */
struct qd_kernels_switch {
    enum qd_op op;
    int tp;
    enum qd_op_way to; /* TWO_SHOT: from one shot; NCCL: from the own way of that size */
    struct qd_op_crossover found;
    size_t limit; /* compiled in: beyond it the device goes there; SIZE_MAX: it never does */
};

/* Those of `rows` in which both ways were timed at one size at least; *out [*n_out] is the caller's to free.
 * QD_ERR_NO_MEMORY. */
qd_status qd_kernels_switches_find(const struct qd_device_ops *ops, const struct qd_kernels_row *rows,
                                   size_t n, struct qd_kernels_switch **out, size_t *n_out, char *err,
                                   size_t errlen);

/* One sentence each, "all_reduce, TP 4: ...". */
void qd_kernels_switches_print(const struct qd_kernels_switch *switches, size_t n, FILE *out);
/* An array, an object each; NULL when out of memory. */
cJSON *qd_kernels_switches_to_json(const struct qd_kernels_switch *switches, size_t n);

#endif
