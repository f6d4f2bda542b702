/* The report of the published CSV prints that report's own numbers, one test each. */
#include "tests/support/test.h"

#include "harness/report/analysis.h"
#include "harness/report/report.h"

static const char CSV[] = "bench/baselines/published-qwen3-8b/benchmark_results_summary.csv";

struct fixture {
    struct qd_report_data data;
    char *text;
};

static int setup(void **state)
{
    char err[QD_ERR_LEN] = "";
    struct fixture *f = calloc(1, sizeof *f);
    size_t len;
    FILE *out = open_memstream(&f->text, &len);
    if (qd_report_data_load(CSV, NULL, &f->data, err, sizeof err) != QD_OK ||
        qd_report_markdown(&f->data, out) != QD_OK) {
        fprintf(stderr, "%s\n", err);
        return -1;
    }
    fclose(out);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    qd_report_data_free(&f->data);
    free(f->text);
    free(f);
    return 0;
}

/* The line that holds `needle`; fails when there is none. */
static const char *line_with(const char *text, const char *needle, char *line, size_t room)
{
    const char *found = strstr(text, needle);
    if (found == NULL) fail_msg("no line with \"%s\"", needle);
    const char *begin = found;
    while (begin > text && begin[-1] != '\n')
        begin--;
    snprintf(line, room, "%.*s", (int)strcspn(begin, "\n"), begin);
    return line;
}

static void check_best(struct fixture *f, enum qd_metric metric, const char *label, const char *value, int tp,
                       int dp, int budget)
{
    const struct qd_cell *best = qd_find_best(&f->data, metric);
    assert_non_null(best);
    assert_int_equal(best->tp, tp);
    assert_int_equal(best->dp, dp);
    assert_int_equal(best->budget, budget);
    char line[512], cells[64];
    line_with(f->text, label, line, sizeof line);
    ASSERT_CONTAINS(line, value);
    snprintf(cells, sizeof cells, "|   %d |   %d |", tp, dp);
    ASSERT_CONTAINS(line, cells);
    snprintf(cells, sizeof cells, " %d |", budget);
    ASSERT_CONTAINS(line, cells);
}

static void test_best_per_request_rate(void **state)
{
    check_best(*state, QD_METRIC_PER_REQUEST_TOK_S, "| per-request tok/s (higher)", " 29.90 |", 2, 4, 4096);
}

static void test_best_ttft(void **state)
{
    check_best(*state, QD_METRIC_TTFT_P50, "| TTFT p50 (lower)", " 1081.40 |", 1, 8, 4096);
}

static void test_best_itl(void **state)
{
    check_best(*state, QD_METRIC_ITL_P50, "| ITL p50 (lower)", " 24.85 |", 2, 2, 40960);
}

static void test_best_latency(void **state)
{
    check_best(*state, QD_METRIC_E2EL_P50, "| E2EL p50 (lower)", " 30840.69 |", 2, 4, 4096);
}

/* Change of per-request tok/s from budget 4096 to 73728, in the row of (TP, DP). */
static void check_change(struct fixture *f, int tp, int dp, const char *percent)
{
    char row[64], line[512];
    snprintf(row, sizeof row, "|   %d |   %d | 4096 to 73728 |", tp, dp);
    line_with(f->text, row, line, sizeof line);
    /* The first figure of the row. */
    const char *figure = line + strlen(row);
    figure += strspn(figure, " ");
    if (strncmp(figure, percent, strlen(percent)) != 0) fail_msg("expected %s first in: %s", percent, line);
}

#define CHANGE_TEST(name, tp, dp, percent)                                                                   \
    static void name(void **state)                                                                           \
    {                                                                                                        \
        check_change(*state, tp, dp, percent);                                                               \
    }
CHANGE_TEST(test_change_tp1_dp1, 1, 1, "-0.74 %")
CHANGE_TEST(test_change_tp1_dp2, 1, 2, "-6.11 %")
CHANGE_TEST(test_change_tp1_dp4, 1, 4, "-3.41 %")
CHANGE_TEST(test_change_tp1_dp8, 1, 8, "-0.68 %")
CHANGE_TEST(test_change_tp2_dp1, 2, 1, "-4.14 %")
CHANGE_TEST(test_change_tp2_dp2, 2, 2, "-11.07 %")
CHANGE_TEST(test_change_tp2_dp4, 2, 4, "-8.32 %")
CHANGE_TEST(test_change_tp4_dp2, 4, 2, "-14.48 %")
CHANGE_TEST(test_change_tp4_dp1, 4, 1, "+1.23 %")

