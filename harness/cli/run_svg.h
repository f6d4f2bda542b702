/* The waterfall of a run or a replay as SVG, drawn by gnuplot: --ledger-svg FILE. */
#ifndef QD_HARNESS_CLI_RUN_SVG_H
#define QD_HARNESS_CLI_RUN_SVG_H

#include "harness/result/ledger.h"

/* Before anything runs: whether the file can be written and gnuplot started. A path of NULL asks nothing.
 * QD_ERR_ENVIRONMENT names the package; QD_ERR_IO. */
qd_status qd_run_svg_check(const char *path, char *err, size_t errlen);

/* Milliseconds a step, a bar for each line that is known; `title` stands above. A ledger without steps is
 * refused: QD_ERR_INPUT. QD_ERR_ENVIRONMENT when gnuplot fails, QD_ERR_IO, QD_ERR_NO_MEMORY. */
qd_status qd_run_svg_write(const char *path, const char *title, const struct qd_ledger *ledger, char *err,
                           size_t errlen);

#endif
