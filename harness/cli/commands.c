#include "harness/cli/commands.h"

#include <stdio.h>

int qd_exit_code(qd_status status)
{
    switch (status) {
    case QD_OK: return QD_EXIT_OK;
    case QD_ERR_ARGUMENT:
    case QD_ERR_INPUT:
    case QD_ERR_UNSUPPORTED:
    case QD_ERR_NOT_FOUND:
    case QD_ERR_TOO_LARGE: return QD_EXIT_USAGE;
    case QD_ERR_DOES_NOT_FIT:
    case QD_ERR_NO_MEMORY:
    case QD_ERR_IO:
    case QD_ERR_ENVIRONMENT: return QD_EXIT_ENVIRONMENT;
    case QD_ERR_ABORTED: return QD_EXIT_INTERRUPTED;
    case QD_ERR_FULL:
    case QD_ERR_TIMEOUT:
    case QD_ERR_RANK:
    case QD_ERR_INTERNAL: return QD_EXIT_PARTIAL;
    }
    return QD_EXIT_PARTIAL;
}

int qd_command_fail(const struct qd_command *command, qd_status status, const char *text)
{
    fprintf(stderr, "qdyno: %s: %s\n", command->name, text);
    return qd_exit_code(status);
}
