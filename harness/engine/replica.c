#include "harness/engine/replica.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/engine/inbox.h"
#include "harness/engine/prepare.h"
#include "harness/engine/step_count.h"
#include "harness/engine/step_ring.h"

enum { MIN_OUTBOX = 64, MAX_FLIGHTS = 2 };

/* A launched step. */
struct flight {
    struct qd_schedule schedule;
    struct qd_step_row row;        /* what is known of it so far */
    struct qd_group_result result; /* once it was waited for */
    bool has_begun;                /* on the device; its row's virtual times are set */
};

struct qd_replica {
    struct qd_replica_config config;
    struct qd_step_limits limits;
    struct qd_inbox inbox;
    pthread_t thread;
    bool started;

    /* of the replica's thread, or of whoever steps it */
    qd_scheduler_t *scheduler;
    struct qd_step *step;    /* qd_step_capacity(limits) bytes */
    struct qd_event *outbox; /* [outbox_room] events of this step */
    size_t n_outbox, outbox_room;
    struct qd_live_request *ended;  /* chain of requests whose last event is in the outbox */
    struct qd_live_request *landed; /* chain of those that had ended before, now out of every step */
    struct flight flights[MAX_FLIGHTS]; /* launched steps, the oldest first */
    int n_flights, max_flights;
    bool is_blocked; /* stepped: a step must end before another is scheduled */

    atomic_int n_waiting, n_running, n_used_blocks; /* for routers */

    struct qd_replica_stats stats; /* written by the thread, read by others while it is parked */
    int64_t wall_begin_ns;
    struct qd_device_stats device_before; /* at the last reset */
    int64_t stamp_ns; /* end of the last segment, where the next begins */
    int64_t idle_ns, spare_ns;             /* since the last launch, as in a step's row */
    int32_t n_spare_preempted;             /* requests, by passes that launched nothing since then */
    struct qd_device_stats device_at_step; /* after the step that ended last */
    struct qd_step_ring ring;

    char failure[QD_ERR_LEN]; /* written once, before `dead` */
    atomic_bool dead;
};

/* What readers of the events may free: ended requests that no launched step names. The others follow when they have
 * landed. */
static struct qd_live_request *take_retired(struct qd_replica *replica)
{
    struct qd_live_request *retired = replica->landed;
    for (struct qd_live_request *request = replica->ended, *next; request != NULL; request = next) {
        next = request->next;
        if (request->n_in_flight > 0) continue;
        request->next = retired;
        retired = request;
    }
    replica->ended = replica->landed = NULL;
    return retired;
}

/* Hands out the events so far, all with one time stamp. Ended requests leave the table first: from then on no
 * abort can find them. */
static void flush_outbox(struct qd_replica *replica)
{
    if (replica->n_outbox == 0 && replica->landed == NULL) return;
    if (replica->ended != NULL) qd_inbox_forget(&replica->inbox, replica->ended);
    int64_t now_ns = qd_clock_read(replica->config.clock);
    for (size_t i = 0; i < replica->n_outbox; i++) replica->outbox[i].time_ns = now_ns;
    qd_events_push(replica->config.events, replica->outbox, replica->n_outbox, take_retired(replica));
    replica->n_outbox = 0;
}

/* token -1: an end without a token. */
static void emit(struct qd_replica *replica, struct qd_live_request *request, int32_t token,
                 enum qd_finish finish)
{
    int32_t n_output = qd_sched_n_sampled(&request->sched) - request->sched.n_prompt;
    if (replica->n_outbox == replica->outbox_room) flush_outbox(replica);
    replica->outbox[replica->n_outbox++] = (struct qd_event){
        .request = request->sched.id,
        .token = token,
        .output_index = token >= 0 ? n_output - 1 : n_output,
        .finish = finish,
        .replica = replica->config.index,
        .scheduled_ns = request->scheduled_ns,
        .preemptions = request->sched.n_preemptions,
        .hit_tokens = request->n_hit_tokens,
    };
    if (finish == QD_FINISH_NONE) return;
    qd_scheduler_remove(replica->scheduler, &request->sched);
    request->has_ended = true;
    request->next = replica->ended;
    replica->ended = request;
    replica->stats.n_finished++;
}

