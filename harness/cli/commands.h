/* The commands of the program, one file each; main.c only picks one. */
#ifndef QD_HARNESS_CLI_COMMANDS_H
#define QD_HARNESS_CLI_COMMANDS_H

#include "harness/cli/options.h"

extern const struct qd_command qd_command_run;
extern const struct qd_command qd_command_sweep;
extern const struct qd_command qd_command_report;
extern const struct qd_command qd_command_sched;
extern const struct qd_command qd_command_generate;
extern const struct qd_command qd_command_eval;
extern const struct qd_command qd_command_tokenize;
extern const struct qd_command qd_command_kernels;
extern const struct qd_command qd_command_doctor;

/* Turns a failed status into the exit code of the design. */
int qd_exit_code(qd_status status);

/* Prints "qdyno: NAME: text" to stderr and returns the exit code of `status`. */
int qd_command_fail(const struct qd_command *command, qd_status status, const char *text);

#endif
