/* What the ops of one step must move and compute at least: the forward pass of qwen3.c as a list, priced by
 * kernels/traffic.h. Roofline floors are made of it.
 */
#ifndef QD_MODELS_STEP_COST_H
#define QD_MODELS_STEP_COST_H

#include "kernels/traffic.h"
#include "models/shard.h"

enum { QD_MAX_STEP_OPS = 16 };

struct qd_step_op {
    const char *name; /* as in harness/ops/case.h; "attention" */
    enum qd_segment segment;   /* where the ledger counts it */
    int64_t times;             /* a step runs it so often, with the same shape */
    int64_t n_rows;            /* of its output */
    struct qd_traffic traffic; /* of one time, on one rank */
};

/* The ops of a step on the shard's rank; returns their number. Padding, and copies of step and ids, are not
 * in it: a floor has none. n_logit_rows 0: nothing is sampled. */
int qd_model_step_ops(const struct qd_model_config *config, const struct qd_shard *shard,
                      const struct qd_attention_load *load, int64_t n_logit_rows,
                      struct qd_step_op ops[QD_MAX_STEP_OPS]);

#endif
