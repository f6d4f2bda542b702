/* What the steps of a recorded run took (steps.jsonl, as --save-steps writes it), for a run in virtual time.
 */
#ifndef QD_HARNESS_WORKLOAD_RECORDED_STEPS_H
#define QD_HARNESS_WORKLOAD_RECORDED_STEPS_H

#include "kernels/group.h"

struct qd_recorded_steps {
    struct qd_null_steps *replicas; /* [dp]; their paths are borrowed */
    int dp;
};

/* Of a run in virtual time a step takes what it took on the device then. Of one in real time it takes what it
 * added to its replica's busy time: from where its scheduling began, or the step before had its output, to
 * its own output.
 *
 * QD_ERR_NOT_FOUND, QD_ERR_IO, QD_ERR_NO_MEMORY; QD_ERR_INPUT names file, line and field: no JSON object, a
 * time that is missing, no whole number or goes back, a step out of order, a replica from dp on; or a replica
 * without steps. */
qd_status qd_recorded_steps_read(const char *path, int dp, struct qd_recorded_steps *out, char *err,
                                 size_t errlen);
/* The same of a text; `path` only names it. */
qd_status qd_recorded_steps_parse(const char *path, const char *text, size_t len, int dp,
                                  struct qd_recorded_steps *out, char *err, size_t errlen);
void qd_recorded_steps_free(struct qd_recorded_steps *steps); /* harmless on a zeroed struct */

#endif