/* Every boundary is one stamp that ends a segment and begins the next. Returns what it adds. */
static int64_t end_segment(struct qd_replica *replica, int64_t *segment_ns)
{
    int64_t now_ns = qd_clock_now_ns(), passed_ns = now_ns - replica->stamp_ns;
    *segment_ns += passed_ns;
    replica->stamp_ns = now_ns;
    return passed_ns;
}

static void apply_commands(struct qd_replica *replica, const struct qd_commands *commands)
{
    for (struct qd_live_request *request = commands->submitted, *next; request != NULL; request = next) {
        next = request->next;
        qd_scheduler_add(replica->scheduler, &request->sched);
    }
    for (struct qd_live_request *request = commands->aborted, *next; request != NULL; request = next) {
        next = request->abort_next;
        emit(replica, request, -1, QD_FINISH_ABORT);
    }
    flush_outbox(replica);
}

static void end_all_with_error(struct qd_replica *replica)
{
    struct qd_sched_request *request;
    while ((request = qd_scheduler_oldest(replica->scheduler)) != NULL)
        emit(replica, qd_live_request_of(request), -1, QD_FINISH_ERROR);
    flush_outbox(replica);
}

static qd_status die(struct qd_replica *replica, qd_status st, const char *err)
{
    if (st == QD_ERR_RANK)
        snprintf(replica->failure, sizeof replica->failure, "%s", err); /* names the replica already */
    else
        qd_fail(st, replica->failure, sizeof replica->failure, "replica %d: step %llu: %s",
                replica->config.index, (unsigned long long)replica->stats.n_steps, err);
    atomic_store(&replica->dead, true);
    return st;
}

static int32_t used_blocks(const struct qd_replica *replica)
{
    const struct qd_kv_pool *pool = qd_scheduler_pool(replica->scheduler);
    return qd_kv_pool_capacity(pool->n_blocks) - pool->n_free;
}

/* What the schedule says, into the step's row. */
static void count_schedule(const struct qd_replica *replica, const struct qd_schedule *schedule,
                           struct qd_step_row *row)
{
    const struct qd_clock *clock = replica->config.clock;
    qd_step_count(schedule, clock->is_virtual ? qd_clock_read(clock) : replica->stamp_ns, row);
    row->replica = replica->config.index;
    row->index = replica->stats.n_steps;
    row->n_running = qd_scheduler_n_running(replica->scheduler);
    row->n_waiting = qd_scheduler_n_waiting(replica->scheduler);
    row->n_kv_blocks = used_blocks(replica);
}

static bool contains(const int32_t *ids, int32_t n, int32_t id)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] == id) return true;
    return false;
}

/* Whether the request ends with the token it just got. A stop wins over a length that is reached with it, as
 * in vLLM; max_known was cut to max_model_len at submission. */
static enum qd_finish finish_of(const struct qd_replica *replica, const struct qd_live_request *request,
                                int32_t token)
{
    if (!request->ignore_eos && contains(replica->config.eos_ids, replica->config.n_eos, token))
        return QD_FINISH_STOP;
    if (contains(request->stop_ids, request->n_stop_ids, token)) return QD_FINISH_STOP;
    if (qd_sched_n_sampled(&request->sched) == request->sched.max_known) return QD_FINISH_LENGTH;
    return QD_FINISH_NONE;
}

static qd_status check_result(const struct qd_replica *replica, const struct qd_schedule *schedule,
                              const struct qd_group_result *result, char *err, size_t errlen)
{
    int32_t n_rows = 0;
    for (int32_t i = 0; i < schedule->n_entries; i++) n_rows += schedule->entries[i].samples;
    if (result->n_ids != n_rows)
        return qd_fail(QD_ERR_INTERNAL, err, errlen, "%d sampled ids came back for %d rows", result->n_ids,
                       n_rows);
    for (int32_t i = 0; i < n_rows; i++)
        if (result->ids[i] < 0 || result->ids[i] >= replica->config.vocab_size)
            return qd_fail(QD_ERR_INTERNAL, err, errlen, "sampled id %d lies outside the vocabulary of %d",
                           result->ids[i], replica->config.vocab_size);
    return QD_OK;
}

