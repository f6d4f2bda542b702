#include <stdlib.h>
#include <string.h>

#include "harness/workload/workload.h"

enum { EVENTS_PER_POLL = 256 };
static const int64_t POLL_TIMEOUT_NS = 100000000; /* how soon an interrupt is noticed */

/* The engine numbers requests from its first submission on, warm-ups included; `first_id` turns its ids into
 * indices of the workload. Refused requests take no id, so the index of an id is looked up. */
struct drive {
    qd_engine_t *engine;
    const struct qd_workload *workload;
    const struct qd_drive_options *options;
    struct qd_request_record *records;
    size_t *index_of; /* [workload->n] by id - first_id */
    uint64_t *id_of;  /* [workload->n] by index, for those submitted */
    uint64_t first_id;
    bool has_first_id;
    size_t n_submitted; /* handed over or refused */
    size_t n_accepted, n_done, n_in_flight;
    size_t n_success; /* of those done */
    uint64_t n_tokens;
    int64_t start_ns, last_event_ns;
    size_t wave_begin; /* first request of the wave that runs */
    int64_t wave_ns;   /* when it began */
};

static struct qd_request make_request(const struct drive *drive, size_t i)
{
    const struct qd_workload_request *source = &drive->workload->requests[i];
    return (struct qd_request){
        .prompt = source->prompt,
        .n_prompt = source->n_prompt,
        .max_tokens = source->max_tokens,
        .ignore_eos = drive->workload->ignore_eos,
        .temperature = drive->options->temperature,
        .top_p = drive->options->top_p,
        .top_k = drive->options->top_k,
        .seed = drive->options->seed + i,
    };
}

static void note_times(struct drive *drive, size_t i, int64_t intended, int64_t now)
{
    drive->records[i].intended_ns = intended;
    drive->records[i].submit_ns = now;
}

static void accept_id(struct drive *drive, size_t i, uint64_t id)
{
    if (!drive->has_first_id) {
        drive->first_id = id;
        drive->has_first_id = true;
    }
    QD_ASSERT(id - drive->first_id < drive->workload->n);
    drive->index_of[id - drive->first_id] = i;
    drive->id_of[i] = id;
    drive->n_accepted++;
    drive->n_in_flight++;
}

static void refuse(struct drive *drive, size_t i, const char *reason)
{
    drive->records[i].finish = "refused";
    drive->records[i].error = strdup(reason);
    drive->n_done++;
}

/* What was not handed over will not be. */
static void refuse_rest(struct drive *drive, const char *reason)
{
    for (size_t i = drive->n_submitted; i < drive->workload->n; i++) refuse(drive, i, reason);
    drive->n_submitted = drive->workload->n;
}

/* The next request; intended_ns is when it was to be handed over, 0: now. */
static void submit_one(struct drive *drive, int64_t intended_ns)
{
    char reason[QD_ERR_LEN] = "";
    uint64_t id;
    size_t i = drive->n_submitted++;
    struct qd_request request = make_request(drive, i);
    int64_t now = qd_engine_now_ns(drive->engine);
    note_times(drive, i, intended_ns != 0 ? intended_ns : now, now);
    qd_status status = qd_engine_submit(drive->engine, &request, &id, reason, sizeof reason);
    if (status == QD_OK)
        accept_id(drive, i, id);
    else
        refuse(drive, i, reason);
    if (status == QD_ERR_RANK) refuse_rest(drive, reason); /* no replica is left: arrivals are not waited for */
}

/* The next n requests enter the scheduler in the same step. When one is refused the rest is handed over singly, so
 * that the refusal lands on the right record. */
