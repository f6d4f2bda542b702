/* Results directories: runs, failures and summaries written and read back, and every way they can be broken.
 */
#include "tests/support/test.h"

#include <math.h>

#include "harness/report/data.h"
#include "harness/result/experiment.h"
#include "harness/result/failure.h"
#include "harness/result/files.h"
#include "models/json.h"
#include "tests/support/result_fixture.h"

#define CELL "tp=1-dp=1-max_num_batched_tokens=64"

static void write_run(const char *folder, int tp, int dp, int64_t budget, int number, double ttft_ms)
{
    struct fixture_run run;
    fixture_run_init(&run, tp, dp, budget, ttft_ms, 4);
    fixture_run_write(&run, folder, number);
}

static void write_failure(const char *folder, const struct qd_failure *failure)
{
    char err[QD_ERR_LEN] = "", cell[QD_CELL_NAME_LEN], name[QD_CELL_NAME_LEN + 16];
    qd_cell_name(failure->tp, failure->dp, failure->budget, cell);
    snprintf(name, sizeof name, "%s/failed.json", cell);
    char *cell_folder = qd_path_join(folder, cell), *path = qd_path_join(folder, name);
    ASSERT_OK(qd_folder_create(cell_folder, err, sizeof err), err);
    ASSERT_OK(qd_failure_write(failure, path, err, sizeof err), err);
    free(cell_folder);
    free(path);
}

static struct qd_cell_list read_cells(const char *folder)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    ASSERT_OK(qd_cells_read(folder, &cells, NULL, err, sizeof err), err);
    return cells;
}

static void check_refused(const char *folder, qd_status status, const char *where, const char *reason)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    struct qd_origin_list origins;
    assert_int_equal(qd_cells_read(folder, &cells, &origins, err, sizeof err), status);
    assert_null(origins.origins);
    ASSERT_CONTAINS(err, where);
    ASSERT_CONTAINS(err, reason);
    assert_null(cells.cells);
}

static void test_runs_become_median_and_range(void **state)
{
    write_run(*state, 1, 1, 64, 0, 10);
    write_run(*state, 1, 1, 64, 1, 30);
    write_run(*state, 1, 1, 64, 2, 14);
    write_run(*state, 1, 2, 64, 0, 10);
    struct qd_cell_list cells = read_cells(*state);
    assert_int_equal(cells.n, 2);
    const struct qd_cell *cell = qd_cell_list_find(&cells, "", 1, 1, 64);
    const struct qd_metric_value *ttft = &cell->values[QD_METRIC_TTFT_P50];
    assert_int_equal(cell->n_runs, 3);
    assert_int_equal(cell->status, QD_CELL_OK);
    assert_int_equal(cell->n_preemptions, 0);
    assert_int_equal(ttft->n, 3);
    assert_true(fabs(ttft->median - 14) < 1e-9 && fabs(ttft->min - 10) < 1e-9 && fabs(ttft->max - 30) < 1e-9);
    assert_true(fabs(ttft->mean - 18) < 1e-9);
    assert_true(fabs(ttft->std - sqrt((64.0 + 16 + 144) / 2)) < 1e-9);
    assert_null(qd_cell_list_find(&cells, "", 2, 1, 64));
    qd_cell_list_free(&cells);
}

static void test_a_run_without_a_completed_request_is_no_measurement(void **state)
{
    struct fixture_run run;
    fixture_run_init(&run, 1, 1, 64, 10, 4);
    fixture_run_write(&run, *state, 0);
    for (int i = 0; i < FIXTURE_REQUESTS; i++) run.records[i].success = false;
    fixture_run_finish(&run);
    fixture_run_write(&run, *state, 1);
    run.result.tp = 2;
    fixture_run_write(&run, *state, 0);
    struct qd_cell_list cells = read_cells(*state);
    const struct qd_cell *mixed = qd_cell_list_find(&cells, "", 1, 1, 64),
                         *empty = qd_cell_list_find(&cells, "", 2, 1, 64);
    assert_int_equal(mixed->status, QD_CELL_OK);
    assert_int_equal(mixed->n_runs, 1);
    assert_int_equal(mixed->n_empty_runs, 1);
    assert_int_equal(mixed->n_failed, 4);
    assert_true(fabs(mixed->values[QD_METRIC_TTFT_P50].min - 10) < 1e-9);
    ASSERT_CONTAINS(mixed->reason, "no request completed in 1 of 2 runs");
    assert_true(mixed->marks & QD_MARK_FAILED_REQUESTS);
    assert_int_equal(empty->status, QD_CELL_EMPTY);
    assert_int_equal(empty->values[QD_METRIC_TTFT_P50].n, 0);
    /* Rates are 0, not null, in such a run: they must not enter the median. */
    assert_int_equal(mixed->values[QD_METRIC_OUTPUT_TOK_S].n, 1);
    assert_int_equal(empty->values[QD_METRIC_OUTPUT_TOK_S].n, 0);
    qd_cell_list_free(&cells);
}

