/* A replica that dies takes its own requests with it and nothing else. */
#include "tests/support/test.h"

#include "tests/support/fake_engine.h"

enum { N = 8, LEN = 20 };

static void second_replica_fails(struct fake_engine *fake)
{
    fake->devices[1].fail_step = 4;
}

static void make_batch(struct qd_request *batch, int32_t (*prompts)[4], int32_t vocab_size)
{
    for (int i = 0; i < N; i++) batch[i] = fake_request(prompts[i], 4, LEN, (uint64_t)i, vocab_size);
}

static void check_the_other_replica(bool async)
{
    struct fake_engine fake = {.config = {.dp = 2, .async_scheduling = async}};
    int32_t prompts[N][4];
    uint64_t ids[N];
    struct qd_request batch[N];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, second_replica_fails);
    assert_null(qd_engine_failure(fake.engine));
    make_batch(batch, prompts, fake.config.vocab_size);
    struct reply *replies = replies_make(2 * N, LEN);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N, ids, err, sizeof err), err);
    fake_engine_collect(&fake, N, replies, N, 0, LEN);
    for (int i = 0; i < N; i++) {
        assert_int_equal(replies[i].finish, i % 2 == 0 ? QD_FINISH_LENGTH : QD_FINISH_ERROR);
        assert_int_equal(replies[i].n_tokens, i % 2 == 0 ? LEN : 4);
        assert_reply_is_right(&replies[i], &batch[i], fake.config.vocab_size);
    }
    ASSERT_CONTAINS(qd_engine_failure(fake.engine), "replica 1 rank 0: step 4: the fake caught fire");

    /* Later requests of the dead replica end with an error too. */
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N, ids, err, sizeof err), err);
    assert_int_equal(ids[0], N);
    fake_engine_collect(&fake, N, replies, 2 * N, 0, LEN);
    for (int i = N; i < 2 * N; i++) {
        assert_int_equal(replies[i].finish, i % 2 == 0 ? QD_FINISH_LENGTH : QD_FINISH_ERROR);
        assert_int_equal(replies[i].n_tokens, i % 2 == 0 ? LEN : 0);
    }
    assert_int_equal(qd_engine_stats(fake.engine, 1).n_finished, N);
    fake_engine_close(&fake);
    replies_free(replies);
}

static void the_other_replica_goes_on(void **state)
{
    (void)state;
    check_the_other_replica(false);
    check_the_other_replica(true);
}

static void only_replica_fails(struct fake_engine *fake)
{
    fake->devices[0].fail_step = 0;
}

static void samples_nonsense(struct fake_engine *fake)
{
    fake->devices[0].bad_step = 2;
}

/* Opens with `configure`, lets the only replica die, checks the text. */
static void expect_death(void (*configure)(struct fake_engine *fake), const char *text)
{
    struct fake_engine fake = {.config = {.max_num_seqs = 2}};
    int32_t prompts[N][4];
    uint64_t ids[N];
    struct qd_request batch[N];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, configure);
    make_batch(batch, prompts, fake.config.vocab_size);
    struct reply *replies = replies_make(N, LEN);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N, ids, err, sizeof err), err);
    fake_engine_collect(&fake, N, replies, N, 0, LEN); /* running and waiting ones alike */
    for (int i = 0; i < N; i++) assert_int_equal(replies[i].finish, QD_FINISH_ERROR);
    ASSERT_CONTAINS(qd_engine_failure(fake.engine), text);
    assert_int_equal(qd_engine_submit(fake.engine, batch, ids, err, sizeof err), QD_ERR_RANK);
    ASSERT_CONTAINS(err, "no replica is left");
    ASSERT_CONTAINS(err, text);
    qd_engine_abort(fake.engine, ids[0]);
    fake_engine_close(&fake);
    replies_free(replies);
}

static void an_engine_without_replicas_refuses_requests(void **state)
{
    (void)state;
    expect_death(only_replica_fails, "replica 0 rank 0: step 0: the fake caught fire");
}

static void an_id_outside_the_vocabulary_is_a_failure(void **state)
{
    (void)state;
    expect_death(samples_nonsense, "replica 0: step 3: sampled id 97 lies outside the vocabulary of 97");
}

static void slow_steps(struct fake_engine *fake)
{
    for (int i = 0; i < fake->config.dp; i++) fake->devices[i].step_us = 1000;
}

static void closing_a_busy_engine_drops_what_is_left(void **state)
{
    (void)state;
    for (int dp = 1; dp <= FAKE_MAX_DP; dp++) {
        struct fake_engine fake = {.config = {.dp = dp, .async_scheduling = dp % 2 == 0}};
        int32_t prompts[N][4];
        uint64_t ids[N];
        struct qd_request batch[N];
        char err[QD_ERR_LEN] = "";
        fake_engine_open(&fake, slow_steps);
        make_batch(batch, prompts, fake.config.vocab_size);
        for (int i = 0; i < 10; i++)
            ASSERT_OK(qd_engine_submit_batch(fake.engine, batch, N, ids, err, sizeof err), err);
        qd_engine_abort(fake.engine, ids[0]);
        usleep(3000);
        fake_engine_close(&fake);
        assert_in_range(atomic_load(&fake.devices[0].n_steps), 0, 10 * LEN - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_other_replica_goes_on),
        cmocka_unit_test(an_engine_without_replicas_refuses_requests),
        cmocka_unit_test(an_id_outside_the_vocabulary_is_a_failure),
        cmocka_unit_test(closing_a_busy_engine_drops_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