/* The oldest launched step ends. */
static struct flight take_flight(struct qd_replica *replica)
{
    struct flight oldest = replica->flights[0];
    replica->flights[0] = replica->flights[1];
    replica->n_flights--;
    return oldest;
}

/* A step that named the request has ended. False when the request had ended before: its token is dropped. */
static bool land(struct qd_replica *replica, struct qd_live_request *request)
{
    request->n_in_flight--;
    if (!request->has_ended) return true;
    if (request->n_in_flight == 0) {
        request->next = replica->landed;
        replica->landed = request;
    }
    return false;
}

static void deliver(struct qd_replica *replica, const struct qd_schedule *schedule, const int32_t *ids)
{
    for (int32_t i = 0, row = 0; i < schedule->n_entries; i++) {
        struct qd_live_request *request = qd_live_request_of(schedule->entries[i].request);
        bool is_wanted = land(replica, request);
        if (!schedule->entries[i].samples) continue;
        int32_t token = ids[row++];
        if (!is_wanted) continue;
        request->tokens[qd_sched_n_sampled(&request->sched)] = token;
        qd_scheduler_token(replica->scheduler, &request->sched);
        emit(replica, request, token, finish_of(replica, request, token));
    }
    flush_outbox(replica);
}

/* Nothing of the launched steps will come any more. */
static void drop_flights(struct qd_replica *replica)
{
    while (replica->n_flights > 0) {
        struct flight flight = take_flight(replica);
        for (int32_t i = 0; i < flight.schedule.n_entries; i++)
            land(replica, qd_live_request_of(flight.schedule.entries[i].request));
    }
    flush_outbox(replica);
}

/* The schedule took schedule_ns until now. */
static qd_status launch_step(struct qd_replica *replica, const struct qd_schedule *schedule,
                             int64_t schedule_ns)
{
    char err[QD_ERR_LEN] = "";
    struct flight *flight = &replica->flights[replica->n_flights];
    flight->schedule = *schedule;
    flight->has_begun = false;
    flight->row = (struct qd_step_row){.begin_ns = replica->stamp_ns - schedule_ns,
                                       .schedule_ns = schedule_ns,
                                       .idle_ns = replica->idle_ns,
                                       .spare_ns = replica->spare_ns,
                                       .n_preempted = replica->n_spare_preempted};
    replica->idle_ns = replica->spare_ns = 0;
    replica->n_spare_preempted = 0;
    count_schedule(replica, schedule, &flight->row);
    qd_step_count_add(&flight->row, schedule, &replica->stats);
    qd_status st = qd_prepare_step(schedule, &replica->limits, replica->step);
    if (st != QD_OK) return die(replica, st, "the schedule exceeds the step buffer");
    flight->row.prepare_ns = end_segment(replica, &replica->stats.prepare_ns);
    st = qd_group_launch(replica->config.group, replica->step, err, sizeof err);
    if (st != QD_OK) return die(replica, st, err);
    for (int32_t i = 0; i < schedule->n_entries; i++)
        qd_live_request_of(schedule->entries[i].request)->n_in_flight++;
    replica->n_flights++;
    flight->row.launch_ns = end_segment(replica, &replica->stats.launch_ns);
    return QD_OK;
}

/* What the device says of the oldest launched step. */
static void note_device(struct qd_replica *replica, const struct qd_group_result *result,
                        struct qd_step_row *row)
{
    qd_step_row_note_device(row, result, &replica->device_at_step);
    replica->stats.span_ns += qd_step_row_span_ns(row);
}

