/* What is made of a device's counts: differences, sums, shares, and their place in result.json. */
#include "harness/result/device_use.h"

#include <math.h>

#include "tests/support/test.h"

static const struct qd_device_stats at_reset = {
    .n_graphs = 5,
    .capture_ns = 2000000000,
    .graph_bytes = 4096,
    .timing_cost = {.n_steps = 16,
                    .n_events = 88,
                    .span_ns = {4000000, 4100000},
                    .wall_ns = {5000000, 5500000}},
    .n_eager_steps = 3,
    .n_replayed_steps = 4,
    .n_eager_tokens = 100,
    .n_replayed_tokens = 10,
    .n_padded_tokens = 2,
    .n_timed_steps = 7,
    .span_ns = 1000,
    .last_span_ns = 300,
    .timed_span_ns = 900,
    .segment_ns = {1, 2, 3, 4, 5, 6},
};

/* A run of 2 eager steps of 50 tokens and 6 replays of 3 decodes each, padded to 4. */
static struct qd_device_stats after_run(void)
{
    struct qd_device_stats now = at_reset;
    now.n_eager_steps += 2;
    now.n_replayed_steps += 6;
    now.n_eager_tokens += 82;
    now.n_replayed_tokens += 18;
    now.n_padded_tokens += 6;
    now.n_timed_steps += 8;
    now.span_ns += 8000;
    now.last_span_ns = 1500;
    now.timed_span_ns += 8000;
    for (int i = 0; i < QD_N_SEGMENTS; i++) now.segment_ns[i] += 1000 * (i + 1) / 3;
    return now;
}

static void differences_leave_what_opening_took(void **state)
{
    (void)state;
    struct qd_device_stats now = after_run(), d = qd_device_stats_since(&now, &at_reset);
    assert_int_equal(d.n_graphs, 5);
    assert_int_equal(d.capture_ns, 2000000000);
    assert_int_equal(d.graph_bytes, 4096);
    assert_int_equal(d.timing_cost.wall_ns[QD_WITH_TIMING], 5500000);
    assert_int_equal(d.n_eager_steps, 2);
    assert_int_equal(d.n_replayed_steps, 6);
    assert_int_equal(d.n_eager_tokens, 82);
    assert_int_equal(d.n_replayed_tokens, 18);
    assert_int_equal(d.n_padded_tokens, 6);
    assert_int_equal(d.n_timed_steps, 8);
    assert_int_equal(d.span_ns, 8000);
    assert_int_equal(d.last_span_ns, 1500);
    assert_int_equal(d.timed_span_ns, 8000);
    for (int i = 0; i < QD_N_SEGMENTS; i++) assert_int_equal(d.segment_ns[i], 1000 * (i + 1) / 3);
}

static void expect_near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12)) fail_msg("%.17g, expected %.17g", got, want);
}

static void shares_are_of_all_replicas(void **state)
{
    (void)state;
    struct qd_device_stats now = after_run();
    struct qd_replica_stats replicas[2] = {0};
    replicas[0].device = qd_device_stats_since(&now, &at_reset);
    replicas[1].device = (struct qd_device_stats){.n_graphs = 5,
                                                  .capture_ns = 1000000000,
                                                  .n_replayed_steps = 2,
                                                  .n_replayed_tokens = 2,
                                                  .span_ns = 500};
    struct qd_device_use use = qd_device_use_of(replicas, 2);
    assert_int_equal(use.total.n_graphs, 10);
    assert_int_equal(use.total.capture_ns, 2000000000);
    assert_int_equal(use.total.span_ns, 8500);
    assert_int_equal(use.total.timing_cost.n_events, 88);
    expect_near(use.hit_rate_steps, 0.8);
    expect_near(use.hit_rate_tokens, 20.0 / 102);
    expect_near(use.padding_share, 6.0 / 26);
    /* 333 + 666 + 1000 + 1333 + 1666 + 2000 = 6998 of 8000 */
    expect_near(use.unexplained_share, 1002.0 / 8000);
}

