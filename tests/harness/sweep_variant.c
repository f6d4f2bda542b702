/* What a sweep over further options hands to its runs and writes into experiment.json. */
#include "tests/support/test.h"

#include "harness/cli/commands.h"
#include "harness/cli/sweep_files.h"
#include "harness/result/experiment.h"
#include "harness/result/files.h"
#include "tests/support/result_fixture.h"

/* A sweep with `words` behind "sweep --model m"; the options must outlive the plan. */
static void plan_sweep(struct qd_options *options, struct qd_sweep_plan *plan, const char *const *words)
{
    static char *argv[32];
    char err[QD_ERR_LEN] = "";
    int argc = 0;
    argv[argc++] = (char *)(uintptr_t)"sweep";
    argv[argc++] = (char *)(uintptr_t)"--model";
    argv[argc++] = (char *)(uintptr_t)"m";
    for (; *words != NULL; words++) argv[argc++] = (char *)(uintptr_t)*words;
    ASSERT_OK(qd_options_parse(&qd_command_sweep, argc, argv, options, err, sizeof err), err);
    ASSERT_OK(qd_sweep_plan_make(options, plan, err, sizeof err), err);
}

#define PLAN(options, plan, ...) plan_sweep(options, plan, (const char *const[]){__VA_ARGS__, NULL})

static void the_variant_is_the_name_without_the_matrix(void **state)
{
    (void)state;
    struct qd_options options;
    struct qd_sweep_plan plan;
    char name[512], variant[QD_VARIANT_LEN];
    PLAN(&options, &plan, "--max-concurrency", "1,4", "--tp", "1,2", "--input-len", "8,128", "--budget", "64,256",
         "--dp", "1,2");
    qd_sweep_plan_name(&plan, plan.n_cells - 1, name, sizeof name);
    assert_string_equal(name, "max-concurrency=4-tp=2-input-len=128-budget=256-dp=2");
    qd_sweep_plan_variant(&plan, plan.n_cells - 1, variant);
    assert_string_equal(variant, "max-concurrency=4-input-len=128");
    qd_sweep_plan_variant(&plan, 0, variant);
    assert_string_equal(variant, "max-concurrency=1-input-len=8");
    struct qd_axes axes;
    qd_sweep_plan_further_axes(&plan, &axes);
    assert_int_equal(axes.n, 2);
    assert_string_equal(axes.axis[1].option, "random-input-len");
    assert_string_equal(axes.axis[1].label, "input-len");
    qd_sweep_plan_free(&plan);
}

/* Every cell's variant is one of the axes that experiment.json names. */
static void every_cell_is_on_the_axes(void **state)
{
    (void)state;
    struct qd_options options;
    struct qd_sweep_plan plan;
    struct qd_axes axes;
    char variant[QD_VARIANT_LEN];
    size_t index[QD_MAX_AXES];
    PLAN(&options, &plan, "--temperature", "0,1e-3", "--tp", "1,2", "--kv-cache-memory-bytes", "1M,2M");
    qd_sweep_plan_further_axes(&plan, &axes);
    for (size_t cell = 0; cell < plan.n_cells; cell++) {
        qd_sweep_plan_variant(&plan, cell, variant);
        assert_true(qd_axes_find(&axes, variant, index));
        assert_int_equal(index[0], cell / 4);
        assert_int_equal(index[1], cell % 2);
    }
    qd_sweep_plan_free(&plan);
}

static void a_matrix_alone_has_no_variant(void **state)
{
    (void)state;
    struct qd_options options;
    struct qd_sweep_plan plan;
    struct qd_axes axes;
    char variant[QD_VARIANT_LEN] = "x";
    PLAN(&options, &plan, "--tp", "1,2", "--dp", "1,2", "--max-num-batched-tokens", "64,256");
    qd_sweep_plan_variant(&plan, 7, variant);
    assert_string_equal(variant, "");
    qd_sweep_plan_further_axes(&plan, &axes);
    assert_int_equal(axes.n, 0);
    qd_sweep_plan_free(&plan);
}

static void the_experiment_names_its_axes(void **state)
{
    (void)state;
    struct qd_options options;
    struct qd_sweep_plan plan;
    struct qd_axes axes;
    char *folder = fixture_folder_create(), err[QD_ERR_LEN] = "";
    char *path = qd_path_join(folder, "experiment.json");
    PLAN(&options, &plan, "--tp", "1,2", "--max-concurrency", "1-4*2");
    ASSERT_OK(qd_sweep_write_experiment(folder, &plan, err, sizeof err), err);
    qd_sweep_plan_free(&plan);
    ASSERT_OK(qd_experiment_read_axes(path, &axes, err, sizeof err), err);
    assert_int_equal(axes.n, 1);
    assert_string_equal(axes.axis[0].option, "max-concurrency");
    assert_int_equal(axes.axis[0].range.n, 3);
    assert_string_equal(axes.axis[0].range.values[2], "4");
    qd_axes_free(&axes);
    free(path);
    fixture_folder_remove(folder);
}

static void names_too_long_for_a_folder_are_refused(void **state)
{
    (void)state;
    /* Values are kept as typed, so leading zeros make them long. */
    static char *argv[] = {"sweep", "--model", "m", "--device", "null", "--null-step-us", "1,00000000000000000000000000002",
                           "--temperature", "1,0000000000000000000000000002", "--threads",
                           "1,0000000000000000000000000002", "--max-num-seqs", "1,0000000000000000000000000002",
                           "--max-concurrency", "1,0000000000000000000000000002", "--random-prefix-len",
                           "1,0000000000000000000000000002", "--top-k", "1,0000000000000000000000000002"};
    char err[QD_ERR_LEN] = "";
    struct qd_options options;
    struct qd_sweep_plan plan;
    int argc = sizeof argv / sizeof argv[0];
    ASSERT_OK(qd_options_parse(&qd_command_sweep, argc, argv, &options, err, sizeof err), err);
    assert_int_equal(qd_sweep_plan_make(&options, &plan, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "7 options with lists: names of cells longer than 255 bytes");
    ASSERT_OK(qd_options_parse(&qd_command_sweep, argc - 2, argv, &options, err, sizeof err), err);
    ASSERT_OK(qd_sweep_plan_make(&options, &plan, err, sizeof err), err);
    qd_sweep_plan_free(&plan);
}

static void a_run_takes_only_good_variants(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_options options;
    char *good[] = {"run", "--model", "m", "--variant", "max-concurrency=4"};
    char *bad[] = {"run", "--model", "m", "--variant", "a\nb"};
    ASSERT_OK(qd_options_parse(&qd_command_run, 5, good, &options, err, sizeof err), err);
    assert_string_equal(options.variant, "max-concurrency=4");
    ASSERT_OK(qd_options_parse(&qd_command_run, 3, good, &options, err, sizeof err), err);
    assert_null(options.variant);
    assert_int_equal(qd_options_parse(&qd_command_run, 5, bad, &options, err, sizeof err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "--variant: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_variant_is_the_name_without_the_matrix),
        cmocka_unit_test(every_cell_is_on_the_axes),
        cmocka_unit_test(a_matrix_alone_has_no_variant),
        cmocka_unit_test(the_experiment_names_its_axes),
        cmocka_unit_test(names_too_long_for_a_folder_are_refused),
        cmocka_unit_test(a_run_takes_only_good_variants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