static void submit_together(struct drive *drive, size_t n)
{
    size_t begin = drive->n_submitted, end = begin + n;
    struct qd_request *requests = malloc(n * sizeof *requests);
    uint64_t *ids = malloc(n * sizeof *ids);
    char reason[QD_ERR_LEN];
    bool together = requests != NULL && ids != NULL;
    if (together) {
        for (size_t i = 0; i < n; i++) requests[i] = make_request(drive, begin + i);
        int64_t now = qd_engine_now_ns(drive->engine);
        together = qd_engine_submit_batch(drive->engine, requests, n, ids, reason, sizeof reason) == QD_OK;
        for (size_t i = 0; together && i < n; i++) {
            note_times(drive, begin + i, now, now);
            accept_id(drive, begin + i, ids[i]);
        }
        if (together) drive->n_submitted = end;
    }
    while (drive->n_submitted < end) submit_one(drive, 0);
    free(requests);
    free(ids);
}

static bool has_place(const struct drive *drive)
{
    int64_t limit = drive->options->max_concurrency;
    return limit == 0 || drive->n_in_flight < (size_t)limit;
}

/* Hands over what is due; returns when the next request will be, INT64_MAX when that hangs on another's end. */
static int64_t submit_open(struct drive *drive)
{
    while (drive->n_submitted < drive->workload->n && has_place(drive)) {
        int64_t due_ns = drive->start_ns + drive->workload->requests[drive->n_submitted].arrival_ns;
        if (due_ns > qd_engine_now_ns(drive->engine)) return due_ns;
        submit_one(drive, due_ns);
    }
    return INT64_MAX;
}

static int64_t submit_wave(struct drive *drive)
{
    size_t n = drive->workload->n, size = (size_t)drive->options->wave_size;
    int64_t delay_ns = drive->options->client_delay_ns;
    if (drive->n_in_flight == 0 && drive->n_submitted < n &&
        (drive->n_submitted == 0 || drive->n_submitted == drive->wave_begin + size)) {
        drive->wave_begin = drive->n_submitted;
        drive->wave_ns = qd_engine_now_ns(drive->engine);
    }
    size_t end = n - drive->wave_begin < size ? n : drive->wave_begin + size;
    if (delay_ns == 0 && drive->n_submitted == drive->wave_begin && drive->n_submitted < end)
        submit_together(drive, end - drive->n_submitted);
    while (drive->n_submitted < end) {
        int64_t due_ns = drive->wave_ns + (int64_t)(drive->n_submitted - drive->wave_begin) * delay_ns;
        if (due_ns > qd_engine_now_ns(drive->engine)) return due_ns;
        submit_one(drive, due_ns);
    }
    return INT64_MAX;
}

/* Hands over what the pacing allows; returns when there will be more, INT64_MAX when that hangs on an end. */
static int64_t submit_more(struct drive *drive)
{
    switch (drive->options->pacing) {
    case QD_PACING_BURST:
        if (drive->n_submitted < drive->workload->n) submit_together(drive, drive->workload->n);
        break;
    case QD_PACING_CLOSED:
        while (drive->n_submitted < drive->workload->n && has_place(drive)) submit_one(drive, 0);
        break;
    case QD_PACING_OPEN: return submit_open(drive);
    case QD_PACING_WAVES: return submit_wave(drive);
    }
    return INT64_MAX;
}

static const char *finish_name(enum qd_finish finish)
{
    switch (finish) {
    case QD_FINISH_NONE: return "none";
    case QD_FINISH_LENGTH: return "length";
    case QD_FINISH_STOP: return "stop";
    case QD_FINISH_ABORT: return "abort";
    case QD_FINISH_ERROR: return "error";
    }
    return "none";
}

