/* The engine: data-parallel replicas, each with its own scheduler, KV pool and group of ranks.
 *
 * Clients (workloads, generate, tests, later a server) submit token ids, abort, and poll events; the API is
 * thread-safe. A replica runs on its own thread: schedule -> prepare -> launch -> wait -> output; or, stepped,
 * on that of whoever polls. Tokenising and detokenising are outside.
 */
#ifndef QD_HARNESS_ENGINE_ENGINE_H
#define QD_HARNESS_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "harness/engine/coupling.h"
#include "harness/engine/router.h"
#include "harness/engine/step_row.h"
#include "kernels/group.h"

typedef struct qd_engine qd_engine_t;

/* Called by a replica's thread for every step that has ended, between its output and the next schedule: what
 * it takes is in the replica's times. */
struct qd_step_recorder {
    void (*take)(void *arg, int replica, const struct qd_group_result *result,
                 int64_t span_ns); /* NULL: nobody; replicas call it at the same time */
    void *arg;
};

struct qd_engine_config {
    int dp;                         /* replicas */
    qd_group_t *const *groups;      /* [dp]; the engine uses, but does not own them */
    int32_t max_num_batched_tokens; /* token budget of a step, per replica */
    int32_t max_num_seqs;           /* running requests, per replica */
    int32_t max_model_len;          /* prompt + output */
    int32_t n_kv_blocks;            /* pages per replica, the null page included (see kv_pool.h) */
    int32_t vocab_size;
    int32_t long_prefill_token_threshold; /* 0: none */
    bool prefix_caching;
    bool async_scheduling; /* a step is scheduled while the one before runs */
    int32_t n_eos;
    const int32_t *eos_ids; /* [n_eos], copied */
    enum qd_router_policy router;
    bool executes;       /* false on null: no EOS */
    bool is_stepped;     /* no threads: whoever polls runs the replicas, between his submissions */
    bool is_virtual;     /* in virtual time (harness/clock.h); only stepped, and where nothing executes */
    enum qd_dp_coupling coupling; /* of virtual time, not asynchronous */
    size_t max_requests; /* room reserved before timing starts: requests alive or unpolled at once */
    struct qd_step_recorder recorder;
    size_t n_step_rows; /* likewise, per replica: step rows that nobody has taken; 0: none are kept */
};

/* One request; arrays are copied. */
struct qd_request {
    const int32_t *prompt; /* [n_prompt] */
    int32_t n_prompt;      /* >= 1 */
    int32_t max_tokens;    /* >= 1; cut so that prompt + output <= max_model_len */
    bool ignore_eos;
    const int32_t *stop_ids; /* [n_stop_ids] further ids that end the request */
    int32_t n_stop_ids;      /* <= 16 */
    float temperature, top_p;
    int32_t top_k;
    uint64_t seed;
};

enum qd_finish {
    QD_FINISH_NONE = 0,
    QD_FINISH_LENGTH, /* max_tokens or max_model_len */
    QD_FINISH_STOP,   /* EOS or a stop id; that id is delivered as a token too */
    QD_FINISH_ABORT,
    QD_FINISH_ERROR, /* the replica died */
};

/* One token, or the end without one (abort, error). The last token of a request carries its finish. */
struct qd_event {
    uint64_t request;     /* as submit returned it */
    int32_t token;        /* -1: none */
    int32_t output_index; /* 0 for the first output token; tokens so far when token is -1 */
    enum qd_finish finish;
    int replica;
    int64_t time_ns;      /* the engine handed it out (qd_engine_now_ns) */
    int64_t scheduled_ns; /* with output_index 0: first time the request was scheduled */
    int32_t preemptions;  /* of this request so far */
    int32_t hit_tokens;   /* with output_index 0: prompt tokens found in the prefix cache when it was admitted first */
};

