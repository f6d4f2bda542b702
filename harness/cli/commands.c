#include "harness/cli/commands.h"

#include <stdio.h>

int qd_command_fail(const struct qd_command *command, qd_status status, const char *text)
{
    fprintf(stderr, "qdyno: %s: %s\n", command->name, text);
    return qd_exit_code(status);
}
