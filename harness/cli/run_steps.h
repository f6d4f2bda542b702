/* The step rows of a run: whoever wants them (--ledger, --save-steps, --trace), from the reset of the
 * counters to the files.
 */
#ifndef QD_HARNESS_CLI_RUN_STEPS_H
#define QD_HARNESS_CLI_RUN_STEPS_H

#include "harness/cli/options.h"
#include "harness/engine/instance.h"
#include "harness/ops/alone.h"
#include "harness/result/ledger.h"
#include "harness/result/step_log.h"
#include "harness/result/steps_file.h"

/* Zero-initialise; what is not wanted stays zero. */
struct qd_run_steps {
    struct qd_ledger_rows rows;
    struct qd_alone alone; /* of --kernels */
    struct qd_steps_file steps;
    struct qd_trace_file trace;
    qd_step_log_t *log;
    uint64_t n_dropped;
};

/* Whether the engine is to keep step rows. */
bool qd_run_steps_wanted(const struct qd_options *options);

/* Reads --kernels, if it was given: before anything is opened. QD_ERR_INPUT also where a device's times mean
 * nothing. */
qd_status qd_run_steps_read_kernels(struct qd_run_steps *steps, const struct qd_options *options,
                                    const struct qd_instance_options *instance_options, char *err,
                                    size_t errlen);

/* Opens the files. `steps_path` is that of --save-steps; virtual_ns: now, where time is virtual, else 0. Does
 * nothing when no row is wanted. */
qd_status qd_run_steps_open(struct qd_run_steps *steps, const struct qd_options *options,
                            const struct qd_instance_plan *plan, const struct qd_ledger_limits *limits,
                            const char *steps_path, int64_t virtual_ns, char *err, size_t errlen);

/* A row for the sums and the open files: a sink (step_log.h). */
void qd_run_steps_take(void *steps, const struct qd_step_row *row);

/* The same for an engine, and starts reading its rows; right after the engine's counters were reset. */
qd_status qd_run_steps_begin(struct qd_run_steps *steps, const struct qd_options *options,
                             qd_instance_t *instance, const struct qd_ledger_limits *limits,
                             const char *steps_path, char *err, size_t errlen);

/* Reads the last rows; the engine has nothing to do. */
void qd_run_steps_end(struct qd_run_steps *steps, qd_instance_t *instance);

/* Gives the files their names. The first error counts. */
qd_status qd_run_steps_write(struct qd_run_steps *steps, char *err, size_t errlen);

/* Ends whatever is open and leaves no file that is not written; after any of the above. */
void qd_run_steps_close(struct qd_run_steps *steps);

/* What the kernels of --kernels take alone, or NULL when it was not given. */
const struct qd_ledger_alone *qd_run_steps_alone(const struct qd_run_steps *steps);

/* The rows' sums, or NULL when none were kept. */
const struct qd_ledger_rows *qd_run_steps_rows(const struct qd_run_steps *steps);

#endif
