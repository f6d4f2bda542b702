/* What the floors of a run are made of: --probe, --machine. */
#ifndef QD_HARNESS_CLI_RUN_LIMITS_H
#define QD_HARNESS_CLI_RUN_LIMITS_H

#include "harness/cli/options.h"
#include "harness/ops/machine.h"
#include "harness/result/ledger.h"
#include "kernels/cpu/host/probe.h"

/* Zero-initialise. */
struct qd_run_limits {
    struct qd_cpu_probe probed;   /* zeros: not probed */
    struct qd_op_machine machine; /* of --machine; no name: not given, or `this` */
};

/* Whose limits they are. QD_ERR_INPUT names the option and the reason; errors of a profile's file. */
qd_status qd_run_limits_choose(struct qd_run_limits *limits, const struct qd_options *options, char *err,
                               size_t errlen);
/* Takes about a second with --probe: before the model takes memory, and before its ranks are there. */
qd_status qd_run_limits_probe(struct qd_run_limits *limits, const struct qd_options *options, char *err,
                              size_t errlen);
/* Of one rank; the machine's name is borrowed from `limits`, and NULL where nothing is known. */
struct qd_ledger_limits qd_run_limits_of_rank(const struct qd_run_limits *limits,
                                              const struct qd_options *options);

#endif
