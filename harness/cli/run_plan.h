/* What `qdyno run` says that a sweep reads back: with --dry-run one JSON object on standard output. */
#ifndef QD_HARNESS_CLI_RUN_PLAN_H
#define QD_HARNESS_CLI_RUN_PLAN_H

#include <stdio.h>

#include "harness/engine/instance.h"

/* The configuration after every default and shrinking, and the bytes it takes. */
void qd_run_plan_print(const struct qd_instance_plan *plan, FILE *out);

/* The sums of a plan that ended with QD_ERR_DOES_NOT_FIT: "needed_bytes" and "available_bytes"; and the token
 * budget. */
void qd_run_plan_print_refused(const struct qd_instance_plan *plan, FILE *out);

/* How the last message of a run begins in which no request completed; its exit code is QD_EXIT_PARTIAL. */
#define QD_RUN_EMPTY_MESSAGE "no request completed"

/* Reads what qd_run_plan_print_refused wrote; -1 for what is not there. */
void qd_run_plan_read_refused(const char *text, int64_t *needed_bytes, int64_t *available_bytes);

/* The token budget in what either wrote; -1 when there is none. */
int64_t qd_run_plan_read_budget(const char *text);

#endif
