/* The waterfall of a run as text. */
#ifndef QD_HARNESS_CLI_RUN_LEDGER_H
#define QD_HARNESS_CLI_RUN_LEDGER_H

#include <stdio.h>

#include "harness/result/run_result.h"

/* Milliseconds a step, and shares of the wall clock; what is not known says so. */
void qd_run_ledger_print(const struct qd_run_result *run, FILE *out);

#endif
