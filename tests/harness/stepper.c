/* A stepped engine: what happens when, in virtual time worked out by hand; and that it is a function of its
 * inputs. */
#include "tests/support/test.h"

#include "harness/clock.h"
#include "harness/workload/workload.h"
#include "tests/support/fake_engine.h"

enum { MS = 1000000, MAX_EVENTS = 256, MAX_TOKENS = 64 };
static const int64_t BEGIN = QD_CLOCK_VIRTUAL_BEGIN_NS;

static void open_virtual(struct fake_engine *fake, int64_t step_ns)
{
    fake->null_device = true;
    fake->null_step_ns = step_ns;
    fake->config.is_stepped = fake->config.is_virtual = true;
    fake_engine_open(fake, NULL);
}

static uint64_t submit(struct fake_engine *fake, int32_t n_prompt, int32_t max_tokens)
{
    int32_t prompt[64];
    uint64_t id;
    char err[QD_ERR_LEN] = "";
    struct qd_request request = fake_request(prompt, n_prompt, max_tokens, 1, fake->config.vocab_size);
    ASSERT_OK(qd_engine_submit(fake->engine, &request, &id, err, sizeof err), err);
    return id;
}

/* The next event; fails the test unless there is exactly one and it is this one. */
static void expect_event(struct fake_engine *fake, uint64_t request, int32_t index, int64_t ms)
{
    struct qd_event event;
    assert_int_equal(qd_engine_poll_events(fake->engine, &event, 1, -1), 1);
    assert_int_equal(event.request, request);
    assert_int_equal(event.output_index, index);
    assert_int_equal(event.time_ns - BEGIN, ms * MS);
}

static int64_t now_ms(const struct fake_engine *fake)
{
    return (qd_engine_now_ns(fake->engine) - BEGIN) / MS;
}

static void the_clock_waits_and_never_goes_back(void **state)
{
    (void)state;
    struct qd_clock virtual_clock, real_clock;
    qd_clock_init(&virtual_clock, true);
    qd_clock_init(&real_clock, false);
    assert_int_equal(qd_clock_read(&virtual_clock), BEGIN);
    qd_clock_wait_until(&virtual_clock, BEGIN + 3600 * INT64_C(1000000000));
    assert_int_equal(qd_clock_read(&virtual_clock), BEGIN + 3600 * INT64_C(1000000000));
    qd_clock_wait_until(&virtual_clock, BEGIN);
    assert_int_equal(qd_clock_read(&virtual_clock), BEGIN + 3600 * INT64_C(1000000000));
    int64_t before_ns = qd_clock_read(&real_clock);
    qd_clock_wait_until(&real_clock, before_ns + 2 * MS);
    assert_true(qd_clock_read(&real_clock) >= before_ns + 2 * MS);
}

/* Steps of 10 ms on two replicas; the second's first request comes at 4 ms. */
static void replicas_step_in_the_order_of_their_clocks(void **state)
{
    (void)state;
    struct fake_engine fake = {.config.dp = 2};
    struct qd_event event;
    open_virtual(&fake, 10 * MS);
    uint64_t a = submit(&fake, 8, 3);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 4 * MS), 0);
    assert_int_equal(now_ms(&fake), 4);
    uint64_t b = submit(&fake, 8, 2);
    expect_event(&fake, a, 0, 10);
    expect_event(&fake, b, 0, 14);
    expect_event(&fake, a, 1, 20);
    expect_event(&fake, b, 1, 24);
    expect_event(&fake, a, 2, 30);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, -1), 0); /* nothing will ever come */
    assert_int_equal(now_ms(&fake), 30);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 70 * MS), 0);
    assert_int_equal(now_ms(&fake), 100);
    fake_engine_close(&fake);
}

