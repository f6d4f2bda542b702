/* Lock-step rounds, worked out by hand: who decides when, which request misses its round, who waits for whom.
 */
#include "tests/support/test.h"

#include "harness/clock.h"
#include "harness/engine/coupling.h"
#include "tests/support/fake_engine.h"

enum { MS = 1000000, MAX_DP = 4, MAX_SCRIPT = 16, MAX_REQUESTS = 8, MAX_TOKENS = 8, OUTPUT_LEN = 64 };
static const int64_t BEGIN = QD_CLOCK_VIRTUAL_BEGIN_NS;

/* ---- the logic alone ---- */

/* What is told, or what must be true, at a time; in this order. */
enum what { ARRIVE, DECIDES, REAL, DUMMY, ROUND, NO_ROUND, END, END_EMPTY, NEXT };

struct line {
    enum what what;
    int replica;
    int64_t ms;
};

static void play(const struct line *lines, int n, int dp, struct qd_coupling *c)
{
    assert_int_equal(qd_coupling_init(c, dp), QD_OK);
    for (int i = 0; i < n; i++) {
        const struct line *line = &lines[i];
        int64_t now_ns = line->ms * MS;
        bool decides = false;
        switch (line->what) {
        case ARRIVE: qd_coupling_arrive(c, line->replica, now_ns); break;
        case DECIDES:
            for (int r = 0; r < dp; r++) {
                decides = qd_coupling_may_decide(c, r, now_ns);
                if (decides != (r == line->replica))
                    fail_msg("line %d: replica %d decides: %d", i, r, decides);
            }
            break;
        case REAL:
        case DUMMY:
            if (!qd_coupling_may_decide(c, line->replica, now_ns)) fail_msg("line %d: it does not decide", i);
            qd_coupling_decide(c, line->replica, line->what == REAL);
            break;
        case ROUND:
        case NO_ROUND:
            if (qd_coupling_begin_round(c, now_ns) != (line->what == ROUND)) fail_msg("line %d: round", i);
            break;
        case END: qd_coupling_end(c, line->replica, true, now_ns); break;
        case END_EMPTY: qd_coupling_end(c, line->replica, false, now_ns); break;
        case NEXT:
            if (qd_coupling_next_ns(c) != (line->ms < 0 ? INT64_MAX : now_ns))
                fail_msg("line %d: next at %lld ns", i, (long long)qd_coupling_next_ns(c));
            break;
        }
    }
}
#define PLAY(lines, dp, c) play(lines, sizeof(lines) / sizeof *(lines), dp, c)

/* Replica 0 has a request at 5 and steps of 30 ms; the other one's comes at 18, when it has decided at 17. */
static void a_request_misses_its_round(void **state)
{
    (void)state;
    static const struct line lines[] = {
        {NEXT, 0, -1},      {ARRIVE, 0, 5},    {NEXT, 0, 5},     {REAL, 0, 5},       {NO_ROUND, 0, 5},
        {DUMMY, 1, 5},      {ROUND, 0, 5},     {NEXT, 0, 17},    {DUMMY, 1, 17},     {NO_ROUND, 0, 17},
        {NEXT, 0, -1},      {ARRIVE, 1, 18},   {END, 0, 35},     {DECIDES, 0, 35},   {REAL, 0, 35},
        {ROUND, 0, 35},     {NEXT, 0, 47},     {DECIDES, 1, 47}, {REAL, 1, 47},      {NO_ROUND, 0, 47},
        {END_EMPTY, 0, 65}, {DUMMY, 0, 65},    {ROUND, 0, 65},   {END_EMPTY, 1, 95}, {DUMMY, 0, 95},
        {DUMMY, 1, 95},     {NO_ROUND, 0, 95}, {NEXT, 0, -1},
    };
    struct qd_coupling c;
    PLAY(lines, 2, &c);
    assert_int_equal(c.replicas[0].wait_ns, 0);
    assert_int_equal(c.replicas[1].wait_ns, (65 - 18) * MS);
    assert_int_equal(c.replicas[0].n_dummies, 1);
    assert_int_equal(c.replicas[1].n_dummies, 2);
    assert_false(c.is_running);
    qd_coupling_reset(&c);
    assert_int_equal(c.replicas[1].wait_ns + (int64_t)c.replicas[1].n_dummies, 0);
    qd_coupling_free(&c);
}