static void take_event(struct drive *drive, const struct qd_event *event)
{
    /* Events of requests that are not of this workload (a warm-up that was aborted) are nobody's. */
    if (!drive->has_first_id || event->request < drive->first_id ||
        event->request - drive->first_id >= drive->n_accepted)
        return;
    struct qd_request_record *record = &drive->records[drive->index_of[event->request - drive->first_id]];
    record->replica = event->replica;
    record->preemptions = event->preemptions;
    drive->last_event_ns = event->time_ns;
    if (event->token >= 0 && record->output_len < record->max_tokens) {
        if (event->output_index == 0) {
            record->scheduled_ns = event->scheduled_ns;
            record->hit_tokens = event->hit_tokens;
        }
        record->token_ns[record->output_len++] = event->time_ns;
        drive->n_tokens++;
    }
    if (event->finish == QD_FINISH_NONE) return;
    record->finish = finish_name(event->finish);
    record->success =
        record->output_len > 0 && (event->finish == QD_FINISH_LENGTH || event->finish == QD_FINISH_STOP);
    if (event->finish == QD_FINISH_ERROR) {
        const char *failure = qd_engine_failure(drive->engine);
        record->error = strdup(failure != NULL ? failure : "the replica failed");
    }
    drive->n_success += record->success;
    drive->n_done++;
    drive->n_in_flight--;
}

static bool is_interrupted(const struct drive *drive)
{
    return drive->options->interrupted != NULL && *drive->options->interrupted != 0;
}

static void abort_all(struct drive *drive)
{
    for (size_t i = 0; i < drive->n_submitted; i++)
        if (drive->records[i].submit_ns != 0 && strcmp(drive->records[i].finish, "none") == 0)
            qd_engine_abort(drive->engine, drive->id_of[i]);
    refuse_rest(drive, "interrupted before it ran");
}

/* Events, waiting for one at most until there is something to hand over. Real time is waited for in pieces. */
static size_t poll(struct drive *drive, int64_t due_ns, struct qd_event *events)
{
    int64_t timeout_ns = due_ns - qd_engine_now_ns(drive->engine);
    if (timeout_ns > POLL_TIMEOUT_NS && !qd_engine_is_virtual(drive->engine)) timeout_ns = POLL_TIMEOUT_NS;
    if (timeout_ns < 0) timeout_ns = 0;
    if (drive->n_in_flight > 0 || due_ns != INT64_MAX)
        return qd_engine_poll_events(drive->engine, events, EVENTS_PER_POLL, timeout_ns);
    return 0; /* the last requests were refused: nothing will come */
}

static void drive_loop(struct drive *drive)
{
    struct qd_event events[EVENTS_PER_POLL];
    bool aborted = false;
    do {
        int64_t due_ns = submit_more(drive);
        if (!aborted && is_interrupted(drive)) {
            abort_all(drive);
            aborted = true;
        }
        size_t n = poll(drive, due_ns, events);
        for (size_t i = 0; i < n; i++) take_event(drive, &events[i]);
        if (drive->options->progress != NULL)
            drive->options->progress(drive->options->progress_arg, drive->n_done, drive->workload->n,
                                     drive->n_tokens);
    } while (drive->n_done < drive->workload->n);
}

qd_status qd_workload_drive(qd_engine_t *engine, const struct qd_workload *workload,
                            const struct qd_drive_options *options, struct qd_request_record *records,
                            double *duration_s, char *err, size_t errlen)
{
    struct drive drive = {
        .engine = engine,
        .workload = workload,
        .options = options,
        .records = records,
        .index_of = calloc(workload->n + 1, sizeof *drive.index_of),
        .id_of = calloc(workload->n + 1, sizeof *drive.id_of),
    };
    qd_status status = QD_OK;
    if (drive.index_of == NULL || drive.id_of == NULL) {
        status = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "workload of %zu requests", workload->n);
        goto cleanup;
    }
    drive.start_ns = drive.last_event_ns = qd_engine_now_ns(engine);
    drive_loop(&drive);
    *duration_s = (double)(drive.last_event_ns - drive.start_ns) * 1e-9;
    const char *failure = qd_engine_failure(engine);
    if (is_interrupted(&drive))
        status = qd_fail(QD_ERR_ABORTED, err, errlen, "interrupted after %zu of %zu requests",
                         drive.n_success, workload->n);
    else if (failure != NULL)
        status = qd_fail(QD_ERR_RANK, err, errlen, "%s", failure);

cleanup:
    free(drive.index_of);
    free(drive.id_of);
    return status;
}
