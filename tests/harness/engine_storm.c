/* Many threads at one engine: every request ends exactly once, with its tokens in order. Meant for the thread
 * sanitizer as much as for itself. */
#include "tests/support/test.h"

#include <pthread.h>

#include "kernels/base/random.h"
#include "tests/support/fake_engine.h"

enum { N_CLIENTS = 4, N_EACH = 400, N_ALL = N_CLIENTS * N_EACH, MAX_TOKENS = 24, MAX_PROMPT = 40 };

/* What was submitted, by id; read once the clients have ended. */
struct sent {
    int32_t prompts[N_ALL][MAX_PROMPT];
    struct qd_request requests[N_ALL];
};

struct client {
    struct fake_engine *fake;
    pthread_t thread;
    uint64_t key;
    _Atomic int *n_failed;
    struct sent *sent;
};

static uint32_t draw(const struct client *client, uint64_t *counter, uint32_t n)
{
    return qd_philox(client->key, 0, (*counter)++).word[0] % n;
}

static void keep(struct sent *sent, uint64_t id, const struct qd_request *request)
{
    memcpy(sent->prompts[id], request->prompt, (size_t)request->n_prompt * sizeof *request->prompt);
    sent->requests[id] = *request;
    sent->requests[id].prompt = sent->prompts[id];
}

/* Submits one by one and in batches, aborts its own and other clients' requests. */
static void *client_main(void *arg)
{
    struct client *client = arg;
    qd_engine_t *engine = client->fake->engine;
    int32_t prompts[8][MAX_PROMPT];
    uint64_t counter = 0, ids[8] = {0};
    char err[QD_ERR_LEN] = "";
    for (size_t n_sent = 0; n_sent < N_EACH;) {
        struct qd_request batch[8];
        size_t n = 1 + draw(client, &counter, 8);
        if (n > N_EACH - n_sent) n = N_EACH - n_sent;
        for (size_t i = 0; i < n; i++)
            batch[i] = fake_request(prompts[i], 1 + (int32_t)draw(client, &counter, MAX_PROMPT),
                                    1 + (int32_t)draw(client, &counter, MAX_TOKENS), counter,
                                    client->fake->config.vocab_size);
        qd_status st = n == 1 ? qd_engine_submit(engine, batch, ids, err, sizeof err)
                              : qd_engine_submit_batch(engine, batch, n, ids, err, sizeof err);
        if (st != QD_OK) {
            atomic_fetch_add(client->n_failed, 1);
            break;
        }
        n_sent += n;
        for (size_t i = 0; i < n; i++) keep(client->sent, ids[i], &batch[i]);
        if (draw(client, &counter, 3) == 0) qd_engine_abort(engine, ids[draw(client, &counter, (uint32_t)n)]);
        if (draw(client, &counter, 5) == 0) qd_engine_abort(engine, draw(client, &counter, N_ALL));
        if (qd_engine_failure(engine) != NULL) atomic_fetch_add(client->n_failed, 1);
        if (draw(client, &counter, 20) == 0) usleep(200);
    }
    return NULL;
}

static bool every_ninth_token_is_a_stop(const struct qd_event *event)
{
    return event->token >= 0 && event->token % 9 == 0;
}

/* Every request ended once, with tokens of its own only, on a replica that its router may choose. */
static void check_replies(const struct fake_engine *fake, const struct sent *sent,
                          const struct reply *replies)
{
    uint64_t n_aborted = 0;
    int n_on[FAKE_MAX_DP] = {0};
    for (int i = 0; i < N_ALL; i++) {
        assert_int_equal(replies[i].n_finishes, 1);
        if (!fake->null_device)
            assert_reply_is_right(&replies[i], &sent->requests[i], fake->config.vocab_size);
        if (fake->config.router == QD_ROUTER_ROUND_ROBIN)
            assert_int_equal(replies[i].replica, i % fake->config.dp);
        assert_in_range(replies[i].replica, 0, fake->config.dp - 1);
        n_on[replies[i].replica]++;
        n_aborted += replies[i].finish == QD_FINISH_ABORT;
        if (replies[i].finish == QD_FINISH_ABORT) continue;
        assert_int_equal(replies[i].finish, QD_FINISH_LENGTH);
        assert_int_equal(replies[i].n_tokens, sent->requests[i].max_tokens);
    }
    assert_true(n_aborted > 0 && n_aborted < N_ALL);
    for (int r = 0; r < fake->config.dp; r++) assert_true(n_on[r] > N_ALL / 20);
}

