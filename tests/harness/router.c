/* Each policy by hand: which replica gets the next request. */
#include "tests/support/test.h"

#include "harness/engine/router.h"

enum { DP = 3 };

/* Picks n times at now_ns with the loads as they are; the replicas in order, as digits. */
static void expect_picks(struct qd_router *router, const struct qd_replica_load *loads, int64_t now_ns,
                         const char *expected)
{
    char got[16] = "";
    for (size_t i = 0; i < strlen(expected); i++)
        got[i] = (char)('0' + qd_router_pick(router, loads, now_ns));
    assert_string_equal(got, expected);
}

static struct qd_router router_of(enum qd_router_policy policy)
{
    struct qd_router router;
    assert_int_equal(qd_router_init(&router, policy, DP), QD_OK);
    return router;
}

static void every_policy_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(qd_router_policy_name(QD_ROUTER_VLLM_0_9_1), "vllm-0.9.1");
    assert_null(qd_router_policy_name(QD_N_ROUTER_POLICIES));
}

static void round_robin_looks_at_nothing(void **state)
{
    (void)state;
    struct qd_router router = router_of(QD_ROUTER_ROUND_ROBIN);
    struct qd_replica_load loads[DP] = {{.n_in_flight = 9}, {.is_dead = true}, {0}};
    expect_picks(&router, loads, 5, "0120120");
    qd_router_free(&router);
}

static void least_loaded_takes_the_first_of_the_least(void **state)
{
    (void)state;
    struct qd_router router = router_of(QD_ROUTER_LEAST_LOADED);
    struct qd_replica_load loads[DP] = {{.n_in_flight = 2}, {.n_in_flight = 1}, {.n_in_flight = 1}};
    expect_picks(&router, loads, 0, "1");
    loads[1].is_dead = true;
    expect_picks(&router, loads, 0, "2");
    loads[0].is_dead = loads[2].is_dead = true; /* nobody lives: it ends with an error anywhere */
    expect_picks(&router, loads, 0, "0");
    qd_router_free(&router);
}

static void vllm_counts_what_it_places_and_rotates(void **state)
{
    (void)state;
    struct qd_router router = router_of(QD_ROUTER_VLLM);
    struct qd_replica_load loads[DP] = {{0}};
    /* All equal: the scan starts at 0, 1, 2. Then one each: 0 again. */
    expect_picks(&router, loads, 0, "0120");
    /* Counts are 2 1 1 and the scan starts at 1. */
    expect_picks(&router, loads, 0, "12");
    /* Requests in flight count as well, where they are more than what is queued: 5 against 2 and 2. The scan
     * starts at 0, then at 1. */
    loads[0].n_in_flight = 5;
    expect_picks(&router, loads, 0, "12");
    qd_router_free(&router);
}

static void vllm_believes_a_snapshot_after_100_ms(void **state)
{
    (void)state;
    struct qd_router router = router_of(QD_ROUTER_VLLM);
    struct qd_replica_load loads[DP] = {{.n_running = 9}, {.n_running = 4}, {.n_running = 5}};
    expect_picks(&router, loads, 1000, "0");             /* nothing is known: all 0; now 1 0 0 */
    expect_picks(&router, loads, 1000 + 99999999, "1");  /* still; now 1 1 0 */
    expect_picks(&router, loads, 1000 + 100000000, "1"); /* 9 4 5; now 9 5 5 */
    expect_picks(&router, loads, 1000 + 199999999, "1"); /* the scan starts at 0: 1 before 2; now 9 6 5 */
    expect_picks(&router, loads, 1000 + 199999999, "2"); /* not a snapshot again, which would say 4 */
    qd_router_free(&router);
}

static void vllm_shuns_full_pools_where_requests_wait(void **state)
{
    (void)state;
    struct qd_router router = router_of(QD_ROUTER_VLLM);
    struct qd_replica_load loads[DP] = {
        {.n_waiting = 1, .n_running = 2, .kv_share = 0.9},  /* 3 + 1 x 6 x 0.4 = 5.4 */
        {.n_waiting = 0, .n_running = 5, .kv_share = 0.99}, /* 5: nobody waits */
        {.n_waiting = 4, .n_running = 2, .kv_share = 0.5},  /* 6: half full is not full */
    };
    expect_picks(&router, loads, 0, "0");
    expect_picks(&router, loads, QD_ROUTER_SNAPSHOT_NS, "1"); /* 5.4 5 6 */
    /* 5.4 6+3 6, where replica 1 has a waiting request now: 1 x 6 x 0.49. */
    expect_picks(&router, loads, QD_ROUTER_SNAPSHOT_NS, "0");
    expect_picks(&router, loads, QD_ROUTER_SNAPSHOT_NS, "2"); /* 4 + 2 x 6 x 0.4 = 8.8, 8.94, 6 */
    qd_router_free(&router);
}

static void vllm_0_9_1_starts_at_replica_0(void **state)
{
    (void)state;
    struct qd_router router = router_of(QD_ROUTER_VLLM_0_9_1);
    struct qd_replica_load loads[DP] = {{.n_waiting = 1, .n_running = 3}, {.n_running = 9}, {.n_running = 8}};
    expect_picks(&router, loads, 0, "00000");
    /* [1 3] [0 9] [0 8]: 2 until it has 9 running, then the lower index. */
    expect_picks(&router, loads, QD_ROUTER_SNAPSHOT_NS, "2121");
    /* Everywhere somebody waits: [1 3] [2 0] [1 9]. One more waits at 0, then 2 is less, then 0 and 1 tie on
     * waiting and 1 has fewer running. */
    loads[1] = (struct qd_replica_load){.n_waiting = 2};
    loads[2] = (struct qd_replica_load){.n_waiting = 1, .n_running = 9};
    expect_picks(&router, loads, 2 * QD_ROUTER_SNAPSHOT_NS, "021");
    loads[0].is_dead = true;
    expect_picks(&router, loads, 2 * QD_ROUTER_SNAPSHOT_NS, "2");
    qd_router_free(&router);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_policy_has_a_name),
        cmocka_unit_test(round_robin_looks_at_nothing),
        cmocka_unit_test(least_loaded_takes_the_first_of_the_least),
        cmocka_unit_test(vllm_counts_what_it_places_and_rotates),
        cmocka_unit_test(vllm_believes_a_snapshot_after_100_ms),
        cmocka_unit_test(vllm_shuns_full_pools_where_requests_wait),
        cmocka_unit_test(vllm_0_9_1_starts_at_replica_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
