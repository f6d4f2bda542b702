/* qdyno report: a results directory or the published report's CSV to Markdown on standard output. */
#include <stdio.h>

#include "harness/cli/commands.h"
#include "harness/report/report.h"

static int run_report(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    if (options->n_positional != 1)
        return qd_command_fail(command, QD_ERR_INPUT, "name one results directory or CSV file");
    qd_status status = qd_report_write(options->positional[0], options->matrix, stdout, err, sizeof err);
    return status == QD_OK ? QD_EXIT_OK : qd_command_fail(command, status, err);
}

const struct qd_command qd_command_report = {
    .name = "report",
    .summary = "a results directory or the published report's CSV to Markdown",
    .synopsis = "PATH [--matrix \"tp=1,2;dp=1,2;budget=64,256\"]",
    .groups = QD_GROUP_REPORT,
    .max_positional = 1,
    .run = run_report,
};
