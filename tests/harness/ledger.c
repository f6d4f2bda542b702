/* The waterfall and the checks of a ledger, from hand-made rows and totals; what a step costs at least, by
 * hand. */
#include "tests/support/test.h"

#include "harness/result/ledger.h"
#include "harness/result/json_put.h"
#include "models/step_cost.h"

/* Two layers; V is no multiple of anything. */
static const struct qd_model_config config = {.hidden_dim = 32,
                                              .ffn_dim = 48,
                                              .vocab_size = 101,
                                              .n_layers = 2,
                                              .n_heads = 4,
                                              .n_kv_heads = 2,
                                              .head_dim = 16};

static struct qd_shard shard_of(int tp)
{
    struct qd_shard shard;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_shard_make(&config, tp, 0, &shard, err, sizeof err), err);
    return shard;
}

static struct qd_traffic sum_of(const struct qd_step_op *ops, int n, enum qd_segment segment)
{
    struct qd_traffic sum = {0};
    for (int i = 0; i < n; i++) {
        if (ops[i].segment != segment) continue;
        sum.bytes += (uint64_t)ops[i].times * ops[i].traffic.bytes;
        sum.flops += (uint64_t)ops[i].times * ops[i].traffic.flops;
    }
    return sum;
}

static void products_of_a_step_are_counted_once_each(void **state)
{
    (void)state;
    struct qd_step_op ops[QD_MAX_STEP_OPS];
    struct qd_attention_load load = {.n_tokens = 5, .n_visible = 30, .n_kv = 14};
    struct qd_shard shard = shard_of(1);
    int n = qd_model_step_ops(&config, &shard, &load, 3, ops);
    /* qkv 128 x 32, o 32 x 64, gate_up 96 x 32, down 32 x 48: 10,752 weights a layer; head 101 x 32. */
    uint64_t flops = 2 * (5 * 2 * (4096 + 2048 + 3072 + 1536) + 3 * 101 * 32);
    assert_int_equal(sum_of(ops, n, QD_SEGMENT_LINEAR).flops, flops);
    /* Weights, rows in, rows out (bf16), logits in fp32. */
    uint64_t layer =
        2 * (4096 + 2048 + 3072 + 1536) + 5 * 2 * ((32 + 128) + (64 + 32) + (32 + 48) + (48 + 32));
    assert_int_equal(sum_of(ops, n, QD_SEGMENT_LINEAR).bytes,
                     2 * layer + 2 * 101 * 32 + 3 * (2 * 32 + 4 * 101));
    assert_int_equal(sum_of(ops, n, QD_SEGMENT_COLLECTIVE).bytes, 0);
    assert_true(sum_of(ops, n, QD_SEGMENT_ATTENTION).flops > 0);
    assert_true(sum_of(ops, n, QD_SEGMENT_SAMPLING).bytes >= 3 * 101 * 4);

    n = qd_model_step_ops(&config, &shard, &load, 0, ops);
    assert_int_equal(sum_of(ops, n, QD_SEGMENT_LINEAR).flops, 2 * 5 * 2 * (4096 + 2048 + 3072 + 1536));
    assert_int_equal(sum_of(ops, n, QD_SEGMENT_SAMPLING).flops, 0);
}

static void norms_over_ranks_are_collectives(void **state)
{
    (void)state;
    struct qd_step_op ops[QD_MAX_STEP_OPS];
    struct qd_attention_load load = {.n_tokens = 5, .n_visible = 30, .n_kv = 14};
    struct qd_shard shard = shard_of(2);
    int n = qd_model_step_ops(&config, &shard, &load, 3, ops);
    /* Three norms of 5 rows and one of 3: residual in and out, two parts, normalised rows, a weight each. */
    assert_int_equal(sum_of(ops, n, QD_SEGMENT_COLLECTIVE).bytes,
                     3 * (5 * 32 * (2 + 2 + 2 * 2 + 2) + 64) + (3 * 32 * (2 + 2 + 2 * 2 + 2) + 64));
}

