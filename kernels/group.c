#include "kernels/group.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/random.h"
#include "kernels/base/size.h"

enum { N_SLOTS = 2 }; /* steps in flight */

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
    struct qd_bootstrap bootstrap;
    struct qd_device device;
    void *state;           /* of the program */
    int32_t *ids[N_SLOTS]; /* [max_logit_rows] where this rank samples to */
};

struct qd_group {
    struct qd_group_config config;
    size_t step_bytes; /* capacity of a slot's step */
    int32_t *id_memory;
    qd_thread_bootstrap_t *bootstrap; /* NULL when nothing executes */
    struct rank *ranks;               /* [tp] */
    int n_threads;                    /* started */

    pthread_mutex_t mutex; /* protects what follows, and the slots' bookkeeping */
    pthread_cond_t changed;
    struct slot slots[N_SLOTS]; /* step i is in slots[i % 2] */
    uint64_t n_launched, n_waited;
    int n_opened;          /* ranks that are ready for steps */
    int n_running;         /* ranks that may still touch another rank's memory */
    bool stop;             /* asked to end */
    qd_status failure;     /* of the first rank that failed */
    char text[QD_ERR_LEN]; /* its "replica R rank K: phase: reason" */
};

/* Records the first failure and makes every wait of the other ranks end. */
static void fail_rank(struct rank *rank, qd_status status, const char *phase, const char *reason)
{
    struct qd_group *group = rank->group;
    if (reason[0] == '\0') reason = qd_status_str(status);
    pthread_mutex_lock(&group->mutex);
    if (group->failure == QD_OK) {
        group->failure = status;
        snprintf(group->text, sizeof group->text, "replica %d rank %d: %s: %s", group->config.device.replica,
                 rank->rank, phase, reason);
    }
    pthread_cond_broadcast(&group->changed);
    pthread_mutex_unlock(&group->mutex);
    rank->bootstrap.abort(rank->bootstrap.ctx, rank->rank, phase, reason);
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
    st = config->program.rank_open(config->program.user, rank->rank, rank->device, &rank->state, err,
                                   sizeof err);
    if (st != QD_OK) fail_rank(rank, st, "open model", err);
    return st;
}

static void close_rank(struct rank *rank)
{
    rank->group->config.program.rank_close(rank->state);
    if (rank->device.ctx != NULL) rank->group->config.ops->close(rank->device.ctx);
}

/* Runs step `index` of this rank; its results are in the slot when it returns. */
static qd_status run_step(struct rank *rank, uint64_t index)
{
    struct qd_group *group = rank->group;
    struct slot *slot = &group->slots[index % N_SLOTS];
    char err[QD_ERR_LEN] = "", phase[32];
    int64_t begin_ns = qd_clock_now_ns();
    struct qd_step_output output = {.ids = rank->ids[index % N_SLOTS]};
    qd_status st = group->config.program.rank_step(rank->state, slot->step, &output, err, sizeof err);
    if (st != QD_OK) {
        snprintf(phase, sizeof phase, "step %llu", (unsigned long long)index);
        fail_rank(rank, st, phase, err);
        return st;
    }
    pthread_mutex_lock(&group->mutex);
    if (rank->rank == 0) {
        slot->begin_ns = begin_ns;
        slot->logits = output.logits;
    }
    if (++slot->n_done == group->config.tp) {
        slot->end_ns = qd_clock_now_ns();
        pthread_cond_broadcast(&group->changed);
    }
    pthread_mutex_unlock(&group->mutex);
    return QD_OK;
}

/* Waits until step `index` is launched; false when the rank shall end instead. */
static bool next_step(struct qd_group *group, uint64_t index)
{
    pthread_mutex_lock(&group->mutex);
    while (group->n_launched <= index && !group->stop && group->failure == QD_OK)
        pthread_cond_wait(&group->changed, &group->mutex);
    bool go = group->n_launched > index && group->failure == QD_OK;
    pthread_mutex_unlock(&group->mutex);
    return go;
}

static void *rank_main(void *arg)
{
    struct rank *rank = arg;
    struct qd_group *group = rank->group;
    qd_status st = open_rank(rank);
    pthread_mutex_lock(&group->mutex);
    if (st == QD_OK) group->n_opened++;
    pthread_cond_broadcast(&group->changed);
    pthread_mutex_unlock(&group->mutex);

    for (uint64_t index = 0; st == QD_OK && next_step(group, index); index++) st = run_step(rank, index);

    /* A rank that gives up early must not release memory that another one still reads. */
    pthread_mutex_lock(&group->mutex);
    group->n_running--;
    pthread_cond_broadcast(&group->changed);
    while (group->n_running > 0) pthread_cond_wait(&group->changed, &group->mutex);
    pthread_mutex_unlock(&group->mutex);
    close_rank(rank);
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
    qd_thread_bootstrap_set_spin(group->bootstrap, ranks_have_cores(&group->config.device));
    group->n_running = tp;
    for (int r = 0; r < tp; r++) {
        struct rank *rank = &group->ranks[r];
        rank->bootstrap = qd_thread_bootstrap_rank(group->bootstrap, r);
        int error = pthread_create(&rank->thread, NULL, rank_main, rank);
        if (error != 0) {
            pthread_mutex_lock(&group->mutex);
            group->n_running -= tp - r; /* those that will never run */
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
    while (group->n_opened < tp && group->failure == QD_OK) pthread_cond_wait(&group->changed, &group->mutex);
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
            group->ranks[r].ids[s] = group->id_memory + (r * N_SLOTS + s) * rows;
    }
    for (size_t s = 0; s < N_SLOTS; s++) {
        group->slots[s].step = calloc(1, group->step_bytes);
        if (group->slots[s].step == NULL) return QD_ERR_NO_MEMORY;
        group->slots[s].ids = group->ranks[0].ids[s];
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
    pthread_mutex_init(&group->mutex, NULL);
    pthread_cond_init(&group->changed, NULL);
    qd_status st = allocate(group);
    if (st != QD_OK)
        qd_fail(st, err, errlen, "no memory for the steps of %d ranks", config->tp);
    else if (config->ops->executes)
        st = start_ranks(group, err, errlen);
    if (st != QD_OK) {
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
    while (launched && slot->n_done < group->config.tp && group->failure == QD_OK)
        pthread_cond_wait(&group->changed, &group->mutex);
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

void qd_group_close(qd_group_t *group)
{
    if (group == NULL) return;
    pthread_mutex_lock(&group->mutex);
    group->stop = true;
    pthread_cond_broadcast(&group->changed);
    pthread_mutex_unlock(&group->mutex);
    for (int r = 0; r < group->n_threads; r++) pthread_join(group->ranks[r].thread, NULL);
    qd_thread_bootstrap_destroy(group->bootstrap);
    for (int s = 0; s < N_SLOTS; s++) free(group->slots[s].step);
    free(group->id_memory);
    free(group->ranks);
    pthread_cond_destroy(&group->changed);
    pthread_mutex_destroy(&group->mutex);
    free(group);
}
