/* The scheduler of one replica: vLLM V1 semantics (one token budget, running first in admission order,
 * chunked prefill, full-prompt admission, preemption by recompute), as a pure data structure without threads
 * or clocks, so that tests can step it by hand.
 */
#ifndef QD_HARNESS_ENGINE_SCHEDULER_H
#define QD_HARNESS_ENGINE_SCHEDULER_H

#include <stdint.h>

#include "harness/engine/kv_pool.h"

enum qd_sched_place { QD_SCHED_NOWHERE = 0, QD_SCHED_WAITING, QD_SCHED_RUNNING };

/* What the scheduler knows of a request; owned by the replica, linked into the scheduler's lists. */
struct qd_sched_request {
    uint64_t id;
    int32_t n_prompt;   /* prompt tokens */
    int32_t n_known;    /* prompt + sampled tokens, and those that scheduled steps are going to sample */
    int32_t n_pending;  /* of n_known: not sampled yet */
    int32_t n_computed; /* tokens whose K and V are in the pool (advanced when scheduled) */
    int32_t max_known;  /* n_known at which it ends at the latest; 0: its end is not foreseen */
    int32_t n_preemptions;
    int32_t slot;     /* in [0, max_num_seqs) while running, else -1 */
    int32_t n_blocks; /* pages held */
    int32_t *blocks;  /* [n_blocks], room for the longest the request can become */
    const int32_t *tokens;        /* [n_known - n_pending]; only read with prefix caching */
    struct qd_block_hash *hashes; /* [n_hashes] of its full pages, room as blocks; only with prefix caching */
    int32_t n_hashes;
    int32_t n_labelled; /* pages held whose hash the pool knows */
    enum qd_sched_place place;
    struct qd_sched_request *prev, *next; /* list links */
};

/* One row of a schedule: n_tokens of a request from position begin on. */
struct qd_sched_entry {
    struct qd_sched_request *request;
    int32_t begin; /* position of the first token of the chunk */
    int32_t n_tokens;
    int32_t samples; /* 1: the chunk reaches the last known token, so its logits are sampled */
};

struct qd_schedule {
    struct qd_sched_entry *entries; /* [n_entries], room for max_num_seqs */
    int32_t n_entries;
    int32_t n_tokens;
    int32_t n_blocks;    /* block table entries of all rows */
    int32_t n_preempted; /* in this step */
    int32_t n_admitted;
    int32_t n_query_tokens; /* known tokens of the requests that were admitted for the first time */
    int32_t n_hit_tokens;   /* of those: found in the prefix cache */
    int32_t n_rehit_tokens; /* found there by requests that had been preempted */
};

struct qd_scheduler_config {
    int32_t max_num_batched_tokens; /* token budget of a step */
    int32_t max_num_seqs;           /* requests running at once */
    int32_t max_model_len;          /* prompt + output of a request */
    int32_t n_kv_blocks;            /* pages of the pool, the null page included; >= 2 */
    int32_t long_prefill_token_threshold; /* the most of a request's tokens in one step; 0: no such limit */
    bool prefix_caching;
};

typedef struct qd_scheduler qd_scheduler_t;

/* QD_ERR_ARGUMENT when a limit is below 1 (pages: 2, threshold: 0), QD_ERR_NO_MEMORY. A budget below
 * max_num_seqs is the caller's rule to refuse; the scheduler works with any. */
qd_status qd_scheduler_create(const struct qd_scheduler_config *config, qd_scheduler_t **out, char *err,
                              size_t errlen);
void qd_scheduler_destroy(qd_scheduler_t *scheduler);

/* Appends to the waiting queue. The request holds no page; its longest extent (n_prompt + output - 1 tokens)
 * must fit the empty pool, or it would wait or preempt itself for ever: the engine refuses it at submit. */
void qd_scheduler_add(qd_scheduler_t *scheduler, struct qd_sched_request *request);

/* Takes a request out, wherever it is, and frees its pages. */
void qd_scheduler_remove(qd_scheduler_t *scheduler, struct qd_sched_request *request);

/* Fills the next step; n_computed of every scheduled request advances at once, and n_known of those that are
 * sampled, so that the step after may be scheduled before their tokens are there. Running requests come
 * first, in admission order, then those admitted now. An empty schedule means that nothing can run. The
 * entries are valid until the next call but one. Costs O(1) per request touched and per page taken or given
 * back; never allocates. */
void qd_scheduler_step(qd_scheduler_t *scheduler, struct qd_schedule *out);

/* Tokens of the request whose ids are there. */
static inline int32_t qd_sched_n_sampled(const struct qd_sched_request *request)
{
    return request->n_known - request->n_pending;
}

/* Hashes the full pages of known tokens that have no hash yet: once before add where there is a prompt, so
 * that the scheduler's thread need not. */
void qd_sched_request_hash(struct qd_sched_request *request);

/* The oldest pending token of the request was sampled; it is in `tokens` already. The request may wait again
 * by now. */
void qd_scheduler_token(qd_scheduler_t *scheduler, struct qd_sched_request *request);

/* The first running request, else the first waiting one, else NULL. */
struct qd_sched_request *qd_scheduler_oldest(const qd_scheduler_t *scheduler);

int32_t qd_scheduler_n_running(const qd_scheduler_t *scheduler);
int32_t qd_scheduler_n_waiting(const qd_scheduler_t *scheduler);
const struct qd_kv_pool *qd_scheduler_pool(const qd_scheduler_t *scheduler);

#endif
