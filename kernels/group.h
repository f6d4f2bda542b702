/* A group: the ranks of one replica, stepped together.
 *
 * The group owns rank threads (cpu) or nothing (null: one call models all ranks); its user sees launch and
 * wait. What a rank executes is a program handed in from above, so that kernels know no model.
 */
#ifndef QD_KERNELS_GROUP_H
#define QD_KERNELS_GROUP_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a rank leaves behind after a step; every rank computes the same ids. */
struct qd_step_output {
    int32_t *ids;        /* [R] sampled ids, room for max_logit_rows (filled by the program) */
    const float *logits; /* [R][vocab] fp32 when the step wants logits, else NULL (set by the program) */
};

/* The forward pass as the group sees it. Each function runs on the rank's own thread. */
struct qd_program {
    void *user;
    qd_status (*rank_open)(void *user, int rank, struct qd_device device, void **state, char *err,
                           size_t errlen);
    qd_status (*rank_step)(void *state, const struct qd_step *step, struct qd_step_output *out, char *err,
                           size_t errlen);
    /* (optional) Waits for the oldest step that rank_step began, whose output that was. A next one may have
     * been begun, not a third. Without it a step has ended when rank_step returns. */
    qd_status (*rank_finish)(void *state, struct qd_step_output *out, char *err, size_t errlen);
    void (*rank_close)(void *state); /* accepts NULL */
};

/* What the steps of one replica took when they were recorded. */
struct qd_null_steps {
    const int64_t *ns; /* [n] borrowed */
    uint64_t n;
    const char *path; /* borrowed, for errors */
};

struct qd_group_config {
    const struct qd_device_ops *ops;
    int tp;                         /* ranks */
    struct qd_device_config device; /* first_rank = global index of this group's rank 0 */
    int32_t vocab_size;             /* for the ids that non-executing devices make up */
    struct qd_program program;      /* unused when ops->executes is false */
    int64_t null_step_ns;            /* virtual duration of every step on `null` */
    struct qd_null_steps null_steps; /* path not NULL: of single steps there, instead */
    int64_t watchdog_ns; /* a rank that opens its device, or a step, for longer hangs; 0: wait forever */
};

/* When a rank began and ended a step (monotonic clock): its device, where that measures a step's span. */
struct qd_rank_span {
    int64_t begin_ns, end_ns;
};

struct qd_group_result {
    const int32_t *ids;    /* [n_ids], by logit row; valid until the next-but-one launch */
    int32_t n_ids;
    const float *logits;   /* [n_ids][vocab] when the step wanted them, else NULL; same lifetime */
    int32_t vocab_size;    /* floats from one row of logits to the next */
    int64_t step_begin_ns; /* rank 0 began (monotonic clock): its device, where that measures a step's span */
    int64_t step_end_ns;   /* the last rank ended; where nothing executes, the step's virtual duration later */
    const struct qd_step *step;           /* as launched; valid until the next-but-one launch */
    int n_ranks;                          /* the next two are theirs; 0 where nothing executes */
    const struct qd_rank_span *spans;     /* [n_ranks], same lifetime as the ids */
    const struct qd_device_stats *device; /* of rank 0 when it had ended the step; same lifetime */
};

typedef struct qd_group qd_group_t;

/* Starts the rank threads, opens their contexts and programs. On failure nothing is left behind and err
 * names rank and phase; but with QD_ERR_TIMEOUT (which takes a watchdog) a rank hangs, and keeps using what
 * the program's user points to: that must stay. */
qd_status qd_group_open(const struct qd_group_config *config, qd_group_t **out, char *err, size_t errlen);

/* Hands a step to the ranks and returns at once; the used prefix is copied. At most two steps in flight:
 * QD_ERR_FULL otherwise. QD_ERR_RANK after a failure, and on `null` when the recorded steps have ended. */
qd_status qd_group_launch(qd_group_t *group, const struct qd_step *step, char *err, size_t errlen);

/* Waits for the oldest launched step. QD_ERR_RANK when a rank failed in it or before, or when no rank has
 * moved for watchdog_ns: err names rank, phase and reason ("replica 0 rank 1: step 7: no progress for 60 s");
 * the other ranks' waits end, on their devices too, the group is dead and only end and close are allowed. */
qd_status qd_group_wait(qd_group_t *group, struct qd_group_result *result, char *err, size_t errlen);

/* What rank 0's device did in the steps that have ended. Ranks take the same steps, so counts are those of
 * any rank; what rank 0 waits for others is in its collectives. All zeros where the device counts nothing. */
struct qd_device_stats qd_group_get_stats(qd_group_t *group);

/* What the device of rank 0 does otherwise than expected (qd_device_note); as long as the group. */
const char *qd_group_note(const qd_group_t *group);
/* What its collectives go by (qd_device_collectives), or NULL. */
const char *qd_group_collectives(const qd_group_t *group);

/* Ends the ranks and waits until they have closed what they opened. With a watchdog a rank gets its time for
 * that, at most ten seconds: QD_ERR_TIMEOUT when one is still there (err names it), and what the program's
 * user points to must stay. */
qd_status qd_group_end(qd_group_t *group, char *err, size_t errlen);

/* Ends the ranks, then joins and releases everything, also after a failure. Where qd_group_end gives up, the
 * last rank to end releases it. Accepts NULL. */
void qd_group_close(qd_group_t *group);

#ifdef __cplusplus
}
#endif

#endif
