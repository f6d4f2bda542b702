/* Which cases `qdyno kernels` runs: ops x TP x tokens x context of a model. */
#ifndef QD_HARNESS_CLI_KERNELS_CASES_H
#define QD_HARNESS_CLI_KERNELS_CASES_H

#include "harness/cli/options.h"
#include "harness/ops/case.h"

struct qd_kernels_case {
    struct qd_op_case c;
    char refusal[256]; /* why it cannot run on any device; "" when it can */
};

struct qd_kernels_cases {
    char model[128];
    struct qd_kernels_case *of; /* [n] by op, then TP, tokens, context, way */
    size_t n;
};

/* For a device, as ops of several ranks may go several ways there. QD_ERR_INPUT with the option and the
 * reason; QD_ERR_NOT_FOUND for a model; QD_ERR_NO_MEMORY. */
qd_status qd_kernels_cases_make(const struct qd_options *options, const struct qd_device_ops *ops,
                                struct qd_kernels_cases *out, char *err, size_t errlen);
void qd_kernels_cases_free(struct qd_kernels_cases *cases); /* harmless on a zeroed one */

#endif