static void test_failures_are_written_and_read(void **state)
{
    struct qd_failure f = {.kind = QD_FAILURE_CRASHED,
                           .tp = 2,
                           .dp = 1,
                           .budget = 64,
                           .run_number = 1,
                           .phase = "run",
                           .exit_code = -1,
                           .signal = 11,
                           .needed_bytes = 1000,
                           .available_bytes = -1,
                           .reason = "killed by signal 11"};
    char text[40 * 8], *p = text;
    for (int i = 0; i < 30; i++) p += sprintf(p, "line %d\n", i);
    qd_failure_set_lines(&f, text, (size_t)(p - text));
    assert_int_equal(f.n_lines, QD_FAILURE_LINES);
    assert_string_equal(f.lines[0], "line 10");
    assert_string_equal(f.lines[QD_FAILURE_LINES - 1], "line 29");
    write_failure(*state, &f);
    char *path = qd_path_join(*state, "tp=2-dp=1-max_num_batched_tokens=64/failed.json"),
         err[QD_ERR_LEN] = "";
    struct qd_failure again;
    ASSERT_OK(qd_failure_read(path, &again, err, sizeof err), err);
    assert_int_equal(again.kind, QD_FAILURE_CRASHED);
    assert_int_equal(again.run_number, 1);
    assert_int_equal(again.exit_code, -1);
    assert_int_equal(again.signal, 11);
    assert_int_equal(again.needed_bytes, 1000);
    assert_int_equal(again.available_bytes, -1);
    assert_string_equal(again.reason, f.reason);
    assert_int_equal(again.n_lines, QD_FAILURE_LINES);
    assert_string_equal(again.lines[3], "line 13");
    free(path);
    /* Beside a good run the cell stays measured, and says what is missing. */
    write_run(*state, 2, 1, 64, 0, 10);
    struct qd_cell_list cells = read_cells(*state);
    assert_int_equal(cells.cells[0].status, QD_CELL_OK);
    ASSERT_CONTAINS(cells.cells[0].reason, "run 1 crashed in phase run: killed by signal 11");
    qd_cell_list_free(&cells);
}

static void test_last_lines_of_little_text(void **state)
{
    (void)state;
    struct qd_failure f = {0};
    qd_failure_set_lines(&f, "", 0);
    assert_int_equal(f.n_lines, 0);
    qd_failure_set_lines(&f, "\n\n", 2);
    assert_int_equal(f.n_lines, 0);
    qd_failure_set_lines(&f, "one\n\ntwo", 8);
    assert_int_equal(f.n_lines, 3);
    assert_string_equal(f.lines[2], "two");
}

static void test_refused_cells_keep_their_reason(void **state)
{
    struct qd_failure f = {.kind = QD_FAILURE_REFUSED,
                           .tp = 8,
                           .dp = 1,
                           .budget = 64,
                           .run_number = -1,
                           .phase = "validate",
                           .exit_code = -1,
                           .needed_bytes = -1,
                           .available_bytes = -1,
                           .reason = "2 heads do not divide by 8"};
    write_failure(*state, &f);
    struct qd_cell_list cells = read_cells(*state);
    assert_int_equal(cells.cells[0].status, QD_CELL_REFUSED);
    assert_string_equal(cells.cells[0].reason, "refused in phase validate: 2 heads do not divide by 8");
    qd_cell_list_free(&cells);
}

static void test_broken_failure_files(void **state)
{
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"{\"schema_version\": 1", "failed.json: "},
        {"{}", "schema_version: missing"},
        {"{\"schema_version\": 9}", "schema_version: 9, this version reads 1"},
        {"{\"schema_version\": 1, \"status\": \"sad\"}", "'sad' is not refused"},
        {"{\"schema_version\": 1, \"status\": \"refused\", \"tensor_parallel_size\": 0}",
         "tensor_parallel_size"},
    };
    char *cell = qd_path_join(*state, CELL), err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_folder_create(cell, err, sizeof err), err);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fixture_write(cell, "failed.json", cases[i].text);
        check_refused(*state, QD_ERR_INPUT, "failed.json", cases[i].reason);
    }
    free(cell);
}

