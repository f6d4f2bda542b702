/* What metrics are where there is little to measure: nothing, failures, a single token, no time at all. Then
 * goodput and the steady state, worked out by hand. */
#include <math.h>

#include "tests/support/result_fixture.h"
#include "tests/support/test.h"

#define MS INT64_C(1000000)

enum { MAX_RECORDS = 6, MAX_TOKENS = 4, MAX_EXPECTED = 16 };

/* A request as "prompt 5, intended and submitted at, tokens at": ms; the clock begins at 1 s. */
struct request {
    int64_t intended_ms, submit_ms;
    int n_tokens;
    int64_t token_ms[MAX_TOKENS];
    bool has_failed;
};

struct expectation {
    const char *path; /* keys, '/' between them */
    double value;     /* NAN: null */
};

struct test_case {
    const char *name;
    int n;
    struct request requests[MAX_RECORDS];
    struct qd_metrics_options options;
    struct expectation expected[MAX_EXPECTED];
};

#define UNDEFINED NAN
#define ANY_SLO                                                                                              \
    {                                                                                                        \
        .is_given = true, .ttft_ms = INFINITY, .tpot_ms = INFINITY, .e2el_ms = INFINITY                      \
    }

static const struct test_case CASES[] = {
    {.name = "no request",
     .options = {.n_gpus = 1, .slo = ANY_SLO, .has_arrivals = true, .steady_rule = QD_STEADY_ARRIVALS},
     .expected = {{"completed", 0},
                  {"mean_ttft_ms", 0},
                  {"p99_itl_ms", 0},
                  {"output_throughput", 0},
                  {"request_goodput", 0},
                  {"max_concurrent_requests", 0},
                  {"qdyno/latency_ms/ttft/mean", UNDEFINED},
                  {"qdyno/latency_ms/dispatch/max", UNDEFINED},
                  {"qdyno/throughput/tok_s_per_user", UNDEFINED},
                  {"qdyno/per_request_tok_s", UNDEFINED},
                  {"qdyno/prompts_per_prefill_step", UNDEFINED},
                  {"qdyno/steady_state", UNDEFINED}}},
    {.name = "only failures, one with tokens",
     .n = 2,
     .requests = {{0, 0, .has_failed = true}, {0, 5, 2, {10, 20}, .has_failed = true}},
     .options = {.n_gpus = 1,
                 .duration_s = 0.02,
                 .slo = ANY_SLO,
                 .steady_rule = QD_STEADY_CONCURRENCY,
                 .max_concurrency = 1},
     .expected = {{"completed", 0},
                  {"failed", 2},
                  {"total_output_tokens", 0},
                  {"request_goodput", 0},
                  {"mean_e2el_ms", 0},
                  {"qdyno/latency_ms/e2el/n", 0},
                  {"qdyno/latency_ms/e2el/p50", UNDEFINED},
                  {"qdyno/throughput/output_tok_s", 0},
                  {"qdyno/throughput/tok_s_per_user", UNDEFINED},
                  {"qdyno/steady_state", UNDEFINED}}},
    {.name = "one request of one token: no gap, no TPOT",
     .n = 1,
     .requests = {{0, 2, 1, {12}}},
     .options = {.n_gpus = 2,
                 .duration_s = 0.5,
                 .has_arrivals = true,
                 .steady_rule = QD_STEADY_ARRIVALS,
                 .slo = {.is_given = true, .ttft_ms = 10, .tpot_ms = 0, .e2el_ms = 10}},
     .expected = {{"completed", 1},
                  {"mean_ttft_ms", 10},
                  {"std_ttft_ms", 0},
                  {"mean_tpot_ms", 0},
                  {"mean_itl_ms", 0},
                  {"request_goodput", 2},
                  {"output_throughput", 2},
                  {"qdyno/throughput/tok_s_per_gpu", 1},
                  {"qdyno/throughput/tok_s_per_user", 100},
                  {"qdyno/latency_ms/tpot/mean", UNDEFINED},
                  {"qdyno/latency_ms/itl/p99", UNDEFINED},
                  {"qdyno/latency_ms/dispatch/p50", 2},
                  {"qdyno/steady_state", UNDEFINED}}}, /* one arrival is no window */
    {.name = "everything in the same ns",
     .n = 2,
     .requests = {{3, 3, 2, {3, 3}}, {3, 3, 1, {3}}},
     .options = {.n_gpus = 1, .duration_s = 0, .steady_rule = QD_STEADY_CONCURRENCY, .max_concurrency = 2},
     .expected = {{"completed", 2},
                  {"output_throughput", 0},
                  {"mean_e2el_ms", 0},
                  {"request_goodput", UNDEFINED},
                  {"max_output_tokens_per_s", 3},
                  {"qdyno/throughput/tok_s_per_user", 0},
                  {"qdyno/mean_concurrency", 0},
                  {"qdyno/latency_ms/dispatch/mean", UNDEFINED},
                  {"qdyno/steady_state", UNDEFINED}}},
    {.name = "fewer requests than max_concurrency",
     .n = 1,
     .requests = {{0, 0, 2, {10, 20}}},
     .options = {.n_gpus = 1, .duration_s = 1, .steady_rule = QD_STEADY_CONCURRENCY, .max_concurrency = 4},
     .expected = {{"qdyno/steady_state", UNDEFINED}, {"mean_tpot_ms", 10}}},
    /* TTFT 10, 30, 10; TPOT 10, 0 (one token), 45; E2EL 20, 30, 100. */
    {.name = "goodput: each level excludes another request",
     .n = 4,
     .requests =
         {{0, 0, 2, {10, 20}}, {0, 0, 1, {30}}, {0, 0, 3, {10, 20, 100}}, {0, 0, 1, {1}, .has_failed = true}},
     .options = {.n_gpus = 1,
                 .duration_s = 2,
                 .slo = {.is_given = true, .ttft_ms = 30, .tpot_ms = 44.9, .e2el_ms = 1e9}},
     .expected = {{"request_goodput", 1}, {"qdyno/goodput/good", 2}, {"qdyno/goodput/tpot_ms", 44.9}}},
    {.name = "goodput: a level that is met exactly is kept",
     .n = 3,
     .requests = {{0, 0, 2, {10, 20}}, {0, 0, 1, {30}}, {0, 0, 3, {10, 20, 100}}},
     .options = {.n_gpus = 1,
                 .duration_s = 1,
                 .slo = {.is_given = true, .ttft_ms = INFINITY, .tpot_ms = 45, .e2el_ms = 30}},
     .expected = {{"request_goodput", 2}, {"qdyno/goodput/ttft_ms", UNDEFINED}}},
    /* In flight: 0 ms 1, 10 ms 2 (threshold), 50 ms 1, 51 ms 2, 90 ms 1, 120 ms 0. Inside 10 .. 90 from
     * submission to last token: the second (10 .. 50). The first ends at 90 but was submitted before, the
     * last ends at 120. */
    {.name = "steady state of a closed loop",
     .n = 3,
     .requests = {{0, 0, 2, {9, 90}}, {0, 10, 3, {20, 30, 50}}, {0, 51, 2, {60, 120}}},
     .options = {.n_gpus = 1, .duration_s = 0.12, .steady_rule = QD_STEADY_CONCURRENCY, .max_concurrency = 2},
     .expected = {{"qdyno/steady_state/start_ns", 10e6},
                  {"qdyno/steady_state/end_ns", 90e6},
                  {"qdyno/steady_state/threshold", 2},
                  {"qdyno/steady_state/peak_in_flight", 2},
                  {"qdyno/steady_state/requests_started", 2},
                  {"qdyno/steady_state/requests_completed", 2},
                  {"qdyno/steady_state/output_tokens", 5},
                  {"qdyno/steady_state/output_tok_s", 62.5},
                  {"qdyno/steady_state/request_throughput", 25},
                  {"qdyno/steady_state/latency_ms/ttft/n", 1},
                  {"qdyno/steady_state/latency_ms/e2el/mean", 40},
                  {"qdyno/steady_state/latency_ms/itl/max", 20}}},
    {.name = "steady state of an open loop: first to last intended arrival, dispatch delays 1, 0, 5",
     .n = 3,
     .requests = {{0, 1, 2, {5, 9}}, {20, 20, 1, {30}}, {40, 45, 2, {50, 60}}},
     .options = {.n_gpus = 1, .duration_s = 0.06, .has_arrivals = true, .steady_rule = QD_STEADY_ARRIVALS},
     .expected = {{"qdyno/steady_state/start_ns", -1e6},
                  {"qdyno/steady_state/end_ns", 39e6},
                  {"qdyno/steady_state/threshold", UNDEFINED},
                  {"qdyno/steady_state/requests_started", 2},
                  {"qdyno/steady_state/requests_completed", 2},
                  {"qdyno/steady_state/output_tokens", 3},
                  {"qdyno/latency_ms/dispatch/mean", 2},
                  {"qdyno/latency_ms/dispatch/max", 5}}},
};

