#include <stdlib.h>
#include <string.h>

#include "harness/workload/workload.h"
#include "kernels/base/clock.h"

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
    int64_t last_event_ns;
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

static void accept_id(struct drive *drive, size_t i, uint64_t id, int64_t now)
{
    if (!drive->has_first_id) {
        drive->first_id = id;
        drive->has_first_id = true;
    }
    QD_ASSERT(id - drive->first_id < drive->workload->n);
    drive->index_of[id - drive->first_id] = i;
    drive->id_of[i] = id;
    drive->records[i].intended_ns = now;
    drive->records[i].submit_ns = now;
    drive->n_accepted++;
    drive->n_in_flight++;
}

static void refuse(struct drive *drive, size_t i, const char *reason)
{
    drive->records[i].finish = "refused";
    drive->records[i].error = strdup(reason);
    drive->n_done++;
}

static void submit_one(struct drive *drive, size_t i)
{
    char reason[QD_ERR_LEN] = "";
    uint64_t id;
    struct qd_request request = make_request(drive, i);
    int64_t now = qd_clock_now_ns();
    drive->n_submitted++;
    if (qd_engine_submit(drive->engine, &request, &id, reason, sizeof reason) == QD_OK)
        accept_id(drive, i, id, now);
    else
        refuse(drive, i, reason);
}

/* Everything enters the scheduler before the first step. When one request is refused the rest is handed over
 * singly, so that the refusal lands on the right record. */
static void submit_burst(struct drive *drive)
{
    size_t n = drive->workload->n;
    struct qd_request *requests = malloc(n * sizeof *requests);
    uint64_t *ids = malloc(n * sizeof *ids);
    char reason[QD_ERR_LEN];
    bool together = requests != NULL && ids != NULL;
    if (together) {
        for (size_t i = 0; i < n; i++) requests[i] = make_request(drive, i);
        int64_t now = qd_clock_now_ns();
        together = qd_engine_submit_batch(drive->engine, requests, n, ids, reason, sizeof reason) == QD_OK;
        for (size_t i = 0; together && i < n; i++) accept_id(drive, i, ids[i], now);
        if (together) drive->n_submitted = n;
    }
    while (drive->n_submitted < n) submit_one(drive, drive->n_submitted);
    free(requests);
    free(ids);
}

static void submit_closed(struct drive *drive)
{
    size_t limit = (size_t)drive->options->max_concurrency;
    while (drive->n_submitted < drive->workload->n && drive->n_in_flight < limit)
        submit_one(drive, drive->n_submitted);
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
    for (size_t i = drive->n_submitted; i < drive->workload->n; i++)
        refuse(drive, i, "interrupted before it ran");
    drive->n_submitted = drive->workload->n;
}

static void drive_loop(struct drive *drive)
{
    struct qd_event events[EVENTS_PER_POLL];
    bool aborted = false;
    if (drive->options->max_concurrency == 0) submit_burst(drive);
    do {
        if (drive->options->max_concurrency > 0) submit_closed(drive);
        if (!aborted && is_interrupted(drive)) {
            abort_all(drive);
            aborted = true;
        }
        size_t n = 0; /* with nothing in flight the last requests were refused: nothing will come */
        if (drive->n_in_flight > 0)
            n = qd_engine_poll_events(drive->engine, events, EVENTS_PER_POLL, POLL_TIMEOUT_NS);
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
    int64_t start = qd_clock_now_ns();
    drive.last_event_ns = start;
    drive_loop(&drive);
    *duration_s = (double)(drive.last_event_ns - start) * 1e-9;
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
