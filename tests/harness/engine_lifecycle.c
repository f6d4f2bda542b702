/* Submission, visibility, abort, room, statistics of an engine. */
#include "tests/support/test.h"

#include "kernels/base/clock.h"
#include "tests/support/fake_engine.h"

enum { MAX_TOKENS = 64 };

static void expect_refusal(struct fake_engine *fake, const struct qd_request *request, const char *text)
{
    uint64_t id;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_engine_submit(fake->engine, request, &id, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, text);
}

static void bad_requests_are_refused_by_name(void **state)
{
    (void)state;
    struct fake_engine fake = {.config = {.n_kv_blocks = 4}}; /* 3 pages: 48 tokens */
    int32_t prompt[64];
    fake_engine_open(&fake, NULL);
    const struct qd_request good = fake_request(prompt, 8, 4, 1, fake.config.vocab_size);
    struct qd_request r = good;
    r.n_prompt = 0;
    expect_refusal(&fake, &r, "prompt is empty");
    r = good, r.prompt = NULL;
    expect_refusal(&fake, &r, "prompt is empty");
    r = good, r.n_prompt = 64;
    expect_refusal(&fake, &r, "max_model_len is 64");
    r = good, r.max_tokens = 0;
    expect_refusal(&fake, &r, "max_tokens 0");
    r = good, r.temperature = -1.0f;
    expect_refusal(&fake, &r, "temperature -1");
    r = good, r.temperature = (float)(0.0 / 0.0 * (double)r.n_prompt);
    expect_refusal(&fake, &r, "temperature");
    r = good, r.top_p = 0.0f;
    expect_refusal(&fake, &r, "top_p 0");
    r = good, r.top_k = -2;
    expect_refusal(&fake, &r, "top_k -2");
    r = good, r.n_stop_ids = 17, r.stop_ids = prompt;
    expect_refusal(&fake, &r, "17 stop ids");
    prompt[5] = fake.config.vocab_size;
    expect_refusal(&fake, &good, "prompt token 5 is id 97, outside the vocabulary of 97");
    prompt[5] = -1;
    expect_refusal(&fake, &good, "prompt token 5 is id -1");
    prompt[5] = 0;
    /* 40 + 10 - 1 tokens are 4 pages; with one output token less they are 3. */
    r = fake_request(prompt, 40, 10, 1, fake.config.vocab_size);
    expect_refusal(&fake, &r, "ceil((40 prompt + 10 output - 1) / 16) = 4 pages > 3");
    uint64_t id = 99;
    char err[QD_ERR_LEN] = "";
    r.max_tokens = 9;
    ASSERT_OK(qd_engine_submit(fake.engine, &r, &id, err, sizeof err), err);
    assert_int_equal(id, 0); /* refusals use no id */
    struct reply *reply = replies_make(1, MAX_TOKENS);
    fake_engine_collect(&fake, 1, reply, 1, 0, MAX_TOKENS);
    assert_int_equal(reply->n_tokens, 9);
    fake_engine_close(&fake);
    replies_free(reply);
}

static void a_batch_is_all_or_none(void **state)
{
    (void)state;
    struct fake_engine fake = {0};
    int32_t prompt[8];
    uint64_t ids[3];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, NULL);
    struct qd_request r = fake_request(prompt, 8, 4, 1, fake.config.vocab_size);
    struct qd_request batch[3] = {r, r, r};
    batch[2].max_tokens = -1;
    assert_int_equal(qd_engine_submit_batch(fake.engine, batch, 3, ids, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "request 2 of 3: max_tokens -1");
    struct qd_event event;
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 20000000), 0);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, 0, ids, err, sizeof err), err);
    fake_engine_close(&fake);
}