/* Steps shorter than a dummy: the replica without work holds the other one up. */
static void a_dummy_may_be_the_slowest(void **state)
{
    (void)state;
    static const struct line lines[] = {
        {ARRIVE, 1, 0},    {DUMMY, 0, 0},  {REAL, 1, 0},       {ROUND, 0, 0},
        {END, 1, 4},       {REAL, 1, 4},   {NO_ROUND, 0, 4},   {NEXT, 0, 12},
        {DUMMY, 0, 12},    {ROUND, 0, 12}, {END_EMPTY, 1, 16}, {DUMMY, 1, 16},
        {NO_ROUND, 0, 16}, {DUMMY, 0, 24}, {NO_ROUND, 0, 24},  {NEXT, 0, -1},
    };
    struct qd_coupling c;
    PLAY(lines, 2, &c);
    assert_int_equal(c.replicas[1].wait_ns, 8 * MS);
    assert_int_equal(c.replicas[0].n_dummies, 2);
    qd_coupling_free(&c);
}

/* Both decided for dummies before the request came: a round of dummies alone, then the request's. */
static void a_round_may_be_of_dummies_alone(void **state)
{
    (void)state;
    static const struct line lines[] = {
        {ARRIVE, 0, 0}, {REAL, 0, 0},     {DUMMY, 1, 0},  {ROUND, 0, 0},  {END_EMPTY, 0, 5},
        {DUMMY, 0, 5},  {NO_ROUND, 0, 5}, {ARRIVE, 0, 7}, {DUMMY, 1, 12}, {ROUND, 0, 12},
        {NEXT, 0, 24},  {REAL, 0, 24},    {DUMMY, 1, 24}, {ROUND, 0, 24},
    };
    struct qd_coupling c;
    PLAY(lines, 2, &c);
    assert_int_equal(c.replicas[0].wait_ns, 17 * MS);
    qd_coupling_free(&c);
}

/* ---- replicas on `null` ---- */

/* One request of the script: when and of how many output tokens; ids go to replicas in turn. When its tokens
 * come. */
struct request_line {
    int64_t ms;
    int32_t max_tokens;
    int64_t token_ms[MAX_TOKENS];
};

struct scene {
    int dp;
    int64_t step_ms;
    enum qd_dp_coupling coupling;
    int32_t n_prompt;
    int n_requests;
    struct request_line requests[MAX_REQUESTS];
    int64_t wait_ms[MAX_DP];
    uint64_t n_dummies[MAX_DP];
};

