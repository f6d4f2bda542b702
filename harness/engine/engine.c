#include "harness/engine/engine.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "harness/engine/events.h"
#include "harness/engine/stepper.h"

/* Events that clients may leave unread before replicas wait for them. */
enum { MIN_EVENTS = 4096, MAX_EVENTS = 1 << 18, STEPS_OF_EVENTS = 64 };

/* A chain of requests for one replica. */
struct chain {
    struct qd_live_request *first, *last;
};

struct qd_engine {
    struct qd_engine_config config;
    struct qd_request_limits limits;
    int32_t *eos_ids;
    struct qd_clock clock;
    struct qd_events events;
    qd_replica_t **replicas;   /* [dp] */
    struct qd_stepper stepper; /* of a stepped engine */
    struct qd_coupling coupling; /* of one whose replicas are coupled */

    pthread_mutex_t submit_mutex; /* ids, and the order in which replicas see them */
    struct qd_router router;
    struct chain *chains;          /* [dp] scratch of one submission */
    struct qd_replica_load *loads; /* [dp] likewise */
    atomic_int *n_in_flight;       /* [dp] submitted, end not yet read */
    uint64_t next_id;
    atomic_size_t n_held; /* requests alive, or ended with their end unread */
};

static qd_status check_config(const struct qd_engine_config *config, char *err, size_t errlen)
{
    if (config->dp < 1 || config->groups == NULL)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "an engine of %d replicas", config->dp);
    for (int i = 0; i < config->dp; i++)
        if (config->groups[i] == NULL)
            return qd_fail(QD_ERR_ARGUMENT, err, errlen, "replica %d has no group", i);
    if (config->is_virtual && (!config->is_stepped || config->executes))
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "virtual time is of stepped engines that execute nothing");
    if (config->coupling != QD_COUPLING_NONE && (!config->is_virtual || config->async_scheduling))
        return qd_fail(QD_ERR_ARGUMENT, err, errlen,
                       "coupled replicas need virtual time and synchronous scheduling");
    if (config->vocab_size < 1 || config->max_requests < 1 || config->n_eos < 0 ||
        (config->n_eos > 0 && config->eos_ids == NULL))
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "vocabulary of %d, room for %zu requests, %d EOS ids",
                       config->vocab_size, config->max_requests, config->n_eos);
    return QD_OK;
}

/* A stepped engine has nobody to wait for: what one round of steps and the ends of all requests take. */
static size_t event_room(const struct qd_engine_config *config)
{
    if (config->is_stepped) return config->max_requests + (size_t)config->dp * (size_t)config->max_num_seqs;
    size_t room = (size_t)config->dp * (size_t)config->max_num_seqs * STEPS_OF_EVENTS;
    if (room < MIN_EVENTS) return MIN_EVENTS;
    return room < MAX_EVENTS ? room : MAX_EVENTS;
}

static qd_status open_replicas(struct qd_engine *engine, char *err, size_t errlen)
{
    const struct qd_engine_config *config = &engine->config;
    struct qd_replica_config replica = {
        .scheduler = {.max_num_batched_tokens = config->max_num_batched_tokens,
                      .max_num_seqs = config->max_num_seqs,
                      .max_model_len = config->max_model_len,
                      .n_kv_blocks = config->n_kv_blocks,
                      .long_prefill_token_threshold = config->long_prefill_token_threshold,
                      .prefix_caching = config->prefix_caching},
        .vocab_size = config->vocab_size,
        .n_eos = config->executes ? config->n_eos : 0,
        .eos_ids = engine->eos_ids,
        .max_requests = config->max_requests,
        .async_scheduling = config->async_scheduling,
        .n_step_rows = config->n_step_rows,
        .recorder = config->recorder,
        .events = &engine->events,
        .clock = &engine->clock,
        .is_stepped = config->is_stepped,
    };
    for (int i = 0; i < config->dp; i++) {
        replica.index = i;
        replica.group = config->groups[i];
        QD_TRY(qd_replica_open(&replica, &engine->replicas[i], err, errlen));
    }
    return QD_OK;
}

