/* The report of a sweep over further options: an overview, then each variant by itself. */
#include "tests/support/test.h"

#include "harness/report/report.h"
#include "harness/result/files.h"
#include "tests/support/result_fixture.h"

/* Two runs of a cell with first tokens after ttft_ms and 1 ms more. */
static void write_runs(const char *folder, const char *variant, int tp, int dp, int64_t budget,
                       double ttft_ms)
{
    for (int i = 0; i < 2; i++) {
        struct fixture_run run;
        fixture_run_init(&run, tp, dp, budget, ttft_ms + i, 4);
        run.result.variant = variant;
        run.result.max_concurrency = variant != NULL && strcmp(variant, "max-concurrency=16") == 0 ? 16 : 4;
        fixture_run_write(&run, folder, i);
    }
}

static void write_experiment(const char *folder, const char *axes)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"schema_version\": 1, \"repeats\": 2, \"matrix\": {\"tensor_parallel_size\": [1, 2], "
             "\"data_parallel_size\": [1], \"max_num_batched_tokens\": [64]}%s}",
             axes);
    fixture_write(folder, "experiment.json", text);
}

#define AXES                                                                                                 \
    ", \"axes\": [{\"option\": \"max-concurrency\", \"label\": \"max-concurrency\", "                        \
    "\"values\": [\"4\", \"16\", \"64\"]}]"

static char *report(const char *path, const char *matrix)
{
    char err[QD_ERR_LEN] = "", *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    ASSERT_OK(qd_report_write(path, matrix, out, err, sizeof err), err);
    fclose(out);
    return text;
}

/* The part about one variant; freed by the caller. */
static char *part_of(const char *text, const char *variant)
{
    char heading[128];
    snprintf(heading, sizeof heading, "\n# Variant: %s\n", variant);
    const char *begin = strstr(text, heading);
    if (begin == NULL) {
        fail_msg("no variant \"%s\" in: %s", variant, text);
        return NULL;
    }
    const char *end = strstr(begin + 1, "\n# Variant: ");
    return strndup(begin, end != NULL ? (size_t)(end - begin) : strlen(begin));
}

static void test_an_overview_and_a_part_for_each(void **state)
{
    write_runs(*state, "max-concurrency=16", 1, 1, 64, 30);
    write_runs(*state, "max-concurrency=4", 1, 1, 64, 20);
    write_runs(*state, "max-concurrency=4", 2, 1, 64, 10);
    write_experiment(*state, AXES);
    char *text = report(*state, NULL);
    ASSERT_CONTAINS(text, "## Variants\n");
    /* 20 tokens in 10.5 + 16 ms and in 30.5 + 16 ms, medians of two runs. */
    ASSERT_CONTAINS(text,
                    "| max-concurrency=4  |   2 of 2 | 754.99 (TP2 DP1, budget 64) |              10.50 |"
                    "              4.00 |\n");
    ASSERT_CONTAINS(text,
                    "| max-concurrency=16 |   1 of 2 | 430.16 (TP1 DP1, budget 64) |              30.50 |"
                    "              4.00 |\n");
    ASSERT_CONTAINS(text,
                    "| max-concurrency=64 |   0 of 2 | n/a                         |                n/a |"
                    "               n/a |\n");
    char *four = part_of(text, "max-concurrency=4"), *sixteen = part_of(text, "max-concurrency=16"),
         *none = part_of(text, "max-concurrency=64");
    assert_true(strstr(text, "# Variant: max-concurrency=4\n") <
                strstr(text, "# Variant: max-concurrency=16\n"));
    ASSERT_CONTAINS(four, "0 of 2 expected cells are missing");
    ASSERT_CONTAINS(sixteen, "1 of 2 expected cells are missing");
    ASSERT_CONTAINS(none, "2 of 2 expected cells are missing");
    ASSERT_CONTAINS(none, "No cell carries a conclusion");
    free(none);
    free(sixteen);
    free(four);
    free(text);
}

/* What is said of a variant is the same as if it had been measured alone. */
static void test_variants_are_never_compared(void **state)
{
    write_runs(*state, "max-concurrency=4", 1, 2, 64, 20);
    write_runs(*state, "max-concurrency=4", 2, 1, 64, 10);
    char *alone = report(*state, NULL);
    write_runs(*state, "max-concurrency=16", 1, 2, 64, 1);
    write_runs(*state, "max-concurrency=16", 1, 4, 256, 2);
    char *text = report(*state, NULL), *part = part_of(text, "max-concurrency=4");
    const char *sections = strstr(part, "## Summary"), *expected = strstr(alone, "## Summary");
    assert_string_equal(sections, expected);
    ASSERT_CONTAINS(part, "concurrency 4, ");
    assert_null(strstr(part, "concurrency 16, "));
    free(part);
    free(text);
    free(alone);
}

