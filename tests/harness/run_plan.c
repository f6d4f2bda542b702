/* The sums of a refused plan reach whoever reads the program's output. */
#include "tests/support/test.h"

#include "harness/cli/run_plan.h"
#include "models/json.h"

/* A micro model that needs more than `limit` bytes for `pages` KV pages. */
static struct qd_instance_plan refused_plan(size_t limit, int64_t pages)
{
    char err[QD_ERR_LEN] = "";
    struct qd_instance_options options = {
        .model = "micro",
        .load_format = QD_LOAD_DUMMY,
        .device = "cpu",
        .cpu_isa = "portable",
        .tp = 1,
        .dp = 1,
        .max_num_batched_tokens = 64,
        .n_kv_blocks = pages,
        .memory_limit = limit,
        .memory_utilization = 1,
    };
    struct qd_instance_plan plan;
    assert_int_equal(qd_instance_plan_make(&options, &plan, err, sizeof err), QD_ERR_DOES_NOT_FIT);
    return plan;
}

static void check_round_trip(const struct qd_instance_plan *plan, int64_t needed, int64_t available)
{
    char *text = NULL;
    size_t len;
    int64_t read_needed, read_available;
    FILE *out = open_memstream(&text, &len);
    qd_run_plan_print_refused(plan, out);
    fclose(out);
    qd_run_plan_read_refused(text, &read_needed, &read_available);
    assert_int_equal(read_needed, needed);
    assert_int_equal(read_available, available);
    assert_int_equal(qd_run_plan_read_budget(text), plan->limits.max_tokens);
    free(text);
}

static void the_sums_of_a_refusal_are_read_back(void **state)
{
    (void)state;
    struct qd_instance_plan weights = refused_plan(1 << 20, 0);
    assert_true(weights.weight_bytes > 1 << 20);
    assert_int_equal(weights.kv_bytes, 0);
    check_round_trip(&weights, (int64_t)(weights.weight_bytes + weights.activation_bytes), 1 << 20);
    struct qd_instance_plan pool = refused_plan(64 << 20, 100000);
    assert_true(pool.kv_bytes == 100000 * pool.kv_block_bytes);
    check_round_trip(&pool, (int64_t)(pool.weight_bytes + pool.activation_bytes + pool.kv_bytes), 64 << 20);
}

static void other_output_holds_no_sums(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "a table", "{}", "[1]", "{\"needed_bytes\": -1, \"available_bytes\": 1.5}",
        "{\"needed_bytes\": 1e300, \"available_bytes\": \"1\"}", "{\"needed_bytes\": 1",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int64_t needed = 0, available = 0;
        qd_run_plan_read_refused(texts[i], &needed, &available);
        assert_int_equal(needed, -1);
        assert_int_equal(available, -1);
        assert_int_equal(qd_run_plan_read_budget(texts[i]), -1);
    }
}

static void a_plan_is_one_json_object(void **state)
{
    (void)state;
    struct qd_instance_plan plan = {
        .tp = 2, .dp = 3, .limits = {.max_tokens = 64, .max_seqs = 5}, .weight_bytes = 7, .usable_bytes = 11};
    char *text = NULL, err[QD_ERR_LEN] = "";
    size_t len;
    cJSON *object = NULL;
    FILE *out = open_memstream(&text, &len);
    qd_run_plan_print(&plan, out);
    fclose(out);
    ASSERT_OK(qd_json_parse(text, len, NULL, &object, err, sizeof err), err);
    int64_t tp, seqs, usable;
    assert_int_equal(qd_run_plan_read_budget(text), 64);
    ASSERT_OK(qd_json_get_int(object, "tensor_parallel_size", 2, 2, &tp, err, sizeof err), err);
    ASSERT_OK(qd_json_get_int(object, "max_num_seqs", 5, 5, &seqs, err, sizeof err), err);
    ASSERT_OK(qd_json_get_int(object, "usable_bytes", 11, 11, &usable, err, sizeof err), err);
    cJSON_Delete(object);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sums_of_a_refusal_are_read_back),
        cmocka_unit_test(other_output_holds_no_sums),
        cmocka_unit_test(a_plan_is_one_json_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
