/* run --record FILE: the steps of all replicas, as they were launched, with what they sampled.
 */
#ifndef QD_HARNESS_CLI_RUN_RECORD_H
#define QD_HARNESS_CLI_RUN_RECORD_H

#include "harness/engine/instance.h"
#include "harness/result/files.h"

/* Zero-initialise; without a path nothing happens. */
struct qd_run_record {
    struct qd_atomic_file file;
    bool is_measured; /* steps from now on; changed while the engine has nothing to do */
};

/* Before the instance is opened: the file, and the hook that writes to it. */
qd_status qd_run_record_open(struct qd_run_record *record, const char *path,
                             struct qd_instance_options *options, char *err, size_t errlen);
/* Before the first step: what a replay must have room for. */
void qd_run_record_begin(struct qd_run_record *record, const struct qd_instance_plan *plan);
/* Gives the file its name. */
qd_status qd_run_record_write(struct qd_run_record *record, char *err, size_t errlen);
/* Leaves no file that is not written. */
void qd_run_record_close(struct qd_run_record *record);

#endif
