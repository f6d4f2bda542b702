/* The result of one run as a table for people, on any stream. */
#ifndef QD_HARNESS_CLI_RUN_TABLE_H
#define QD_HARNESS_CLI_RUN_TABLE_H

#include <stdio.h>

#include "harness/result/run_result.h"

void qd_run_table_print(const struct qd_run_result *run, FILE *out);

#endif
