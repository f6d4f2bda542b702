#include "kernels/group.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/random.h"
#include "kernels/base/size.h"

enum { N_SLOTS = 2 }; /* steps in flight */

/* What ranks get at most to end when the group does, if there is a watchdog. */
static const int64_t MAX_END_NS = 10 * INT64_C(1000000000);

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
    struct qd_step_output output[N_SLOTS]; /* ids [max_logit_rows]: where this rank samples to */
    int64_t begin_ns[N_SLOTS];             /* when the step began */
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
    qd_thread_bootstrap_t *bootstrap; /* NULL when nothing executes */
    struct rank *ranks;               /* [tp] */
    int n_threads;                    /* started */
    bool may_poll;                    /* every rank has a core to itself */

    pthread_mutex_t mutex; /* protects what follows, and the slots' bookkeeping */
    pthread_cond_t changed;
    struct slot slots[N_SLOTS]; /* step i is in slots[i % 2] */
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
    char note[QD_ERR_LEN]; /* of rank 0's device */
    char text[QD_ERR_LEN]; /* its "replica R rank K: phase: reason" */
};

/* ---- failures ---- */

/* Records the first failure and makes every wait of the other ranks end, on their devices too. With the mutex
 * held: nothing here waits, and no context closes. */
static void record_failure(struct rank *rank, qd_status status, const char *phase, const char *reason)
{
    struct qd_group *group = rank->group;
    rank->threads.abort(rank->threads.ctx, rank->rank, phase, reason);
    if (group->failure != QD_OK) return;
    group->failure = status;
    snprintf(group->text, sizeof group->text, "replica %d rank %d: %s: %s", group->config.device.replica,
             rank->rank, phase, reason);
    for (int r = 0; r < group->config.tp; r++)
        if (group->ranks[r].is_open) qd_device_abandon(group->ranks[r].device);
    pthread_cond_broadcast(&group->changed);
}

static void fail_rank(struct rank *rank, qd_status status, const char *phase, const char *reason)
{
    pthread_mutex_lock(&rank->group->mutex);
    record_failure(rank, status, phase, reason[0] != '\0' ? reason : qd_status_str(status));
    pthread_mutex_unlock(&rank->group->mutex);
}

/* ---- the watchdog: whoever waits for the ranks looks at the time ---- */

/* With the mutex held: waits for a change until then; false when the time is over. */
static bool wait_until(struct qd_group *group, int64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
    return pthread_cond_timedwait(&group->changed, &group->mutex, &deadline) != ETIMEDOUT;
}

/* What speaks for a rank, 0: nothing. Those that are not at fault wait for the one that is: in the bootstrap,
 * or for their devices, whose kernels wait for its. */
static int innocence(struct rank *rank)
{
    if (atomic_load(&rank->meets)) return 2;
    return rank->is_open && qd_device_waits_for(rank->device) != NULL;
}

/* The rank to blame when nothing has moved; NULL: all of them do what takes its time. */
static struct rank *find_hanging(struct qd_group *group)
{
    struct rank *found = NULL;
    for (int r = 0; r < group->config.tp; r++) {
        struct rank *rank = &group->ranks[r];
        bool is_late = rank->phase == PHASE_OPEN_DEVICE ||
                       (rank->phase == PHASE_STEPS && rank->n_steps == group->n_waited &&
                        group->n_launched > group->n_waited);
        if (is_late && (found == NULL || innocence(rank) < innocence(found))) found = rank;
    }
    return found;
}

static void note_hang(struct qd_group *group, struct rank *rank)
{
    char phase[32] = "open device", reason[QD_ERR_LEN];
    const char *waits_for = rank->is_open ? qd_device_waits_for(rank->device) : NULL;
    if (rank->phase == PHASE_STEPS)
        snprintf(phase, sizeof phase, "step %llu", (unsigned long long)rank->n_steps);
    snprintf(reason, sizeof reason, "no progress for %g s%s%s", (double)group->config.watchdog_ns * 1e-9,
             waits_for != NULL ? ", waiting for " : "", waits_for != NULL ? waits_for : "");
    record_failure(rank, QD_ERR_TIMEOUT, phase, reason);
}