static void test_broken_runs(void **state)
{
    write_run(*state, 1, 1, 64, 0, 10);
    char *good = fixture_read(*state, CELL "/run=0.json");
    /* Cut off in the middle, as a full disk leaves it without atomic writes. */
    good[strlen(good) / 2] = '\0';
    fixture_write(*state, CELL "/run=0.json", good);
    free(good);
    check_refused(*state, QD_ERR_INPUT, "run=0.json: ", "");
    fixture_write(*state, CELL "/run=0.json", "{\"date\": \"x\", \"backend\": \"openai\"}");
    check_refused(*state, QD_ERR_INPUT, "run=0.json: ", "qdyno: missing: not a result of this program");
    fixture_write(*state, CELL "/run=0.json", "{\"qdyno\": {\"schema_version\": 2}}");
    check_refused(*state, QD_ERR_INPUT, "run=0.json: ", "schema_version: 2, this version reads 1");
    fixture_write(*state, CELL "/run=0.json", "[]");
    check_refused(*state, QD_ERR_INPUT, "run=0.json: ", "qdyno: missing");
    fixture_write(
        *state, CELL "/run=0.json",
        "{\"qdyno\": {\"schema_version\": 1}, \"tensor_parallel_size\": 1, \"data_parallel_size\": 1, "
        "\"max_num_batched_tokens\": 64, \"completed\": 1, \"failed\": 0}");
    check_refused(*state, QD_ERR_INPUT, CELL ": ", "preemptions: missing");
    fixture_write(
        *state, CELL "/run=0.json",
        "{\"qdyno\": {\"schema_version\": 1, \"preemptions\": 0}, \"tensor_parallel_size\": 1, "
        "\"data_parallel_size\": 1, \"max_num_batched_tokens\": 64, \"completed\": 1, \"failed\": 0}");
    check_refused(*state, QD_ERR_INPUT, CELL ": ", "qdyno/throughput/output_tok_s: is not a number");
}

static void test_runs_of_another_cell(void **state)
{
    write_run(*state, 1, 1, 64, 0, 10);
    write_run(*state, 2, 1, 64, 1, 10);
    char *other = fixture_read(*state, "tp=2-dp=1-max_num_batched_tokens=64/run=1.json");
    fixture_write(*state, CELL "/run=1.json", other);
    free(other);
    check_refused(*state, QD_ERR_INPUT, CELL "/run=1.json", "is of another cell (TP2 DP1 64)");
}

static void test_two_folders_with_one_cell(void **state)
{
    write_run(*state, 1, 1, 64, 0, 10);
    char *copy = qd_path_join(*state, "copy"), err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_folder_create(copy, err, sizeof err), err);
    char *run = fixture_read(*state, CELL "/run=0.json");
    fixture_write(copy, "run=0.json", run);
    free(run);
    free(copy);
    check_refused(*state, QD_ERR_INPUT, *state, "two folders hold TP1 DP1 budget 64");
}

static void test_folders_without_cells(void **state)
{
    check_refused(*state, QD_ERR_NOT_FOUND, *state, "no cell of a sweep inside");
    check_refused("no/such/folder", QD_ERR_NOT_FOUND, "no/such/folder", "No such file");
    fixture_write(*state, "file", "x");
    char *path = qd_path_join(*state, "file");
    check_refused(path, QD_ERR_IO, path, "Not a directory");
    free(path);
}

/* Other files of a results directory are no runs. */
static void test_other_files_are_left_alone(void **state)
{
    write_run(*state, 1, 1, 64, 0, 10);
    fixture_write(*state, CELL "/run=0.requests.jsonl", "not read");
    fixture_write(*state, CELL "/run=x.json", "not read");
    fixture_write(*state, CELL "/.run=1.json.7.tmp", "not read");
    fixture_write(*state, "report.md", "not read");
    struct qd_cell_list cells = read_cells(*state);
    assert_int_equal(cells.n, 1);
    assert_int_equal(cells.cells[0].n_runs, 1);
    qd_cell_list_free(&cells);
}

