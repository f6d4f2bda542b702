/* Markdown tables with aligned columns, so that they also read well as plain text. */
#ifndef QD_HARNESS_REPORT_TABLE_H
#define QD_HARNESS_REPORT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "kernels/base/status.h"

struct qd_table {
    int n_columns;
    const char *align; /* [n_columns] 'l' or 'r', borrowed */
    char **cells;      /* row by row, the header first */
    size_t n, room;
    bool ok; /* false once memory ran out */
};

/* Starts a table; the header is the first n_columns cells added. */
void qd_table_init(struct qd_table *table, const char *align);

/* Adds the next cell. '|' is escaped and line ends become spaces. */
void qd_table_add(struct qd_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints the table and an empty line, then releases it. QD_ERR_NO_MEMORY when a cell was lost. */
qd_status qd_table_print(struct qd_table *table, FILE *out);

#endif