/* With the mutex held: waits for a change. When nothing has moved for too long the hanging rank has failed.
 */
static void wait_for_ranks(struct qd_group *group)
{
    int64_t limit_ns = group->config.watchdog_ns;
    if (limit_ns == 0) {
        pthread_cond_wait(&group->changed, &group->mutex);
        return;
    }
    if (wait_until(group, group->moved_ns + limit_ns)) return;
    if (qd_clock_now_ns() - group->moved_ns < limit_ns) return; /* it moved as the time was over */
    struct rank *rank = find_hanging(group);
    if (rank != NULL)
        note_hang(group, rank);
    else
        group->moved_ns = qd_clock_now_ns();
}

/* ---- a rank's thread ---- */

static qd_status noted_all_gather(void *ctx, int index, const void *in, size_t bytes, void *out, char *err,
                                  size_t errlen)
{
    struct rank *rank = ctx;
    atomic_store(&rank->meets, true);
    qd_status st = rank->threads.all_gather(rank->threads.ctx, index, in, bytes, out, err, errlen);
    atomic_store(&rank->meets, false);
    return st;
}

static qd_status noted_barrier(void *ctx, int index, char *err, size_t errlen)
{
    struct rank *rank = ctx;
    atomic_store(&rank->meets, true);
    qd_status st = rank->threads.barrier(rank->threads.ctx, index, err, errlen);
    atomic_store(&rank->meets, false);
    return st;
}

static void noted_abort(void *ctx, int index, const char *phase, const char *reason)
{
    struct rank *rank = ctx;
    rank->threads.abort(rank->threads.ctx, index, phase, reason);
}

static void connect_rank(struct rank *rank)
{
    rank->threads = qd_thread_bootstrap_rank(rank->group->bootstrap, rank->rank);
    rank->bootstrap = (struct qd_bootstrap){
        .rank = rank->threads.rank,
        .world = rank->threads.world,
        .ctx = rank,
        .all_gather = noted_all_gather,
        .barrier = noted_barrier,
        .abort = noted_abort,
    };
}

/* Its context is there, for others to abandon; they may have failed already. */
static void enter_phase(struct rank *rank, enum rank_phase phase)
{
    struct qd_group *group = rank->group;
    pthread_mutex_lock(&group->mutex);
    rank->phase = phase;
    if (phase == PHASE_OPEN_MODEL) {
        rank->is_open = true;
        if (group->failure != QD_OK) qd_device_abandon(rank->device);
    }
    if (phase == PHASE_STEPS) group->n_opened++;
    if (phase == PHASE_STEPS && rank->rank == 0) group->stats = qd_device_get_stats(rank->device);
    group->moved_ns = qd_clock_now_ns();
    pthread_cond_broadcast(&group->changed);
    pthread_mutex_unlock(&group->mutex);
}

static qd_status open_rank(struct rank *rank)
{
    const struct qd_group_config *config = &rank->group->config;
    struct qd_device_config device = config->device;
    char err[QD_ERR_LEN] = "";
    device.first_rank += rank->rank;
    rank->device.ops = config->ops;
    qd_status st = config->ops->open(&device, &rank->bootstrap, &rank->device.ctx, err, sizeof err);
    if (st != QD_OK) {
        fail_rank(rank, st, "open device", err);
        return st;
    }
    enter_phase(rank, PHASE_OPEN_MODEL);
    if (rank->rank == 0)
        snprintf(rank->group->note, sizeof rank->group->note, "%s", qd_device_note(rank->device));
    st = config->program.rank_open(config->program.user, rank->rank, rank->device, &rank->state, err,
                                   sizeof err);
    if (st != QD_OK)
        fail_rank(rank, st, "open model", err);
    else
        enter_phase(rank, PHASE_STEPS);
    return st;
}

static void close_rank(struct rank *rank)
{
    rank->group->config.program.rank_close(rank->state);
    if (rank->device.ctx != NULL) rank->group->config.ops->close(rank->device.ctx);
}

