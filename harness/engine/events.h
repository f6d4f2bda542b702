/* The events of all replicas on their way to the clients, in one ring of fixed size.
 *
 * A replica that finds the ring full waits for a reader: nothing is dropped and nothing allocates inside a
 * step. With the events, ended requests travel back, so that a client's thread frees them.
 */
#ifndef QD_HARNESS_ENGINE_EVENTS_H
#define QD_HARNESS_ENGINE_EVENTS_H

#include <pthread.h>

#include "harness/engine/engine.h"
#include "harness/engine/request.h"

struct qd_events {
    pthread_mutex_t mutex;
    pthread_cond_t not_empty, not_full; /* not_empty on the monotonic clock */
    struct qd_event *ring;              /* [capacity] */
    size_t capacity, first, n;          /* oldest, and how many */
    struct qd_live_request *retired;    /* chain of ended requests, to be freed by the next reader */
    bool closed;                        /* pushes are dropped */
};

qd_status qd_events_init(struct qd_events *events, size_t capacity, char *err, size_t errlen);

/* Frees the ring and the retired requests; after the replicas ended. Harmless on a zeroed struct. */
void qd_events_free(struct qd_events *events);

/* Appends n events and hands over a chain of retired requests (may be NULL). */
void qd_events_push(struct qd_events *events, const struct qd_event *list, size_t n,
                    struct qd_live_request *retired);

/* Takes up to max events, oldest first; timeout as qd_engine_poll_events. Frees retired requests. */
size_t qd_events_poll(struct qd_events *events, struct qd_event *out, size_t max, int64_t timeout_ns);

/* Wakes every waiting replica; later pushes are dropped. */
void qd_events_close(struct qd_events *events);

#endif
