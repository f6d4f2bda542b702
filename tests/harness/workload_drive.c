/* Driving a workload: who is in flight when, which token lands on which record, what refusals, interrupts and
 * dead replicas leave behind. */
#include "tests/support/test.h"

#include "harness/workload/workload.h"
#include "tests/support/fake_engine.h"

enum { N = 40, MODEL_LEN = 64 };

struct rig {
    struct fake_engine fake;
    struct qd_workload workload;
    struct qd_request_record *records;
    struct qd_drive_options options;
    double duration_s;
    volatile sig_atomic_t interrupted;
    size_t interrupt_after; /* requests done; 0: never */
    size_t n_done;          /* as progress said last */
    uint64_t n_tokens;
    char err[QD_ERR_LEN];
};

static void note_progress(void *arg, size_t n_done, size_t n_requests, uint64_t n_tokens)
{
    struct rig *rig = arg;
    assert_int_equal(n_requests, rig->workload.n);
    assert_true(n_done >= rig->n_done && n_tokens >= rig->n_tokens);
    rig->n_done = n_done;
    rig->n_tokens = n_tokens;
    if (rig->interrupt_after > 0 && n_done >= rig->interrupt_after) rig->interrupted = 2;
}

/* Prompts of 5 ids and 1 + (i mod 7) output tokens, on a device that takes its time or on `null`. */
static void rig_open(struct rig *rig, bool null_device, void (*configure)(struct fake_engine *fake))
{
    *rig = (struct rig){.fake.null_device = null_device};
    rig->fake.config.dp = 2;
    fake_engine_open(&rig->fake, configure);
    struct qd_random_spec spec = {.n = N, .input_len = 5, .output_len = 1, .seed = 1, .ids.n = 97};
    ASSERT_OK(qd_workload_random(&spec, &rig->workload, rig->err, sizeof rig->err), rig->err);
    for (int i = 0; i < N; i++) rig->workload.requests[i].max_tokens = 1 + i % 7;
    rig->options = (struct qd_drive_options){
        .interrupted = &rig->interrupted, .progress = note_progress, .progress_arg = rig, .top_p = 1};
}

/* Each way of handing over; the arrivals of an open loop are 10 us apart. */
static const struct {
    enum qd_pacing pacing;
    int64_t max_concurrency, wave_size, client_delay_ns;
} ways[] = {
    {.pacing = QD_PACING_BURST},
    {.pacing = QD_PACING_CLOSED, .max_concurrency = 3},
    {.pacing = QD_PACING_OPEN},
    {.pacing = QD_PACING_OPEN, .max_concurrency = 2},
    {.pacing = QD_PACING_WAVES, .wave_size = 7},
    {.pacing = QD_PACING_WAVES, .wave_size = 9, .client_delay_ns = 20000},
};
enum { N_WAYS = sizeof ways / sizeof *ways };

static void set_way(struct rig *rig, int way)
{
    rig->options.pacing = ways[way].pacing;
    rig->options.max_concurrency = ways[way].max_concurrency;
    rig->options.wave_size = ways[way].wave_size;
    rig->options.client_delay_ns = ways[way].client_delay_ns;
    rig->workload.has_arrivals = ways[way].pacing == QD_PACING_OPEN;
    for (int i = 0; i < N; i++) rig->workload.requests[i].arrival_ns = i * 10000;
}

static qd_status rig_drive(struct rig *rig)
{
    char err[QD_ERR_LEN] = "";
    qd_records_free(rig->records, rig->workload.n);
    ASSERT_OK(qd_records_create(&rig->workload, &rig->records, err, sizeof err), err);
    rig->n_done = 0;
    rig->n_tokens = 0;
    return qd_workload_drive(rig->fake.engine, &rig->workload, &rig->options, rig->records, &rig->duration_s,
                             rig->err, sizeof rig->err);
}

static void rig_close(struct rig *rig)
{
    qd_records_free(rig->records, rig->workload.n);
    qd_workload_free(&rig->workload);
    fake_engine_close(&rig->fake);
}

static void assert_completed(const struct qd_request_record *record)
{
    assert_true(record->success);
    assert_string_equal(record->finish, "length");
    assert_null(record->error);
    assert_int_equal(record->output_len, record->max_tokens);
    assert_true(record->submit_ns <= record->scheduled_ns && record->scheduled_ns <= record->token_ns[0]);
    for (int j = 1; j < record->output_len; j++) assert_true(record->token_ns[j - 1] <= record->token_ns[j]);
}

