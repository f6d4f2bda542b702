/* run --replay FILE: recorded steps on a device, without scheduler and workload.
 */
#ifndef QD_HARNESS_CLI_RUN_REPLAY_H
#define QD_HARNESS_CLI_RUN_REPLAY_H

#include "harness/cli/commands.h"

/* Prints times and how many ids are as recorded; with --json as JSON. The exit code. */
int qd_run_replay(const struct qd_command *command, const struct qd_options *options);

#endif