static qd_status allocate(struct qd_engine *engine, char *err, size_t errlen)
{
    const struct qd_engine_config *config = &engine->config;
    engine->eos_ids = calloc((size_t)config->n_eos + 1, sizeof *engine->eos_ids);
    engine->replicas = calloc((size_t)config->dp, sizeof(qd_replica_t *));
    engine->chains = calloc((size_t)config->dp, sizeof *engine->chains);
    engine->loads = calloc((size_t)config->dp, sizeof *engine->loads);
    engine->n_in_flight = calloc((size_t)config->dp, sizeof *engine->n_in_flight);
    if (engine->eos_ids == NULL || engine->replicas == NULL || engine->chains == NULL ||
        engine->loads == NULL || engine->n_in_flight == NULL ||
        qd_coupling_init(&engine->coupling, config->dp) != QD_OK ||
        qd_router_init(&engine->router, config->router, config->dp) != QD_OK)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for an engine of %d replicas", config->dp);
    if (config->n_eos > 0)
        memcpy(engine->eos_ids, config->eos_ids, (size_t)config->n_eos * sizeof *engine->eos_ids);
    return qd_events_init(&engine->events, event_room(config), err, errlen);
}

qd_status qd_engine_open(const struct qd_engine_config *config, qd_engine_t **out, char *err, size_t errlen)
{
    *out = NULL;
    QD_TRY(check_config(config, err, errlen));
    struct qd_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for an engine");
    engine->config = *config;
    engine->limits = (struct qd_request_limits){.max_model_len = config->max_model_len,
                                                .n_kv_blocks = config->n_kv_blocks,
                                                .prefix_caching = config->prefix_caching,
                                                .vocab_size = config->vocab_size};
    pthread_mutex_init(&engine->submit_mutex, NULL);
    atomic_init(&engine->n_held, 0);
    qd_clock_init(&engine->clock, config->is_virtual);
    qd_status st = allocate(engine, err, errlen);
    if (st == QD_OK) st = open_replicas(engine, err, errlen);
    engine->stepper = (struct qd_stepper){.clock = &engine->clock,
                                          .events = &engine->events,
                                          .replicas = engine->replicas,
                                          .dp = config->dp};
    if (config->coupling != QD_COUPLING_NONE) engine->stepper.coupling = &engine->coupling;
    pthread_mutex_init(&engine->stepper.mutex, NULL);
    if (st != QD_OK) {
        qd_engine_close(engine);
        return st;
    }
    *out = engine;
    return QD_OK;
}

void qd_engine_close(qd_engine_t *engine)
{
    if (engine == NULL) return;
    if (engine->events.ring != NULL) qd_events_close(&engine->events);
    if (engine->replicas != NULL) {
        for (int i = 0; i < engine->config.dp; i++) qd_replica_stop(engine->replicas[i]);
        for (int i = 0; i < engine->config.dp; i++) qd_replica_close(engine->replicas[i]);
    }
    qd_events_free(&engine->events);
    pthread_mutex_destroy(&engine->stepper.mutex);
    pthread_mutex_destroy(&engine->submit_mutex);
    qd_coupling_free(&engine->coupling);
    qd_router_free(&engine->router);
    free(engine->n_in_flight);
    free(engine->loads);
    free(engine->chains);
    free(engine->replicas);
    free(engine->eos_ids);
    free(engine);
}

/* Copies n requests into a chain; none is left after a failure. */
static qd_status make_chain(const struct qd_engine *engine, const struct qd_request *requests, size_t n,
                            struct chain *out, char *err, size_t errlen)
{
    *out = (struct chain){0};
    for (size_t i = 0; i < n; i++) {
        struct qd_live_request *request;
        char why[QD_ERR_LEN] = "";
        qd_status st = qd_live_request_create(&requests[i], &engine->limits, &request, why, sizeof why);
        if (st != QD_OK) {
            qd_live_request_destroy_chain(out->first);
            if (n == 1) return qd_fail(st, err, errlen, "%s", why);
            return qd_fail(st, err, errlen, "request %zu of %zu: %s", i, n, why);
        }
        if (out->last != NULL)
            out->last->next = request;
        else
            out->first = request;
        out->last = request;
    }
    return QD_OK;
}

static bool all_dead(const struct qd_engine *engine)
{
    for (int i = 0; i < engine->config.dp; i++)
        if (qd_replica_failure(engine->replicas[i]) == NULL) return false;
    return true;
}

/* Replicas go on meanwhile: policies that look at load are no function of the inputs in real time. */
static int pick_replica(struct qd_engine *engine, int64_t now_ns)
{
    for (int i = 0; i < engine->config.dp; i++) {
        engine->loads[i] = qd_replica_get_load(engine->replicas[i]);
        engine->loads[i].n_in_flight = atomic_load(&engine->n_in_flight[i]);
    }
    return qd_router_pick(&engine->router, engine->loads, now_ns);
}

