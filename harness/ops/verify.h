/* Does a device compute what kernels/ref says? One case with fresh random data, poisoned outputs and guards,
 * or a list of small cases that takes a few seconds: the self-test of `qdyno doctor`.
 *
 * Cases run in a group (kernels/group.h) of as many ranks as take part, so a device sees what it sees in a
 * run. Every element of every output is compared, and rows in even steps where that would take the
 * specification many seconds. What this cannot see: keys in the pool are judged by what attention makes of
 * them, as only the device knows how its pages are arranged.
 */
#ifndef QD_HARNESS_OPS_VERIFY_H
#define QD_HARNESS_OPS_VERIFY_H

#include "harness/ops/case.h"
#include "harness/ops/compare.h"

struct qd_op_options {
    const struct qd_device_ops *ops; /* one that executes */
    const char *cpu_isa;             /* as in --cpu-isa */
    int n_threads;                   /* of the process; 0: all cores */
    int repeats;                     /* with other data each; >= 1 */
    uint64_t seed;
};

enum qd_op_outcome {
    QD_OP_PASSED = 0,
    QD_OP_WRONG,   /* the result differs from the specification's */
    QD_OP_FAILED,  /* the device gave an error, or wrote beside an output */
    QD_OP_REFUSED, /* the device does not take the shape, or has no such op; not a failure */
};

struct qd_op_result {
    enum qd_op_outcome outcome;
    struct qd_op_error error; /* the worst over repeats and ranks */
    char text[QD_ERR_LEN];    /* why, unless it passed */
};

/* "passed", "wrong", "failed", "refused" */
const char *qd_op_outcome_name(enum qd_op_outcome outcome);

/* Makes the outcome of a verification from its status, result->error and result->text. A status that is
 * nobody's fault but the machine's is returned with the text in err. */
qd_status qd_op_judge(qd_status st, struct qd_op_result *result, char *err, size_t errlen);

/* Verifies one case. The outcome is in *result; the call itself fails only with QD_ERR_ENVIRONMENT (there is
 * no such GPU), QD_ERR_NO_MEMORY or QD_ERR_ARGUMENT, err says why. */
qd_status qd_op_verify(const struct qd_op_options *options, const struct qd_op_case *c,
                       struct qd_op_result *result, char *err, size_t errlen);

typedef void (*qd_op_verify_fn)(void *user, const struct qd_op_case *c, const struct qd_op_result *result);

/* Verifies small cases of every op, in both numerics, at TP 1 and, for collectives, at 2 and 4 ranks up to
 * max_tp, every way that they may go there (way.h); each result goes to `fn`. Ends early as qd_op_verify does. */
qd_status qd_op_verify_all(const struct qd_op_options *options, int max_tp, qd_op_verify_fn fn, void *user,
                           char *err, size_t errlen);

#endif
