/* What the two halves of a group know of each other: group.c is its user's side, group_rank.c what runs on the
 * threads of the ranks.
 */
#ifndef QD_KERNELS_GROUP_INSIDE_H
#define QD_KERNELS_GROUP_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "kernels/group.h"

enum { QD_GROUP_SLOTS = 2 }; /* steps in flight */

/* Loading has no time of its own: it takes what disks and links take. */
enum rank_phase { PHASE_OPEN_DEVICE, PHASE_OPEN_MODEL, PHASE_STEPS, PHASE_CLOSE, PHASE_ENDED };

/* One of the two steps that may be in flight. */
struct slot {
    struct qd_step *step; /* copy, room for the limits */
    int32_t *ids;         /* [max_logit_rows] of rank 0 */
    const float *logits;  /* of rank 0, or NULL */
    int32_t n_ids;
    int n_done; /* ranks that have ended it */
    int64_t begin_ns, end_ns;
    struct qd_rank_span *spans;   /* [tp] */
    struct qd_device_stats stats; /* of rank 0, after the step */
};

struct rank {
    struct qd_group *group;
    int rank;
    pthread_t thread;
    struct qd_bootstrap threads;   /* among the ranks' threads */
    struct qd_bootstrap bootstrap; /* what device and program get: the same, but noted in `meets` */
    _Atomic bool meets;            /* waits for other ranks in the bootstrap */
    struct qd_device device;
    void *state;                           /* of the program */
    struct qd_step_output output[QD_GROUP_SLOTS]; /* ids [max_logit_rows]: where this rank samples to */
    int64_t begin_ns[QD_GROUP_SLOTS];             /* when the step began */
    uint64_t n_begun, n_ended;             /* steps */

    /* under the group's mutex */
    enum rank_phase phase;
    bool is_open;     /* others may use the context */
    uint64_t n_steps; /* ended */
};

struct qd_group {
    struct qd_group_config config;
    size_t step_bytes; /* capacity of a slot's step */
    int32_t *id_memory;
    struct qd_rank_span *span_memory;
    qd_thread_bootstrap_t *bootstrap; /* NULL when nothing executes */
    struct rank *ranks;               /* [tp] */
    int n_threads;                    /* started */
    bool may_poll;                    /* every rank has a core to itself */

    pthread_mutex_t mutex; /* protects what follows, and the slots' bookkeeping */
    pthread_cond_t changed;
    struct slot slots[QD_GROUP_SLOTS]; /* step i is in slots[i % 2] */
    uint64_t n_launched, n_waited;
    int n_opened;          /* ranks that are ready for steps */
    int n_running;         /* ranks that may still touch another rank's memory */
    int n_alive;           /* ranks whose thread has not ended */
    int64_t moved_ns;      /* when a step was launched, or a rank last ended one or a phase */
    bool stop;             /* asked to end */
    struct qd_device_stats stats; /* of rank 0's device, after its last step */
    bool is_stuck;         /* ranks did not end in time */
    bool is_left;          /* by its owner: the last rank releases it */
    qd_status failure;     /* of the first rank that failed */
    char note[QD_ERR_LEN]; /* of rank 0's device, as the next */
    const char *collectives;
    char text[QD_ERR_LEN]; /* its "replica R rank K: phase: reason" */
};

/* Records the first failure and makes every wait of the other ranks end, on their devices too. With the mutex
 * held: nothing here waits, and no context closes. */
void qd_group_record_failure(struct rank *rank, qd_status status, const char *phase, const char *reason);
/* The same without the mutex; an empty reason is that of the status. */
void qd_group_fail_rank(struct rank *rank, qd_status status, const char *phase, const char *reason);

/* Before any rank's thread starts. */
void qd_group_connect_rank(struct rank *rank);
/* A rank's thread, from opening its device to closing it; `arg` is the rank. */
void *qd_group_rank_main(void *arg);
/* Nobody else has the group any more, or it was never shared. */
void qd_group_release(struct qd_group *group);

#endif