static void fail_step(struct rank *rank, uint64_t index, qd_status st, const char *reason)
{
    char phase[32];
    snprintf(phase, sizeof phase, "step %llu", (unsigned long long)index);
    fail_rank(rank, st, phase, reason);
}

/* The rank's part of a step is done: its results are in the slot. */
static void hand_out(struct rank *rank, uint64_t index)
{
    struct qd_group *group = rank->group;
    struct slot *slot = &group->slots[index % N_SLOTS];
    struct qd_device_stats stats = qd_device_get_stats(rank->device);
    int64_t begin_ns = rank->begin_ns[index % N_SLOTS];
    if (stats.last_span_ns > 0) begin_ns = qd_clock_now_ns() - stats.last_span_ns;
    pthread_mutex_lock(&group->mutex);
    rank->n_steps++;
    group->moved_ns = qd_clock_now_ns();
    if (rank->rank == 0) {
        slot->begin_ns = begin_ns;
        slot->logits = rank->output[index % N_SLOTS].logits;
        group->stats = stats;
    }
    if (++slot->n_done == group->config.tp) {
        slot->end_ns = qd_clock_now_ns();
        pthread_cond_broadcast(&group->changed);
    }
    pthread_mutex_unlock(&group->mutex);
}

static qd_status end_step(struct rank *rank)
{
    const struct qd_program *program = &rank->group->config.program;
    char err[QD_ERR_LEN] = "";
    uint64_t index = rank->n_ended++;
    qd_status st = QD_OK;
    if (program->rank_finish != NULL)
        st = program->rank_finish(rank->state, &rank->output[index % N_SLOTS], err, sizeof err);
    if (st == QD_OK)
        hand_out(rank, index);
    else
        fail_step(rank, index, st, err);
    return st;
}

/* When it fails, the step before is ended first: it is handed out all the same. */
static qd_status begin_step(struct rank *rank)
{
    const struct qd_group *group = rank->group;
    char err[QD_ERR_LEN] = "";
    uint64_t index = rank->n_begun++;
    struct qd_step_output *output = &rank->output[index % N_SLOTS];
    output->logits = NULL;
    rank->begin_ns[index % N_SLOTS] = qd_clock_now_ns();
    qd_status st = group->config.program.rank_step(rank->state, group->slots[index % N_SLOTS].step, output,
                                                   err, sizeof err);
    if (st == QD_OK) return st;
    if (rank->n_ended < index) (void)end_step(rank);
    fail_step(rank, index, st, err);
    return st;
}

/* ---- what a rank does next ---- */

enum action { STOP, BEGIN, END };

static enum action next_action(struct rank *rank)
{
    struct qd_group *group = rank->group;
    pthread_mutex_lock(&group->mutex);
    while (group->n_launched == rank->n_begun && rank->n_begun == rank->n_ended && !group->stop &&
           group->failure == QD_OK)
        pthread_cond_wait(&group->changed, &group->mutex);
    enum action action = group->failure != QD_OK             ? STOP
                         : group->n_launched > rank->n_begun ? BEGIN
                         : rank->n_begun > rank->n_ended     ? END
                                                             : STOP;
    pthread_mutex_unlock(&group->mutex);
    return action;
}

/* Whether a step was launched before the oldest begun one has ended. Only asked of devices that can tell,
 * where ranks have cores to spend on asking. */
static bool is_launched_meanwhile(struct rank *rank)
{
    struct qd_group *group = rank->group;
    bool is_launched = false;
    while (group->may_poll && !is_launched && !qd_device_step_ended(rank->device)) {
        pthread_mutex_lock(&group->mutex);
        is_launched = group->n_launched > rank->n_begun || group->failure != QD_OK;
        pthread_mutex_unlock(&group->mutex);
    }
    return is_launched;
}

static qd_status run_steps(struct rank *rank)
{
    for (;;) {
        switch (next_action(rank)) {
        case STOP: return QD_OK;
        case BEGIN: QD_TRY(begin_step(rank)); break;
        case END:
            if (!is_launched_meanwhile(rank)) QD_TRY(end_step(rank));
            break;
        }
    }
}

