/* What a report is written from: the cells of one experiment, whatever file they came from, with the cells
 * that were expected and are not there. */
#ifndef QD_HARNESS_REPORT_DATA_H
#define QD_HARNESS_REPORT_DATA_H

#include "harness/result/cells.h"
#include "harness/result/matrix.h"

enum qd_report_source { QD_REPORT_DIRECTORY = 0, QD_REPORT_CSV = 1 };

/* Where the expected cells come from. */
enum qd_matrix_source {
    /* per variant: powers of two with TP x DP up to the largest seen, times the budgets seen */
    QD_MATRIX_INFERRED = 0,
    QD_MATRIX_RECORDED, /* experiment.json */
    QD_MATRIX_GIVEN,    /* --matrix */
};

struct qd_report_data {
    enum qd_report_source source;
    enum qd_matrix_source matrix_source;
    const char *path;        /* as given; borrowed */
    struct qd_origin origin; /* of the variant, in what qd_report_data_of_variant returns; else empty */
    struct qd_origin_list origins;
    struct qd_axes axes;       /* the further axes of the experiment; none when they are not known */
    struct qd_cell_list cells; /* sorted; expected cells that are not there have status QD_CELL_MISSING */
    size_t n_expected;         /* cells of the expected matrix */
    size_t n_expected_ok;      /* of those, measured */
    int n_repeats;             /* asked for; 0: not known */
};

/* Reads a results directory or a summary CSV with the published report's columns. `matrix` is the text of
 * --matrix, or NULL; `path` must outlive `out`. QD_ERR_NOT_FOUND, QD_ERR_INPUT (file, line or field, reason),
 * QD_ERR_TOO_LARGE. */
qd_status qd_report_data_load(const char *path, const char *matrix, struct qd_report_data *out, char *err,
                              size_t errlen);
/* Harmless on an empty (zeroed) one. */
void qd_report_data_free(struct qd_report_data *data);

/* The cells of a CSV text with the published report's eleven columns (any order, further columns allowed;
 * those of our summary.csv are read). `name` is for messages. */
qd_status qd_report_csv_parse(const char *name, const char *text, size_t len, struct qd_cell_list *cells,
                              char *err, size_t errlen);

/* The part of `data` that is about the variant of cell `begin` (the first of its variant); its cells are
 * borrowed, and it is not freed. Every section of a report is about one variant, so nothing compares two. */
struct qd_report_data qd_report_data_of_variant(const struct qd_report_data *data, size_t begin);

/* Adds the expected cells: of `matrix`, or inferred when it is NULL; for every variant of data->axes, or for
 * those seen when it has none. */
qd_status qd_report_data_expect(struct qd_report_data *data, const struct qd_matrix *matrix, char *err,
                                size_t errlen);

#endif
