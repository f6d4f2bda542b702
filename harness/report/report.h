/* The Markdown report: the sections of the published report, written from the data, with nothing said that
 * the data does not carry. */
#ifndef QD_HARNESS_REPORT_REPORT_H
#define QD_HARNESS_REPORT_REPORT_H

#include <stdio.h>

#include "harness/report/data.h"

/* Writes the report of `data`. QD_ERR_NO_MEMORY; QD_ERR_IO when `out` takes no more. */
qd_status qd_report_markdown(const struct qd_report_data *data, FILE *out);

/* Reads `path` (a results directory, or a CSV with the published report's columns) and writes its report to
 * `out`; nothing is written when reading fails. `matrix` is the text of --matrix, or NULL. */
qd_status qd_report_write(const char *path, const char *matrix, FILE *out, char *err, size_t errlen);

#endif