static void a_burst_is_handed_over_at_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, true, NULL);
    ASSERT_OK(rig_drive(&rig), rig.err);
    uint64_t n_tokens = 0;
    int64_t last = 0;
    for (int i = 0; i < N; i++) {
        const struct qd_request_record *record = &rig.records[i];
        assert_completed(record);
        assert_int_equal(record->prompt_len, 5);
        assert_int_equal(record->max_tokens, 1 + i % 7);
        assert_int_equal(record->replica, i % 2);
        assert_true(record->submit_ns == rig.records[0].submit_ns);
        n_tokens += (uint64_t)record->output_len;
        if (record->token_ns[record->output_len - 1] > last) last = record->token_ns[record->output_len - 1];
    }
    assert_int_equal(rig.n_done, N);
    assert_true(rig.n_tokens == n_tokens);
    double duration_s = (double)(last - rig.records[0].submit_ns) * 1e-9;
    assert_true(rig.duration_s >= duration_s && rig.duration_s < duration_s + 1);
    rig_close(&rig);
}

/* Requests in flight at the moment record k was handed over, itself included. */
static int in_flight(const struct qd_request_record *records, int k)
{
    int n = 0;
    for (int i = 0; i <= k; i++) n += records[i].token_ns[records[i].output_len - 1] > records[k].submit_ns;
    return n;
}

static void a_closed_loop_keeps_its_concurrency(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, true, NULL);
    set_way(&rig, 1);
    for (int round = 0; round < 2; round++) { /* the second run's ids follow on those of the first */
        ASSERT_OK(rig_drive(&rig), rig.err);
        for (int i = 0; i < N; i++) {
            assert_completed(&rig.records[i]);
            assert_int_equal(rig.records[i].max_tokens, 1 + i % 7);
            assert_in_range(in_flight(rig.records, i), 1, 3);
            if (i > 0) assert_true(rig.records[i - 1].submit_ns <= rig.records[i].submit_ns);
        }
    }
    rig_close(&rig);
}

static int64_t end_of(const struct qd_request_record *record)
{
    return record->token_ns[record->output_len - 1];
}

static void arrivals_are_kept(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, true, NULL);
    set_way(&rig, 2);
    for (int i = 0; i < N; i++) rig.workload.requests[i].arrival_ns = i / 4 * INT64_C(3000000);
    ASSERT_OK(rig_drive(&rig), rig.err);
    for (int i = 0; i < N; i++) {
        const struct qd_request_record *record = &rig.records[i];
        assert_completed(record);
        assert_int_equal(record->intended_ns - rig.records[0].intended_ns, rig.workload.requests[i].arrival_ns);
        assert_true(record->submit_ns >= record->intended_ns);
    }
    assert_true(rig.duration_s >= 0.027);
    rig_close(&rig);
}

static void an_open_loop_with_a_limit_waits_in_turn(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, true, NULL);
    set_way(&rig, 3);
    ASSERT_OK(rig_drive(&rig), rig.err);
    for (int i = 0; i < N; i++) {
        assert_completed(&rig.records[i]);
        assert_in_range(in_flight(rig.records, i), 1, 2);
        if (i > 0) assert_true(rig.records[i - 1].submit_ns <= rig.records[i].submit_ns);
    }
    rig_close(&rig);
}

static void a_wave_begins_when_all_of_the_last_have_ended(void **state)
{
    (void)state;
    for (int way = 4; way < N_WAYS; way++) {
        struct rig rig;
        rig_open(&rig, true, NULL);
        set_way(&rig, way);
        ASSERT_OK(rig_drive(&rig), rig.err);
        int size = (int)ways[way].wave_size;
        for (int i = 0; i < N; i++) {
            const struct qd_request_record *record = &rig.records[i], *first = &rig.records[i / size * size];
            assert_completed(record);
            assert_int_equal(record->intended_ns - first->intended_ns, i % size * ways[way].client_delay_ns);
            for (int k = 0; k < i / size * size; k++) assert_true(end_of(&rig.records[k]) <= record->submit_ns);
        }
        rig_close(&rig);
    }
}

static void lengthen(struct rig *rig, int i, int32_t n)
{
    struct qd_workload_request *request = &rig->workload.requests[i];
    int32_t *grown = realloc(request->prompt, (size_t)n * sizeof *grown);
    assert_non_null(grown);
    for (int j = request->n_prompt; j < n; j++) grown[j] = 1;
    request->prompt = grown;
    request->n_prompt = n;
}

static void refusals_are_records_of_their_own(void **state)
{
    (void)state;
    for (int way = 0; way < N_WAYS; way++) {
        struct rig rig;
        rig_open(&rig, true, NULL);
        set_way(&rig, way);
        static const int too_long[] = {0, 17, 18, 19, 20, N - 1};
        for (size_t i = 0; i < sizeof too_long / sizeof *too_long; i++)
            lengthen(&rig, too_long[i], MODEL_LEN);
        ASSERT_OK(rig_drive(&rig), rig.err);
        for (int i = 0; i < N; i++) {
            const struct qd_request_record *record = &rig.records[i];
            if (rig.workload.requests[i].n_prompt < MODEL_LEN) {
                assert_completed(record);
                continue;
            }
            assert_false(record->success);
            assert_string_equal(record->finish, "refused");
            ASSERT_CONTAINS(record->error, "max_model_len is 64");
            assert_int_equal(record->output_len, 0);
        }
        assert_int_equal(rig.n_done, N);
        rig_close(&rig);
    }
}