/* Nobody else has the group any more, or it was never shared. */
static void release(struct qd_group *group)
{
    qd_thread_bootstrap_destroy(group->bootstrap);
    for (int s = 0; s < N_SLOTS; s++) free(group->slots[s].step);
    free(group->id_memory);
    free(group->ranks);
    pthread_cond_destroy(&group->changed);
    pthread_mutex_destroy(&group->mutex);
    free(group);
}

static void *rank_main(void *arg)
{
    struct rank *rank = arg;
    struct qd_group *group = rank->group;
    qd_status st = open_rank(rank);

    if (st == QD_OK) (void)run_steps(rank); /* what failed has been told */

    /* A rank that gives up early must not release memory that another one still reads, nor logits that were
     * handed out. */
    pthread_mutex_lock(&group->mutex);
    group->n_running--;
    rank->phase = PHASE_CLOSE;
    pthread_cond_broadcast(&group->changed);
    while (group->n_running > 0 || !group->stop) pthread_cond_wait(&group->changed, &group->mutex);
    rank->is_open = false;
    pthread_mutex_unlock(&group->mutex);
    close_rank(rank);

    pthread_mutex_lock(&group->mutex);
    rank->phase = PHASE_ENDED;
    bool releases = --group->n_alive == 0 && group->is_left;
    pthread_cond_broadcast(&group->changed);
    pthread_mutex_unlock(&group->mutex);
    if (releases) release(group);
    return NULL;
}

/* More ranks, or more threads, than cores: a rank that spins would keep another one from running. */
static bool ranks_have_cores(const struct qd_device_config *device)
{
    cpu_set_t available;
    if (sched_getaffinity(0, sizeof available, &available) != 0) return false;
    int n_cores = CPU_COUNT(&available);
    return device->n_ranks <= n_cores && device->n_threads <= n_cores;
}

static qd_status start_ranks(struct qd_group *group, char *err, size_t errlen)
{
    int tp = group->config.tp;
    QD_TRY(qd_thread_bootstrap_create(tp, &group->bootstrap, err, errlen));
    group->may_poll = ranks_have_cores(&group->config.device);
    qd_thread_bootstrap_set_spin(group->bootstrap, group->may_poll);
    group->n_running = group->n_alive = tp;
    group->moved_ns = qd_clock_now_ns();
    for (int r = 0; r < tp; r++) connect_rank(&group->ranks[r]);
    for (int r = 0; r < tp; r++) {
        struct rank *rank = &group->ranks[r];
        int error = pthread_create(&rank->thread, NULL, rank_main, rank);
        if (error != 0) {
            pthread_mutex_lock(&group->mutex);
            group->n_running -= tp - r; /* those that will never run */
            group->n_alive -= tp - r;
            pthread_mutex_unlock(&group->mutex);
            fail_rank(rank, QD_ERR_ENVIRONMENT, "start thread", strerror(error));
            break;
        }
        group->n_threads++;
        char name[32];
        snprintf(name, sizeof name, "r%dk%d", group->config.device.replica, r);
        name[15] = '\0';
        pthread_setname_np(rank->thread, name);
    }
    pthread_mutex_lock(&group->mutex);
    while (group->n_opened < tp && group->failure == QD_OK) wait_for_ranks(group);
    qd_status st = group->failure;
    if (st != QD_OK) qd_fail(st, err, errlen, "%s", group->text);
    pthread_mutex_unlock(&group->mutex);
    return st;
}

static qd_status check_config(const struct qd_group_config *config, char *err, size_t errlen)
{
    if (config->tp < 1) return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a group of %d ranks", config->tp);
    if (config->vocab_size < 1)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a vocabulary of %d ids", config->vocab_size);
    if (qd_step_capacity(&config->device.limits) == 0)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "step limits that make no buffer");
    return QD_OK;
}

