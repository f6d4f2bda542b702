/* One sequence through a group by hand, in chunks, without engine or scheduler: what `eval` prints and what
 * the golden tests compare. Uses pages 0 .. ceil(n/16)-1 of the group's pool and nothing else of it.
 */
#ifndef QD_HARNESS_ENGINE_FORWARD_ONCE_H
#define QD_HARNESS_ENGINE_FORWARD_ONCE_H

#include <stdint.h>

#include "kernels/group.h"

struct qd_forward {
    const int32_t *tokens; /* [n_tokens] the sequence */
    int32_t n_tokens;
    int32_t n_cached;  /* the first so many are in the pool already, from an earlier call */
    int32_t chunk;     /* tokens of a step, 1 .. limits->max_tokens */
    int32_t first_row; /* logits are wanted from this position on, n_cached .. n_tokens - 1 */
    /* Called for every wanted position in order: the largest logit's id, and all logits [vocab], valid during
     * the call (NULL on a device that executes nothing). */
    void (*row)(void *arg, int32_t position, int32_t id, const float *logits);
    void *arg;
};

/* Computes tokens [n_cached, n_tokens). `limits` are those of the group; a step with more wanted positions
 * than max_logit_rows is cut short. QD_ERR_ARGUMENT when a number is out of range, QD_ERR_RANK as
 * qd_group_wait. */
qd_status qd_forward_once(qd_group_t *group, const struct qd_step_limits *limits,
                          const struct qd_forward *args, char *err, size_t errlen);

#endif