/* What is submitted when a step ends is in the next; what is submitted while one runs waits for its end. */
static void submissions_enter_the_next_step(void **state)
{
    (void)state;
    struct fake_engine fake = {0};
    struct qd_event event;
    open_virtual(&fake, 10 * MS);
    uint64_t a = submit(&fake, 8, 4);
    expect_event(&fake, a, 0, 10);
    uint64_t b = submit(&fake, 8, 2);
    expect_event(&fake, a, 1, 20);
    expect_event(&fake, b, 0, 20);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 3 * MS), 0); /* the third step runs */
    uint64_t c = submit(&fake, 8, 1);
    expect_event(&fake, a, 2, 30);
    expect_event(&fake, b, 1, 30);
    expect_event(&fake, a, 3, 40);
    struct qd_event last;
    assert_int_equal(qd_engine_poll_events(fake.engine, &last, 1, -1), 1);
    assert_int_equal(last.request, c);
    assert_int_equal(last.scheduled_ns - BEGIN, 30 * MS);
    assert_int_equal(last.time_ns - BEGIN, 40 * MS);
    fake_engine_close(&fake);
}

/* A step that ends when the caller's time is over comes first. */
static void a_step_end_goes_before_the_timeout(void **state)
{
    (void)state;
    struct fake_engine fake = {0};
    struct qd_event event;
    open_virtual(&fake, 10 * MS);
    submit(&fake, 8, 2);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 10 * MS - 1), 0);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 1), 1);
    assert_int_equal(now_ms(&fake), 10);
    fake_engine_close(&fake);
}

/* A chunk of a prompt ends, with no event, at the very time at which the caller comes back: what he submits is in
 * the next step. */
static void whoever_comes_when_a_step_ends_is_in_time(void **state)
{
    (void)state;
    struct fake_engine fake = {.config.max_num_batched_tokens = 20};
    struct qd_event event;
    open_virtual(&fake, 10 * MS);
    uint64_t a = submit(&fake, 24, 1);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 10 * MS), 0);
    uint64_t b = submit(&fake, 8, 1);
    expect_event(&fake, a, 0, 20);
    expect_event(&fake, b, 0, 20);
    fake_engine_close(&fake);
}

/* All at time 0, still one step after the other. */
static void steps_may_take_no_time(void **state)
{
    (void)state;
    struct fake_engine fake = {.config.dp = 2};
    open_virtual(&fake, 0);
    uint64_t a = submit(&fake, 8, 2), b = submit(&fake, 8, 1);
    expect_event(&fake, a, 0, 0);
    expect_event(&fake, b, 0, 0);
    expect_event(&fake, a, 1, 0);
    assert_int_equal(qd_engine_stats(fake.engine, 0).n_steps, 2);
    fake_engine_close(&fake);
}

/* The second step is scheduled when the first begins and runs when it has ended; a request that comes at 4 ms
 * is scheduled when the first step ends, behind the second. */
static void two_steps_are_in_flight_when_asynchronous(void **state)
{
    (void)state;
    struct fake_engine fake = {.config.async_scheduling = true};
    struct qd_event event;
    open_virtual(&fake, 10 * MS);
    uint64_t a = submit(&fake, 8, 4);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 4 * MS), 0);
    uint64_t b = submit(&fake, 8, 1);
    expect_event(&fake, a, 0, 10);
    expect_event(&fake, a, 1, 20);
    expect_event(&fake, a, 2, 30);
    struct qd_event of_b;
    assert_int_equal(qd_engine_poll_events(fake.engine, &of_b, 1, -1), 1);
    assert_int_equal(of_b.request, b);
    assert_int_equal(of_b.scheduled_ns - BEGIN, 10 * MS);
    expect_event(&fake, a, 3, 40);
    fake_engine_close(&fake);
}

static void an_abort_is_seen_between_steps(void **state)
{
    (void)state;
    struct fake_engine fake = {0};
    struct qd_event event;
    open_virtual(&fake, 10 * MS);
    uint64_t a = submit(&fake, 8, 5);
    expect_event(&fake, a, 0, 10);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 5 * MS), 0);
    qd_engine_abort(fake.engine, a);
    expect_event(&fake, a, 1, 20);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, -1), 1);
    assert_int_equal(event.finish, QD_FINISH_ABORT);
    assert_int_equal(event.time_ns - BEGIN, 20 * MS);
    fake_engine_close(&fake);
}