static void test_four_of_forty_are_missing(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->data.n_expected, 40);
    assert_int_equal(f->data.n_expected_ok, 36);
    ASSERT_CONTAINS(f->text, "4 of 40 expected cells are missing");
    for (int i = 0; i < 4; i++) {
        static const int BUDGETS[] = {4096, 20480, 40960, 73728};
        const struct qd_cell *cell = qd_cell_list_find(&f->data.cells, "", 8, 1, BUDGETS[i]);
        assert_non_null(cell);
        assert_int_equal(cell->status, QD_CELL_MISSING);
    }
    char line[512];
    line_with(f->text, "|   8 |   1 |  40960 |", line, sizeof line);
    ASSERT_CONTAINS(line, "missing");
    ASSERT_CONTAINS(line, "not recorded");
}

static void test_the_matrix_is_said_to_be_inferred(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->data.matrix_source, QD_MATRIX_INFERRED);
    ASSERT_CONTAINS(f->text, "inferred: powers of two with TP x DP up to the largest seen");
}

/* The column is named what it is, and the word throughput appears only to say what it is not. */
static void test_the_rate_is_not_called_throughput(void **state)
{
    struct fixture *f = *state;
    ASSERT_CONTAINS(f->text, "sum of output tokens / sum of request latencies");
    for (const char *p = f->text; (p = strstr(p, "hroughput")) != NULL; p++) {
        const char *line = p;
        while (line > f->text && line[-1] != '\n')
            line--;
        ASSERT_CONTAINS(line, "It is no throughput");
    }
    ASSERT_CONTAINS(f->text, "output tok/s, tok/s/GPU and tok/s/user are not in the file");
}

static void test_nothing_is_certain_without_repeats(void **state)
{
    struct fixture *f = *state;
    ASSERT_CONTAINS(f->text, "no repeats: cannot be separated from noise");
    ASSERT_CONTAINS(f->text, "Nothing was measured twice");
    /* 25.17 and 25.19 against 24.85. */
    char line[2048];
    line_with(f->text, "- ITL p50: next is", line, sizeof line);
    ASSERT_CONTAINS(line, "too close to call: TP2 DP2, budget 4096 (25.19)");
    ASSERT_CONTAINS(line, "TP4 DP2, budget 40960 (25.17)");
}

/* 12 comparisons at equal GPUs and budget: DP is ahead in TTFT in all of them, TP in ITL in ten. */
static void test_dp_against_tp(void **state)
{
    struct fixture *f = *state;
    char line[512];
    ASSERT_CONTAINS(line_with(f->text, "- TTFT p50, 12 comparisons", line, sizeof line),
                    "most data parallelism leads in 12, with the most tensor parallelism in 0");
    ASSERT_CONTAINS(
        line_with(f->text, "- ITL p50, 12 comparisons", line, sizeof line),
        "most data parallelism leads in 0, with the most tensor parallelism in 10, one between in 2");
}

static void test_memory_is_not_blamed(void **state)
{
    struct fixture *f = *state;
    assert_null(strstr(f->text, "memory"));
    ASSERT_CONTAINS(f->text, "Nothing is recommended about the 4 missing cells");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_per_request_rate),
        cmocka_unit_test(test_best_ttft),
        cmocka_unit_test(test_best_itl),
        cmocka_unit_test(test_best_latency),
        cmocka_unit_test(test_change_tp1_dp1),
        cmocka_unit_test(test_change_tp1_dp2),
        cmocka_unit_test(test_change_tp1_dp4),
        cmocka_unit_test(test_change_tp1_dp8),
        cmocka_unit_test(test_change_tp2_dp1),
        cmocka_unit_test(test_change_tp2_dp2),
        cmocka_unit_test(test_change_tp2_dp4),
        cmocka_unit_test(test_change_tp4_dp2),
        cmocka_unit_test(test_change_tp4_dp1),
        cmocka_unit_test(test_four_of_forty_are_missing),
        cmocka_unit_test(test_the_matrix_is_said_to_be_inferred),
        cmocka_unit_test(test_the_rate_is_not_called_throughput),
        cmocka_unit_test(test_nothing_is_certain_without_repeats),
        cmocka_unit_test(test_dp_against_tp),
        cmocka_unit_test(test_memory_is_not_blamed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