static void storm(struct fake_engine *fake)
{
    _Atomic int n_failed = 0;
    struct client clients[N_CLIENTS];
    struct sent *sent = calloc(1, sizeof *sent);
    assert_non_null(sent);
    fake_engine_open(fake, NULL);
    struct reply *replies = replies_make(N_ALL, MAX_TOKENS);
    for (int i = 0; i < N_CLIENTS; i++) {
        clients[i] = (struct client){.fake = fake, .key = (uint64_t)i, .n_failed = &n_failed, .sent = sent};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    fake_engine_collect(fake, N_ALL, replies, N_ALL, 0, MAX_TOKENS);
    for (int i = 0; i < N_CLIENTS; i++) pthread_join(clients[i].thread, NULL);
    assert_int_equal(n_failed, 0);
    uint64_t n_finished = 0, n_preemptions = 0;
    for (int r = 0; r < fake->config.dp; r++) {
        struct qd_replica_stats stats = qd_engine_stats(fake->engine, r);
        n_finished += stats.n_finished;
        n_preemptions += stats.n_preemptions;
    }
    assert_int_equal(n_finished, N_ALL);
    assert_true(n_preemptions > 0);
    for (int i = 0; i < N_ALL; i++) n_preemptions -= (uint64_t)replies[i].preemptions;
    assert_int_equal(n_preemptions, 0);
    check_replies(fake, sent, replies);
    fake_engine_close(fake);
    replies_free(replies);
    free(sent);
}

static void clients_storm_an_engine_that_does_nothing(void **state)
{
    (void)state;
    for (int dp = 1; dp <= FAKE_MAX_DP; dp++) {
        struct fake_engine fake = {.null_device = true,
                                   .config = {.dp = dp, .n_kv_blocks = 9, .async_scheduling = dp % 2 == 0}};
        storm(&fake);
    }
}

static void clients_storm_an_engine_that_checks_every_step(void **state)
{
    (void)state;
    for (int async = 0; async <= 1; async++) {
        struct fake_engine fake = {
            .config = {.dp = 3, .n_kv_blocks = 9, .prefix_caching = async, .async_scheduling = async}};
        storm(&fake);
    }
    for (int router = QD_ROUTER_LEAST_LOADED; router <= QD_ROUTER_VLLM; router++) {
        struct fake_engine fake = {
            .config = {.dp = 3, .n_kv_blocks = 9, .router = (enum qd_router_policy)router}};
        storm(&fake);
    }
}

/* Two steps are in flight when a reader has seen enough: what they still sample for it is nobody's. */
static void readers_give_up_in_the_middle(void **state)
{
    (void)state;
    for (int async = 0; async <= 1; async++) {
        struct fake_engine fake = {
            .gives_up = every_ninth_token_is_a_stop,
            .config = {.dp = 2, .n_kv_blocks = 7, .prefix_caching = async == 0, .async_scheduling = async}};
        storm(&fake);
    }
}

static void thousands_wait_in_line(void **state)
{
    (void)state;
    enum { N_QUEUED = 10000, LEN = 3 };
    struct fake_engine fake = {.null_device = true, .config = {.dp = 2, .max_requests = N_QUEUED}};
    int32_t prompt[4];
    uint64_t id;
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, NULL);
    struct reply *replies = replies_make(N_QUEUED, MAX_TOKENS);
    struct qd_request *batch = calloc(N_QUEUED, sizeof *batch);
    uint64_t *ids = calloc(N_QUEUED, sizeof *ids);
    assert_non_null(batch);
    assert_non_null(ids);
    for (int i = 0; i < N_QUEUED; i++) batch[i] = fake_request(prompt, 4, LEN, 1, fake.config.vocab_size);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N_QUEUED, ids, err, sizeof err), err);
    fake_engine_collect(&fake, N_QUEUED, replies, N_QUEUED, 0, MAX_TOKENS);
    /* First come, first scheduled: all were there from the first step on. */
    for (int i = 2; i < N_QUEUED; i++) {
        assert_int_equal(replies[i].n_tokens, LEN);
        assert_true(replies[i].scheduled_ns >= replies[i - 2].scheduled_ns);
    }
    struct qd_replica_stats stats = qd_engine_stats(fake.engine, 0);
    assert_int_equal(stats.peak_running, fake.config.max_num_seqs);
    assert_int_equal(stats.peak_waiting, N_QUEUED / 2 - fake.config.max_num_seqs);
    ASSERT_OK(qd_engine_submit(fake.engine, batch, &id, err, sizeof err), err);
    assert_int_equal(id, N_QUEUED);
    fake_engine_close(&fake);
    free(ids);
    free(batch);
    replies_free(replies);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_storm_an_engine_that_does_nothing),
        cmocka_unit_test(clients_storm_an_engine_that_checks_every_step),
        cmocka_unit_test(readers_give_up_in_the_middle),
        cmocka_unit_test(thousands_wait_in_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