/* Whatever the replica is doing, all requests of a batch are there in one and the same step. */
static void a_batch_enters_in_one_step(void **state)
{
    (void)state;
    enum { N_ROUNDS = 60, N_BATCH = 12, N_PROMPT = 5 };
    struct fake_engine fake = {
        .config = {.dp = 2, .max_num_batched_tokens = 64, .max_num_seqs = 16, .n_kv_blocks = 65}};
    int32_t prompt[N_PROMPT];
    uint64_t ids[N_BATCH];
    struct qd_request batch[N_BATCH];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, NULL);
    for (int i = 0; i < N_BATCH; i++) batch[i] = fake_request(prompt, N_PROMPT, 1, 1, fake.config.vocab_size);
    struct reply *replies = replies_make(N_ROUNDS * N_BATCH, MAX_TOKENS);
    for (int round = 0; round < N_ROUNDS; round++) {
        if (round % 3 == 0) usleep((useconds_t)(round * 10));
        ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N_BATCH, ids, err, sizeof err), err);
        fake_engine_collect(&fake, N_BATCH, replies, N_ROUNDS * N_BATCH, 0, MAX_TOKENS);
    }
    for (int r = 0; r < 2; r++) {
        assert_int_equal(qd_engine_stats(fake.engine, r).n_steps, N_ROUNDS);
        for (int step = 0; step < N_ROUNDS; step++) {
            assert_int_equal(fake.devices[r].n_seqs[step], N_BATCH / 2);
            assert_int_equal(fake.devices[r].n_tokens[step], N_BATCH / 2 * N_PROMPT);
        }
    }
    fake_engine_close(&fake);
    replies_free(replies);
}

static void slow_steps(struct fake_engine *fake)
{
    for (int i = 0; i < fake->config.dp; i++) fake->devices[i].step_us = 2000;
}

static void aborts_end_requests_wherever_they_are(void **state)
{
    (void)state;
    enum { N = 6 };
    struct fake_engine fake = {.config = {.max_num_seqs = 2}};
    int32_t prompt[4];
    uint64_t ids[N];
    struct qd_request batch[N];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, slow_steps);
    for (int i = 0; i < N; i++) batch[i] = fake_request(prompt, 4, 60, 1, fake.config.vocab_size);
    struct reply *replies = replies_make(N, MAX_TOKENS);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N, ids, err, sizeof err), err);
    while (atomic_load(&fake.devices[0].n_steps) < 3) usleep(200);
    qd_engine_abort(fake.engine, ids[0]); /* running */
    qd_engine_abort(fake.engine, ids[4]); /* waiting */
    qd_engine_abort(fake.engine, ids[4]); /* twice is once */
    qd_engine_abort(fake.engine, 12345);  /* nobody */
    for (int i = 1; i < N; i++)
        if (i != 4) qd_engine_abort(fake.engine, ids[i]);
    fake_engine_collect(&fake, N, replies, N, 0, MAX_TOKENS);
    for (int i = 0; i < N; i++) {
        assert_int_equal(replies[i].finish, QD_FINISH_ABORT);
        assert_reply_is_right(&replies[i], &batch[i], fake.config.vocab_size);
        if (i >= 2) assert_int_equal(replies[i].n_tokens, 0);
    }
    assert_true(replies[0].n_tokens >= 2 && replies[0].n_tokens < 60);
    for (int i = 0; i < N; i++) qd_engine_abort(fake.engine, ids[i]); /* all ended */
    struct qd_event event;
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 20000000), 0);
    assert_int_equal(qd_engine_stats(fake.engine, 0).n_finished, N);
    fake_engine_close(&fake);
    replies_free(replies);
}