/* Everything that a step needs on the host: nothing is allocated later. */
static qd_status allocate(struct qd_group *group)
{
    size_t tp = (size_t)group->config.tp, rows = (size_t)group->config.device.limits.max_logit_rows, n_ids;
    group->step_bytes = qd_step_capacity(&group->config.device.limits);
    if (!qd_size_mul(rows, tp * N_SLOTS, &n_ids)) return QD_ERR_NO_MEMORY;
    group->ranks = calloc(tp, sizeof *group->ranks);
    group->id_memory = calloc(n_ids + 1, sizeof *group->id_memory);
    if (group->ranks == NULL || group->id_memory == NULL) return QD_ERR_NO_MEMORY;
    for (size_t r = 0; r < tp; r++) {
        group->ranks[r].group = group;
        group->ranks[r].rank = (int)r;
        for (size_t s = 0; s < N_SLOTS; s++)
            group->ranks[r].output[s].ids = group->id_memory + (r * N_SLOTS + s) * rows;
    }
    for (size_t s = 0; s < N_SLOTS; s++) {
        group->slots[s].step = calloc(1, group->step_bytes);
        if (group->slots[s].step == NULL) return QD_ERR_NO_MEMORY;
        group->slots[s].ids = group->ranks[0].output[s].ids;
    }
    return QD_OK;
}