static void a_workload_of_refusals_ends(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, true, NULL);
    for (int i = 0; i < N; i++) lengthen(&rig, i, MODEL_LEN);
    for (int way = 0; way < N_WAYS; way++) {
        set_way(&rig, way);
        rig.n_done = 0;
        ASSERT_OK(rig_drive(&rig), rig.err);
        assert_int_equal(rig.n_done, N);
        for (int i = 0; i < N; i++) assert_string_equal(rig.records[i].finish, "refused");
        assert_true(rig.duration_s >= 0);
    }
    rig_close(&rig);
}

static void slow_down(struct fake_engine *fake)
{
    fake->devices[0].step_us = fake->devices[1].step_us = 2000;
}

static void an_interrupt_keeps_what_was_measured(void **state)
{
    (void)state;
    for (int way = 0; way < N_WAYS; way++) {
        struct rig rig;
        rig_open(&rig, false, slow_down);
        set_way(&rig, way);
        rig.interrupt_after = 3;
        for (int i = 0; i < N; i++) rig.workload.requests[i].max_tokens = 2 + i % 29;
        assert_int_equal(rig_drive(&rig), QD_ERR_ABORTED);
        int n_completed = 0, n_aborted = 0, n_refused = 0;
        for (int i = 0; i < N; i++) {
            const struct qd_request_record *record = &rig.records[i];
            n_completed += record->success;
            n_aborted += strcmp(record->finish, "abort") == 0;
            n_refused += strcmp(record->finish, "refused") == 0;
            if (record->success) assert_completed(record);
            if (strcmp(record->finish, "refused") == 0) ASSERT_CONTAINS(record->error, "interrupted");
        }
        assert_int_equal(n_completed + n_aborted + n_refused, N);
        assert_in_range(n_completed, 3, N - 1);
        assert_int_not_equal(n_aborted, 0);
        bool all_at_once = ways[way].pacing == QD_PACING_BURST ||
                           (ways[way].pacing == QD_PACING_OPEN && ways[way].max_concurrency == 0);
        assert_in_range(n_refused, all_at_once ? 0 : 1, all_at_once ? 0 : N - 4);
        char expected[64];
        snprintf(expected, sizeof expected, "interrupted after %d of %d requests", n_completed, N);
        assert_string_equal(rig.err, expected);
        rig_close(&rig);
    }
}

static void fail_both(struct fake_engine *fake)
{
    fake->devices[0].fail_step = fake->devices[1].fail_step = 3;
}

static void dead_replicas_leave_records(void **state)
{
    (void)state;
    for (int way = 0; way < N_WAYS; way++) {
        struct rig rig;
        rig_open(&rig, false, fail_both);
        set_way(&rig, way);
        assert_int_equal(rig_drive(&rig), QD_ERR_RANK);
        assert_int_not_equal(strlen(rig.err), 0);
        int n_completed = 0, n_failed = 0;
        for (int i = 0; i < N; i++) {
            const struct qd_request_record *record = &rig.records[i];
            n_completed += record->success;
            n_failed += !record->success && record->error != NULL;
        }
        assert_int_equal(n_completed + n_failed, N);
        assert_int_not_equal(n_completed, 0);
        assert_int_not_equal(n_failed, 0);
        rig_close(&rig);
    }
}

/* Nobody waits an hour for requests that no replica can take. */
static void dead_replicas_end_an_open_loop(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, false, fail_both);
    set_way(&rig, 2);
    rig.workload.requests[N - 2].arrival_ns = 200000000;
    rig.workload.requests[N - 1].arrival_ns = INT64_C(3600000000000);
    alarm(30);
    assert_int_equal(rig_drive(&rig), QD_ERR_RANK);
    alarm(0);
    ASSERT_CONTAINS(rig.records[N - 1].error, "no replica is left");
    assert_int_equal(rig.records[N - 1].submit_ns, 0);
    assert_int_equal(rig.n_done, N);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_is_handed_over_at_once),
        cmocka_unit_test(a_closed_loop_keeps_its_concurrency),
        cmocka_unit_test(arrivals_are_kept),
        cmocka_unit_test(an_open_loop_with_a_limit_waits_in_turn),
        cmocka_unit_test(a_wave_begins_when_all_of_the_last_have_ended),
        cmocka_unit_test(refusals_are_records_of_their_own),
        cmocka_unit_test(a_workload_of_refusals_ends),
        cmocka_unit_test(an_interrupt_keeps_what_was_measured),
        cmocka_unit_test(dead_replicas_leave_records),
        cmocka_unit_test(dead_replicas_end_an_open_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