/* b is preempted by a's growth and waits while a still runs; then its end is asked for. */
static void a_preempted_request_can_be_aborted(void **state)
{
    (void)state;
    struct fake_engine fake = {.config = {.n_kv_blocks = 5}};
    int32_t prompts[2][31];
    uint64_t ids[2];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, slow_steps);
    struct qd_request batch[2] = {fake_request(prompts[0], 31, 20, 1, fake.config.vocab_size),
                                  fake_request(prompts[1], 31, 20, 2, fake.config.vocab_size)};
    struct reply *replies = replies_make(2, MAX_TOKENS);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, 2, ids, err, sizeof err), err);
    while (atomic_load(&fake.devices[0].n_steps) < 5) usleep(200);
    qd_engine_abort(fake.engine, ids[1]);
    fake_engine_collect(&fake, 2, replies, 2, 0, MAX_TOKENS);
    assert_int_equal(replies[1].finish, QD_FINISH_ABORT);
    assert_int_equal(replies[1].preemptions, 1);
    assert_int_equal(replies[1].n_tokens, 2);
    assert_int_equal(replies[0].finish, QD_FINISH_LENGTH);
    assert_reply_is_right(&replies[0], &batch[0], fake.config.vocab_size);
    fake_engine_close(&fake);
    replies_free(replies);
}

static void very_slow_steps(struct fake_engine *fake)
{
    fake->devices[0].step_us = 30000;
}

static void an_abort_during_the_last_step_comes_too_late(void **state)
{
    (void)state;
    struct fake_engine fake = {0};
    int32_t prompt[4];
    uint64_t ids[3];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, very_slow_steps);
    struct qd_request r = fake_request(prompt, 4, 1, 1, fake.config.vocab_size), batch[3] = {r, r, r};
    struct reply *replies = replies_make(4, MAX_TOKENS);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, 3, ids, err, sizeof err), err);
    while (atomic_load(&fake.devices[0].n_steps) < 1) usleep(200);
    for (int i = 2; i >= 0; i--) qd_engine_abort(fake.engine, ids[i]);
    fake_engine_collect(&fake, 3, replies, 4, 0, MAX_TOKENS);
    ASSERT_OK(qd_engine_submit(fake.engine, &r, ids, err, sizeof err), err);
    fake_engine_collect(&fake, 1, replies, 4, 0, MAX_TOKENS);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(replies[i].finish, QD_FINISH_LENGTH);
        assert_int_equal(replies[i].n_tokens, 1);
    }
    fake_engine_close(&fake);
    replies_free(replies);
}

static void room_is_given_back_when_the_end_is_read(void **state)
{
    (void)state;
    struct fake_engine fake = {.config = {.max_requests = 3}};
    int32_t prompt[4];
    uint64_t ids[4];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, NULL);
    struct qd_request r = fake_request(prompt, 4, 2, 1, fake.config.vocab_size), batch[4] = {r, r, r, r};
    assert_int_equal(qd_engine_submit_batch(fake.engine, batch, 4, ids, err, sizeof err), QD_ERR_FULL);
    ASSERT_CONTAINS(err, "room for 3");
    struct reply *replies = replies_make(16, MAX_TOKENS);
    for (int round = 0; round < 4; round++) {
        ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, 3, ids, err, sizeof err), err);
        while (qd_engine_stats(fake.engine, 0).n_finished < (uint64_t)(3 * (round + 1))) usleep(100);
        assert_int_equal(qd_engine_submit(fake.engine, &r, ids, err, sizeof err), QD_ERR_FULL); /* unread */
        fake_engine_collect(&fake, 3, replies, 16, 0, MAX_TOKENS);
    }
    fake_engine_close(&fake);
    replies_free(replies);
}

/* Far more events than the ring holds, unread: the replica waits, nothing is lost. */
static void unread_events_are_never_lost(void **state)
{
    (void)state;
    enum { N = 200, LEN = 60 };
    struct fake_engine fake = {.null_device = true};
    int32_t prompt[4];
    uint64_t ids[N];
    struct qd_request batch[N];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, NULL);
    for (int i = 0; i < N; i++) batch[i] = fake_request(prompt, 4, LEN, (uint64_t)i, fake.config.vocab_size);
    struct reply *replies = replies_make(N, MAX_TOKENS);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N, ids, err, sizeof err), err);
    usleep(50000);
    fake_engine_collect(&fake, N, replies, N, 0, MAX_TOKENS);
    for (int i = 0; i < N; i++) assert_int_equal(replies[i].n_tokens, LEN);

    /* Once more, and closed while the replica waits for a reader. */
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N, ids, err, sizeof err), err);
    usleep(20000);
    fake_engine_close(&fake);
    replies_free(replies);
}

