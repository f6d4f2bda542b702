/* A request inside the engine: its tokens, its sampling, its place in the scheduler. Made by the client's
 * thread with all the memory it will ever need, then owned by one replica, then freed by a client's thread
 * again.
 */
#ifndef QD_HARNESS_ENGINE_REQUEST_H
#define QD_HARNESS_ENGINE_REQUEST_H

#include "harness/engine/engine.h"
#include "harness/engine/scheduler.h"

enum { QD_MAX_STOP_IDS = 16 };

enum qd_abort_state { QD_ABORT_NONE = 0, QD_ABORT_QUEUED, QD_ABORT_TAKEN };

struct qd_live_request {
    struct qd_sched_request sched; /* first, so that a scheduled request is a live request */
    int32_t *tokens;               /* [n_prompt + max_tokens] prompt, then what was sampled */
    int32_t n_computed_once;     /* positions that some step has computed; more than sched.n_computed after a
                                  * preemption */
    int64_t scheduled_ns;        /* first time in a schedule; 0: not yet */
    int32_t n_hit_tokens;        /* computed already when it was first admitted */
    struct qd_sampling sampling; /* slot and output_index are filled in per step */
    bool ignore_eos;
    bool has_ended;      /* its last event is made: what steps still sample for it is nobody's */
    int32_t n_in_flight; /* launched steps that name it */
    int32_t n_stop_ids;
    int32_t stop_ids[QD_MAX_STOP_IDS];

    /* links; see inbox.h */
    struct qd_live_request *next;       /* of the chain it travels in: submitted, or retired */
    struct qd_live_request *hash_next;  /* in the inbox's table */
    struct qd_live_request *abort_next; /* among the aborts queued or taken */
    enum qd_abort_state abort_state;
};

/* Limits a request is checked against. */
struct qd_request_limits {
    int32_t max_model_len; /* prompt + output */
    int32_t n_kv_blocks;   /* pages, the null page included */
    int32_t vocab_size;
    bool prefix_caching; /* the prompt's pages are hashed */
};

/* Checks the request and copies it into one allocation. max_tokens is cut so that prompt + output <=
 * max_model_len. QD_ERR_INPUT names the field; a request whose last computed position,
 * n_prompt + max_tokens - 1 tokens, needs more pages than the whole pool has is refused with the arithmetic:
 * admitted, it would preempt itself for ever. */
qd_status qd_live_request_create(const struct qd_request *request, const struct qd_request_limits *limits,
                                 struct qd_live_request **out, char *err, size_t errlen);
void qd_live_request_destroy(struct qd_live_request *request); /* accepts NULL */

/* Destroys a chain linked through `next`. Accepts NULL. */
void qd_live_request_destroy_chain(struct qd_live_request *first);

static inline struct qd_live_request *qd_live_request_of(struct qd_sched_request *sched)
{
    return (struct qd_live_request *)sched;
}

#endif
