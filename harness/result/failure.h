/* failed.json: why a cell of a sweep has no (or not all) runs. */
#ifndef QD_HARNESS_RESULT_FAILURE_H
#define QD_HARNESS_RESULT_FAILURE_H

#include <stdint.h>

#include "harness/result/variant.h"
#include "kernels/base/status.h"

enum qd_failure_kind {
    QD_FAILURE_REFUSED = 0, /* by arithmetic or rule, before anything ran */
    QD_FAILURE_CRASHED = 1, /* the run's process ended with an error or a signal */
    QD_FAILURE_TIMEOUT = 2, /* it was ended after its time limit */
};

/* "refused", "crashed", "timeout". */
const char *qd_failure_kind_name(enum qd_failure_kind kind);

enum { QD_FAILURE_LINES = 20, QD_FAILURE_LINE_LEN = 240, QD_FAILURE_REASON_LEN = 1024 };

struct qd_failure {
    enum qd_failure_kind kind;
    char variant[QD_VARIANT_LEN];
    int64_t tp, dp, budget;  /* the cell, with the variant */
    int run_number;          /* the run that failed; -1: refused before any */
    char phase[32];          /* "validate", "load", "warmup", "run" */
    int exit_code;           /* of the process; -1: it had none */
    int signal;              /* that ended it; 0: none */
    int64_t needed_bytes;    /* memory estimate of the cell; -1: not made */
    int64_t available_bytes; /* what it was held against; -1: not known */
    char reason[QD_FAILURE_REASON_LEN];
    int n_lines; /* last lines of the process's messages, oldest first */
    char lines[QD_FAILURE_LINES][QD_FAILURE_LINE_LEN];
};

/* Appends the last QD_FAILURE_LINES lines of text[0..len) to `failure` (longer lines are cut). */
void qd_failure_set_lines(struct qd_failure *failure, const char *text, size_t len);

/* Writes `path` atomically. */
qd_status qd_failure_write(const struct qd_failure *failure, const char *path, char *err, size_t errlen);

/* Reads what qd_failure_write wrote. QD_ERR_NOT_FOUND, QD_ERR_INPUT (file, field, reason). */
qd_status qd_failure_read(const char *path, struct qd_failure *failure, char *err, size_t errlen);

#endif
