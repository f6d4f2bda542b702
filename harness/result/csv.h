/* CSV as RFC 4180 has it: one header line, commas, quotes doubled inside quoted fields, LF or CRLF, an
 * optional byte order mark; every row as wide as the header. Blank lines are skipped. */
#ifndef QD_HARNESS_RESULT_CSV_H
#define QD_HARNESS_RESULT_CSV_H

#include <stddef.h>
#include <stdio.h>

#include "kernels/base/status.h"

/* Larger files are refused. The public traces of requests come near, no table of results does. */
enum { QD_CSV_MAX_BYTES = 256 << 20, QD_CSV_MAX_ROWS = 2 << 20, QD_CSV_MAX_COLUMNS = 256 };

struct qd_csv {
    char *name;    /* file name for messages */
    char *text;    /* the fields point into it */
    char **fields; /* [1 + n_rows][n_columns], the header first */
    size_t *lines; /* [1 + n_rows] line number, from 1 */
    size_t n_rows, n_columns;
};

/* Parses text[0..len). QD_ERR_INPUT (err: name, line, reason), QD_ERR_TOO_LARGE, QD_ERR_NO_MEMORY. */
qd_status qd_csv_parse(const char *name, const char *text, size_t len, struct qd_csv *out, char *err,
                       size_t errlen);
/* Harmless on an empty (zeroed) one. */
void qd_csv_free(struct qd_csv *csv);

/* Index of a column, or -1. A name that is there twice is refused by the parser. */
int qd_csv_column(const struct qd_csv *csv, const char *name);

/* Field of a row (0 is the first below the header). */
const char *qd_csv_field(const struct qd_csv *csv, size_t row, size_t column);

/* Writes a field, quoted where it has to be; NULL: an empty field. */
void qd_csv_print(FILE *out, const char *text);

#endif