static void test_summaries(void **state)
{
    char err[QD_ERR_LEN] = "";
    write_run(*state, 1, 1, 64, 0, 10);
    write_run(*state, 1, 1, 64, 1, 20);
    struct qd_failure f = {.kind = QD_FAILURE_TIMEOUT,
                           .tp = 2,
                           .dp = 1,
                           .budget = 64,
                           .run_number = 0,
                           .phase = "run",
                           .exit_code = -1,
                           .signal = 9,
                           .needed_bytes = -1,
                           .available_bytes = -1,
                           .reason = "longer than 60 s, \"stopped\""};
    write_failure(*state, &f);
    ASSERT_OK(qd_summary_write(*state, err, sizeof err), err);
    /* summary.json: the list of runs, each with its number and the keys that vLLM's plotters read. */
    char *path = qd_path_join(*state, CELL "/summary.json");
    cJSON *list = NULL;
    ASSERT_OK(qd_json_read_file(path, 1 << 20, &list, err, sizeof err), err);
    assert_int_equal(cJSON_GetArraySize(list), 2);
    assert_int_equal(cJSON_GetObjectItem(list->child->next, "run_number")->valueint, 1);
    assert_int_equal(cJSON_GetObjectItem(list->child, "tensor_parallel_size")->valueint, 1);
    cJSON_Delete(list);
    free(path);
    /* summary.csv: the published columns first, and it reads back as the same cells. */
    char *text = fixture_read(*state, "summary.csv");
    assert_int_equal(strncmp(text,
                             "TP,DP,PP,max_num_batched_tokens,overall_throughput_tokens_per_sec,"
                             "total_latency_p50_ms,total_latency_p99_ms,ttft_p50_ms,ttft_p99_ms,"
                             "inter_token_p50_ms,inter_token_p99_ms,output_tok_s,",
                             176),
                     0);
    struct qd_cell_list direct = read_cells(*state), through_csv;
    ASSERT_OK(qd_report_csv_parse("summary.csv", text, strlen(text), &through_csv, err, sizeof err), err);
    assert_int_equal(through_csv.n, 2);
    for (int m = 0; m < QD_N_METRICS; m++)
        assert_true(through_csv.cells[0].values[m].median == direct.cells[0].values[m].median);
    assert_int_equal(through_csv.cells[0].n_runs, 2);
    assert_int_equal(through_csv.cells[1].status, QD_CELL_TIMEOUT);
    assert_string_equal(through_csv.cells[1].reason, direct.cells[1].reason);
    ASSERT_CONTAINS(direct.cells[1].reason, "\"stopped\"");
    qd_cell_list_free(&direct);
    qd_cell_list_free(&through_csv);
    free(text);
}

