/* `eval --expect`: the logits of a running instance against those that a golden.json expects. */
#ifndef QD_HARNESS_CLI_EVAL_EXPECT_H
#define QD_HARNESS_CLI_EVAL_EXPECT_H

#include <stdbool.h>

#include "harness/engine/instance.h"

/* Judges every prompt that fits max_model_len and prints one JSON line on standard output: counts, the worst
 * errors as shares of what is allowed, the verdict. *passes: no rule was broken (and some prompt was judged).
 * QD_ERR_INPUT names `path` and the field. */
qd_status qd_eval_expect(qd_instance_t *instance, const char *path, enum qd_numerics numerics, bool *passes,
                         char *err, size_t errlen);

#endif
