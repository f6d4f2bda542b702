/* experiment.json: what a sweep set out to do. Written once, before the first cell. */
#ifndef QD_HARNESS_RESULT_EXPERIMENT_H
#define QD_HARNESS_RESULT_EXPERIMENT_H

#include "harness/result/machine.h"
#include "harness/result/matrix.h"
#include "harness/result/variant.h"

/* Strings are borrowed; NULL becomes null. */
struct qd_experiment {
    const char *date; /* as qd_date_now writes it */
    const char *version, *commit;
    const char *device, *model_id;
    int argc;
    char *const *argv;
    int n_repeats;
    struct qd_matrix matrix;
    struct qd_axes axes; /* the further ones; borrowed */
    struct qd_machine machine;
};

/* Writes `path` atomically. */
qd_status qd_experiment_write(const struct qd_experiment *experiment, const char *path, char *err,
                              size_t errlen);

/* Reads the matrix and the number of repeats. QD_ERR_NOT_FOUND, QD_ERR_INPUT (file, field, reason). */
qd_status qd_experiment_read_matrix(const char *path, struct qd_matrix *matrix, int *n_repeats, char *err,
                                    size_t errlen);

/* Reads the further axes (none in a file without them); freed by the caller. Errors as above. */
qd_status qd_experiment_read_axes(const char *path, struct qd_axes *axes, char *err, size_t errlen);

/* Name of a cell's folder: "tp=1-dp=2-max_num_batched_tokens=64". */
enum { QD_CELL_NAME_LEN = 96 };
void qd_cell_name(int64_t tp, int64_t dp, int64_t budget, char out[QD_CELL_NAME_LEN]);

/* Name of a run's file: "run=0.json". */
enum { QD_RUN_NAME_LEN = 32 };
void qd_run_name(int run_number, char out[QD_RUN_NAME_LEN]);

#endif
