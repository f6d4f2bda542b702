/* What `qdyno run --dry-run` says on standard output, as one JSON object, and how a sweep reads it back. */
#ifndef QD_HARNESS_CLI_RUN_PLAN_H
#define QD_HARNESS_CLI_RUN_PLAN_H

#include <stdio.h>

#include "harness/engine/instance.h"

/* The configuration after every default and shrinking, and the bytes it takes. */
void qd_run_plan_print(const struct qd_instance_plan *plan, FILE *out);

/* The sums of a plan that ended with QD_ERR_DOES_NOT_FIT: "needed_bytes" and "available_bytes". */
void qd_run_plan_print_refused(const struct qd_instance_plan *plan, FILE *out);

/* Reads what qd_run_plan_print_refused wrote; -1 for what is not there. */
void qd_run_plan_read_refused(const char *text, int64_t *needed_bytes, int64_t *available_bytes);

#endif