static const struct scene scenes[] = {
    /* Both prompts at 0: one round has both. */
    {.dp = 2,
     .step_ms = 30,
     .coupling = QD_COUPLING_VLLM_0_9_1,
     .n_prompt = 8,
     .n_requests = 2,
     .requests = {{0, 2, {30, 60}}, {0, 2, {30, 60}}}},
    /* The second comes a client's delay later: its replica decided for a dummy at 12. The first one's decode
     * goes before its prefill. */
    {.dp = 2,
     .step_ms = 30,
     .coupling = QD_COUPLING_VLLM_0_9_1,
     .n_prompt = 8,
     .n_requests = 2,
     .requests = {{0, 2, {30, 60}}, {13, 2, {90, 120}}},
     .wait_ms = {0, 47},
     .n_dummies = {2, 2}},
    /* At 12 it is in time: it is submitted before its replica decides. */
    {.dp = 2,
     .step_ms = 30,
     .coupling = QD_COUPLING_VLLM_0_9_1,
     .n_prompt = 8,
     .n_requests = 2,
     .requests = {{0, 2, {30, 60}}, {12, 2, {60, 90}}},
     .wait_ms = {0, 18},
     .n_dummies = {1, 1}},
    /* The same without coupling: nobody waits. */
    {.dp = 2,
     .step_ms = 30,
     .n_prompt = 8,
     .n_requests = 2,
     .requests = {{0, 2, {30, 60}}, {13, 2, {43, 73}}}},
    /* Prefills of four replicas, 13 ms apart. Round 1 (0..30) is the first one's alone: 1 decides at 12,
     * before its request; 2 and 3 too. Round 2 (30..60) has 0, and the dummies decide at 42, when all
     * requests are there: round 3 (60..90) has 1, 2 and 3, while 0 has ended. */
    {.dp = 4,
     .step_ms = 30,
     .coupling = QD_COUPLING_VLLM_0_9_1,
     .n_prompt = 8,
     .n_requests = 4,
     .requests = {{0, 2, {30, 60}}, {13, 1, {90}}, {26, 1, {90}}, {39, 1, {90}}},
     .wait_ms = {0, 47, 34, 21},
     .n_dummies = {1, 2, 2, 2}},
    /* Steps of 10 ms wait for the other's dummies of 12. A pause of 100 ms has no rounds: the second request
     * begins at once. */
    {.dp = 2,
     .step_ms = 10,
     .coupling = QD_COUPLING_VLLM_0_9_1,
     .n_prompt = 8,
     .n_requests = 2,
     .requests = {{0, 3, {10, 22, 34}}, {134, 2, {144, 156}}},
     .wait_ms = {4, 2},
     .n_dummies = {2, 3}},
    /* A prompt of 100 in chunks of 64: the other's decode goes on beside them. */
    {.dp = 2,
     .step_ms = 30,
     .coupling = QD_COUPLING_VLLM_0_9_1,
     .n_prompt = 100,
     .n_requests = 2,
     .requests = {{0, 2, {60, 90}}, {31, 1, {120}}},
     .wait_ms = {0, 29},
     .n_dummies = {1, 2}},
    /* One replica alone has nobody to wait for. */
    {.dp = 1,
     .step_ms = 5,
     .coupling = QD_COUPLING_VLLM_0_9_1,
     .n_prompt = 8,
     .n_requests = 1,
     .requests = {{3, 3, {8, 13, 18}}}},
};

static void note_events(const struct scene *scene, const struct qd_event *events, size_t n, int *n_ended)
{
    for (size_t i = 0; i < n; i++) {
        const struct request_line *line = &scene->requests[events[i].request];
        int64_t ms = (events[i].time_ns - BEGIN) / MS;
        if (ms != line->token_ms[events[i].output_index])
            fail_msg("scene %td, request %d, token %d: at %lld ms, expected %lld", scene - scenes,
                     (int)events[i].request, events[i].output_index, (long long)ms,
                     (long long)line->token_ms[events[i].output_index]);
        *n_ended += events[i].finish == QD_FINISH_LENGTH;
    }
}

static void play_scene(const struct scene *scene)
{
    struct fake_engine fake = {.null_device = true,
                               .null_step_ns = scene->step_ms * MS,
                               .config = {.dp = scene->dp,
                                          .max_model_len = 256,
                                          .is_stepped = true,
                                          .is_virtual = true,
                                          .coupling = scene->coupling}};
    struct qd_event events[16];
    int32_t prompt[256];
    char err[QD_ERR_LEN] = "";
    uint64_t id;
    int n_ended = 0, n_submitted = 0;
    fake_engine_open(&fake, NULL);
    while (n_ended < scene->n_requests) {
        int64_t now_ns = qd_engine_now_ns(fake.engine), due_ns = INT64_MAX;
        while (n_submitted < scene->n_requests) {
            const struct request_line *line = &scene->requests[n_submitted];
            due_ns = BEGIN + line->ms * MS;
            if (due_ns > now_ns) break;
            struct qd_request request =
                fake_request(prompt, scene->n_prompt, line->max_tokens, 1, fake.config.vocab_size);
            ASSERT_OK(qd_engine_submit(fake.engine, &request, &id, err, sizeof err), err);
            n_submitted++;
            due_ns = INT64_MAX;
        }
        size_t n = qd_engine_poll_events(fake.engine, events, 16, due_ns - now_ns);
        if (n == 0 && due_ns == INT64_MAX) fail_msg("scene %td stands still", scene - scenes);
        note_events(scene, events, n, &n_ended);
    }
    for (int r = 0; r < scene->dp; r++) {
        struct qd_replica_stats stats = qd_engine_stats(fake.engine, r);
        if (stats.coupling_wait_ns != scene->wait_ms[r] * MS || stats.n_dummies != scene->n_dummies[r])
            fail_msg("scene %td, replica %d: waited %lld ns, %d dummies", scene - scenes, r,
                     (long long)stats.coupling_wait_ns, (int)stats.n_dummies);
    }
    qd_engine_reset_stats(fake.engine);
    assert_int_equal(qd_engine_stats(fake.engine, 0).coupling_wait_ns, 0);
    fake_engine_close(&fake);
}