/* Waits for the step, the oldest that nobody has waited for. */
static qd_status collect(struct qd_replica *replica, struct flight *flight)
{
    char err[QD_ERR_LEN] = "";
    flight->row.wait_begin_ns = replica->stamp_ns;
    qd_status st = qd_group_wait(replica->config.group, &flight->result, err, sizeof err);
    if (st == QD_OK) st = check_result(replica, &flight->schedule, &flight->result, err, sizeof err);
    if (st != QD_OK) return die(replica, st, err);
    flight->row.wait_ns = end_segment(replica, &replica->stats.wait_ns);
    note_device(replica, &flight->result, &flight->row);
    return QD_OK;
}

static qd_status finish_step(struct qd_replica *replica)
{
    if (!replica->config.clock->is_virtual) QD_TRY(collect(replica, &replica->flights[0]));
    struct flight flight = take_flight(replica);
    deliver(replica, &flight.schedule, flight.result.ids);
    flight.row.output_ns = end_segment(replica, &replica->stats.output_ns);
    qd_step_ring_push(&replica->ring, &flight.row);
    if (replica->config.recorder.take != NULL)
        replica->config.recorder.take(replica->config.recorder.arg, replica->config.index, &flight.result,
                                      qd_step_row_span_ns(&flight.row));
    return QD_OK;
}

/* Launches a step, if one can be scheduled. In virtual time the result tells how long it takes, so it is
 * waited for at once. */
static qd_status begin_step(struct qd_replica *replica, bool *launched)
{
    struct qd_schedule schedule;
    qd_scheduler_step(replica->scheduler, &schedule);
    int64_t schedule_ns = end_segment(replica, &replica->stats.schedule_ns);
    *launched = schedule.n_entries > 0;
    if (!*launched) {
        replica->spare_ns += schedule_ns;
        /* With the last token of everybody before it on its way, a request may preempt itself. */
        replica->n_spare_preempted += schedule.n_preempted;
        replica->stats.n_preemptions += (uint64_t)schedule.n_preempted;
        QD_ASSERT(replica->n_flights > 0); /* submission refuses what could never run */
        return QD_OK;
    }
    QD_TRY(launch_step(replica, &schedule, schedule_ns));
    if (!replica->config.clock->is_virtual) return QD_OK;
    return collect(replica, &replica->flights[replica->n_flights - 1]);
}

static void publish_load(struct qd_replica *replica)
{
    atomic_store_explicit(&replica->n_waiting, qd_scheduler_n_waiting(replica->scheduler), memory_order_relaxed);
    atomic_store_explicit(&replica->n_running, qd_scheduler_n_running(replica->scheduler), memory_order_relaxed);
    atomic_store_explicit(&replica->n_used_blocks, used_blocks(replica), memory_order_relaxed);
}

static bool has_work(const struct qd_replica *replica)
{
    return replica->n_flights > 0 || qd_scheduler_oldest(replica->scheduler) != NULL;
}

/* Nothing that a dead replica has or gets will run. */
static void bury(struct qd_replica *replica)
{
    drop_flights(replica);
    end_all_with_error(replica);
}

/* First half of a turn: what the clients ask for, then a step, if there is something to run. False: no step
 * was launched. */
static bool begin_turn(struct qd_replica *replica, const struct qd_commands *commands)
{
    bool launched = false, is_dead = atomic_load(&replica->dead);
    apply_commands(replica, commands);
    if (!is_dead && has_work(replica))
        is_dead = begin_step(replica, &launched) != QD_OK;
    else
        replica->spare_ns += end_segment(replica, &replica->stats.schedule_ns);
    if (is_dead) bury(replica);
    return launched && !is_dead;
}

/* Second half: the oldest launched step ends. */
static void end_turn(struct qd_replica *replica)
{
    if (finish_step(replica) != QD_OK) bury(replica);
}

/* The thread was elsewhere, or asleep, until now. */
static void come_back(struct qd_replica *replica)
{
    int64_t away_ns = end_segment(replica, &replica->stats.idle_ns);
    replica->idle_ns += away_ns;
}

