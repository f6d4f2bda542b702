/* What clients of an engine get: the events of each request, checked for their order and put together. */
#ifndef QD_TESTS_SUPPORT_REPLIES_H
#define QD_TESTS_SUPPORT_REPLIES_H

#include "harness/engine/engine.h"

/* What one request has got so far. */
struct reply {
    int32_t n_tokens;
    int32_t *tokens; /* [max_tokens] room */
    enum qd_finish finish;
    int n_finishes, replica, preemptions;
    int64_t scheduled_ns, first_ns, last_ns;
};

struct reply *replies_make(size_t n, int32_t max_tokens);
void replies_free(struct reply *replies);

/* Adds an event of the request; fails the test when it cannot follow the ones before. */
void reply_take(struct reply *reply, const struct qd_event *event, int32_t max_tokens);

/* Submits n requests, all for the same step (n_at_once 0) or n_at_once at a time in order, and waits for their
 * ends. replies[i] answers requests[i]; free with replies_free. Fails the test when the engine refuses one. */
struct reply *serve(qd_engine_t *engine, const struct qd_request *requests, size_t n, size_t n_at_once);

#endif
