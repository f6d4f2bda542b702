/* Results of a sweep over further options: cells are told apart by their variant, in every file. */
#include "tests/support/test.h"

#include "harness/report/data.h"
#include "harness/result/experiment.h"
#include "harness/result/failure.h"
#include "harness/result/files.h"
#include "models/json.h"
#include "tests/support/result_fixture.h"

#define CELL    "tp=1-dp=1-max_num_batched_tokens=64"
#define FOUR    "max-concurrency=4-input-len=128"
#define SIXTEEN "max-concurrency=16-input-len=128"

static void write_run(const char *folder, const char *variant, int number, double ttft_ms)
{
    struct fixture_run run;
    fixture_run_init(&run, 1, 1, 64, ttft_ms, 4);
    run.result.variant = variant;
    fixture_run_write(&run, folder, number);
}

static void check_refused(const char *folder, const char *where, const char *reason)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    assert_int_equal(qd_cells_read(folder, &cells, NULL, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, where);
    ASSERT_CONTAINS(err, reason);
}

static void test_cells_of_two_variants(void **state)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    struct qd_origin_list origins;
    write_run(*state, SIXTEEN, 0, 30);
    write_run(*state, FOUR, 0, 10);
    write_run(*state, FOUR, 1, 20);
    write_run(*state, NULL, 0, 5);
    ASSERT_OK(qd_cells_read(*state, &cells, &origins, err, sizeof err), err);
    assert_int_equal(cells.n, 3);
    assert_string_equal(cells.cells[0].variant, "");
    assert_string_equal(cells.cells[1].variant, FOUR);
    assert_string_equal(cells.cells[2].variant, SIXTEEN);
    assert_int_equal(qd_cell_list_find(&cells, FOUR, 1, 1, 64)->n_runs, 2);
    assert_int_equal(qd_cell_list_find(&cells, SIXTEEN, 1, 1, 64)->n_runs, 1);
    assert_null(qd_cell_list_find(&cells, "max-concurrency=1-input-len=128", 1, 1, 64));
    assert_int_equal(origins.n, 3);
    assert_string_equal(qd_origin_list_find(&origins, SIXTEEN)->model, "micro");
    assert_null(qd_origin_list_find(&origins, "other"));
    qd_origin_list_free(&origins);
    qd_cell_list_free(&cells);
}

static void test_two_folders_with_one_variant(void **state)
{
    char *copy = qd_path_join(*state, "copy"), err[QD_ERR_LEN] = "";
    write_run(*state, FOUR, 0, 10);
    char *run = fixture_read(*state, CELL "-" FOUR "/run=0.json");
    ASSERT_OK(qd_folder_create(copy, err, sizeof err), err);
    fixture_write(copy, "run=0.json", run);
    free(run);
    free(copy);
    check_refused(*state, *state, "two folders hold TP1 DP1 budget 64 " FOUR);
}

static void test_runs_of_another_variant(void **state)
{
    write_run(*state, FOUR, 0, 10);
    write_run(*state, SIXTEEN, 1, 10);
    char *other = fixture_read(*state, CELL "-" SIXTEEN "/run=1.json");
    fixture_write(*state, CELL "-" FOUR "/run=1.json", other);
    free(other);
    check_refused(*state, "run=1.json",
                  "is of another cell (TP1 DP1 64 " SIXTEEN ") than the runs before it");
}

static void test_a_run_with_a_bad_variant(void **state)
{
    write_run(*state, "a|b", 0, 10);
    check_refused(*state, "run=0.json: ", "variant: \"a|b\" holds something other");
}

static void write_failure(const char *folder, const char *cell, const char *variant)
{
    char err[QD_ERR_LEN] = "";
    struct qd_failure f = {.kind = QD_FAILURE_REFUSED,
                           .tp = 1,
                           .dp = 1,
                           .budget = 64,
                           .run_number = -1,
                           .phase = "validate",
                           .exit_code = 3,
                           .needed_bytes = 2000,
                           .available_bytes = 1000,
                           .reason = "too large"};
    snprintf(f.variant, sizeof f.variant, "%s", variant);
    char *cell_folder = qd_path_join(folder, cell), *path = qd_path_join(cell_folder, "failed.json");
    ASSERT_OK(qd_folder_create(cell_folder, err, sizeof err), err);
    ASSERT_OK(qd_failure_write(&f, path, err, sizeof err), err);
    free(path);
    free(cell_folder);
}

static void test_failures_have_their_variant(void **state)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    write_run(*state, FOUR, 0, 10);
    write_failure(*state, "x", SIXTEEN);
    write_failure(*state, "y", "");
    ASSERT_OK(qd_cells_read(*state, &cells, NULL, err, sizeof err), err);
    assert_int_equal(qd_cell_list_find(&cells, FOUR, 1, 1, 64)->status, QD_CELL_OK);
    assert_int_equal(qd_cell_list_find(&cells, SIXTEEN, 1, 1, 64)->status, QD_CELL_REFUSED);
    assert_int_equal(qd_cell_list_find(&cells, "", 1, 1, 64)->status, QD_CELL_REFUSED);
    qd_cell_list_free(&cells);
    write_failure(*state, CELL "-" FOUR, SIXTEEN);
    check_refused(*state, "failed.json", "is of another cell than the runs beside it");
}

static void test_the_result_names_its_variant(void **state)
{
    (void)state;
    struct fixture_run run;
    fixture_run_init(&run, 1, 1, 64, 10, 4);
    cJSON *root = qd_run_result_to_json(&run.result);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(cJSON_GetObjectItem(root, "qdyno"), "variant")));
    cJSON_Delete(root);
    run.result.variant = FOUR;
    root = qd_run_result_to_json(&run.result);
    assert_string_equal(cJSON_GetObjectItem(cJSON_GetObjectItem(root, "qdyno"), "variant")->valuestring,
                        FOUR);
    cJSON_Delete(root);
}