static void *replica_main(void *arg)
{
    struct qd_replica *replica = arg;
    struct qd_commands commands;
    come_back(replica);
    while (qd_inbox_take(&replica->inbox, !has_work(replica), &commands)) {
        if (commands.has_waited) come_back(replica);
        bool launched = begin_turn(replica, &commands);
        if (replica->n_flights > 0 && (!launched || replica->n_flights == replica->max_flights))
            end_turn(replica);
        publish_load(replica);
    }
    drop_flights(replica);
    return NULL;
}

/* ---- stepped: the turns are run from outside ---- */

bool qd_replica_begin(qd_replica_t *replica)
{
    struct qd_commands commands;
    if (replica->is_blocked) return true;
    come_back(replica);
    do {
        qd_inbox_take(&replica->inbox, false, &commands);
    } while (begin_turn(replica, &commands) && replica->n_flights < replica->max_flights);
    replica->is_blocked = replica->n_flights > 0;
    if (replica->n_flights < replica->max_flights) publish_load(replica); /* else when a step has ended */
    return replica->is_blocked;
}

bool qd_replica_has_requests(qd_replica_t *replica)
{
    return has_work(replica) || qd_inbox_has_submitted(&replica->inbox);
}

void qd_replica_start(qd_replica_t *replica, int64_t ns)
{
    for (int i = 0; i < replica->n_flights; i++) {
        struct flight *flight = &replica->flights[i];
        if (!flight->has_begun) {
            flight->row.virtual_begin_ns = ns;
            flight->row.virtual_end_ns = ns + flight->result.step_end_ns - flight->result.step_begin_ns;
            flight->has_begun = true;
        }
        ns = flight->row.virtual_end_ns;
    }
}

int64_t qd_replica_next_end_ns(const qd_replica_t *replica)
{
    const struct flight *oldest = &replica->flights[0];
    if (replica->n_flights == 0) return INT64_MAX;
    if (!replica->config.clock->is_virtual) return 0;
    return oldest->has_begun ? oldest->row.virtual_end_ns : INT64_MAX;
}

void qd_replica_end(qd_replica_t *replica)
{
    come_back(replica);
    end_turn(replica);
    publish_load(replica);
    replica->is_blocked = false;
}

static qd_status allocate(struct qd_replica *replica, char *err, size_t errlen)
{
    const struct qd_replica_config *config = &replica->config;
    QD_TRY(qd_inbox_init(&replica->inbox, config->max_requests, err, errlen));
    QD_TRY(qd_scheduler_create(&config->scheduler, &replica->scheduler, err, errlen));
    QD_TRY(qd_step_ring_init(&replica->ring, config->n_step_rows, err, errlen));
    size_t step_bytes = qd_step_capacity(&replica->limits);
    replica->outbox_room =
        config->scheduler.max_num_seqs > MIN_OUTBOX ? (size_t)config->scheduler.max_num_seqs : MIN_OUTBOX;
    replica->outbox = calloc(replica->outbox_room, sizeof *replica->outbox);
    replica->step = step_bytes > 0 ? calloc(1, step_bytes) : NULL;
    if (replica->outbox == NULL || replica->step == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "replica %d: no memory for a step of %d tokens",
                       config->index, replica->limits.max_tokens);
    return QD_OK;
}

static qd_status start_thread(struct qd_replica *replica, char *err, size_t errlen)
{
    char name[16];
    int error = pthread_create(&replica->thread, NULL, replica_main, replica);
    if (error != 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "replica %d: cannot start its thread: %s",
                       replica->config.index, strerror(error));
    replica->started = true;
    snprintf(name, sizeof name, "replica%d", replica->config.index & 0xffff);
    pthread_setname_np(replica->thread, name);
    return QD_OK;
}