/* Gives ids in order and hands each replica its part at once. */
static void route(struct qd_engine *engine, struct qd_live_request *first, uint64_t *ids)
{
    int dp = engine->config.dp;
    int64_t now_ns = qd_clock_read(&engine->clock);
    memset(engine->chains, 0, (size_t)dp * sizeof *engine->chains);
    for (struct qd_live_request *request = first, *next; request != NULL; request = next) {
        next = request->next;
        request->next = NULL;
        request->sched.id = *ids++ = engine->next_id++;
        int replica = pick_replica(engine, now_ns);
        struct chain *chain = &engine->chains[replica];
        atomic_fetch_add(&engine->n_in_flight[replica], 1);
        if (chain->last != NULL)
            chain->last->next = request;
        else
            chain->first = request;
        chain->last = request;
    }
    for (int i = 0; i < dp; i++)
        if (engine->chains[i].first != NULL)
            qd_replica_submit(engine->replicas[i], engine->chains[i].first, engine->chains[i].last);
}

qd_status qd_engine_submit_batch(qd_engine_t *engine, const struct qd_request *requests, size_t n,
                                 uint64_t *ids, char *err, size_t errlen)
{
    struct chain chain;
    QD_TRY(make_chain(engine, requests, n, &chain, err, errlen));
    qd_status st = QD_OK;
    pthread_mutex_lock(&engine->submit_mutex);
    size_t held = atomic_load(&engine->n_held);
    if (all_dead(engine))
        st = qd_fail(QD_ERR_RANK, err, errlen, "no replica is left: %s", qd_engine_failure(engine));
    else if (n > engine->config.max_requests || held > engine->config.max_requests - n)
        st = qd_fail(QD_ERR_FULL, err, errlen, "%zu requests are held and %zu more exceed the room for %zu",
                     held, n, engine->config.max_requests);
    if (st == QD_OK) {
        atomic_fetch_add(&engine->n_held, n);
        route(engine, chain.first, ids);
    }
    pthread_mutex_unlock(&engine->submit_mutex);
    if (st != QD_OK) qd_live_request_destroy_chain(chain.first);
    return st;
}

qd_status qd_engine_submit(qd_engine_t *engine, const struct qd_request *request, uint64_t *id, char *err,
                           size_t errlen)
{
    return qd_engine_submit_batch(engine, request, 1, id, err, errlen);
}

void qd_engine_abort(qd_engine_t *engine, uint64_t id)
{
    for (int i = 0; i < engine->config.dp; i++)
        if (qd_replica_abort(engine->replicas[i], id)) return;
}

size_t qd_engine_poll_events(qd_engine_t *engine, struct qd_event *events, size_t max, int64_t timeout_ns)
{
    size_t n = engine->config.is_stepped ? qd_stepper_poll(&engine->stepper, events, max, timeout_ns)
                                         : qd_events_poll(&engine->events, events, max, timeout_ns);
    size_t n_ended = 0;
    for (size_t i = 0; i < n; i++) {
        if (events[i].finish == QD_FINISH_NONE) continue;
        atomic_fetch_sub(&engine->n_in_flight[events[i].replica], 1);
        n_ended++;
    }
    if (n_ended > 0) atomic_fetch_sub(&engine->n_held, n_ended);
    return n;
}

int64_t qd_engine_now_ns(const qd_engine_t *engine)
{
    return qd_clock_read(&engine->clock);
}

bool qd_engine_is_virtual(const qd_engine_t *engine)
{
    return engine->clock.is_virtual;
}

const char *qd_engine_failure(qd_engine_t *engine)
{
    for (int i = 0; i < engine->config.dp; i++) {
        const char *failure = qd_replica_failure(engine->replicas[i]);
        if (failure != NULL) return failure;
    }
    return NULL;
}

void qd_engine_reset_stats(qd_engine_t *engine)
{
    pthread_mutex_lock(&engine->stepper.mutex);
    for (int i = 0; i < engine->config.dp; i++) qd_replica_reset_stats(engine->replicas[i]);
    qd_coupling_reset(&engine->coupling);
    pthread_mutex_unlock(&engine->stepper.mutex);
}

struct qd_replica_stats qd_engine_stats(qd_engine_t *engine, int replica)
{
    pthread_mutex_lock(&engine->stepper.mutex);
    struct qd_replica_stats stats = qd_replica_get_stats(engine->replicas[replica]);
    stats.coupling_wait_ns = engine->coupling.replicas[replica].wait_ns;
    stats.n_dummies = engine->coupling.replicas[replica].n_dummies;
    pthread_mutex_unlock(&engine->stepper.mutex);
    return stats;
}

size_t qd_engine_take_steps(qd_engine_t *engine, int replica, struct qd_step_row *rows, size_t max)
{
    return qd_replica_take_steps(engine->replicas[replica], rows, max);
}

uint64_t qd_engine_n_dropped_steps(const qd_engine_t *engine, int replica)
{
    return qd_replica_n_dropped_steps(engine->replicas[replica]);
}
