#include "kernels/group.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/random.h"
#include "kernels/base/size.h"
#include "kernels/group_inside.h"

/* What ranks get at most to end when the group does, if there is a watchdog. */
static const int64_t MAX_END_NS = 10 * INT64_C(1000000000);

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
    qd_group_record_failure(rank, QD_ERR_TIMEOUT, phase, reason);
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

/* ---- opening ---- */

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
    for (int r = 0; r < tp; r++) qd_group_connect_rank(&group->ranks[r]);
    for (int r = 0; r < tp; r++) {
        struct rank *rank = &group->ranks[r];
        int error = pthread_create(&rank->thread, NULL, qd_group_rank_main, rank);
        if (error != 0) {
            pthread_mutex_lock(&group->mutex);
            group->n_running -= tp - r; /* those that will never run */
            group->n_alive -= tp - r;
            pthread_mutex_unlock(&group->mutex);
            qd_group_fail_rank(rank, QD_ERR_ENVIRONMENT, "start thread", strerror(error));
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
    if (!qd_size_mul(rows, tp * QD_GROUP_SLOTS, &n_ids)) return QD_ERR_NO_MEMORY;
    group->ranks = calloc(tp, sizeof *group->ranks);
    group->id_memory = calloc(n_ids + 1, sizeof *group->id_memory);
    group->span_memory = calloc(tp * QD_GROUP_SLOTS, sizeof *group->span_memory);
    if (group->ranks == NULL || group->id_memory == NULL || group->span_memory == NULL)
        return QD_ERR_NO_MEMORY;
    for (size_t r = 0; r < tp; r++) {
        group->ranks[r].group = group;
        group->ranks[r].rank = (int)r;
        for (size_t s = 0; s < QD_GROUP_SLOTS; s++)
            group->ranks[r].output[s].ids = group->id_memory + (r * QD_GROUP_SLOTS + s) * rows;
    }
    for (size_t s = 0; s < QD_GROUP_SLOTS; s++) {
        group->slots[s].step = calloc(1, group->step_bytes);
        if (group->slots[s].step == NULL) return QD_ERR_NO_MEMORY;
        group->slots[s].ids = group->ranks[0].output[s].ids;
        group->slots[s].spans = group->span_memory + s * tp;
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
    const struct qd_null_steps *recorded = &group->config.null_steps;
    slot->end_ns = slot->begin_ns +
                   (recorded->path != NULL ? recorded->ns[group->n_launched] : group->config.null_step_ns);
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

static bool is_past_recorded(const struct qd_group *group)
{
    const struct qd_null_steps *recorded = &group->config.null_steps;
    return recorded->path != NULL && group->n_launched >= recorded->n;
}

qd_status qd_group_launch(qd_group_t *group, const struct qd_step *step, char *err, size_t errlen)
{
    QD_TRY(check_step(group, step, err, errlen));
    pthread_mutex_lock(&group->mutex);
    qd_status st = QD_OK;
    if (group->failure != QD_OK) {
        st = qd_fail(QD_ERR_RANK, err, errlen, "%s", group->text);
    } else if (group->n_launched - group->n_waited >= QD_GROUP_SLOTS) {
        st = qd_fail(QD_ERR_FULL, err, errlen, "%d steps are in flight", QD_GROUP_SLOTS);
    } else if (is_past_recorded(group)) {
        st = qd_fail(QD_ERR_RANK, err, errlen, "replica %d: step %llu: %s ends after %llu steps of it",
                     group->config.device.replica, (unsigned long long)group->n_launched,
                     group->config.null_steps.path, (unsigned long long)group->config.null_steps.n);
    } else {
        struct slot *slot = &group->slots[group->n_launched % QD_GROUP_SLOTS];
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
    struct slot *slot = &group->slots[group->n_waited % QD_GROUP_SLOTS];
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
            .step = slot->step,
            .n_ranks = group->config.ops->executes ? group->config.tp : 0,
            .spans = slot->spans,
            .device = &slot->stats,
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

const char *qd_group_collectives(const qd_group_t *group)
{
    return group->collectives;
}

void qd_group_close(qd_group_t *group)
{
    if (group == NULL) return;
    char unused[QD_ERR_LEN];
    if (qd_group_end(group, unused, sizeof unused) == QD_OK) {
        for (int r = 0; r < group->n_threads; r++) pthread_join(group->ranks[r].thread, NULL);
        qd_group_release(group);
        return;
    }
    pthread_mutex_lock(&group->mutex);
    for (int r = 0; r < group->n_threads; r++) pthread_detach(group->ranks[r].thread);
    group->is_left = true;
    bool releases = group->n_alive == 0; /* they have ended since */
    pthread_mutex_unlock(&group->mutex);
    if (releases) qd_group_release(group);
}