static const cJSON *find(const cJSON *root, const char *path)
{
    char words[128];
    snprintf(words, sizeof words, "%s", path);
    const cJSON *item = root;
    for (char *rest = NULL, *key = strtok_r(words, "/", &rest); key != NULL;
         key = strtok_r(NULL, "/", &rest)) {
        item = cJSON_GetObjectItemCaseSensitive(item, key);
        if (item == NULL) fail_msg("no %s in the result", path);
    }
    return item;
}

static void check_numbers_are_finite(const char *name, const cJSON *item)
{
    for (; item != NULL; item = item->next) {
        if (cJSON_IsNumber(item) && !isfinite(item->valuedouble))
            fail_msg("%s: %s is not finite", name, item->string);
        if (item->child != NULL) check_numbers_are_finite(name, item->child);
    }
}

static void compare_expected(const struct test_case *test, const cJSON *root)
{
    for (int i = 0; i < MAX_EXPECTED && test->expected[i].path != NULL; i++) {
        const char *path = test->expected[i].path;
        double value = test->expected[i].value;
        const cJSON *item = find(root, path);
        if (isnan(value)) {
            if (!cJSON_IsNull(item)) fail_msg("%s: %s is not null", test->name, path);
        } else if (!cJSON_IsNumber(item) || !(fabs(item->valuedouble - value) <= 1e-12 * fabs(value))) {
            fail_msg("%s: %s is %.17g, not %.17g", test->name, path, item->valuedouble, value);
        }
    }
}

