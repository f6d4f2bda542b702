#include "harness/engine/events.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/base/clock.h"

qd_status qd_events_init(struct qd_events *events, size_t capacity, char *err, size_t errlen)
{
    *events = (struct qd_events){.capacity = capacity};
    events->ring = calloc(capacity, sizeof *events->ring);
    if (events->ring == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a ring of %zu events", capacity);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&events->mutex, NULL);
    pthread_cond_init(&events->not_empty, &attributes);
    pthread_cond_init(&events->not_full, NULL);
    pthread_condattr_destroy(&attributes);
    return QD_OK;
}

void qd_events_free(struct qd_events *events)
{
    if (events->ring == NULL) return;
    qd_live_request_destroy_chain(events->retired);
    pthread_cond_destroy(&events->not_full);
    pthread_cond_destroy(&events->not_empty);
    pthread_mutex_destroy(&events->mutex);
    free(events->ring);
    *events = (struct qd_events){0};
}

/* Copies between the ring (from index `at`, wrapping) and a plain array. */
static void copy_in(struct qd_events *events, const struct qd_event *list, size_t n)
{
    size_t at = (events->first + events->n) % events->capacity;
    size_t head = events->capacity - at < n ? events->capacity - at : n;
    memcpy(events->ring + at, list, head * sizeof *list);
    memcpy(events->ring, list + head, (n - head) * sizeof *list);
    events->n += n;
}

static void copy_out(struct qd_events *events, struct qd_event *out, size_t n)
{
    size_t head = events->capacity - events->first < n ? events->capacity - events->first : n;
    memcpy(out, events->ring + events->first, head * sizeof *out);
    memcpy(out + head, events->ring, (n - head) * sizeof *out);
    events->first = (events->first + n) % events->capacity;
    events->n -= n;
}

void qd_events_push(struct qd_events *events, const struct qd_event *list, size_t n,
                    struct qd_live_request *retired)
{
    pthread_mutex_lock(&events->mutex);
    bool was_empty = false; /* a reader may wait since */
    while (n > 0 && !events->closed) {
        size_t room = events->capacity - events->n, part = n < room ? n : room;
        if (part == 0) {
            pthread_cond_broadcast(&events->not_empty);
            pthread_cond_wait(&events->not_full, &events->mutex);
            continue;
        }
        was_empty = was_empty || events->n == 0;
        copy_in(events, list, part);
        list += part;
        n -= part;
    }
    while (retired != NULL) {
        struct qd_live_request *next = retired->next;
        retired->next = events->retired;
        events->retired = retired;
        retired = next;
    }
    pthread_mutex_unlock(&events->mutex);
    /* Nobody waits while there is something to read; and a reader that wakes up finds the mutex free. */
    if (was_empty) pthread_cond_broadcast(&events->not_empty);
}

/* Waits, with the mutex held, until there is an event or the time is over. */
static void wait_for_event(struct qd_events *events, int64_t timeout_ns)
{
    if (timeout_ns < 0) {
        while (events->n == 0) pthread_cond_wait(&events->not_empty, &events->mutex);
        return;
    }
    int64_t now = qd_clock_now_ns();
    int64_t end = timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
    struct timespec deadline = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
    while (events->n == 0)
        if (pthread_cond_timedwait(&events->not_empty, &events->mutex, &deadline) != 0) return;
}

size_t qd_events_poll(struct qd_events *events, struct qd_event *out, size_t max, int64_t timeout_ns)
{
    pthread_mutex_lock(&events->mutex);
    if (events->n == 0 && timeout_ns != 0 && max > 0) wait_for_event(events, timeout_ns);
    size_t n = events->n < max ? events->n : max;
    copy_out(events, out, n);
    struct qd_live_request *retired = events->retired;
    events->retired = NULL;
    if (n > 0) pthread_cond_broadcast(&events->not_full);
    pthread_mutex_unlock(&events->mutex);
    qd_live_request_destroy_chain(retired);
    return n;
}

void qd_events_close(struct qd_events *events)
{
    pthread_mutex_lock(&events->mutex);
    events->closed = true;
    pthread_cond_broadcast(&events->not_full);
    pthread_mutex_unlock(&events->mutex);
}