static const cJSON *member(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (item == NULL) fail_msg("no %s", key);
    return item;
}

static void results_have_them(void **state)
{
    (void)state;
    bool ok = true;
    struct qd_replica_stats replica = {.device = after_run()};
    struct qd_device_use use = qd_device_use_of(&replica, 1);
    cJSON *object = cJSON_CreateObject();
    qd_device_use_put(object, &use, &ok);
    assert_true(ok);
    const cJSON *graphs = member(object, "graphs"), *time = member(object, "device_time");
    assert_int_equal(member(graphs, "n_graphs")->valueint, 5);
    expect_near(member(graphs, "capture_s")->valuedouble, 2.0);
    assert_int_equal(member(graphs, "bytes")->valueint, 4096);
    assert_int_equal(member(graphs, "n_padded_tokens")->valueint, 8);
    expect_near(member(graphs, "hit_rate_steps")->valuedouble, 10.0 / 15);
    assert_int_equal(member(time, "span_ns")->valueint, 9000);
    assert_int_equal(member(member(time, "segments_ns"), "collective")->valueint, 5 + 1666);
    const cJSON *cost = member(time, "timing_cost");
    assert_int_equal(member(cost, "n_steps")->valueint, 16);
    assert_int_equal(member(cost, "span_ns_without")->valueint, 4000000);
    assert_int_equal(member(cost, "wall_ns_with")->valueint, 5500000);
    cJSON_Delete(object);
}

/* Emulated events cost what emulation costs: only their number is said. */
static void the_cost_of_timing_has_words(void **state)
{
    (void)state;
    char text[QD_ERR_LEN];
    qd_device_use_describe_cost(&at_reset.timing_cost, "cuda", text, sizeof text);
    assert_string_equal(text, "88 events a step; a decode of one sequence takes 5.500 ms with them and "
                              "5.000 without (+10.0 %), on the device alone 4.100 and 4.000 (+2.5 %)");
    qd_device_use_describe_cost(&at_reset.timing_cost, "emu", text, sizeof text);
    assert_string_equal(text, "88 events a step; what they cost a GPU is not emulated");
    qd_device_use_describe_cost(&(struct qd_timing_cost){.n_steps = 0}, "cuda", text, sizeof text);
    assert_string_equal(text, "");
}

/* A device that counts nothing says nothing, and one that times no ops has no segments. */
static void what_is_not_measured_is_null(void **state)
{
    (void)state;
    bool ok = true;
    struct qd_replica_stats replica = {0};
    cJSON *object = cJSON_CreateObject();
    struct qd_device_use use = qd_device_use_of(&replica, 1);
    expect_near(use.hit_rate_steps + use.hit_rate_tokens + use.padding_share + use.unexplained_share, 0);
    qd_device_use_put(object, &use, &ok);
    assert_true(cJSON_IsNull(member(object, "graphs")));
    assert_true(cJSON_IsNull(member(object, "device_time")));
    cJSON_Delete(object);

    object = cJSON_CreateObject();
    replica.device.span_ns = 5;
    use = qd_device_use_of(&replica, 1);
    qd_device_use_put(object, &use, &ok);
    assert_true(ok);
    assert_true(cJSON_IsNull(member(member(object, "device_time"), "segments_ns")));
    assert_true(cJSON_IsNull(member(member(object, "device_time"), "timing_cost")));
    assert_true(cJSON_IsNull(member(member(object, "device_time"), "unexplained_share")));
    cJSON_Delete(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(differences_leave_what_opening_took),
        cmocka_unit_test(shares_are_of_all_replicas),
        cmocka_unit_test(results_have_them),
        cmocka_unit_test(the_cost_of_timing_has_words),
        cmocka_unit_test(what_is_not_measured_is_null),
    };
    return cmocka_run_group_tests_name("device_use", tests, NULL, NULL);
}
