/* The probe's loops do the work they are paid for, and its figures are of this world. */
#include "tests/support/test.h"

#include "kernels/cpu/host/isa.h"
#include "kernels/cpu/host/probe.h"

static const struct qd_cpu_kernels *const *sets(void)
{
    static const struct qd_cpu_kernels *const both[] = {&qd_cpu_kernels_portable, &qd_cpu_kernels_avx2, NULL};
    static const struct qd_cpu_kernels *const one[] = {&qd_cpu_kernels_portable, NULL};
    const struct qd_cpu_kernels *kernels;
    return qd_cpu_isa_select("avx2", &kernels, NULL, 0) == QD_OK ? both : one;
}

/* A line that is not read, or read twice, shows in the sum. */
static void test_read_loop_reads_every_float_once(void **state)
{
    (void)state;
    enum { N = 8 * 16 * 5 };
    static float data[N] __attribute__((aligned(64)));
    float sum = 0;
    for (int i = 0; i < N; i++) sum += data[i] = (float)i;
    for (const struct qd_cpu_kernels *const *set = sets(); *set != NULL; set++) {
        assert_float_equal((*set)->probe_read(data, N, 0), sum, 0);
        assert_float_equal((*set)->probe_read(data, N, 1024), sum, 0);
        assert_float_equal((*set)->probe_read(data, 0, 0), 0, 0);
    }
}

static void test_fma_loop_counts_its_operations(void **state)
{
    (void)state;
    float started, converged;
    for (const struct qd_cpu_kernels *const *set = sets(); *set != NULL; set++) {
        assert_int_equal((*set)->probe_fma(0, &started), 0);
        int64_t one = (*set)->probe_fma(1, &converged);
        assert_true(one > 0 && one % 16 == 0);
        assert_int_equal((*set)->probe_fma(100, &converged), 100 * one);
        /* x/2 + 1 converges to 2 in every lane, and two operations are counted for each */
        assert_float_equal(converged, (float)one, 1e-3);
        assert_true(started != converged);
    }
}

static void test_probe_reports_both_limits(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    qd_team_t *team = NULL;
    struct qd_team_config config = {.n_members = 2, .label = "test"};
    struct qd_cpu_probe probe = {0};
    assert_true(qd_cpu_probe_bytes() >= 256 << 20);
    ASSERT_OK(qd_team_create(&config, &team, err, sizeof err), err);
    ASSERT_OK(qd_cpu_probe(sets()[0], team, &probe, err, sizeof err), err);
    qd_team_destroy(team);
    /* from a phone under a sanitizer to a large server */
    if (!(probe.read_gbps > 0.1 && probe.read_gbps < 1e4)) fail_msg("%g GB/s", probe.read_gbps);
    if (!(probe.fma_gflops > 0.1 && probe.fma_gflops < 1e5)) fail_msg("%g GFLOP/s", probe.fma_gflops);
}

static void the_cores_of_a_lone_rank_are_probed(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_cpu_probe limits = {0};
    ASSERT_OK(qd_cpu_probe_cores("portable", 1, &limits, err, sizeof err), err);
    assert_true(limits.read_gbps > 0.01 && limits.read_gbps < 1e5);
    assert_true(limits.fma_gflops > 0.01 && limits.fma_gflops < 1e6);
    assert_int_equal(qd_cpu_probe_cores("sse9", 1, &limits, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "sse9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_loop_reads_every_float_once),
        cmocka_unit_test(test_fma_loop_counts_its_operations),
        cmocka_unit_test(test_probe_reports_both_limits),
        cmocka_unit_test(the_cores_of_a_lone_rank_are_probed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
