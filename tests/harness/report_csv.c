/* Every way in which a CSV can be wrong has its own message, with file, line and column. */
#include "tests/support/test.h"

#include "harness/report/data.h"
#include "harness/result/csv.h"
#include "tests/support/result_fixture.h"

#define HEADER                                                                                               \
    "TP,DP,PP,max_num_batched_tokens,overall_throughput_tokens_per_sec,total_latency_p50_ms,"                \
    "total_latency_p99_ms,ttft_p50_ms,ttft_p99_ms,inter_token_p50_ms,inter_token_p99_ms\n"
#define ROW(tp, dp, budget) tp "," dp ",1," budget ",19.75,50818,51936,3577,6589,44.5,47.2\n"

static qd_status parse(const char *text, struct qd_cell_list *cells, char *err)
{
    return qd_report_csv_parse("f.csv", text, strlen(text), cells, err, QD_ERR_LEN);
}

static void check_refused(const char *text, const char *where, const char *reason)
{
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    assert_int_equal(parse(text, &cells, err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, where);
    ASSERT_CONTAINS(err, reason);
    assert_null(cells.cells);
}

static void test_a_good_file(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    ASSERT_OK(parse(HEADER ROW("2", "1", "64") ROW("1", "1", "64"), &cells, err), err);
    assert_int_equal(cells.n, 2);
    assert_int_equal(cells.cells[0].tp, 1); /* sorted */
    assert_true(cells.cells[1].values[QD_METRIC_ITL_P99].median == 47.2);
    assert_int_equal(cells.cells[0].values[QD_METRIC_OUTPUT_TOK_S].n, 0);
    qd_cell_list_free(&cells);
}

/* Byte order mark, CRLF, quotes, blank lines, other column order, further columns, no last line end. */
static void test_the_forms_csv_has_in_the_wild(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    const char *text =
        "\xEF\xBB\xBF\"note\",DP,TP,PP,max_num_batched_tokens,overall_throughput_tokens_per_sec,"
        "total_latency_p50_ms,total_latency_p99_ms,ttft_p50_ms,ttft_p99_ms,inter_token_p50_ms,"
        "inter_token_p99_ms\r\n\r\n\"a, \"\"b\"\"\nc\",2,1,1,64,1e1,2,3,4,5,6,7\r\n"
        "x,4,1,1,64,1,2,3,4,5,6,+7.5";
    ASSERT_OK(parse(text, &cells, err), err);
    assert_int_equal(cells.n, 2);
    assert_int_equal(cells.cells[0].dp, 2);
    assert_true(cells.cells[0].values[QD_METRIC_PER_REQUEST_TOK_S].median == 10);
    assert_true(cells.cells[1].values[QD_METRIC_ITL_P99].median == 7.5);
    qd_cell_list_free(&cells);
}

static void test_empty_files(void **state)
{
    (void)state;
    check_refused("", "f.csv: ", "is empty");
    check_refused("\n\n", "f.csv: ", "is empty");
    check_refused(HEADER, "f.csv: ", "has a header but no rows");
}

static void test_missing_columns(void **state)
{
    (void)state;
    check_refused("TP,DP,PP\n1,1,1\n", "f.csv:1: ", "column");
    check_refused("a\n1\n", "f.csv:1: ", "is missing");
    check_refused("TP,DP,PP,max_num_batched_tokens,overall_throughput_tokens_per_sec,total_latency_p50_ms,"
                  "total_latency_p99_ms,ttft_p50_ms,ttft_p99_ms,inter_token_p99_ms\n1,1,1,64,1,2,3,4,5,6\n",
                  "f.csv:1: ", "column 'inter_token_p50_ms' is missing");
    check_refused("TP,TP\n1,1\n", "f.csv:1: ", "column 'TP' is there twice");
}

static void test_fields_that_are_no_numbers(void **state)
{
    (void)state;
    check_refused(HEADER "1,1,1,64,fast,2,3,4,5,6,7\n", "f.csv:2: column 'overall_throughput_tokens_per_sec'",
                  "'fast' is not a number");
    check_refused(HEADER "1,1,1,64,1,2,3,4,5,6,7ms\n", "column 'inter_token_p99_ms'",
                  "'7ms' is not a number");
    check_refused(HEADER "1,1,1,64,nan,2,3,4,5,6,7\n", "f.csv:2: ", "'nan' is not a number");
    check_refused(HEADER "1,1,1,64,inf,2,3,4,5,6,7\n", "f.csv:2: ", "'inf' is not a number");
    check_refused(HEADER "1,1,1,64,0x10,2,3,4,5,6,7\n", "f.csv:2: ", "'0x10' is not a number");
    check_refused(HEADER "1,1,1,64,1e999,2,3,4,5,6,7\n", "f.csv:2: ", "out of range");
    check_refused(HEADER "1,1,1,64,,2,3,4,5,6,7\n", "f.csv:2: ", "is empty");
    check_refused(HEADER "1.5,1,1,64,1,2,3,4,5,6,7\n", "column 'TP'", "is not a whole number");
    check_refused(HEADER "-1,1,1,64,1,2,3,4,5,6,7\n", "column 'TP'", "is not a whole number");
    check_refused(HEADER "0,1,1,64,1,2,3,4,5,6,7\n", "column 'TP'", "out of range");
    check_refused(HEADER "1,99999999999999999999,1,64,1,2,3,4,5,6,7\n", "column 'DP'", "out of range");
    check_refused(HEADER "1,1,2,64,1,2,3,4,5,6,7\n", "column 'PP'", "pipeline parallelism");
}

/* A failed cell must not pass for a fast one. */
static void test_zero_and_negative_are_no_measurements(void **state)
{
    (void)state;
    check_refused(HEADER "1,1,1,64,1,2,3,0,5,6,7\n", "f.csv:2: column 'ttft_p50_ms'", "no measurement");
    check_refused(HEADER ROW("1", "1", "64") "1,2,1,64,1,2,3,-4,5,6,7\n", "f.csv:3: ", "no measurement");
}

static void test_duplicate_rows_name_both_lines(void **state)
{
    (void)state;
    check_refused(HEADER ROW("1", "1", "64") ROW("1", "2", "64") "\n" ROW("01", "1", "64"),
                  "f.csv:5: ", "TP 1 DP 1 max_num_batched_tokens 64 is already in line 2");
}

static void test_broken_lines(void **state)
{
    (void)state;
    check_refused(HEADER "1,1,1\n", "f.csv:2: ", "3 fields where the header has 11");
    check_refused(HEADER "\"1,1,1\n", "f.csv:2: ", "does not end");
    check_refused(HEADER "\"1\"x,1\n", "f.csv:2: ", "text behind a quoted field");
    check_refused(HEADER "1\"x,1\n", "f.csv:2: ", "a quote inside");
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    assert_int_equal(qd_report_csv_parse("f.csv", "TP\0DP\n", 6, &cells, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "not a text file");
}

static void test_huge_files_are_refused_before_they_are_read(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", *folder = fixture_folder_create(), path[256];
    snprintf(path, sizeof path, "%s/huge.csv", folder);
    fixture_write(folder, "huge.csv", "x");
    assert_int_equal(truncate(path, (off_t)QD_CSV_MAX_BYTES + 1), 0);
    struct qd_report_data data;
    assert_int_equal(qd_report_data_load(path, NULL, &data, err, sizeof err), QD_ERR_TOO_LARGE);
    ASSERT_CONTAINS(err, path);
    fixture_folder_remove(folder);
    struct qd_cell_list cells;
    char *wide = malloc(4096);
    memset(wide, ',', 4095);
    wide[4095] = '\0';
    assert_int_equal(parse(wide, &cells, err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "more than 256 columns");
    free(wide);
}

static void test_too_many_rows(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", *text = malloc(4 * (QD_CSV_MAX_ROWS + 10)), *p = text;
    struct qd_cell_list cells;
    for (int i = 0; i < QD_CSV_MAX_ROWS + 2; i++)
        p += sprintf(p, "1\n");
    assert_int_equal(parse(text, &cells, err), QD_ERR_TOO_LARGE);
    ASSERT_CONTAINS(err, "more than 2097152 rows");
    free(text);
}

static void test_files_that_are_not_there(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_report_data data;
    assert_int_equal(qd_report_data_load("no/such.csv", NULL, &data, err, sizeof err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "no/such.csv");
}

/* Only a file with a status column may leave values empty. */
static void test_status_column_allows_empty_values(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_cell_list cells;
    const char *header =
        "TP,DP,PP,max_num_batched_tokens,overall_throughput_tokens_per_sec,total_latency_p50_ms,"
        "total_latency_p99_ms,ttft_p50_ms,ttft_p99_ms,inter_token_p50_ms,inter_token_p99_ms,"
        "status,reason\n";
    char text[1024];
    snprintf(text, sizeof text, "%s1,1,1,64,,,,,,,,refused,\"does not fit, by 3 GiB\"\n", header);
    ASSERT_OK(parse(text, &cells, err), err);
    assert_int_equal(cells.cells[0].status, QD_CELL_REFUSED);
    assert_string_equal(cells.cells[0].reason, "does not fit, by 3 GiB");
    assert_int_equal(cells.cells[0].values[QD_METRIC_TTFT_P50].n, 0);
    qd_cell_list_free(&cells);
    snprintf(text, sizeof text, "%s1,1,1,64,,,,,,,,happy,\n", header);
    check_refused(text, "column 'status'", "is not a status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_file),
        cmocka_unit_test(test_the_forms_csv_has_in_the_wild),
        cmocka_unit_test(test_empty_files),
        cmocka_unit_test(test_missing_columns),
        cmocka_unit_test(test_fields_that_are_no_numbers),
        cmocka_unit_test(test_zero_and_negative_are_no_measurements),
        cmocka_unit_test(test_duplicate_rows_name_both_lines),
        cmocka_unit_test(test_broken_lines),
        cmocka_unit_test(test_huge_files_are_refused_before_they_are_read),
        cmocka_unit_test(test_too_many_rows),
        cmocka_unit_test(test_files_that_are_not_there),
        cmocka_unit_test(test_status_column_allows_empty_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