static const struct qd_step_row row = {.n_ranks = 1,
                                       .ranks = {{.begin_ns = 1000, .end_ns = 91000}},
                                       .spare_ns = 1,
                                       .schedule_ns = 10,
                                       .prepare_ns = 20,
                                       .launch_ns = 30,
                                       .wait_ns = 90000,
                                       .output_ns = 40,
                                       .n_prefill_tokens = 4,
                                       .n_decode_tokens = 1,
                                       .n_logit_rows = 3,
                                       .n_visible = 30,
                                       .n_kv = 14};

/* Totals of two such steps. */
static struct qd_replica_stats stats_of_rows(void)
{
    return (struct qd_replica_stats){.n_steps = 2,
                                     .n_prefill_tokens = 8,
                                     .n_decode_tokens = 2,
                                     .schedule_ns = 22,
                                     .prepare_ns = 40,
                                     .launch_ns = 60,
                                     .wait_ns = 180000,
                                     .output_ns = 80,
                                     .idle_ns = 5000,
                                     .wall_ns = 185300,
                                     .span_ns = 180000};
}

static struct qd_ledger_rows rows_with(double gbps, double gflops)
{
    struct qd_ledger_rows rows = {.config = &config, .shard = shard_of(1)};
    if (gbps > 0)
        rows.limits = (struct qd_ledger_limits){.machine = "m", .memory_gbps = gbps, .gflops = gflops};
    for (int i = 0; i < 2; i++) qd_ledger_rows_take(&rows, &row);
    return rows;
}

static struct qd_ledger ledger_of(const struct qd_replica_stats *stats, const struct qd_ledger_rows *rows)
{
    static const struct qd_metrics no_metrics;
    return qd_ledger_make(stats, 1, NULL, 0, &no_metrics, rows, NULL, 0);
}

static void the_waterfall_adds_up(void **state)
{
    (void)state;
    struct qd_replica_stats stats = stats_of_rows();
    struct qd_ledger_rows rows = rows_with(1e-3, 1e9); /* every op is bound by memory */
    stats.device = (struct qd_device_stats){.n_timed_steps = 2, .timed_span_ns = 180000, .span_ns = 180000};
    for (int i = 0; i < QD_N_SEGMENTS; i++) stats.device.segment_ns[i] = 28000;
    struct qd_ledger ledger = ledger_of(&stats, &rows);
    const struct qd_waterfall *w = &ledger.waterfall;
    struct qd_step_op ops[QD_MAX_STEP_OPS];
    struct qd_attention_load load = {.n_tokens = 5, .n_visible = 30, .n_kv = 14};
    double bytes = 0;
    for (int i = 0, n = qd_model_step_ops(&config, &rows.shard, &load, 3, ops); i < n; i++)
        bytes += 2.0 * (double)ops[i].times * (double)ops[i].traffic.bytes;
    assert_within(w->floor, bytes * 1e3, 1e-3); /* 1e-3 GB/s are 1,000 ns a byte */
    assert_within(w->kernels, 5 * 28000, 0);
    assert_within(w->floor + w->inefficiency, w->kernels, 1e-3);
    assert_within(w->kernels + w->gaps, w->span, 0);
    assert_within(w->above_floor, w->inefficiency + w->gaps, 1e-3);
    assert_within(w->exposed_host, 202, 0);
    assert_within(w->unexplained, 98, 0);
    assert_within(w->span + w->exposed_host + w->idle + w->unexplained, 185300, 0);
    assert_true(isnan(w->in_graph));
    assert_within(ledger.checks.host_unexplained, 98.0 / 185300, 1e-12);
    assert_within(ledger.checks.device_unexplained, 12000.0 / 180000, 1e-12);
    assert_string_equal(qd_ledger_bound(&rows, QD_SEGMENT_LINEAR), "memory");
    assert_null(qd_ledger_bound(&rows, QD_SEGMENT_COLLECTIVE));
    assert_int_equal(rows.host_ns, 180202);
    struct qd_ledger_rows slow = rows_with(1e9, 1e-3);
    assert_string_equal(qd_ledger_bound(&slow, QD_SEGMENT_LINEAR), "compute");
}

