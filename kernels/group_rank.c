#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "kernels/group_inside.h"

/* ---- failures ---- */

void qd_group_record_failure(struct rank *rank, qd_status status, const char *phase, const char *reason)
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

void qd_group_fail_rank(struct rank *rank, qd_status status, const char *phase, const char *reason)
{
    pthread_mutex_lock(&rank->group->mutex);
    qd_group_record_failure(rank, status, phase, reason[0] != '\0' ? reason : qd_status_str(status));
    pthread_mutex_unlock(&rank->group->mutex);
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

void qd_group_connect_rank(struct rank *rank)
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
        qd_group_fail_rank(rank, st, "open device", err);
        return st;
    }
    enter_phase(rank, PHASE_OPEN_MODEL);
    if (rank->rank == 0) {
        snprintf(rank->group->note, sizeof rank->group->note, "%s", qd_device_note(rank->device));
        rank->group->collectives = qd_device_collectives(rank->device);
    }
    st = config->program.rank_open(config->program.user, rank->rank, rank->device, &rank->state, err,
                                   sizeof err);
    if (st != QD_OK)
        qd_group_fail_rank(rank, st, "open model", err);
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
    qd_group_fail_rank(rank, st, phase, reason);
}

/* The rank's part of a step is done: its results are in the slot. */
static void hand_out(struct rank *rank, uint64_t index)
{
    struct qd_group *group = rank->group;
    struct slot *slot = &group->slots[index % QD_GROUP_SLOTS];
    struct qd_device_stats stats = qd_device_get_stats(rank->device);
    int64_t begin_ns = rank->begin_ns[index % QD_GROUP_SLOTS], end_ns = qd_clock_now_ns();
    if (stats.last_span_ns > 0) begin_ns = end_ns - stats.last_span_ns;
    pthread_mutex_lock(&group->mutex);
    slot->spans[rank->rank] = (struct qd_rank_span){.begin_ns = begin_ns, .end_ns = end_ns};
    rank->n_steps++;
    group->moved_ns = qd_clock_now_ns();
    if (rank->rank == 0) {
        slot->begin_ns = begin_ns;
        slot->stats = stats;
        slot->logits = rank->output[index % QD_GROUP_SLOTS].logits;
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
        st = program->rank_finish(rank->state, &rank->output[index % QD_GROUP_SLOTS], err, sizeof err);
    if (st == QD_OK)
        hand_out(rank, index);
    else
        fail_step(rank, index, st, err);
    return st;
}

/* Whether a step can still run when rank_step has returned: its device can be waited for, or asked. */
static bool runs_on(const struct qd_group_config *config)
{
    bool by_device = config->ops->finish_step != NULL || config->ops->step_ended != NULL;
    return config->program.rank_finish != NULL && by_device;
}

/* A step that has ended with it is handed out before the next begins. When it fails, the step before is ended
 * first: it is handed out all the same. */
static qd_status begin_step(struct rank *rank)
{
    const struct qd_group *group = rank->group;
    char err[QD_ERR_LEN] = "";
    uint64_t index = rank->n_begun++;
    struct qd_step_output *output = &rank->output[index % QD_GROUP_SLOTS];
    output->logits = NULL;
    rank->begin_ns[index % QD_GROUP_SLOTS] = qd_clock_now_ns();
    qd_status st = group->config.program.rank_step(rank->state, group->slots[index % QD_GROUP_SLOTS].step, output,
                                                   err, sizeof err);
    if (st == QD_OK) return runs_on(&group->config) ? st : end_step(rank);
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

/* ---- from beginning to end ---- */

void qd_group_release(struct qd_group *group)
{
    qd_thread_bootstrap_destroy(group->bootstrap);
    for (int s = 0; s < QD_GROUP_SLOTS; s++) free(group->slots[s].step);
    free(group->id_memory);
    free(group->span_memory);
    free(group->ranks);
    pthread_cond_destroy(&group->changed);
    pthread_mutex_destroy(&group->mutex);
    free(group);
}

void *qd_group_rank_main(void *arg)
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
    if (releases) qd_group_release(group);
    return NULL;
}