qd_status qd_replica_open(const struct qd_replica_config *config, qd_replica_t **out, char *err,
                          size_t errlen)
{
    *out = NULL;
    struct qd_replica *replica = calloc(1, sizeof *replica);
    if (replica == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for replica %d", config->index);
    replica->config = *config;
    replica->limits = qd_prepare_limits(&config->scheduler);
    replica->max_flights = config->async_scheduling ? MAX_FLIGHTS : 1;
    replica->device_at_step = qd_group_get_stats(config->group);
    atomic_init(&replica->dead, false);
    replica->wall_begin_ns = replica->stamp_ns = qd_clock_now_ns();
    qd_status st = allocate(replica, err, errlen);
    if (st == QD_OK && !config->is_stepped) st = start_thread(replica, err, errlen);
    if (st != QD_OK) {
        qd_replica_close(replica);
        return st;
    }
    *out = replica;
    return QD_OK;
}

void qd_replica_stop(qd_replica_t *replica)
{
    if (replica != NULL) qd_inbox_stop(&replica->inbox);
}

void qd_replica_close(qd_replica_t *replica)
{
    if (replica == NULL) return;
    if (replica->started) {
        qd_replica_stop(replica);
        pthread_join(replica->thread, NULL);
    }
    if (replica->config.is_stepped && replica->n_flights > 0) drop_flights(replica);
    qd_inbox_free(&replica->inbox);
    qd_scheduler_destroy(replica->scheduler);
    qd_step_ring_free(&replica->ring);
    free(replica->step);
    free(replica->outbox);
    free(replica);
}

void qd_replica_submit(qd_replica_t *replica, struct qd_live_request *first, struct qd_live_request *last)
{
    qd_inbox_submit(&replica->inbox, first, last);
}

bool qd_replica_abort(qd_replica_t *replica, uint64_t id)
{
    return qd_inbox_abort(&replica->inbox, id);
}

struct qd_replica_load qd_replica_get_load(const qd_replica_t *replica)
{
    int32_t capacity = qd_kv_pool_capacity(replica->config.scheduler.n_kv_blocks);
    return (struct qd_replica_load){
        .n_waiting = atomic_load_explicit(&replica->n_waiting, memory_order_relaxed),
        .n_running = atomic_load_explicit(&replica->n_running, memory_order_relaxed),
        .kv_share = (double)atomic_load_explicit(&replica->n_used_blocks, memory_order_relaxed) / capacity,
        .is_dead = atomic_load(&replica->dead),
    };
}

const char *qd_replica_failure(const qd_replica_t *replica)
{
    return atomic_load(&replica->dead) ? replica->failure : NULL;
}

/* A replica on its own thread is done when it waits for commands; one that is stepped, when its last steps,
 * which are nobody's any more, have ended. */
static void lock_done(struct qd_replica *replica)
{
    if (!replica->config.is_stepped) {
        qd_inbox_lock_parked(&replica->inbox);
        return;
    }
    while (replica->n_flights > 0) qd_replica_end(replica);
    come_back(replica);
}

static void unlock_done(struct qd_replica *replica)
{
    if (!replica->config.is_stepped) qd_inbox_unlock(&replica->inbox);
}

struct qd_replica_stats qd_replica_get_stats(qd_replica_t *replica)
{
    lock_done(replica);
    struct qd_replica_stats stats = replica->stats;
    stats.idle_ns += qd_clock_now_ns() - replica->stamp_ns;
    stats.wall_ns = qd_clock_now_ns() - replica->wall_begin_ns;
    struct qd_device_stats device = qd_group_get_stats(replica->config.group);
    stats.device = qd_device_stats_since(&device, &replica->device_before);
    unlock_done(replica);
    return stats;
}

void qd_replica_reset_stats(qd_replica_t *replica)
{
    lock_done(replica);
    replica->stats = (struct qd_replica_stats){0};
    replica->device_before = qd_group_get_stats(replica->config.group);
    replica->wall_begin_ns = replica->stamp_ns = qd_clock_now_ns();
    replica->idle_ns = replica->spare_ns = 0;
    replica->n_spare_preempted = 0;
    qd_step_ring_clear(&replica->ring);
    unlock_done(replica);
}

size_t qd_replica_take_steps(qd_replica_t *replica, struct qd_step_row *rows, size_t max)
{
    return qd_step_ring_take(&replica->ring, rows, max);
}

uint64_t qd_replica_n_dropped_steps(const qd_replica_t *replica)
{
    return atomic_load_explicit(&replica->ring.n_dropped, memory_order_relaxed);
}