static bool is_null(const cJSON *tree, const char *part, const char *key)
{
    const cJSON *ledger = cJSON_GetObjectItemCaseSensitive(tree, "ledger");
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(ledger, part);
    const cJSON *value = key != NULL ? cJSON_GetObjectItemCaseSensitive(object, key) : object;
    assert_non_null(value);
    return cJSON_IsNull(value);
}

static cJSON *json_of(const struct qd_ledger *ledger, const struct qd_replica_stats *stats)
{
    cJSON *tree = cJSON_CreateObject();
    bool ok = true;
    qd_ledger_put(tree, ledger, stats, 1, &ok);
    assert_true(ok);
    return tree;
}

/* Never 0: null in JSON. */
static void what_is_unknown_is_not_a_number(void **state)
{
    (void)state;
    struct qd_replica_stats stats = stats_of_rows();
    struct qd_ledger_rows unlimited = rows_with(0, 0), some = rows_with(1, 1);
    const struct qd_ledger_rows *without_floor[] = {NULL, &unlimited, &some};
    stats.n_steps = 3; /* `some` lacks a row of them */
    for (int i = 0; i < 3; i++) {
        struct qd_ledger ledger = ledger_of(&stats, without_floor[i]);
        cJSON *tree = json_of(&ledger, &stats);
        const char *unknown[] = {"floor", "inefficiency", "in_graph", "kernels", "gaps", "above_floor"};
        for (int k = 0; k < 6; k++) assert_true(is_null(tree, "waterfall_ns", unknown[k]));
        assert_false(is_null(tree, "waterfall_ns", "span"));
        assert_true(is_null(tree, "checks", "device_unexplained_share"));
        assert_int_equal(is_null(tree, "rows", NULL), i == 0);
        assert_int_equal(is_null(tree, "floor", NULL), i < 2);
        cJSON_Delete(tree);
    }
    stats.span_ns = 0; /* nothing executes */
    struct qd_ledger ledger = ledger_of(&stats, NULL);
    assert_true(isnan(ledger.waterfall.span));
    assert_within(ledger.waterfall.exposed_host, 180202, 0);
    /* One step that was not timed hides the kernels of all. */
    stats = stats_of_rows();
    stats.device.n_timed_steps = 1;
    ledger = ledger_of(&stats, &some);
    assert_true(isnan(ledger.waterfall.kernels));
    assert_true(isfinite(ledger.waterfall.floor));
}

static void requests_are_held_against_replicas_and_metrics(void **state)
{
    (void)state;
    int64_t times[] = {2000000, 3000000, 5000000};
    struct qd_request_record records[] = {
        {.prompt_len = 7, .output_len = 3, .success = true, .submit_ns = 1000000, .token_ns = times},
        {.prompt_len = 9, .output_len = 2, .success = false, .submit_ns = 1000000, .token_ns = times},
    };
    struct qd_replica_stats stats = {
        .n_prefill_tokens = 8, .n_recomputed_tokens = 3, .n_decode_tokens = 2, .n_hit_tokens = 2};
    struct qd_metrics metrics = {.latency.e2el = {.n = 1, .mean = 4.0}};
    struct qd_ledger ledger = qd_ledger_make(&stats, 1, records, 2, &metrics, NULL, NULL, 0);
    assert_int_equal(ledger.checks.n_expected_tokens, 9);
    assert_int_equal(ledger.checks.n_computed_tokens, 9);
    assert_within(ledger.checks.latency_unexplained, 0, 1e-12);
    metrics.latency.e2el.mean = 5.0;
    ledger = qd_ledger_make(&stats, 1, records, 2, &metrics, NULL, NULL, 0);
    assert_within(ledger.checks.latency_unexplained, 0.2, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_a_step_are_counted_once_each),
        cmocka_unit_test(norms_over_ranks_are_collectives),
        cmocka_unit_test(the_waterfall_adds_up),
        cmocka_unit_test(what_is_unknown_is_not_a_number),
        cmocka_unit_test(requests_are_held_against_replicas_and_metrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