/* More ends at once than a ring for running engines has room for. */
static void every_request_may_be_aborted_at_once(void **state)
{
    (void)state;
    enum { MANY = 20000 };
    struct fake_engine fake = {.config = {.max_requests = MANY, .dp = 2}};
    static struct qd_event events[MANY];
    open_virtual(&fake, MS);
    for (int i = 0; i < MANY; i++) submit(&fake, 4, 2);
    for (uint64_t id = 0; id < MANY; id++) qd_engine_abort(fake.engine, id);
    size_t n = 0;
    while (n < MANY) n += qd_engine_poll_events(fake.engine, events, MANY - n, -1);
    assert_int_equal(qd_engine_now_ns(fake.engine), BEGIN);
    fake_engine_close(&fake);
}

static void recorded_steps_take_their_own_time(void **state)
{
    (void)state;
    static const int64_t first[] = {7 * MS, 0, 5 * MS}, second[] = {MS};
    struct fake_engine fake = {.config.dp = 2,
                               .null_steps = {{.ns = first, .n = 3, .path = "recorded"},
                                              {.ns = second, .n = 1, .path = "recorded"}}};
    struct qd_event event;
    open_virtual(&fake, 10 * MS);
    uint64_t a = submit(&fake, 8, 3), b = submit(&fake, 8, 2);
    expect_event(&fake, b, 0, 1);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, -1), 1);
    assert_int_equal(event.request, b);
    assert_int_equal(event.finish, QD_FINISH_ERROR);
    assert_string_equal(qd_engine_failure(fake.engine),
                        "replica 1: step 1: recorded ends after 1 steps of it");
    expect_event(&fake, a, 0, 7);
    expect_event(&fake, a, 1, 7);
    expect_event(&fake, a, 2, 12);
    fake_engine_close(&fake);
}

/* ---- runs ---- */

struct outcome {
    struct qd_workload workload;
    struct qd_request_record *records;
    double duration_s;
};

/* n requests at one a second, steps of 30 ms. */
static void run_poisson(int64_t n, struct outcome *out)
{
    struct fake_engine fake = {.config = {.dp = 3, .router = QD_ROUTER_VLLM}};
    char err[QD_ERR_LEN] = "";
    open_virtual(&fake, 30 * MS);
    struct qd_random_spec spec = {
        .n = n, .input_len = 20, .output_len = 8, .range_ratio = 0.5, .seed = 1, .ids.n = 97};
    struct qd_arrivals_spec arrivals = {.rate = 1, .burstiness = 1, .seed = 3};
    const struct qd_drive_options options = {.pacing = QD_PACING_OPEN, .top_p = 1};
    ASSERT_OK(qd_workload_random(&spec, &out->workload, err, sizeof err), err);
    ASSERT_OK(qd_workload_set_arrivals(&arrivals, &out->workload, err, sizeof err), err);
    ASSERT_OK(qd_records_create(&out->workload, &out->records, err, sizeof err), err);
    ASSERT_OK(qd_workload_drive(fake.engine, &out->workload, &options, out->records, &out->duration_s, err,
                                sizeof err),
              err);
    fake_engine_close(&fake);
}

static void outcome_free(struct outcome *out)
{
    qd_records_free(out->records, out->workload.n);
    qd_workload_free(&out->workload);
}

/* 100 s of arrivals, twice. */
static void a_run_is_a_function_of_its_inputs(void **state)
{
    (void)state;
    struct outcome a, b;
    int64_t begin_ns = qd_clock_now_ns();
    run_poisson(100, &a);
    run_poisson(100, &b);
    assert_true(qd_clock_now_ns() - begin_ns < INT64_C(5000000000));
    assert_true(a.duration_s >= 100);
    assert_true(a.duration_s == b.duration_s);
    for (size_t i = 0; i < a.workload.n; i++) {
        const struct qd_request_record *x = &a.records[i], *y = &b.records[i];
        assert_int_equal(x->submit_ns, BEGIN + a.workload.requests[i].arrival_ns);
        assert_int_equal(x->intended_ns, x->submit_ns);
        assert_int_equal(x->submit_ns, y->submit_ns);
        assert_int_equal(x->scheduled_ns, y->scheduled_ns);
        assert_int_equal(x->replica, y->replica);
        assert_int_equal(x->output_len, y->output_len);
        assert_int_equal(x->output_len, a.workload.requests[i].max_tokens);
        for (int32_t k = 0; k < x->output_len; k++) assert_int_equal(x->token_ns[k], y->token_ns[k]);
    }
    outcome_free(&a);
    outcome_free(&b);
}

