#include "harness/engine/replay.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"

enum { MAX_FLIGHTS = 2 };

/* Where replicas wait for each other between the warm-up and what is measured. */
struct meeting {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int n_expected, n_here;
    atomic_bool stop; /* a replica failed, or could not start */
};

struct worker {
    struct qd_replay_replica *replica;
    qd_group_t *group;
    struct meeting *meeting;
    pthread_t thread;
    int max_flights;
    int64_t stamp_ns;              /* end of the last segment, where the next begins */
    int64_t begin_ns, end_ns;      /* of the measured steps, read apart from the segments */
    struct qd_device_stats device; /* after the step that ended last */
    qd_status status;
    char err[QD_ERR_LEN];
};

static void meet(struct meeting *meeting)
{
    pthread_mutex_lock(&meeting->mutex);
    meeting->n_here++;
    pthread_cond_broadcast(&meeting->changed);
    while (meeting->n_here < meeting->n_expected) pthread_cond_wait(&meeting->changed, &meeting->mutex);
    pthread_mutex_unlock(&meeting->mutex);
}

static int64_t end_segment(struct worker *w)
{
    int64_t before_ns = w->stamp_ns;
    w->stamp_ns = qd_clock_now_ns();
    return w->stamp_ns - before_ns;
}

static qd_status launch(struct worker *w, uint64_t i)
{
    struct qd_step_row *row = &w->replica->rows[i];
    row->begin_ns = w->stamp_ns;
    QD_TRY(qd_group_launch(w->group, w->replica->steps[i].step, w->err, sizeof w->err));
    row->launch_ns = end_segment(w);
    return QD_OK;
}

static qd_status finish(struct worker *w, uint64_t i)
{
    struct qd_replay_replica *replica = w->replica;
    const struct qd_recorded_step *step = &replica->steps[i];
    struct qd_step_row *row = &replica->rows[i];
    struct qd_group_result result;
    row->wait_begin_ns = w->stamp_ns;
    QD_TRY(qd_group_wait(w->group, &result, w->err, sizeof w->err));
    row->wait_ns = end_segment(w);
    qd_step_row_note_device(row, &result, &w->device);
    for (int32_t k = 0; k < step->n_ids; k++) replica->n_different_ids += result.ids[k] != step->ids[k];
    replica->n_ids += (uint64_t)step->n_ids;
    row->output_ns = end_segment(w);
    return QD_OK;
}

/* Steps [begin, end), none in flight before and after. */
static qd_status run_steps(struct worker *w, uint64_t begin, uint64_t end)
{
    uint64_t next = begin, n_ended = begin;
    w->stamp_ns = qd_clock_now_ns();
    while (next < end && !atomic_load_explicit(&w->meeting->stop, memory_order_relaxed)) {
        QD_TRY(launch(w, next++));
        if (next - n_ended == (uint64_t)w->max_flights) QD_TRY(finish(w, n_ended++));
    }
    while (n_ended < next) QD_TRY(finish(w, n_ended++));
    return QD_OK;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct qd_replay_replica *replica = w->replica;
    w->status = run_steps(w, 0, replica->n_warmup_steps);
    if (w->status != QD_OK) atomic_store(&w->meeting->stop, true);
    meet(w->meeting);
    struct qd_device_stats before = w->device = qd_group_get_stats(w->group);
    w->begin_ns = qd_clock_now_ns();
    if (w->status == QD_OK) w->status = run_steps(w, replica->n_warmup_steps, replica->n_steps);
    if (w->status != QD_OK) atomic_store(&w->meeting->stop, true);
    w->end_ns = qd_clock_now_ns();
    struct qd_device_stats after = qd_group_get_stats(w->group);
    replica->stats.device = qd_device_stats_since(&after, &before);
    return NULL;
}

/* Starts all, or what it can, and waits for their ends. */
static qd_status run_workers(struct worker *workers, int dp, struct meeting *meeting, char *err,
                             size_t errlen)
{
    int n_started = 0, error = 0;
    while (n_started < dp && error == 0) {
        error = pthread_create(&workers[n_started].thread, NULL, worker_main, &workers[n_started]);
        if (error == 0) n_started++;
    }
    if (error != 0) {
        pthread_mutex_lock(&meeting->mutex);
        atomic_store(&meeting->stop, true);
        meeting->n_expected = n_started;
        pthread_cond_broadcast(&meeting->changed);
        pthread_mutex_unlock(&meeting->mutex);
    }
    for (int r = 0; r < n_started; r++) pthread_join(workers[r].thread, NULL);
    if (error != 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cannot start the thread of replica %d: %s",
                       n_started, strerror(error));
    for (int r = 0; r < dp; r++)
        if (workers[r].status != QD_OK) return qd_fail(workers[r].status, err, errlen, "%s", workers[r].err);
    return QD_OK;
}

/* What the rows of the measured steps add up to, and the wait for the last replica. */
static void add_up(const struct worker *w, int64_t last_end_ns)
{
    struct qd_replica_stats *stats = &w->replica->stats;
    for (uint64_t i = w->replica->n_warmup_steps; i < w->replica->n_steps; i++) {
        const struct qd_step_row *row = &w->replica->rows[i];
        stats->launch_ns += row->launch_ns;
        stats->wait_ns += row->wait_ns;
        stats->output_ns += row->output_ns;
        stats->span_ns += qd_step_row_span_ns(row);
    }
    stats->idle_ns = last_end_ns - w->end_ns;
    stats->wall_ns = last_end_ns - w->begin_ns;
}

qd_status qd_replay_run(struct qd_replay *replay, qd_group_t *const *groups, bool async, char *err,
                        size_t errlen)
{
    struct meeting meeting = {
        .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .n_expected = replay->dp};
    struct worker *workers = calloc((size_t)replay->dp, sizeof *workers);
    if (workers == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a replay");
    atomic_init(&meeting.stop, false);
    for (int r = 0; r < replay->dp; r++)
        workers[r] = (struct worker){.replica = &replay->replicas[r],
                                     .group = groups[r],
                                     .meeting = &meeting,
                                     .max_flights = async ? MAX_FLIGHTS : 1};
    qd_status st = run_workers(workers, replay->dp, &meeting, err, errlen);
    int64_t last_end_ns = 0;
    for (int r = 0; r < replay->dp; r++)
        if (workers[r].end_ns > last_end_ns) last_end_ns = workers[r].end_ns;
    for (int r = 0; r < replay->dp; r++) add_up(&workers[r], last_end_ns);
    free(workers);
    return st;
}