static void test_one_variant_changes_nothing(void **state)
{
    write_runs(*state, NULL, 1, 1, 64, 10);
    char *plain = report(*state, NULL);
    char *folder = fixture_folder_create();
    write_runs(folder, "max-concurrency=4", 1, 1, 64, 10);
    char *text = report(folder, NULL);
    assert_null(strstr(text, "ariant"));
    /* But for the name of the folder, which is as long. */
    for (char *name; (name = strstr(text, folder)) != NULL;) memcpy(name, *state, strlen(*state));
    assert_string_equal(text, plain);
    free(text);
    fixture_folder_remove(folder);
    free(plain);
}

static void test_a_given_matrix_is_every_variants(void **state)
{
    write_runs(*state, "max-concurrency=16", 1, 1, 64, 30);
    write_runs(*state, "max-concurrency=4", 1, 1, 64, 20);
    char *text = report(*state, "tp=1,2;dp=1,2;budget=64");
    char *four = part_of(text, "max-concurrency=4"), *sixteen = part_of(text, "max-concurrency=16");
    ASSERT_CONTAINS(four, "the one given with --matrix: 4 cells, of which 1 are measured and 3 are not");
    ASSERT_CONTAINS(sixteen, "the one given with --matrix: 4 cells, of which 1 are measured and 3 are not");
    free(sixteen);
    free(four);
    free(text);
    /* The axes that are recorded still say which variants there are. */
    write_experiment(*state, AXES);
    text = report(*state, "tp=1;dp=1;budget=64");
    four = part_of(text, "max-concurrency=64");
    ASSERT_CONTAINS(four, "--matrix: 1 cells, of which 0 are measured and 1 are not");
    free(four);
    free(text);
}

static void test_the_matrix_is_inferred_for_each(void **state)
{
    write_runs(*state, "max-concurrency=16", 2, 2, 64, 30);
    write_runs(*state, "max-concurrency=4", 1, 2, 256, 20);
    char *text = report(*state, NULL);
    char *four = part_of(text, "max-concurrency=4"), *sixteen = part_of(text, "max-concurrency=16");
    ASSERT_CONTAINS(four, "2 of 3 expected cells are missing");    /* TP1 DP1, TP2 DP1 at 256 */
    ASSERT_CONTAINS(sixteen, "5 of 6 expected cells are missing"); /* TP x DP up to 4 at 64 */
    free(sixteen);
    free(four);
    free(text);
}

/* A cell beside the axes is shown, and outside of the matrix. */
static void test_cells_beside_the_axes(void **state)
{
    write_runs(*state, NULL, 1, 1, 64, 30);
    write_runs(*state, "max-concurrency=4", 1, 1, 64, 20);
    write_experiment(*state, AXES);
    char *text = report(*state, NULL), *part = part_of(text, "(no further option)");
    ASSERT_CONTAINS(text, "| (no further option) |   0 of 0 | ");
    ASSERT_CONTAINS(part,
                    "0 cells, of which 0 are measured and 0 are not.\n1 measured cells are outside of it.");
    free(part);
    free(text);
}

/* A summary.csv of several variants makes the same overview. */
static void test_variants_of_a_csv(void **state)
{
    char err[QD_ERR_LEN] = "", *path = qd_path_join(*state, "summary.csv");
    write_runs(*state, "max-concurrency=16", 1, 1, 64, 30);
    write_runs(*state, "max-concurrency=4", 1, 1, 64, 20);
    ASSERT_OK(qd_summary_write(*state, err, sizeof err), err);
    char *text = report(path, NULL), *part = part_of(text, "max-concurrency=16");
    ASSERT_CONTAINS(text, "| max-concurrency=16 |   1 of 1 | 430.16 (TP1 DP1, budget 64) |");
    ASSERT_CONTAINS(part, "TTFT p50");
    free(part);
    free(text);
    free(path);
}

static void test_too_many_expected_cells(void **state)
{
    char err[QD_ERR_LEN] = "";
    write_runs(*state, "max-concurrency=4", 1, 1, 64, 20);
    write_experiment(*state, AXES);
    assert_int_equal(qd_report_write(*state, "tp=1-100;dp=1-100;budget=64", stdout, err, sizeof err),
                     QD_ERR_TOO_LARGE);
    ASSERT_CONTAINS(err, "more than 20000 cells");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_an_overview_and_a_part_for_each),
        WITH_FOLDER(test_variants_are_never_compared),
        WITH_FOLDER(test_one_variant_changes_nothing),
        WITH_FOLDER(test_a_given_matrix_is_every_variants),
        WITH_FOLDER(test_the_matrix_is_inferred_for_each),
        WITH_FOLDER(test_cells_beside_the_axes),
        WITH_FOLDER(test_variants_of_a_csv),
        WITH_FOLDER(test_too_many_expected_cells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