/* In real time too: the fake device executes, on a thread of its own. */
static void an_executing_device_is_stepped_in_real_time(void **state)
{
    (void)state;
    for (int async = 0; async < 2; async++) {
        struct fake_engine fake = {.config = {.dp = 3, .is_stepped = true, .async_scheduling = async == 1}};
        int32_t prompts[9][16];
        struct qd_request requests[9];
        uint64_t ids[9];
        char err[QD_ERR_LEN] = "";
        fake_engine_open(&fake, NULL);
        for (int i = 0; i < 9; i++)
            requests[i] = fake_request(prompts[i], 16, 20, (uint64_t)i, fake.config.vocab_size);
        struct reply *replies = replies_make(9, MAX_TOKENS);
        qd_engine_reset_stats(fake.engine);
        ASSERT_OK(qd_engine_submit_batch(fake.engine, requests, 9, ids, err, sizeof err), err);
        fake_engine_collect(&fake, 9, replies, 9, 0, MAX_TOKENS);
        for (int i = 0; i < 9; i++) assert_reply_is_right(&replies[i], &requests[i], fake.config.vocab_size);
        for (int r = 0; r < 3; r++) {
            struct qd_replica_stats s = qd_engine_stats(fake.engine, r);
            int64_t sum_ns = s.schedule_ns + s.prepare_ns + s.launch_ns + s.wait_ns + s.output_ns + s.idle_ns;
            assert_int_equal(s.n_finished, 3);
            assert_true(sum_ns <= s.wall_ns && s.wall_ns - sum_ns < s.wall_ns / 100 + 100000);
        }
        fake_engine_close(&fake);
        replies_free(replies);
    }
}

static void the_second_replica_fails(struct fake_engine *fake)
{
    fake->devices[1].fail_step = 2;
}

static void a_stepped_replica_dies_alone(void **state)
{
    (void)state;
    struct fake_engine fake = {.config = {.dp = 2, .is_stepped = true}};
    struct reply *replies = replies_make(2, MAX_TOKENS);
    fake_engine_open(&fake, the_second_replica_fails);
    submit(&fake, 8, 6);
    submit(&fake, 8, 6);
    fake_engine_collect(&fake, 2, replies, 2, 0, MAX_TOKENS);
    assert_int_equal(replies[0].finish, QD_FINISH_LENGTH);
    assert_int_equal(replies[1].finish, QD_FINISH_ERROR);
    assert_int_equal(replies[1].n_tokens, 2);
    ASSERT_CONTAINS(qd_engine_failure(fake.engine), "replica 1 rank 0: step 2: the fake caught fire");
    fake_engine_close(&fake);
    replies_free(replies);
}

static void virtual_time_needs_steps_and_no_execution(void **state)
{
    (void)state;
    struct fake_engine fake = {.null_device = true};
    qd_engine_t *engine;
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, NULL);
    struct qd_engine_config config = fake.config;
    config.is_virtual = true;
    assert_int_equal(qd_engine_open(&config, &engine, err, sizeof err), QD_ERR_ARGUMENT);
    config.is_stepped = config.executes = true;
    assert_int_equal(qd_engine_open(&config, &engine, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "virtual time");
    fake_engine_close(&fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clock_waits_and_never_goes_back),
        cmocka_unit_test(replicas_step_in_the_order_of_their_clocks),
        cmocka_unit_test(submissions_enter_the_next_step),
        cmocka_unit_test(a_step_end_goes_before_the_timeout),
        cmocka_unit_test(whoever_comes_when_a_step_ends_is_in_time),
        cmocka_unit_test(steps_may_take_no_time),
        cmocka_unit_test(two_steps_are_in_flight_when_asynchronous),
        cmocka_unit_test(an_abort_is_seen_between_steps),
        cmocka_unit_test(every_request_may_be_aborted_at_once),
        cmocka_unit_test(recorded_steps_take_their_own_time),
        cmocka_unit_test(a_run_is_a_function_of_its_inputs),
        cmocka_unit_test(an_executing_device_is_stepped_in_real_time),
        cmocka_unit_test(a_stepped_replica_dies_alone),
        cmocka_unit_test(virtual_time_needs_steps_and_no_execution),
    };
    return cmocka_run_group_tests_name("stepper", tests, NULL, NULL);
}
