/* Random prompts: vLLM's formula, reproducible, and every draw on a stream of its own. */
#include "tests/support/test.h"

#include "harness/workload/workload.h"

static const struct qd_random_spec plain = {
    .n = 50, .input_len = 20, .output_len = 10, .seed = 3, .ids.n = 97};

static struct qd_workload build(const struct qd_random_spec *spec)
{
    struct qd_workload workload;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_workload_random(spec, &workload, err, sizeof err), err);
    assert_int_equal(workload.n, spec->n);
    assert_true(workload.ignore_eos);
    return workload;
}

static void tokens_are_consecutive_allowed_ids(void **state)
{
    (void)state;
    static const int32_t allowed[] = {3, 5, 7, 11, 13};
    struct qd_random_spec spec = plain;
    spec.ids.allowed = allowed;
    spec.ids.n = 5;
    struct qd_workload workload = build(&spec);
    int first_ids[5] = {0};
    for (size_t i = 0; i < workload.n; i++) {
        const struct qd_workload_request *request = &workload.requests[i];
        assert_int_equal(request->n_prompt, 20);
        assert_int_equal(request->max_tokens, 10);
        int at = 0;
        while (at < 5 && allowed[at] != request->prompt[0]) at++;
        assert_in_range(at, 0, 4);
        first_ids[at]++;
        for (int j = 0; j < request->n_prompt; j++)
            assert_int_equal(request->prompt[j], allowed[(at + j) % 5]);
    }
    for (int at = 0; at < 5; at++) assert_int_not_equal(first_ids[at], 0);
    qd_workload_free(&workload);
}

/* floor(10 (1 - 0.33)) = 6 and ceil(10 (1 + 0.33)) = 14, both of which occur; never below 1. */
static void lengths_fill_their_range(void **state)
{
    (void)state;
    struct qd_random_spec spec = plain;
    spec.n = 2000;
    spec.input_len = 10;
    spec.output_len = 1;
    spec.range_ratio = 0.33;
    struct qd_workload workload = build(&spec);
    int low = INT32_MAX, high = 0, low_output = INT32_MAX, high_output = 0;
    for (size_t i = 0; i < workload.n; i++) {
        int n = workload.requests[i].n_prompt, n_output = workload.requests[i].max_tokens;
        if (n < low) low = n;
        if (n > high) high = n;
        if (n_output < low_output) low_output = n_output;
        if (n_output > high_output) high_output = n_output;
    }
    assert_int_equal(low, 6);
    assert_int_equal(high, 14);
    assert_int_equal(low_output, 1);
    assert_int_equal(high_output, 2);
    qd_workload_free(&workload);
    spec.output_len = 10; /* the same range, and yet draws of its own */
    workload = build(&spec);
    int n_equal = 0;
    for (size_t i = 0; i < workload.n; i++)
        n_equal += workload.requests[i].n_prompt == workload.requests[i].max_tokens;
    assert_in_range(n_equal, 1, workload.n / 2);
    qd_workload_free(&workload);
}

static void prefixes_are_shared(void **state)
{
    (void)state;
    struct qd_random_spec spec = plain;
    spec.prefix_len = 7;
    struct qd_workload workload = build(&spec), without = build(&plain);
    bool is_run = true;
    for (size_t i = 0; i < workload.n; i++) {
        const struct qd_workload_request *request = &workload.requests[i];
        assert_int_equal(request->n_prompt, 27);
        assert_memory_equal(request->prompt, workload.requests[0].prompt, 7 * sizeof(int32_t));
        assert_memory_equal(request->prompt + 7, without.requests[i].prompt, 20 * sizeof(int32_t));
    }
    for (int j = 1; j < 7; j++)
        is_run = is_run && workload.requests[0].prompt[j] == workload.requests[0].prompt[j - 1] + 1;
    assert_false(is_run); /* each of its ids is drawn */
    qd_workload_free(&workload);
    qd_workload_free(&without);
}

static void a_seed_makes_the_workload(void **state)
{
    (void)state;
    struct qd_random_spec spec = plain;
    spec.range_ratio = 0.5;
    struct qd_workload a = build(&spec), b = build(&spec);
    assert_true(a.hash == b.hash);
    spec.seed++;
    struct qd_workload other = build(&spec);
    assert_true(a.hash != other.hash);
    spec.seed--;
    spec.output_len = 77; /* prompts stay what they were */
    struct qd_workload longer = build(&spec);
    assert_true(a.hash != longer.hash);
    for (size_t i = 0; i < a.n; i++) {
        assert_int_equal(a.requests[i].n_prompt, longer.requests[i].n_prompt);
        assert_memory_equal(a.requests[i].prompt, longer.requests[i].prompt,
                            (size_t)a.requests[i].n_prompt * sizeof(int32_t));
    }
    qd_workload_free(&a);
    qd_workload_free(&b);
    qd_workload_free(&other);
    qd_workload_free(&longer);
}

static void refuse(struct qd_random_spec spec, qd_status expected, const char *reason)
{
    struct qd_workload workload;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_workload_random(&spec, &workload, err, sizeof err), expected);
    ASSERT_CONTAINS(err, reason);
}

static void impossible_lengths_are_refused(void **state)
{
    (void)state;
    struct qd_random_spec spec = plain;
    spec.n = 0;
    refuse(spec, QD_ERR_ARGUMENT, "must be positive");
    spec = plain;
    spec.input_len = 0;
    refuse(spec, QD_ERR_ARGUMENT, "must be positive");
    spec = plain;
    spec.range_ratio = 1;
    refuse(spec, QD_ERR_ARGUMENT, "must be positive");
    spec = plain;
    spec.ids.n = 0;
    refuse(spec, QD_ERR_ARGUMENT, "must be positive");
    spec = plain;
    spec.output_len = 1 << 30;
    refuse(spec, QD_ERR_TOO_LARGE, "above 2^31");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_consecutive_allowed_ids),
        cmocka_unit_test(lengths_fill_their_range),
        cmocka_unit_test(prefixes_are_shared),
        cmocka_unit_test(a_seed_makes_the_workload),
        cmocka_unit_test(impossible_lengths_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
