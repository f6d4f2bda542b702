/* The waterfall of a run or a replay as text. */
#ifndef QD_HARNESS_CLI_RUN_LEDGER_H
#define QD_HARNESS_CLI_RUN_LEDGER_H

#include <stdio.h>

#include "harness/result/ledger.h"

/* All borrowed. */
struct qd_ledger_view {
    const struct qd_ledger *ledger;
    const struct qd_replica_stats *replicas; /* [dp] whose ledger it is */
    int dp;
    const char *device; /* as in --device */
    bool async_scheduling, is_virtual;
};

/* Milliseconds a step, and shares of the wall clock; what is not known says so. */
void qd_run_ledger_print(const struct qd_ledger_view *view, FILE *out);

#endif
