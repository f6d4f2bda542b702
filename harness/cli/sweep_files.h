/* What a sweep keeps on disk besides its runs: experiment.json, failed.json per cell, summaries. */
#ifndef QD_HARNESS_CLI_SWEEP_FILES_H
#define QD_HARNESS_CLI_SWEEP_FILES_H

#include "harness/cli/child.h"
#include "harness/cli/sweep_plan.h"
#include "harness/result/failure.h"

/* Creates the folder and its experiment.json. */
qd_status qd_sweep_write_experiment(const char *folder, const struct qd_sweep_plan *plan, char *err,
                                    size_t errlen);

/* QD_ERR_INPUT unless the experiment there was started with the same options (repeats may differ). */
qd_status qd_sweep_check_experiment(const char *folder, const struct qd_sweep_plan *plan, char *err,
                                    size_t errlen);

/* Sets the files of run N of a cell aside, if there are any: it was cut short, and is no measurement. They
 * keep their names behind "partial-". */
void qd_sweep_set_run_aside(const char *folder, const char *cell_name, int run_number);

/* Whether run N of a cell is there, whole and readable; then *is_empty says that no request of it completed.
 */
bool qd_sweep_has_run(const char *folder, const char *cell_name, int run_number, bool *is_empty);

/* Writes failed.json of a cell. */
qd_status qd_sweep_write_failure(const char *folder, const char *cell_name, const struct qd_failure *failure,
                                 char *err, size_t errlen);

/* Removes an earlier failed.json: the cell is tried again. */
void qd_sweep_clear_failure(const char *folder, const char *cell_name);

#endif