/* Only what changed is read and written again, and the table is as if all had been. */
static void test_summaries_grow_by_cells(void **state)
{
    char err[QD_ERR_LEN] = "";
    struct qd_summary summary;
    write_run(*state, 2, 1, 64, 0, 20);
    ASSERT_OK(qd_summary_open(&summary, *state, err, sizeof err), err);
    write_run(*state, 1, 1, 64, 0, 10);
    ASSERT_OK(qd_summary_update(&summary, CELL, err, sizeof err), err);
    write_run(*state, 1, 1, 64, 1, 12);
    ASSERT_OK(qd_summary_update(&summary, CELL, err, sizeof err), err);
    assert_int_equal(summary.cells.n, 2);
    char *grown = fixture_read(*state, "summary.csv"),
         *grown_cell = fixture_read(*state, CELL "/summary.json");
    char *other = qd_path_join(*state, "tp=2-dp=1-max_num_batched_tokens=64/summary.json");
    assert_int_not_equal(access(other, F_OK), 0);
    ASSERT_OK(qd_summary_write(*state, err, sizeof err), err);
    char *whole = fixture_read(*state, "summary.csv"),
         *whole_cell = fixture_read(*state, CELL "/summary.json");
    assert_string_equal(grown, whole);
    assert_string_equal(grown_cell, whole_cell);
    assert_int_equal(access(other, F_OK), 0);
    fixture_write(*state, CELL "/run=1.json", "{");
    assert_int_equal(qd_summary_update(&summary, CELL, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "run=1.json");
    qd_summary_close(&summary);
    free(other);
    free(grown);
    free(grown_cell);
    free(whole);
    free(whole_cell);
}

static void test_the_summary_of_nothing_is_empty(void **state)
{
    char err[QD_ERR_LEN] = "", *nowhere = qd_path_join(*state, "nowhere");
    struct qd_summary summary;
    ASSERT_OK(qd_summary_open(&summary, *state, err, sizeof err), err);
    assert_int_equal(summary.cells.n, 0);
    qd_summary_close(&summary);
    assert_int_equal(qd_summary_open(&summary, nowhere, err, sizeof err), QD_ERR_NOT_FOUND);
    assert_null(summary.cells.cells);
    free(nowhere);
}

static void test_experiment(void **state)
{
    char err[QD_ERR_LEN] = "", *path = qd_path_join(*state, "experiment.json");
    struct qd_experiment e = {.date = "20260102-030405", .commit = "abc", .n_repeats = 3};
    struct qd_matrix matrix;
    int n_repeats;
    ASSERT_OK(qd_matrix_parse("tp=1,2;dp=1,4;budget=64,256;gpus=4", &e.matrix, err, sizeof err), err);
    ASSERT_OK(qd_experiment_write(&e, path, err, sizeof err), err);
    ASSERT_OK(qd_experiment_read_matrix(path, &matrix, &n_repeats, err, sizeof err), err);
    assert_int_equal(n_repeats, 3);
    assert_int_equal(matrix.dp.value[1], 4);
    assert_int_equal(matrix.budget.n, 2);
    assert_int_equal(matrix.max_gpus, 4);
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"{\"schema_version\": 1, \"repeats\": 0}", "repeats"},
        {"{\"schema_version\": 1, \"repeats\": 1}", "matrix.tensor_parallel_size: is not a list"},
        {"{\"schema_version\": 1, \"repeats\": 1, \"matrix\": {\"tensor_parallel_size\": [1.5]}}",
         "matrix.tensor_parallel_size: holds something that is not 1 to 65536"},
        {"{\"schema_version\": 1, \"repeats\": 1, \"matrix\": {\"tensor_parallel_size\": [1], "
         "\"data_parallel_size\": []}}",
         "matrix.data_parallel_size: is not a list"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fixture_write(*state, "experiment.json", cases[i].text);
        assert_int_equal(qd_experiment_read_matrix(path, &matrix, &n_repeats, err, sizeof err), QD_ERR_INPUT);
        ASSERT_CONTAINS(err, "experiment.json: ");
        ASSERT_CONTAINS(err, cases[i].reason);
    }
    free(path);
}

/* Files of schema 1 as they were written: a change of names or units must not go unnoticed. */
static void test_kept_files_are_still_read(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_report_data data;
    ASSERT_OK(qd_report_data_load("tests/data/results/schema-1", NULL, &data, err, sizeof err), err);
    assert_int_equal(data.matrix_source, QD_MATRIX_RECORDED);
    assert_int_equal(data.cells.n, 2);
    const struct qd_cell *run = &data.cells.cells[0], *refused = &data.cells.cells[1];
    const double expected[QD_N_METRICS] = {20 / 0.012, 20 / 0.012, 5 / 0.012, 5 / 0.012, 10,
                                           10,         0.5,        0.5,       12,        12};
    for (int m = 0; m < QD_N_METRICS; m++)
        if (!(fabs(run->values[m].median - expected[m]) < 1e-9 * expected[m]))
            fail_msg("%s: %.17g", qd_metric_info((enum qd_metric)m)->label, run->values[m].median);
    assert_int_equal(refused->status, QD_CELL_REFUSED);
    ASSERT_CONTAINS(refused->reason, "weights and KV need 4.0 GB");
    assert_string_equal(qd_origin_list_find(&data.origins, "")->model, "micro");
    qd_report_data_free(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_runs_become_median_and_range),
        WITH_FOLDER(test_a_run_without_a_completed_request_is_no_measurement),
        WITH_FOLDER(test_failures_are_written_and_read),
        WITH_FOLDER(test_last_lines_of_little_text),
        WITH_FOLDER(test_refused_cells_keep_their_reason),
        WITH_FOLDER(test_broken_failure_files),
        WITH_FOLDER(test_broken_runs),
        WITH_FOLDER(test_runs_of_another_cell),
        WITH_FOLDER(test_two_folders_with_one_cell),
        WITH_FOLDER(test_folders_without_cells),
        WITH_FOLDER(test_other_files_are_left_alone),
        WITH_FOLDER(test_summaries),
        WITH_FOLDER(test_summaries_grow_by_cells),
        WITH_FOLDER(test_the_summary_of_nothing_is_empty),
        WITH_FOLDER(test_experiment),
        cmocka_unit_test(test_kept_files_are_still_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
