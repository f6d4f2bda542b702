/* The report of our own sweeps: ties within the runs' spread, marks, missing cells with reasons, matrices. */
#include "tests/support/test.h"

#include "harness/report/report.h"
#include "harness/report/table.h"
#include "harness/result/experiment.h"
#include "harness/result/failure.h"
#include "harness/result/files.h"
#include "tests/support/result_fixture.h"

/* Three runs with first tokens after a, b and c ms. */
static void write_runs(const char *folder, int tp, int dp, int64_t budget, double a, double b, double c)
{
    const double ttft_ms[] = {a, b, c};
    for (int i = 0; i < 3; i++) {
        struct fixture_run run;
        fixture_run_init(&run, tp, dp, budget, ttft_ms[i], 4);
        fixture_run_write(&run, folder, i);
    }
}

static char *report(const char *path, const char *matrix)
{
    char err[QD_ERR_LEN] = "", *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    ASSERT_OK(qd_report_write(path, matrix, out, err, sizeof err), err);
    fclose(out);
    return text;
}

static void test_ties_are_named(void **state)
{
    write_runs(*state, 1, 1, 64, 10, 11, 12);
    write_runs(*state, 1, 2, 64, 12, 13, 14); /* touches 12: tied */
    write_runs(*state, 2, 1, 64, 40, 41, 42); /* does not */
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text, "- TTFT p50: tied within the runs' spread with TP1 DP2, budget 64 (13.00).\n");
    free(text);
}

static void test_separated_cells_are_said_to_be(void **state)
{
    write_runs(*state, 1, 1, 64, 10, 11, 12);
    write_runs(*state, 1, 2, 64, 20, 21, 22);
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(
        text, "- TTFT p50: next is TP1 DP2, budget 64 with 21.00 (+90.9 %); beyond the runs' spread.\n");
    ASSERT_CONTAINS(text,
                    "**Fastest first token**: TP1 DP1, budget 64. Evidence: TTFT p50 11.00 ms; beyond the "
                    "runs' spread against the next best (21.00 at TP1 DP2, budget 64).");
    assert_null(strstr(text, "Nothing was measured twice"));
    free(text);
}

/* Of tied cells the recommendation takes the one with the fewest GPUs. */
static void test_a_tie_is_decided_by_gpus(void **state)
{
    write_runs(*state, 1, 1, 64, 11, 12, 13);
    write_runs(*state, 1, 2, 64, 10, 11, 12);
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text,
                    "The first token comes soonest at TP1 DP2, budget 64 (11.00 ms), tied with others.");
    ASSERT_CONTAINS(text,
                    "**Fastest first token**: TP1 DP1, budget 64. Evidence: TTFT p50 12.00 ms, tied with the "
                    "best (11.00 at TP1 DP2, budget 64)");
    free(text);
}

/* 6 ranks on 4 cores: in the table with its mark, and nowhere else, however fast it looks. */
static void test_more_ranks_than_cores_carry_no_conclusion(void **state)
{
    write_runs(*state, 1, 2, 64, 10, 11, 12);
    write_runs(*state, 2, 1, 64, 20, 21, 22);
    write_runs(*state, 2, 3, 64, 1, 1, 1);
    write_runs(*state, 3, 2, 64, 2, 2, 2);
    char *text = report(*state, "tp=1,2,3;dp=1,2,3;budget=64;gpus=6");
    ASSERT_CONTAINS(text, "2 measured cells have more ranks than cores or GPUs");
    ASSERT_CONTAINS(text, "- mark a, 2 cells: more ranks than cores: no TP or DP conclusion");
    ASSERT_CONTAINS(text, "**Nothing is recommended about 2 cells with more ranks than cores or GPUs**");
    ASSERT_CONTAINS(text, "**Fastest first token**: TP1 DP2, budget 64.");
    ASSERT_CONTAINS(text, "- TTFT p50, 1 comparisons: the split with the most data parallelism leads in 1");
    char *splits = strstr(text, "## Data parallelism against"), *budgets = strstr(text, "## Effect of");
    *budgets = '\0';
    assert_null(strstr(splits, "TP2 DP3"));
    free(text);
}