static void write_experiment(const char *folder, const char *axes)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"schema_version\": 1, \"repeats\": 1, \"matrix\": {\"tensor_parallel_size\": [1], "
             "\"data_parallel_size\": [1], \"max_num_batched_tokens\": [64]}, \"axes\": %s}",
             axes);
    fixture_write(folder, "experiment.json", text);
}

#define AXES                                                                                                 \
    "[{\"option\": \"max-concurrency\", \"label\": \"max-concurrency\", \"values\": [\"4\", \"16\"]}, "      \
    "{\"option\": \"random-input-len\", \"label\": \"input-len\", \"values\": [\"128\", \"2K\"]}]"

static cJSON *read_summary(const char *folder, const char *cell)
{
    char name[512], err[QD_ERR_LEN] = "";
    cJSON *list = NULL;
    snprintf(name, sizeof name, "%s/%s/summary.json", folder, cell);
    ASSERT_OK(qd_json_read_file(name, 1 << 20, &list, err, sizeof err), err);
    return list;
}

/* The list of runs carries what the sweep overrode, under the options' names, once. */
static void test_summaries_carry_the_overridden_keys(void **state)
{
    char err[QD_ERR_LEN] = "";
    write_experiment(*state, AXES);
    write_run(*state, SIXTEEN, 0, 10);
    write_run(*state, SIXTEEN, 1, 10);
    write_run(*state, "max-concurrency=4-input-len=2K", 0, 10);
    write_run(*state, "other=1", 0, 10);
    ASSERT_OK(qd_summary_write(*state, err, sizeof err), err);
    cJSON *list = read_summary(*state, CELL "-" SIXTEEN), *run;
    assert_int_equal(cJSON_GetArraySize(list), 2);
    cJSON_ArrayForEach (run, list) {
        assert_true(cJSON_GetObjectItem(run, "max_concurrency")->valuedouble == 16);
        assert_true(cJSON_GetObjectItem(run, "random_input_len")->valuedouble == 128);
    }
    cJSON_Delete(list);
    list = read_summary(*state, CELL "-max-concurrency=4-input-len=2K");
    assert_string_equal(cJSON_GetObjectItem(list->child, "random_input_len")->valuestring, "2K");
    cJSON_Delete(list);
    list = read_summary(*state, CELL "-other=1");
    assert_null(cJSON_GetObjectItem(list->child, "random_input_len"));
    assert_true(cJSON_GetObjectItem(list->child, "max_concurrency")->valuedouble == 2);
    cJSON_Delete(list);
}

static void test_broken_axes_name_the_file(void **state)
{
    char err[QD_ERR_LEN] = "";
    write_experiment(*state, "7");
    write_run(*state, FOUR, 0, 10);
    assert_int_equal(qd_summary_write(*state, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "experiment.json: axes: is not an array");
    fixture_write(*state, "experiment.json", "{\"schema_version\": 2}");
    assert_int_equal(qd_summary_write(*state, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "experiment.json: schema_version: 2");
}

static void test_the_csv_has_the_variant_last(void **state)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    write_run(*state, FOUR, 0, 10);
    write_run(*state, SIXTEEN, 0, 20);
    ASSERT_OK(qd_summary_write(*state, err, sizeof err), err);
    char *text = fixture_read(*state, "summary.csv");
    ASSERT_CONTAINS(text, ",reason,variant\n");
    ASSERT_CONTAINS(text, ",ok,,," FOUR "\n");
    ASSERT_OK(qd_report_csv_parse("summary.csv", text, strlen(text), &cells, err, sizeof err), err);
    assert_int_equal(cells.n, 2);
    assert_string_equal(cells.cells[0].variant, FOUR);
    assert_string_equal(cells.cells[1].variant, SIXTEEN);
    qd_cell_list_free(&cells);
    free(text);
}

#define HEADER                                                                                               \
    "TP,DP,PP,max_num_batched_tokens,overall_throughput_tokens_per_sec,total_latency_p50_ms,"                \
    "total_latency_p99_ms,ttft_p50_ms,ttft_p99_ms,inter_token_p50_ms,inter_token_p99_ms,variant\n"
#define ROW(variant) "1,1,1,64,19.75,50818,51936,3577,6589,44.5,47.2," variant "\n"

static void check_csv_refused(const char *text, const char *reason)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    assert_int_equal(qd_report_csv_parse("f.csv", text, strlen(text), &cells, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, reason);
}

static void test_variants_of_a_csv_are_checked(void **state)
{
    (void)state;
    check_csv_refused(HEADER ROW("a=1") ROW("a=2") ROW("a=1"),
                      "f.csv:4: TP 1 DP 1 max_num_batched_tokens 64 a=1 is already in line 2");
    check_csv_refused(HEADER ROW("a=1") ROW("# a"), "f.csv:3: column 'variant': '# a' is no variant");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_cells_of_two_variants),
        WITH_FOLDER(test_two_folders_with_one_variant),
        WITH_FOLDER(test_runs_of_another_variant),
        WITH_FOLDER(test_a_run_with_a_bad_variant),
        WITH_FOLDER(test_failures_have_their_variant),
        cmocka_unit_test(test_the_result_names_its_variant),
        WITH_FOLDER(test_summaries_carry_the_overridden_keys),
        WITH_FOLDER(test_broken_axes_name_the_file),
        WITH_FOLDER(test_the_csv_has_the_variant_last),
        cmocka_unit_test(test_variants_of_a_csv_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
