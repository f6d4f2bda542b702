/* The scheduler's benchmark has the load that it says it has. */
#include "tests/support/test.h"

#include "harness/engine/sched_bench.h"

static struct qd_sched_cost cost_of(struct qd_sched_load load)
{
    struct qd_sched_cost cost;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_sched_bench(&load, &cost, err, sizeof err), err);
    assert_true(cost.step_ns > 0 && cost.worst_ns >= cost.step_ns && cost.row_ns > 0);
    return cost;
}

static void everybody_runs(void **state)
{
    (void)state;
    for (int32_t n = 1; n <= 1024; n *= 4) {
        struct qd_sched_cost cost =
            cost_of((struct qd_sched_load){.n_running = n, .n_waiting = 7, .n_steps = 400});
        assert_true(cost.rows > 0.95 * n && cost.rows <= n);
        assert_true(cost.preemptions == 0 && cost.hit_share == 0);
    }
}

static void equal_beginnings_are_hit(void **state)
{
    (void)state;
    struct qd_sched_cost cost =
        cost_of((struct qd_sched_load){.n_running = 64, .prefix_caching = true, .n_steps = 300});
    assert_true(cost.hit_share == 256.0 / 320.0); /* what the warm-up missed does not count */
}

static void half_a_pool_preempts(void **state)
{
    (void)state;
    struct qd_sched_cost cost =
        cost_of((struct qd_sched_load){.n_running = 64, .preempt = true, .n_steps = 400});
    assert_true(cost.preemptions > 0.01 && cost.rows < 64);
}

static void loads_that_are_none_are_refused(void **state)
{
    (void)state;
    const struct qd_sched_load bad[] = {{.n_running = 0, .n_steps = 1},
                                        {.n_running = 1, .n_waiting = -1, .n_steps = 1},
                                        {.n_running = 1, .n_steps = 0},
                                        {.n_running = INT32_MAX, .n_steps = 1},
                                        {.n_running = 3, .preempt = true, .n_steps = 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct qd_sched_cost cost;
        char err[QD_ERR_LEN] = "";
        assert_int_equal(qd_sched_bench(&bad[i], &cost, err, sizeof err), QD_ERR_ARGUMENT);
        ASSERT_CONTAINS(err, "running");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_runs),
        cmocka_unit_test(equal_beginnings_are_hit),
        cmocka_unit_test(half_a_pool_preempts),
        cmocka_unit_test(loads_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
