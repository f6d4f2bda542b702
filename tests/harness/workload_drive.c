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
    struct qd_random_spec spec = {.n = N, .input_len = 5, .output_len = 1, .seed = 1, .n_allowed = 97};
    ASSERT_OK(qd_workload_random(&spec, &rig->workload, rig->err, sizeof rig->err), rig->err);
    for (int i = 0; i < N; i++) rig->workload.requests[i].max_tokens = 1 + i % 7;
    rig->options = (struct qd_drive_options){
        .interrupted = &rig->interrupted, .progress = note_progress, .progress_arg = rig, .top_p = 1};
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
    rig.options.max_concurrency = 3;
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
    for (int concurrency = 0; concurrency <= 3; concurrency += 3) {
        struct rig rig;
        rig_open(&rig, true, NULL);
        rig.options.max_concurrency = concurrency;
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
    for (rig.options.max_concurrency = 0; rig.options.max_concurrency < 2; rig.options.max_concurrency++) {
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
    for (int concurrency = 0; concurrency <= 4; concurrency += 4) {
        struct rig rig;
        rig_open(&rig, false, slow_down);
        rig.options.max_concurrency = concurrency;
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
        if (concurrency == 0)
            assert_int_equal(n_refused, 0);
        else
            assert_in_range(n_refused, 1, N - 4);
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
    for (int concurrency = 0; concurrency <= 3; concurrency += 3) {
        struct rig rig;
        rig_open(&rig, false, fail_both);
        rig.options.max_concurrency = concurrency;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_is_handed_over_at_once),
        cmocka_unit_test(a_closed_loop_keeps_its_concurrency),
        cmocka_unit_test(refusals_are_records_of_their_own),
        cmocka_unit_test(a_workload_of_refusals_ends),
        cmocka_unit_test(an_interrupt_keeps_what_was_measured),
        cmocka_unit_test(dead_replicas_leave_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
