/* The metrics of a run: hand-made requests with known answers, and a published vLLM result. */
#include "tests/support/test.h"

#include "harness/result/result.h"
#include "models/json.h"

static const char VLLM_FILE[] = SHARED_DATA "real/vllm-serve/h100x8-llama405b-16qps-detailed-48.json";

static void assert_close(const char *what, double value, double expected, double relative)
{
    double difference = value > expected ? value - expected : expected - value;
    double size = expected < 0 ? -expected : expected;
    if (!(difference <= relative * (size > 1e-300 ? size : 1)))
        fail_msg("%s: %.17g, expected %.17g", what, value, expected);
}

static qd_status compute(const struct qd_request_record *records, uint64_t n, double duration_s, int n_gpus,
                         struct qd_metrics *out)
{
    return qd_metrics_compute(records, n,
                              &(struct qd_metrics_options){.duration_s = duration_s, .n_gpus = n_gpus}, out);
}

#define MS INT64_C(1000000)

/* Three completed requests: 3 tokens, 1 token, 2 tokens. */
static int64_t times_a[] = {1000 * MS + 10 * MS, 1000 * MS + 14 * MS, 1000 * MS + 20 * MS};
static int64_t times_b[] = {1000 * MS + 30 * MS};
static int64_t times_c[] = {1000 * MS + 1500 * MS, 1000 * MS + 2500 * MS};

static struct qd_request_record record(int prompt_len, int64_t submit_ms, int64_t *times, int n)
{
    return (struct qd_request_record){
        .prompt_len = prompt_len,
        .output_len = n,
        .success = n > 0,
        .submit_ns = 1000 * MS + submit_ms * MS,
        .scheduled_ns = 1000 * MS + submit_ms * MS + 2 * MS,
        .token_ns = times,
    };
}

static void test_hand_made(void **state)
{
    (void)state;
    struct qd_request_record records[] = {record(5, 0, times_a, 3), record(7, 10, times_b, 1),
                                          record(9, 500, times_c, 2)};
    struct qd_metrics m;
    assert_int_equal(compute(records, 3, 4.0, 2, &m), QD_OK);
    assert_int_equal(m.n_completed, 3);
    assert_int_equal(m.n_failed, 0);
    assert_int_equal(m.n_input_tokens, 21);
    assert_int_equal(m.n_output_tokens, 6);
    assert_close("request throughput", m.request_throughput, 0.75, 1e-12);
    assert_close("output throughput", m.output_throughput, 1.5, 1e-12);
    assert_close("total throughput", m.total_token_throughput, 6.75, 1e-12);
    assert_close("per GPU", m.per_gpu_throughput, 0.75, 1e-12);
    /* Latencies 20, 20 and 2000 ms. */
    assert_close("per request", m.per_request_tok_s, 6 / 2.04, 1e-12);
    assert_close("per user", m.per_user_throughput, (150.0 + 50.0 + 1.0) / 3, 1e-12);
    assert_close("concurrency", m.mean_concurrency, 0.51, 1e-12);
    assert_close("TTFT", m.latency.ttft.mean, (10 + 20 + 1000) / 3.0, 1e-12);
    assert_close("E2EL p50", m.latency.e2el.p50, 20, 1e-12);
    /* TPOT: one value per request with more than one token: 5 and 1000. */
    assert_int_equal(m.latency.tpot.n, 2);
    assert_close("TPOT", m.latency.tpot.mean, 502.5, 1e-12);
    /* ITL: gaps 4, 6, 1000, pooled; as many as tokens minus requests. */
    assert_int_equal(m.latency.itl.n, 3);
    assert_close("ITL p50", m.latency.itl.p50, 6, 1e-12);
    assert_close("ITL max", m.latency.itl.max, 1000, 1e-12);
    assert_close("queue", m.latency.queue.mean, 2, 1e-12);
}

/* Buckets of 1 s from the first submission: tokens 4, 1, 1; requests 3 in the first, the last one touches
 * three. */
static void test_peaks(void **state)
{
    (void)state;
    struct qd_request_record records[] = {record(5, 0, times_a, 3), record(7, 10, times_b, 1),
                                          record(9, 500, times_c, 2)};
    struct qd_metrics m;
    assert_int_equal(compute(records, 3, 4.0, 1, &m), QD_OK);
    assert_close("tokens", m.max_output_tokens_per_s, 4, 0);
    assert_close("requests", m.max_concurrent_requests, 3, 0);
}

/* A failed request and one that "succeeded" without a token change the number of failures and nothing else.
 */
static void test_failed_requests_are_not_fast_ones(void **state)
{
    (void)state;
    struct qd_request_record records[] = {record(5, 0, times_a, 3), record(7, 10, times_b, 1),
                                          record(9, 500, times_c, 2), record(1000, 0, NULL, 0),
                                          record(1000, 0, times_a, 3)};
    records[3].success = true;
    records[4].success = false;
    struct qd_metrics all, good;
    assert_int_equal(compute(records, 5, 4.0, 1, &all), QD_OK);
    assert_int_equal(compute(records, 3, 4.0, 1, &good), QD_OK);
    assert_int_equal(all.n_failed, 2);
    all.n_failed = 0;
    assert_memory_equal(&all, &good, sizeof all);
}