/* Totals of one replica since open or the last reset. */
struct qd_replica_stats {
    uint64_t n_steps;
    uint64_t n_decode_tokens;     /* output tokens computed for the first time */
    uint64_t n_prefill_tokens;    /* all others: prompt tokens, and what is recomputed */
    uint64_t n_recomputed_tokens; /* prefill tokens spent again after preemption */
    uint64_t n_prefill_steps;    /* with prefill tokens */
    uint64_t n_prefill_requests; /* requests with prefill tokens in a step, summed over the steps */
    uint64_t n_preemptions, n_finished;
    uint64_t n_query_tokens, n_hit_tokens; /* looked up in and found in the prefix cache at first admissions */
    uint64_t n_rehit_tokens;               /* found there after preemptions */
    int32_t peak_running, peak_waiting, peak_kv_blocks;
    int64_t schedule_ns, prepare_ns, launch_ns, wait_ns, output_ns, idle_ns; /* host segments */
    int64_t coupling_wait_ns; /* it had requests and ran none of them (coupling.h); 0 without coupling */
    uint64_t n_dummies;       /* rounds without work of its own */
    int64_t wall_ns; /* read apart from the segments */
    int64_t span_ns; /* of the steps, by rank 0; 0 where nothing executes */
    struct qd_device_stats device; /* of rank 0; opening's figures stay at a reset */
};

qd_status qd_engine_open(const struct qd_engine_config *config, qd_engine_t **out, char *err, size_t errlen);

/* Stops the replicas after their current step; unfinished requests are dropped. Accepts NULL. */
void qd_engine_close(qd_engine_t *engine);

/* Checks and queues a request; *id counts up from 0. QD_ERR_INPUT (empty prompt, id outside the vocabulary,
 * prompt >= max_model_len, prompt that can never fit the pool), QD_ERR_FULL, QD_ERR_RANK when every replica
 * is dead. */
qd_status qd_engine_submit(qd_engine_t *engine, const struct qd_request *request, uint64_t *id, char *err,
                           size_t errlen);

/* As submit for n requests that are to enter the scheduler in the same step: replicas do not schedule
 * between them. ids[n] are filled in order. All or none. */
qd_status qd_engine_submit_batch(qd_engine_t *engine, const struct qd_request *requests, size_t n,
                                 uint64_t *ids, char *err, size_t errlen);

/* Asks for a request's end; a finish event follows. Unknown or ended ids are ignored. */
void qd_engine_abort(qd_engine_t *engine, uint64_t id);

/* Takes up to max events, oldest first (a reader that falls far behind makes the replicas wait); waits up to
 * timeout_ns (0: not at all, < 0: until there is one) when there is none. Returns their number. After a
 * replica died its requests end with QD_FINISH_ERROR. A stepped engine runs meanwhile (stepper.h): nobody else
 * wakes it, and when it has nothing to do it returns at the timeout, or at once where there is none. */
size_t qd_engine_poll_events(qd_engine_t *engine, struct qd_event *events, size_t max, int64_t timeout_ns);

/* The time of the engine's clock: of its events, and for its clients' own stamps. */
int64_t qd_engine_now_ns(const qd_engine_t *engine);

/* Whether that is virtual time, in which waiting costs none. */
bool qd_engine_is_virtual(const qd_engine_t *engine);

/* Error text of a dead replica, or NULL when all live. */
const char *qd_engine_failure(qd_engine_t *engine);

/* Up to max of a replica's oldest step rows, by one thread per replica, at any time; and how many steps found
 * no room for their row since the last reset. */
size_t qd_engine_take_steps(qd_engine_t *engine, int replica, struct qd_step_row *rows, size_t max);
uint64_t qd_engine_n_dropped_steps(const qd_engine_t *engine, int replica);

/* Statistics. A reset drops step rows, which nobody may take meanwhile. Both wait until the replicas have
 * nothing left to do: call them when no request is alive. */
void qd_engine_reset_stats(qd_engine_t *engine);
struct qd_replica_stats qd_engine_stats(qd_engine_t *engine, int replica);

#endif