qd_status qd_group_open(const struct qd_group_config *config, qd_group_t **out, char *err, size_t errlen)
{
    *out = NULL;
    QD_TRY(check_config(config, err, errlen));
    struct qd_group *group = calloc(1, sizeof *group);
    if (group == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a group");
    group->config = *config;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* as qd_clock_now_ns */
    pthread_mutex_init(&group->mutex, NULL);
    pthread_cond_init(&group->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    qd_status st = allocate(group);
    if (st != QD_OK)
        qd_fail(st, err, errlen, "no memory for the steps of %d ranks", config->tp);
    else if (config->ops->executes)
        st = start_ranks(group, err, errlen);
    if (st != QD_OK) {
        char unused[QD_ERR_LEN];
        if (qd_group_end(group, unused, sizeof unused) != QD_OK) st = QD_ERR_TIMEOUT;
        qd_group_close(group);
        return st;
    }
    *out = group;
    return QD_OK;
}

/* Ids that a request gets whatever it is batched with; the third word keeps them apart from the sampler's. */
static void make_up_ids(struct qd_group *group, struct slot *slot)
{
    const struct qd_sampling *sampling = qd_step_sampling(slot->step);
    slot->begin_ns = qd_clock_now_ns();
    for (int32_t row = 0; row < slot->n_ids; row++) {
        struct qd_philox_block block =
            qd_philox(sampling[row].seed, ~(uint64_t)0, sampling[row].output_index);
        slot->ids[row] = (int32_t)(((uint64_t)block.word[0] * (uint64_t)group->config.vocab_size) >> 32);
    }
    slot->end_ns = slot->begin_ns + group->config.null_step_ns;
    slot->n_done = group->config.tp;
}

static qd_status check_step(struct qd_group *group, const struct qd_step *step, char *err, size_t errlen)
{
    if (step->magic != QD_STEP_MAGIC || step->version != QD_STEP_VERSION)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "this is no step of version %d", QD_STEP_VERSION);
    if (step->used_bytes > group->step_bytes ||
        step->n_logit_rows > group->config.device.limits.max_logit_rows)
        return qd_fail(QD_ERR_FULL, err, errlen,
                       "the step is larger than the limits that the group was opened with");
    return QD_OK;
}

qd_status qd_group_launch(qd_group_t *group, const struct qd_step *step, char *err, size_t errlen)
{
    QD_TRY(check_step(group, step, err, errlen));
    pthread_mutex_lock(&group->mutex);
    qd_status st = QD_OK;
    if (group->failure != QD_OK) {
        st = qd_fail(QD_ERR_RANK, err, errlen, "%s", group->text);
    } else if (group->n_launched - group->n_waited >= N_SLOTS) {
        st = qd_fail(QD_ERR_FULL, err, errlen, "%d steps are in flight", N_SLOTS);
    } else {
        struct slot *slot = &group->slots[group->n_launched % N_SLOTS];
        memcpy(slot->step, step, step->used_bytes);
        slot->step->step_index = group->n_launched;
        slot->logits = NULL;
        slot->n_ids = step->n_logit_rows;
        slot->n_done = 0;
        if (!group->config.ops->executes) make_up_ids(group, slot);
        group->n_launched++;
        group->moved_ns = qd_clock_now_ns();
        pthread_cond_broadcast(&group->changed);
    }
    pthread_mutex_unlock(&group->mutex);
    return st;
}

qd_status qd_group_wait(qd_group_t *group, struct qd_group_result *result, char *err, size_t errlen)
{
    *result = (struct qd_group_result){0};
    pthread_mutex_lock(&group->mutex);
    struct slot *slot = &group->slots[group->n_waited % N_SLOTS];
    bool launched = group->n_launched > group->n_waited;
    while (launched && slot->n_done < group->config.tp && group->failure == QD_OK) wait_for_ranks(group);
    qd_status st = QD_OK;
    bool done = launched && slot->n_done == group->config.tp; /* perhaps before another step failed */
    if (group->failure != QD_OK && !done) {
        st = qd_fail(QD_ERR_RANK, err, errlen, "%s", group->text);
    } else if (!launched) {
        st = qd_fail(QD_ERR_ARGUMENT, err, errlen, "no step is in flight");
    } else {
        *result = (struct qd_group_result){
            .ids = slot->ids,
            .n_ids = slot->n_ids,
            .logits = slot->logits,
            .vocab_size = group->config.vocab_size,
            .step_begin_ns = slot->begin_ns,
            .step_end_ns = slot->end_ns,
        };
        group->n_waited++;
    }
    pthread_mutex_unlock(&group->mutex);
    return st;
}

struct qd_device_stats qd_group_get_stats(qd_group_t *group)
{
    pthread_mutex_lock(&group->mutex);
    struct qd_device_stats stats = group->stats;
    pthread_mutex_unlock(&group->mutex);
    return stats;
}

/* With the mutex held: waits until all ranks have ended, or their time is over. */
static void wait_for_ends(struct qd_group *group)
{
    int64_t limit_ns = group->config.watchdog_ns, now_ns = qd_clock_now_ns();
    if (limit_ns == 0) {
        while (group->n_alive > 0) pthread_cond_wait(&group->changed, &group->mutex);
        return;
    }
    if (limit_ns > MAX_END_NS) limit_ns = MAX_END_NS;
    while (group->n_alive > 0 && !group->is_stuck) group->is_stuck = !wait_until(group, now_ns + limit_ns);
}

qd_status qd_group_end(qd_group_t *group, char *err, size_t errlen)
{
    pthread_mutex_lock(&group->mutex);
    group->stop = true;
    pthread_cond_broadcast(&group->changed);
    wait_for_ends(group);
    qd_status st = QD_OK;
    if (group->n_alive > 0) {
        enum rank_phase of_others = group->n_running > 0 ? PHASE_CLOSE : PHASE_ENDED;
        int r = 0;
        while (group->ranks[r].phase == of_others) r++;
        st = qd_fail(QD_ERR_TIMEOUT, err, errlen, "replica %d rank %d: end: it does not stop",
                     group->config.device.replica, r);
    }
    pthread_mutex_unlock(&group->mutex);
    return st;
}

const char *qd_group_note(const qd_group_t *group)
{
    return group->note;
}

void qd_group_close(qd_group_t *group)
{
    if (group == NULL) return;
    char unused[QD_ERR_LEN];
    if (qd_group_end(group, unused, sizeof unused) == QD_OK) {
        for (int r = 0; r < group->n_threads; r++) pthread_join(group->ranks[r].thread, NULL);
        release(group);
        return;
    }
    pthread_mutex_lock(&group->mutex);
    for (int r = 0; r < group->n_threads; r++) pthread_detach(group->ranks[r].thread);
    group->is_left = true;
    bool releases = group->n_alive == 0; /* they have ended since */
    pthread_mutex_unlock(&group->mutex);
    if (releases) release(group);
}