static void scenes_go_as_worked_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) play_scene(&scenes[i]);
}

/* An abort that takes the last request away ends the rounds; the other replica's go on. */
static void aborts_are_seen_when_a_replica_decides(void **state)
{
    (void)state;
    struct fake_engine fake = {
        .null_device = true,
        .null_step_ns = 30 * MS,
        .config = {.dp = 2, .is_stepped = true, .is_virtual = true, .coupling = QD_COUPLING_VLLM_0_9_1}};
    int32_t prompts[2][8];
    struct qd_request requests[2];
    struct qd_event event;
    uint64_t ids[2];
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, NULL);
    for (int i = 0; i < 2; i++) requests[i] = fake_request(prompts[i], 8, 20, 1, fake.config.vocab_size);
    ASSERT_OK(qd_engine_submit_batch(fake.engine, requests, 2, ids, err, sizeof err), err);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, 10 * MS), 0);
    qd_engine_abort(fake.engine, ids[1]);
    int n_of_1 = 0, n_of_0 = 0;
    enum qd_finish finish_of_1 = QD_FINISH_NONE;
    while (n_of_0 < 20) {
        assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, -1), 1);
        n_of_0 += event.request == ids[0];
        n_of_1 += event.request == ids[1];
        if (event.request == ids[1]) finish_of_1 = event.finish;
    }
    assert_int_equal(n_of_1, 2); /* the token of the running step, and the end */
    assert_int_equal(finish_of_1, QD_FINISH_ABORT);
    assert_int_equal(qd_engine_now_ns(fake.engine) - BEGIN, 20 * 30 * MS);
    assert_int_equal(qd_engine_stats(fake.engine, 1).n_dummies, 19);
    assert_int_equal(qd_engine_poll_events(fake.engine, &event, 1, -1), 0);
    fake_engine_close(&fake);
}

static void coupling_needs_virtual_time_and_synchronous_scheduling(void **state)
{
    (void)state;
    struct fake_engine fake = {.null_device = true};
    qd_engine_t *engine;
    char err[QD_ERR_LEN] = "";
    fake_engine_open(&fake, NULL);
    struct qd_engine_config config = fake.config;
    config.coupling = QD_COUPLING_VLLM_0_9_1;
    assert_int_equal(qd_engine_open(&config, &engine, err, sizeof err), QD_ERR_ARGUMENT);
    config.is_stepped = config.is_virtual = config.async_scheduling = true;
    assert_int_equal(qd_engine_open(&config, &engine, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "coupled replicas");
    fake_engine_close(&fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_misses_its_round),
        cmocka_unit_test(a_dummy_may_be_the_slowest),
        cmocka_unit_test(a_round_may_be_of_dummies_alone),
        cmocka_unit_test(scenes_go_as_worked_out),
        cmocka_unit_test(aborts_are_seen_when_a_replica_decides),
        cmocka_unit_test(coupling_needs_virtual_time_and_synchronous_scheduling),
    };
    return cmocka_run_group_tests_name("coupling", tests, NULL, NULL);
}