static void host_segments_add_up_to_the_wall_clock(void **state)
{
    (void)state;
    enum { N = 8, LEN = 20 };
    struct fake_engine fake = {0};
    int32_t prompt[4];
    uint64_t ids[N];
    struct qd_request batch[N];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, slow_steps);
    for (int i = 0; i < N; i++) batch[i] = fake_request(prompt, 4, LEN, (uint64_t)i, fake.config.vocab_size);
    struct reply *replies = replies_make(N, MAX_TOKENS);
    qd_engine_reset_stats(fake.engine);
    int64_t begin_ns = qd_clock_now_ns();
    usleep(10000);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N, ids, err, sizeof err), err);
    fake_engine_collect(&fake, N, replies, N, 0, MAX_TOKENS);
    int64_t busy_end_ns = qd_clock_now_ns();
    struct qd_replica_stats s = qd_engine_stats(fake.engine, 0);
    int64_t sum = s.schedule_ns + s.prepare_ns + s.launch_ns + s.wait_ns + s.output_ns + s.idle_ns;
    assert_true(s.wall_ns >= busy_end_ns - begin_ns);
    /* A segment begins where the one before ended; the wall clock is read once more, right after them. */
    assert_true(sum <= s.wall_ns);
    assert_true(sum >= s.wall_ns - s.wall_ns / 100);
    assert_int_equal(s.n_steps, LEN);
    assert_true(s.wait_ns >= LEN * INT64_C(1900000)); /* the device's time is in `wait` */
    assert_true(s.idle_ns >= 10000000);
    for (int i = 0; i < N; i++) {
        assert_true(replies[i].scheduled_ns >= begin_ns);
        assert_true(replies[i].first_ns >= replies[i].scheduled_ns + 1900000);
    }
    qd_engine_reset_stats(fake.engine);
    s = qd_engine_stats(fake.engine, 0);
    assert_int_equal(s.n_steps + s.n_finished + s.n_decode_tokens, 0);
    fake_engine_close(&fake);
    replies_free(replies);
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    struct fake_engine fake = {0};
    char err[QD_ERR_LEN] = "";
    qd_engine_t *engine = NULL;
    fake_engine_open(&fake, NULL);
    struct qd_engine_config config = fake.config;
    config.dp = 0;
    assert_int_equal(qd_engine_open(&config, &engine, err, sizeof err), QD_ERR_ARGUMENT);
    config = fake.config, config.n_kv_blocks = 1;
    assert_int_equal(qd_engine_open(&config, &engine, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "pages 1");
    config = fake.config, config.max_requests = 0;
    assert_int_equal(qd_engine_open(&config, &engine, err, sizeof err), QD_ERR_ARGUMENT);
    assert_null(engine);
    qd_engine_close(NULL);
    fake_engine_close(&fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_requests_are_refused_by_name),
        cmocka_unit_test(a_batch_is_all_or_none),
        cmocka_unit_test(a_batch_enters_in_one_step),
        cmocka_unit_test(aborts_end_requests_wherever_they_are),
        cmocka_unit_test(a_preempted_request_can_be_aborted),
        cmocka_unit_test(an_abort_during_the_last_step_comes_too_late),
        cmocka_unit_test(room_is_given_back_when_the_end_is_read),
        cmocka_unit_test(unread_events_are_never_lost),
        cmocka_unit_test(host_segments_add_up_to_the_wall_clock),
        cmocka_unit_test(bad_configurations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