static void run_case(const struct test_case *test)
{
    struct qd_request_record records[MAX_RECORDS] = {0};
    int64_t times[MAX_RECORDS][MAX_TOKENS] = {0};
    for (int i = 0; i < test->n; i++) {
        const struct request *r = &test->requests[i];
        for (int k = 0; k < r->n_tokens; k++) times[i][k] = (1000 + r->token_ms[k]) * MS;
        records[i] = (struct qd_request_record){.prompt_len = 5,
                                                .output_len = r->n_tokens,
                                                .success = !r->has_failed,
                                                .intended_ns = (1000 + r->intended_ms) * MS,
                                                .submit_ns = (1000 + r->submit_ms) * MS,
                                                .token_ns = times[i]};
    }
    struct fixture_run run;
    fixture_run_init(&run, 1, 1, 64, 10, 4);
    run.replicas[0] = (struct qd_replica_stats){0};
    assert_int_equal(qd_metrics_compute(records, (uint64_t)test->n, &test->options, &run.result.metrics),
                     QD_OK);
    cJSON *root = qd_run_result_to_json(&run.result);
    assert_non_null(root);
    check_numbers_are_finite(test->name, root);
    compare_expected(test, root);
    cJSON_Delete(root);
}

static void every_case_is_defined(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) run_case(&CASES[i]);
}

/* ceil(0.95 n) without the rounding of 0.95: 19 of 20, not 20. */
static void the_threshold_is_a_whole_share(void **state)
{
    (void)state;
    static const struct {
        int max_concurrency, threshold;
    } cases[] = {{1, 1}, {2, 2}, {19, 19}, {20, 19}, {21, 20}, {40, 38}, {100, 95}, {101, 96}};
    enum { N = 101 };
    static struct qd_request_record records[N];
    static int64_t times[N];
    for (int i = 0; i < N; i++) {
        times[i] = (2000 + i) * MS;
        records[i] = (struct qd_request_record){
            .output_len = 1, .success = true, .submit_ns = (1000 + i) * MS, .token_ns = &times[i]};
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qd_steady_state s;
        assert_int_equal(
            qd_steady_state_find(records, N, QD_STEADY_CONCURRENCY, cases[i].max_concurrency, 3, &s), QD_OK);
        assert_int_equal(s.threshold, cases[i].threshold);
        assert_int_equal(s.start_ns, (cases[i].threshold - 1) * MS);
        assert_int_equal(s.end_ns, (1000 + N - cases[i].threshold) * MS);
    }
}

static void bad_levels_are_refused(void **state)
{
    (void)state;
    static const char *const words[] = {"ttft",    "ttft:", "ttft:-1",   "ttft:1ms", "ttft:inf", "ttft:nan",
                                        "ttft: 1", "itl:3", "ttft:0x10", ":5",       ""};
    struct qd_slo slo;
    char err[QD_ERR_LEN];
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_int_equal(qd_slo_parse(&words[i], 1, &slo, err, sizeof err), QD_ERR_INPUT);
        ASSERT_CONTAINS(err, words[i]);
    }
    const char *twice[] = {"ttft:1", "ttft:2"}, *good[] = {"e2el:3000", "ttft:0.5"};
    assert_int_equal(qd_slo_parse(twice, 2, &slo, err, sizeof err), QD_ERR_INPUT);
    ASSERT_OK(qd_slo_parse(good, 2, &slo, err, sizeof err), err);
    assert_true(slo.is_given && slo.e2el_ms == 3000 && slo.ttft_ms == 0.5 && isinf(slo.tpot_ms));
    ASSERT_OK(qd_slo_parse(NULL, 0, &slo, err, sizeof err), err);
    assert_false(slo.is_given);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_is_defined),
        cmocka_unit_test(the_threshold_is_a_whole_share),
        cmocka_unit_test(bad_levels_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
