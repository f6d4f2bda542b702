/* A case in a group: opens the ranks, hands them one phase at a time, collects what they found. */
#ifndef QD_HARNESS_OPS_SESSION_H
#define QD_HARNESS_OPS_SESSION_H

#include "harness/ops/run.h"
#include "harness/ops/verify.h"

typedef struct qd_op_session qd_op_session_t;

/* What a rank does in a phase, on its own thread, with the case's step; `arg` is shared by all ranks. */
typedef qd_status (*qd_op_phase_fn)(void *arg, struct qd_op_rank *r, const struct qd_step *step, int32_t *ids,
                                    char *err, size_t errlen);

/* QD_ERR_UNSUPPORTED when the device refuses the shape, or so many ranks (err: why), and what opening a group gives. */
qd_status qd_op_session_open(const struct qd_op_options *options, const struct qd_op_case *c, int n_copies,
                             qd_op_session_t **out, char *err, size_t errlen);
/* Runs a phase on every rank and returns when all have ended. `seed` and `greedy` are the step's. */
qd_status qd_op_session_run(qd_op_session_t *session, qd_op_phase_fn phase, void *arg, uint64_t seed,
                            bool greedy, char *err, size_t errlen);
void qd_op_session_close(qd_op_session_t *session); /* accepts NULL */

int qd_op_session_ranks(const qd_op_session_t *session);
int qd_op_session_copies(const qd_op_session_t *session);
const struct qd_device_ops *qd_op_session_ops(const qd_op_session_t *session);

/* One verification within a session; adds to *error. */
qd_status qd_op_session_verify(qd_op_session_t *session, uint64_t seed, struct qd_op_error *error, char *err,
                               size_t errlen);

#endif