/* A run of 10 steps with a ledger: wall 50 ms, of that the device `span_ms`, floor 20 ms where `has_floor`.
 */
static void write_ledger_run(const char *folder, int dp, int run_number, double span_ms, bool has_floor)
{
    struct fixture_run run;
    struct qd_ledger_rows rows = {.limits = {.machine = "m", .memory_gbps = 1, .gflops = 1}};
    rows.floor_ns[QD_SEGMENT_LINEAR] = 15e6, rows.floor_ns[QD_SEGMENT_ATTENTION] = 5e6;
    rows.compute_floor_ns[QD_SEGMENT_ATTENTION] = 5e6;
    fixture_run_init(&run, 1, dp, 64, 10 + run_number, 4);
    run.result.ledger.n_steps = 10;
    run.result.ledger.rows = has_floor ? &rows : NULL;
    run.result.ledger.waterfall = (struct qd_waterfall){.floor = has_floor ? 20e6 : NAN,
                                                        .kernels = NAN,
                                                        .gaps = NAN,
                                                        .span = span_ms * 1e6,
                                                        .exposed_host = (45 - span_ms) * 1e6,
                                                        .idle = 5e6,
                                                        .wall = 50e6};
    fixture_run_write(&run, folder, run_number);
}

static void test_waterfalls_are_shown_where_there_are_some(void **state)
{
    const double spans_ms[] = {30, 36, 33};
    for (int i = 0; i < 3; i++) write_ledger_run(*state, 1, i, spans_ms[i], true);
    write_ledger_run(*state, 2, 0, 40, false);
    write_runs(*state, 2, 1, 64, 10, 11, 12);
    char *text = report(*state, NULL);
    char *section = strstr(text, "## Where the time went"), *next = strstr(text, "## Missing configurations");
    assert_non_null(section);
    assert_true(section < next);
    *next = '\0';
    ASSERT_CONTAINS(
        section, "|   1 |   1 |     64 | 2.0000 | memory |     n/a |  n/a | 3.3000 |    1.65 |       1.2000 |"
                 " 0.5000 | 5.0000 | 73.3 % |");
    ASSERT_CONTAINS(
        section, "|   1 |   2 |     64 |    n/a | n/a    |     n/a |  n/a | 4.0000 |     n/a |       0.5000 |"
                 " 0.5000 | 5.0000 | 88.9 % |");
    assert_null(strstr(section, "|   2 |   1 |"));
    free(text);
}

static void test_a_broken_waterfall_is_refused(void **state)
{
    char err[QD_ERR_LEN] = "";
    write_ledger_run(*state, 1, 0, 30, true);
    char *text = fixture_read(*state, "tp=1-dp=1-max_num_batched_tokens=64/run=0.json"),
         *at = strstr(text, "\"span\":");
    assert_non_null(at);
    memcpy(at, "\"SPAN\":", 7);
    fixture_write(*state, "tp=1-dp=1-max_num_batched_tokens=64/run=0.json", text);
    free(text);
    FILE *out = fopen("/dev/null", "w");
    assert_int_equal(qd_report_write(*state, NULL, out, err, sizeof err), QD_ERR_INPUT);
    fclose(out);
    ASSERT_CONTAINS(err, "qdyno/ledger/waterfall_ns/span: is no number");
}

static void test_only_marked_cells(void **state)
{
    write_runs(*state, 3, 2, 64, 2, 2, 2);
    char *text = report(*state, "tp=3;dp=2;budget=64");
    ASSERT_CONTAINS(text, "No cell carries a conclusion");
    ASSERT_CONTAINS(text, "No two unmarked cells share");
    free(text);
}

