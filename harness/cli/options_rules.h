/* Rules across options: what each value alone cannot say. */
#ifndef QD_HARNESS_CLI_OPTIONS_RULES_H
#define QD_HARNESS_CLI_OPTIONS_RULES_H

#include "harness/cli/options.h"

/* Checks a whole command line for whatever the command takes. QD_ERR_INPUT names the options. */
qd_status qd_options_check(const struct qd_command *command, const struct qd_options *options, char *err,
                           size_t errlen);

#endif
