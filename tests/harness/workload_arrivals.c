/* Arrival times: vLLM's rules, and the distribution of the gaps. */
#include "tests/support/test.h"

#include <math.h>

#include "harness/workload/workload.h"

enum { N = 20000 };

struct fixture {
    struct qd_workload workload;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    char err[QD_ERR_LEN] = "";
    assert_non_null(fixture);
    struct qd_random_spec spec = {.n = N, .input_len = 1, .output_len = 1, .ids.n = 9};
    ASSERT_OK(qd_workload_random(&spec, &fixture->workload, err, sizeof err), err);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    qd_workload_free(&fixture->workload);
    free(fixture);
    return 0;
}

static void arrive(struct qd_workload *workload, struct qd_arrivals_spec spec)
{
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_workload_set_arrivals(&spec, workload, err, sizeof err), err);
    assert_true(workload->has_arrivals);
    for (size_t i = 0; i < workload->n; i++)
        assert_true(workload->requests[i].arrival_ns >= (i > 0 ? workload->requests[i - 1].arrival_ns : 0));
}

/* The gap before request i, the first one's from the start on, in seconds. */
static double gap(const struct qd_workload *workload, size_t i)
{
    int64_t before = i > 0 ? workload->requests[i - 1].arrival_ns : 0;
    return (double)(workload->requests[i].arrival_ns - before) * 1e-9;
}

/* Standard deviation over mean. */
static double variation(const struct qd_workload *workload, double *mean)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < workload->n; i++) sum += gap(workload, i);
    *mean = sum / (double)workload->n;
    for (size_t i = 0; i < workload->n; i++) squares += pow(gap(workload, i) - *mean, 2);
    return sqrt(squares / (double)workload->n) / *mean;
}

static void gaps_are_gamma_distributed(void **state)
{
    struct qd_workload *workload = &((struct fixture *)*state)->workload;
    const double shapes[] = {0.25, 0.5, 1, 2, 9};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        double mean, n_above = 0;
        arrive(workload, (struct qd_arrivals_spec){.rate = 40, .burstiness = shapes[s], .seed = s});
        double cv = variation(workload, &mean);
        assert_within(mean, 1.0 / 40, 1e-9); /* scaled: the last arrives at n / rate */
        assert_int_equal(llround((double)workload->requests[N - 1].arrival_ns * 1e-9), N / 40);
        /* The sample's variation at 20,000 gaps: within 6 standard errors, kurtosis included. */
        assert_within(cv, 1 / sqrt(shapes[s]), 0.06 / sqrt(shapes[s]));
        for (size_t i = 0; i < N; i++) n_above += gap(workload, i) > mean;
        if (shapes[s] == 1) assert_within(n_above / N, exp(-1), 0.02);
    }
}

static void gaps_do_not_follow_each_other(void **state)
{
    struct qd_workload *workload = &((struct fixture *)*state)->workload;
    double mean, sum = 0;
    arrive(workload, (struct qd_arrivals_spec){.rate = 10, .burstiness = 1, .seed = 7});
    double cv = variation(workload, &mean);
    for (size_t i = 1; i < N; i++) sum += (gap(workload, i) - mean) * (gap(workload, i - 1) - mean);
    assert_within(sum / N / (cv * cv * mean * mean), 0, 6 / sqrt(N));
}

static void infinite_burstiness_is_a_constant_rate(void **state)
{
    struct qd_workload *workload = &((struct fixture *)*state)->workload;
    arrive(workload, (struct qd_arrivals_spec){.rate = 250, .burstiness = INFINITY});
    for (size_t i = 0; i < N; i++) assert_within(gap(workload, i), 0.004, 2e-9);
}

static void a_ramp_goes_by_index_and_is_not_scaled(void **state)
{
    struct qd_workload *workload = &((struct fixture *)*state)->workload;
    struct qd_arrivals_spec spec = {
        .burstiness = INFINITY, .ramp = QD_RAMP_LINEAR, .start_rate = 10, .end_rate = 30};
    arrive(workload, spec);
    assert_within(gap(workload, 0), 0.1, 2e-9);
    assert_within(gap(workload, (N - 1) / 2), 1 / 20.0, 1e-5);
    assert_within(gap(workload, N - 1), 1 / 30.0, 2e-9);
    spec.ramp = QD_RAMP_EXPONENTIAL;
    spec.end_rate = 40;
    arrive(workload, spec);
    assert_within(gap(workload, (N - 1) / 2), 1 / 20.0, 1e-5);
    assert_within(gap(workload, N - 1), 1 / 40.0, 2e-9);
}

static void times_belong_to_the_seed_and_the_hash(void **state)
{
    struct qd_workload *workload = &((struct fixture *)*state)->workload;
    struct qd_arrivals_spec spec = {.rate = 5, .burstiness = 1, .seed = 1};
    arrive(workload, spec);
    uint64_t hash = workload->hash;
    int64_t first = workload->requests[0].arrival_ns;
    assert_true(first > 0);
    spec.seed = 2;
    arrive(workload, spec);
    assert_true(workload->hash != hash && workload->requests[0].arrival_ns != first);
    spec.seed = 1;
    arrive(workload, spec);
    assert_true(workload->hash == hash && workload->requests[0].arrival_ns == first);
}

static void what_is_no_rate_is_refused(void **state)
{
    struct qd_workload *workload = &((struct fixture *)*state)->workload;
    const struct qd_arrivals_spec bad[] = {
        {.rate = 0, .burstiness = 1},
        {.rate = INFINITY, .burstiness = 1},
        {.rate = NAN, .burstiness = 1},
        {.rate = 1, .burstiness = 0},
        {.burstiness = 1, .ramp = QD_RAMP_LINEAR, .start_rate = 0, .end_rate = 1},
        {.burstiness = 1, .ramp = QD_RAMP_EXPONENTIAL, .start_rate = 1, .end_rate = INFINITY},
    };
    char err[QD_ERR_LEN] = "";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(qd_workload_set_arrivals(&bad[i], workload, err, sizeof err), QD_ERR_ARGUMENT);
    const struct qd_arrivals_spec slow = {.rate = 1e-6, .burstiness = 1};
    assert_int_equal(qd_workload_set_arrivals(&slow, workload, err, sizeof err), QD_ERR_TOO_LARGE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(gaps_are_gamma_distributed),
        TEST(gaps_do_not_follow_each_other),
        TEST(infinite_burstiness_is_a_constant_rate),
        TEST(a_ramp_goes_by_index_and_is_not_scaled),
        TEST(times_belong_to_the_seed_and_the_hash),
        TEST(what_is_no_rate_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