static void test_missing_cells_have_their_reason(void **state)
{
    char err[QD_ERR_LEN] = "";
    write_runs(*state, 1, 1, 64, 10, 11, 12);
    struct qd_failure f = {.kind = QD_FAILURE_REFUSED,
                           .tp = 2,
                           .dp = 1,
                           .budget = 64,
                           .run_number = -1,
                           .phase = "validate",
                           .exit_code = -1,
                           .needed_bytes = -1,
                           .available_bytes = -1,
                           .reason = "3 heads | not divisible by 2"};
    char *cell = qd_path_join(*state, "tp=2-dp=1-max_num_batched_tokens=64");
    char *failed = qd_path_join(cell, "failed.json"), *experiment = qd_path_join(*state, "experiment.json");
    ASSERT_OK(qd_folder_create(cell, err, sizeof err), err);
    ASSERT_OK(qd_failure_write(&f, failed, err, sizeof err), err);
    struct qd_experiment e = {.n_repeats = 3};
    ASSERT_OK(qd_matrix_parse("tp=1,2;dp=1;budget=64,256", &e.matrix, err, sizeof err), err);
    ASSERT_OK(qd_experiment_write(&e, experiment, err, sizeof err), err);
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text,
                    "the one recorded in experiment.json: 4 cells, of which 1 are measured and 3 are not");
    ASSERT_CONTAINS(text, "3 of 4 expected cells are missing");
    ASSERT_CONTAINS(
        text, "|   2 |   1 |     64 | refused | refused in phase validate: 3 heads \\| not divisible by 2 |");
    ASSERT_CONTAINS(text, "|   2 |   1 |    256 | missing | not recorded ");
    free(text);
    /* --matrix has the last word. */
    text = report(*state, "tp=1;dp=1;budget=64");
    ASSERT_CONTAINS(text, "given with --matrix: 1 cells, of which 1 are measured and 0 are not");
    free(text);
    free(experiment);
    free(failed);
    free(cell);
}

static void test_the_setting_is_told(void **state)
{
    write_runs(*state, 1, 1, 64, 10, 11, 12);
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text, "| Model    | micro ");
    ASSERT_CONTAINS(text, "| Test CPU (avx2 fma), 4 of 8 logical cores, 8.0 GiB, Linux ");
    ASSERT_CONTAINS(text, "| cpu, avx2, numerics fused, 4 threads ");
    ASSERT_CONTAINS(text, "| abc123 (version 0.0) ");
    ASSERT_CONTAINS(
        text, "| closed, 4 requests, concurrency 2, hash 0123456789abcdef, 40 tokens in, 20 tokens out |");
    ASSERT_CONTAINS(text, "| 1 before each run, not counted ");
    free(text);
}

/* What is measured anew in every run is one text with its range, however many runs there are. */
static void test_probes_and_token_counts_are_ranges(void **state)
{
    for (int i = 0; i < 20; i++) {
        struct fixture_run run;
        fixture_run_init(&run, 1, 1, 64, 10, 4);
        run.result.probed_read_gbps = 28.2 + 0.2 * i;
        run.records[0].success = i != 7;
        fixture_run_finish(&run);
        fixture_run_write(&run, *state, i);
    }
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text,
                    "| cpu, avx2, numerics fused, 4 threads, 28.2 to 32.0 GB/s probed read bandwidth  ");
    ASSERT_CONTAINS(text, "hash 0123456789abcdef, 30 to 40 tokens in, 15 to 20 tokens out |");
    free(text);
}

/* More commits than there is room for: whole ones, and that there are others. */
static void test_what_has_no_room_is_said_to_be_left_out(void **state)
{
    for (int i = 0; i < 20; i++) {
        char commit[32];
        struct fixture_run run;
        fixture_run_init(&run, 1, 1, 64, 10, 4);
        snprintf(commit, sizeof commit, "commit%02d", i);
        run.result.commit = commit;
        fixture_run_write(&run, *state, i);
    }
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text, "| commit00 (version 0.0); commit01 (version 0.0); ");
    ASSERT_CONTAINS(text, " (version 0.0); and others |");
    free(text);
}

/* A folder's name is shown whole. */
static void test_a_long_path_is_shown_whole(void **state)
{
    char name[201], path[1024];
    memset(name, 'd', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(path, sizeof path, "%s/%s/%s/%s", (char *)*state, name, name, name);
    write_runs(path, 1, 1, 64, 10, 11, 12);
    char *text = report(path, NULL);
    ASSERT_CONTAINS(text, path);
    free(text);
}

/* Runs of two commits in one directory are both named. */
static void test_mixed_commits_are_told(void **state)
{
    write_runs(*state, 1, 1, 64, 10, 11, 12);
    struct fixture_run run;
    fixture_run_init(&run, 1, 1, 64, 10, 4);
    run.result.commit = "def456";
    fixture_run_write(&run, *state, 3);
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text, "| abc123 (version 0.0); def456 (version 0.0) ");
    free(text);
}