static void test_nothing_completed(void **state)
{
    (void)state;
    struct qd_request_record records[] = {record(1000, 0, NULL, 0)};
    struct qd_metrics m;
    assert_int_equal(compute(records, 1, 1.0, 1, &m), QD_OK);
    assert_int_equal(m.n_completed, 0);
    assert_int_equal(m.n_failed, 1);
    assert_int_equal(m.latency.ttft.n, 0);
    assert_close("throughput", m.output_throughput, 0, 0);
    assert_close("peak", m.max_concurrent_requests, 0, 0);
    assert_int_equal(compute(NULL, 0, 0, 1, &m), QD_OK);
    assert_close("throughput of nothing", m.request_throughput, 0, 0);
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item)) fail_msg("%s is missing", key);
    return item->valuedouble;
}

static double latency_key(const cJSON *root, const char *statistic, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "%s_%s_ms", statistic, name);
    return number(root, key);
}

static void check_latency(const cJSON *root, const char *name, const struct qd_distribution *d,
                          double relative)
{
    assert_close(name, d->mean, latency_key(root, "mean", name), relative);
    assert_close(name, d->p50, latency_key(root, "median", name), relative);
    assert_close(name, d->std, latency_key(root, "std", name), relative);
    assert_close(name, d->p99, latency_key(root, "p99", name), relative);
}

/* The file's arrays as milliseconds: how far our statistics agree with numpy's. */
static void check_statistics(const cJSON *root)
{
    const cJSON *ttfts = cJSON_GetObjectItemCaseSensitive(root, "ttfts"), *item, *gap;
    double *ttft = malloc(48 * sizeof *ttft), *itl = malloc(7223 * sizeof *itl);
    uint64_t n_ttft = 0, n_itl = 0;
    cJSON_ArrayForEach (item, ttfts)
        ttft[n_ttft++] = item->valuedouble * 1000;
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(root, "itls")) {
        cJSON_ArrayForEach (gap, item)
            itl[n_itl++] = gap->valuedouble * 1000;
    }
    assert_int_equal(n_ttft, 48);
    assert_int_equal(n_itl, 7223);
    struct qd_distribution t = qd_distribution_of(ttft, n_ttft), i = qd_distribution_of(itl, n_itl);
    check_latency(root, "ttft", &t, 1e-9);
    check_latency(root, "itl", &i, 1e-9);
    free(ttft);
    free(itl);
}

/* The same requests as records of ours; our clock has whole ns, so gaps are exact to 1 ns in 20 ms or more.
 */
static void check_records(const cJSON *root)
{
    struct qd_request_record records[48] = {0};
    const cJSON *lens = cJSON_GetObjectItemCaseSensitive(root, "input_lens")->child;
    const cJSON *outs = cJSON_GetObjectItemCaseSensitive(root, "output_lens")->child;
    const cJSON *ttft = cJSON_GetObjectItemCaseSensitive(root, "ttfts")->child;
    const cJSON *itls = cJSON_GetObjectItemCaseSensitive(root, "itls")->child, *gap;
    for (int i = 0; i < 48; i++, lens = lens->next, outs = outs->next, ttft = ttft->next, itls = itls->next) {
        int n = outs->valueint, k = 0;
        double now = ttft->valuedouble;
        records[i] = (struct qd_request_record){.prompt_len = lens->valueint,
                                                .output_len = n,
                                                .success = true,
                                                .token_ns = malloc((size_t)n * sizeof(int64_t))};
        records[i].token_ns[k++] = (int64_t)(now * 1e9 + 0.5);
        cJSON_ArrayForEach (gap, itls) {
            assert_true(k < n);
            now += gap->valuedouble;
            records[i].token_ns[k++] = (int64_t)(now * 1e9 + 0.5);
        }
        assert_int_equal(k, n);
    }
    struct qd_metrics m;
    assert_int_equal(compute(records, 48, number(root, "duration"), 8, &m), QD_OK);
    assert_int_equal(m.n_completed, 48);
    assert_int_equal(m.n_output_tokens, 7271);
    assert_int_equal(m.n_input_tokens, (uint64_t)number(root, "total_input_tokens"));
    assert_close("requests/s", m.request_throughput, number(root, "request_throughput"), 1e-12);
    assert_close("tok/s", m.output_throughput, number(root, "output_throughput"), 1e-12);
    assert_close("total tok/s", m.total_token_throughput, number(root, "total_token_throughput"), 1e-12);
    check_latency(root, "ttft", &m.latency.ttft, 1e-8);
    check_latency(root, "tpot", &m.latency.tpot, 1e-8);
    check_latency(root, "itl", &m.latency.itl, 5e-8);
    for (int i = 0; i < 48; i++)
        free(records[i].token_ns);
}

static void test_a_published_vllm_result(void **state)
{
    (void)state;
    NEED_FILE(VLLM_FILE);
    char err[QD_ERR_LEN] = "";
    cJSON *root = NULL;
    ASSERT_OK(qd_json_read_file(VLLM_FILE, 1 << 24, &root, err, sizeof err), err);
    check_statistics(root);
    check_records(root);
    cJSON_Delete(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hand_made),
        cmocka_unit_test(test_peaks),
        cmocka_unit_test(test_failed_requests_are_not_fast_ones),
        cmocka_unit_test(test_nothing_completed),
        cmocka_unit_test(test_a_published_vllm_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
