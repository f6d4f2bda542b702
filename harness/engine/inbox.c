#include "harness/engine/inbox.h"

#include <stdlib.h>

qd_status qd_inbox_init(struct qd_inbox *inbox, size_t max_requests, char *err, size_t errlen)
{
    *inbox = (struct qd_inbox){.n_buckets = 16};
    while (inbox->n_buckets < max_requests && inbox->n_buckets < (size_t)1 << 24) inbox->n_buckets *= 2;
    inbox->table = calloc(inbox->n_buckets, sizeof *inbox->table);
    if (inbox->table == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a table of %zu requests",
                       inbox->n_buckets);
    pthread_mutex_init(&inbox->mutex, NULL);
    pthread_cond_init(&inbox->command, NULL);
    pthread_cond_init(&inbox->parked_cond, NULL);
    return QD_OK;
}

void qd_inbox_free(struct qd_inbox *inbox)
{
    if (inbox->table == NULL) return;
    for (size_t i = 0; i < inbox->n_buckets; i++) {
        while (inbox->table[i] != NULL) {
            struct qd_live_request *request = inbox->table[i];
            inbox->table[i] = request->hash_next;
            qd_live_request_destroy(request);
        }
    }
    pthread_cond_destroy(&inbox->parked_cond);
    pthread_cond_destroy(&inbox->command);
    pthread_mutex_destroy(&inbox->mutex);
    free(inbox->table);
    *inbox = (struct qd_inbox){0};
}

/* Ids count up, so their low bits spread evenly. */
static struct qd_live_request **bucket_of(struct qd_inbox *inbox, uint64_t id)
{
    return &inbox->table[id & (inbox->n_buckets - 1)];
}

void qd_inbox_submit(struct qd_inbox *inbox, struct qd_live_request *first, struct qd_live_request *last)
{
    pthread_mutex_lock(&inbox->mutex);
    for (struct qd_live_request *request = first; request != NULL; request = request->next) {
        struct qd_live_request **bucket = bucket_of(inbox, request->sched.id);
        request->hash_next = *bucket;
        *bucket = request;
    }
    if (inbox->submitted_last != NULL)
        inbox->submitted_last->next = first;
    else
        inbox->submitted = first;
    inbox->submitted_last = last;
    pthread_cond_signal(&inbox->command);
    pthread_mutex_unlock(&inbox->mutex);
}

bool qd_inbox_abort(struct qd_inbox *inbox, uint64_t id)
{
    pthread_mutex_lock(&inbox->mutex);
    struct qd_live_request *request = *bucket_of(inbox, id);
    while (request != NULL && request->sched.id != id) request = request->hash_next;
    if (request != NULL && request->abort_state == QD_ABORT_NONE) {
        request->abort_state = QD_ABORT_QUEUED;
        request->abort_next = inbox->aborts;
        inbox->aborts = request;
        pthread_cond_signal(&inbox->command);
    }
    pthread_mutex_unlock(&inbox->mutex);
    return request != NULL;
}

void qd_inbox_stop(struct qd_inbox *inbox)
{
    pthread_mutex_lock(&inbox->mutex);
    inbox->stop = true;
    pthread_cond_signal(&inbox->command);
    pthread_mutex_unlock(&inbox->mutex);
}

static bool has_commands(const struct qd_inbox *inbox)
{
    return inbox->submitted != NULL || inbox->aborts != NULL || inbox->stop;
}

void qd_inbox_lock_parked(struct qd_inbox *inbox)
{
    pthread_mutex_lock(&inbox->mutex);
    while (!inbox->parked || has_commands(inbox)) pthread_cond_wait(&inbox->parked_cond, &inbox->mutex);
}

void qd_inbox_unlock(struct qd_inbox *inbox)
{
    pthread_mutex_unlock(&inbox->mutex);
}

bool qd_inbox_take(struct qd_inbox *inbox, bool may_wait, struct qd_commands *out)
{
    *out = (struct qd_commands){0};
    pthread_mutex_lock(&inbox->mutex);
    if (may_wait && !has_commands(inbox)) {
        inbox->parked = true;
        pthread_cond_broadcast(&inbox->parked_cond);
        while (!has_commands(inbox)) pthread_cond_wait(&inbox->command, &inbox->mutex);
        inbox->parked = false;
        out->has_waited = true;
    }
    out->submitted = inbox->submitted;
    out->aborted = inbox->aborts;
    inbox->submitted = inbox->submitted_last = inbox->aborts = NULL;
    for (struct qd_live_request *request = out->aborted; request != NULL; request = request->abort_next)
        request->abort_state = QD_ABORT_TAKEN;
    bool stop = inbox->stop;
    pthread_mutex_unlock(&inbox->mutex);
    return !stop;
}

bool qd_inbox_has_submitted(struct qd_inbox *inbox)
{
    pthread_mutex_lock(&inbox->mutex);
    bool has = inbox->submitted != NULL;
    pthread_mutex_unlock(&inbox->mutex);
    return has;
}

void qd_inbox_forget(struct qd_inbox *inbox, struct qd_live_request *ended)
{
    pthread_mutex_lock(&inbox->mutex);
    for (struct qd_live_request *request = ended; request != NULL; request = request->next) {
        struct qd_live_request **link = bucket_of(inbox, request->sched.id);
        while (*link != request) link = &(*link)->hash_next;
        *link = request->hash_next;
        if (request->abort_state != QD_ABORT_QUEUED) continue;
        /* An abort that came while the request's last step ran. */
        for (link = &inbox->aborts; *link != request;) link = &(*link)->abort_next;
        *link = request->abort_next;
    }
    pthread_mutex_unlock(&inbox->mutex);
}