static void test_effect_of_the_budget_with_repeats(void **state)
{
    write_runs(*state, 1, 1, 64, 10, 11, 12);
    write_runs(*state, 1, 1, 256, 20, 21, 22);
    write_runs(*state, 1, 2, 64, 10, 11, 12);
    write_runs(*state, 1, 2, 256, 11, 12, 13);
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text,
                    "- TTFT p50: better with the largest budget in 0 of 2 pairs, worse in 2 (+9.09 % to "
                    "+90.91 %); 1 of the changes are beyond the runs' spread.");
    ASSERT_CONTAINS(text, "| beyond spread ");
    ASSERT_CONTAINS(text, "| within spread ");
    free(text);
}

static void test_one_cell_makes_a_report(void **state)
{
    struct fixture_run run;
    fixture_run_init(&run, 1, 1, 64, 10, 4);
    fixture_run_write(&run, *state, 0);
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text, "No (TP, DP) pair was measured with two budgets");
    ASSERT_CONTAINS(text, "it is the only cell that carries a conclusion");
    ASSERT_CONTAINS(text, "0 of 1 expected cells are missing");
    free(text);
}

static void test_nothing_is_written_when_reading_fails(void **state)
{
    char err[QD_ERR_LEN] = "", *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    assert_int_equal(qd_report_write(*state, NULL, out, err, sizeof err), QD_ERR_NOT_FOUND);
    assert_int_equal(qd_report_write(*state, "tp=1", out, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "matrix: 'tp=1' lacks dp");
    assert_int_equal(qd_report_write(*state, "tp=1-256;dp=1-256;budget=1", out, err, sizeof err),
                     QD_ERR_NOT_FOUND);
    write_runs(*state, 1, 1, 64, 10, 11, 12);
    assert_int_equal(qd_report_write(*state, "tp=1-256;dp=1-256;budget=1", out, err, sizeof err),
                     QD_ERR_TOO_LARGE);
    ASSERT_CONTAINS(err, "more than 20000 cells");
    fclose(out);
    assert_int_equal(len, 0);
    free(text);
}

/* Columns line up in characters, not bytes, and cells cannot break the table. */
static void test_tables_are_aligned(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    struct qd_table table;
    qd_table_init(&table, "lr");
    qd_table_add(&table, "name");
    qd_table_add(&table, "n");
    qd_table_add(&table, "caf\xc3\xa9|x\ny");
    qd_table_add(&table, "%d", 12345);
    assert_int_equal(qd_table_print(&table, out), QD_OK);
    fclose(out);
    assert_string_equal(text, "| name      |     n |\n"
                              "|:--------- | -----:|\n"
                              "| caf\xc3\xa9\\|x y | 12345 |\n\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_ties_are_named),
        WITH_FOLDER(test_separated_cells_are_said_to_be),
        WITH_FOLDER(test_a_tie_is_decided_by_gpus),
        WITH_FOLDER(test_more_ranks_than_cores_carry_no_conclusion),
        WITH_FOLDER(test_waterfalls_are_shown_where_there_are_some),
        WITH_FOLDER(test_a_broken_waterfall_is_refused),
        WITH_FOLDER(test_only_marked_cells),
        WITH_FOLDER(test_missing_cells_have_their_reason),
        WITH_FOLDER(test_the_setting_is_told),
        WITH_FOLDER(test_probes_and_token_counts_are_ranges),
        WITH_FOLDER(test_what_has_no_room_is_said_to_be_left_out),
        WITH_FOLDER(test_a_long_path_is_shown_whole),
        WITH_FOLDER(test_mixed_commits_are_told),
        WITH_FOLDER(test_effect_of_the_budget_with_repeats),
        WITH_FOLDER(test_one_cell_makes_a_report),
        WITH_FOLDER(test_nothing_is_written_when_reading_fails),
        WITH_FOLDER(test_tables_are_aligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
