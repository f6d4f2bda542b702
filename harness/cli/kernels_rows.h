/* What is known of one case after it was verified and measured, and its three forms: CSV, JSON, a table.
 * Columns are listed once; what a device does not measure is an empty field, null, or n/a. */
#ifndef QD_HARNESS_CLI_KERNELS_ROWS_H
#define QD_HARNESS_CLI_KERNELS_ROWS_H

#include <stdio.h>

#include <cjson/cJSON.h>

#include "harness/ops/clocks.h"
#include "harness/ops/count.h"
#include "harness/ops/machine.h"
#include "harness/ops/rival.h"
#include "harness/ops/time.h"

/* What the machine gave when it was asked in the same process; 0: not measured. */
struct qd_op_ceilings {
    double memory_gbps, gflops; /* GB/s read (cpu) or copied (GPUs), GFLOP/s */
};

struct qd_kernels_row {
    struct qd_op_case c;
    struct qd_op_result result;
    bool is_timed, is_counted;
    struct qd_op_timing timing;
    struct qd_op_ceilings ceilings;
    struct qd_op_counters counters;
    bool has_rival;
    struct qd_op_rival rival; /* of projections, where the device has cuBLASLt */
    bool has_clocks;
    struct qd_op_clock before, after; /* of the first rank's GPU */
    double floor_us;                  /* on the machine whose profile was chosen */
    bool is_compute_bound;
    const char *machine; /* its name */
    bool is_chosen;      /* --collectives auto goes this way at this size */
    double nccl_us;      /* median of the same op by NCCL, on rows of own collectives; 0: not measured */
};

qd_status qd_kernels_rows_print_csv(const struct qd_kernels_row *rows, size_t n, FILE *out);
qd_status qd_kernels_rows_print_table(const struct qd_kernels_row *rows, size_t n, FILE *out);
/* An array, an object a row; NULL when out of memory. */
cJSON *qd_kernels_rows_to_json(const struct qd_kernels_row *rows, size_t n);

#endif
