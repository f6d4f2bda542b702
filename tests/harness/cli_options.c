/* The option parser: values, forms, ranges, and every kind of refusal; and the cells of a sweep. */
#include "tests/support/test.h"

#include "harness/cli/options.h"
#include "harness/cli/sweep_plan.h"

enum { RUN_GROUPS = QD_GROUP_MODEL | QD_GROUP_PARALLEL | QD_GROUP_ENGINE | QD_GROUP_SAMPLING | QD_GROUP_WORKLOAD };

static const struct qd_command command_run = {.name = "run", .synopsis = "", .summary = "", .groups = RUN_GROUPS};
static const struct qd_command command_sweep = {
    .name = "sweep", .synopsis = "", .summary = "", .groups = RUN_GROUPS | QD_GROUP_SWEEP};
static const struct qd_command command_report = {
    .name = "report", .synopsis = "", .summary = "", .groups = QD_GROUP_REPORT, .max_positional = 1};

static qd_status parse(const struct qd_command *command, struct qd_options *out, char *err, char **words)
{
    int argc = 0;
    while (words[argc] != NULL) argc++;
    return qd_options_parse(command, argc, words, out, err, QD_ERR_LEN);
}

#define PARSE(command, out, err, ...)                                                                        \
    parse(command, out, err, (char *[]){(char *)(uintptr_t)(command)->name, __VA_ARGS__, NULL})

static void values_and_defaults(void **state)
{
    (void)state;
    struct qd_options o;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(PARSE(&command_run, &o, err, "--model", "m", "--tp=2", "--data-parallel-size", "4", "--budget",
                    "64", "--memory-limit", "1.5G", "--temperature", "0.7", "--ignore-eos"),
              err);
    assert_string_equal(o.model, "m");
    assert_int_equal(o.tp, 2);
    assert_int_equal(o.dp, 4);
    assert_int_equal(o.budget, 64);
    assert_true(o.memory_limit == 3LL << 29);
    assert_true(o.temperature == 0.7);
    assert_true(o.ignore_eos);
    assert_string_equal(o.device, "cpu");
    assert_true(qd_options_given(&o, "max-num-batched-tokens"));
    assert_false(qd_options_given(&o, "max-num-seqs"));
}

/* --goodput takes words up to the next option, --stop one at a time; both may come again. */
static void options_with_several_values(void **state)
{
    (void)state;
    struct qd_options o;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(
        PARSE(&command_run, &o, err, "--goodput", "ttft:1", "tpot:2", "--model", "m", "--goodput=e2el:3"),
        err);
    assert_int_equal(o.goodput.n, 3);
    assert_string_equal(o.goodput.texts[1], "tpot:2");
    assert_string_equal(o.goodput.texts[2], "e2el:3");
    assert_int_equal(o.n_given, 4);
}

static void refuse(const struct qd_command *command, const char *reason, char **words)
{
    struct qd_options o;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(parse(command, &o, err, words), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, reason);
}

#define REFUSE(command, reason, ...)                                                                         \
    refuse(command, reason, (char *[]){(char *)(uintptr_t)(command)->name, __VA_ARGS__, NULL})

static void bad_options_are_refused(void **state)
{
    (void)state;
    REFUSE(&command_run, "--model is missing", "--tp", "1");
    REFUSE(&command_run, "unknown option --nope", "--model", "m", "--nope", "1");
    REFUSE(&command_run, "unknown option --mod", "--mod", "m");
    REFUSE(&command_run, "needs a value", "--model");
    REFUSE(&command_run, "takes no value", "--model", "m", "--ignore-eos=1");
    REFUSE(&command_run, "given twice", "--model", "m", "--tp", "1", "--tp", "2");
    REFUSE(&command_run, "not a whole number", "--model", "m", "--budget", "12x");
    REFUSE(&command_run, "not a whole number", "--model", "m", "--budget", "0x10");
    REFUSE(&command_run, "not a whole number", "--model", "m", "--budget", "nan");
    REFUSE(&command_run, "not a number", "--model", "m", "--temperature", "inf");
    REFUSE(&command_run, "not a whole number", "--model", "m", "--budget", "");
    REFUSE(&command_run, "not a whole number", "--model", "m", "--budget", "1.5");
    REFUSE(&command_run, "outside", "--model", "m", "--budget", "0");
    REFUSE(&command_run, "outside", "--model", "m", "--budget", "-5");
    REFUSE(&command_run, "not a number", "--model", "m", "--memory-limit", "8X");
    REFUSE(&command_run, "none of", "--model", "m", "--device", "gpu");
    REFUSE(&command_run, "none of 1, 2, 4, 8", "--model", "m", "--tp", "3");
    REFUSE(&command_run, "smaller than --max-num-seqs", "--model", "m", "--budget", "64", "--max-num-seqs", "65");
    REFUSE(&command_run, "needs --dataset-path", "--model", "m", "--dataset-name", "custom");
    REFUSE(&command_run, "both size the KV pool", "--model", "m", "--num-gpu-blocks-override", "9",
           "--kv-cache-memory-bytes", "1M");
    REFUSE(&command_run, "--ranks-per-gpu is of --device cuda and emu", "--model", "m", "--ranks-per-gpu", "2");
    REFUSE(&command_run, "--watchdog-timeout-s", "--model", "m", "--watchdog-timeout-s", "-1");
    REFUSE(&command_run, "--probe is of --device cpu", "--model", "m", "--device", "null", "--probe");
    REFUSE(&command_run, "unexpected argument", "--model", "m", "extra");
    REFUSE(&command_run, "not a whole number", "--model", "m", "--budget", "1,2");
    REFUSE(&command_run, "not a whole number", "--model", "m", "--budget", "1e3");
    REFUSE(&command_run, "outside 0 .. 9007199254740992", "--model", "m", "--seed", "9007199254740993");
    REFUSE(&command_run, "outside", "--model", "m", "--budget", "99999999999999999999");
    REFUSE(&command_run, "--model: an empty text", "--model", "");
    REFUSE(&command_run, "none of", "--model", "m", "--router", "round-robin|least-loaded");
    REFUSE(&command_run, "none of", "--model", "m", "--load-format", "auto|dummy");
    REFUSE(&command_run, "--trace-speedup is of --dataset-name trace", "--model", "m", "--trace-speedup", "2");
    REFUSE(&command_run, "--random-input-len is of --dataset-name random", "--model", "m", "--dataset-name",
           "trace", "--dataset-path", "t", "--input-len", "8");
    REFUSE(&command_run, "--burstiness needs --request-rate", "--model", "m", "--request-rate", "inf",
           "--burstiness", "2");
}

/* Rules that ask for an option are kept by a list of its values. */
static void lists_count_as_given(void **state)
{
    (void)state;
    struct qd_options o;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(PARSE(&command_sweep, &o, err, "--model", "m", "--request-rate", "1,2", "--burstiness", "2"), err);
    ASSERT_OK(PARSE(&command_sweep, &o, err, "--model", "m", "--wave-size", "1,2", "--client-delay-ms", "3"),
              err);
    ASSERT_OK(PARSE(&command_sweep, &o, err, "--model", "m", "--ramp-up-strategy", "linear",
                    "--ramp-up-start-rps", "1,2", "--ramp-up-end-rps", "3"),
              err);
    REFUSE(&command_sweep, "--wave-size excludes", "--model", "m", "--wave-size", "1", "--request-rate", "1,2");
    REFUSE(&command_sweep, "both size the KV pool", "--model", "m", "--num-gpu-blocks-override", "9,10",
           "--kv-cache-memory-bytes", "1M,2M");
}

/* Step times make a run one in virtual time, of `null` alone, which has nothing to warm up. */
static void virtual_time_is_of_null(void **state)
{
    (void)state;
    struct qd_options o;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(PARSE(&command_run, &o, err, "--model", "m", "--device", "null"), err);
    assert_false(qd_options_are_virtual(&o));
    assert_int_equal(o.num_warmups, 1);
    ASSERT_OK(PARSE(&command_run, &o, err, "--model", "m", "--device", "null", "--null-step-us", "0"), err);
    assert_true(qd_options_are_virtual(&o));
    assert_int_equal(o.num_warmups, 0);
    ASSERT_OK(PARSE(&command_run, &o, err, "--model", "m", "--device", "null", "--null-steps", "f"), err);
    assert_true(qd_options_are_virtual(&o));
    ASSERT_OK(PARSE(&command_sweep, &o, err, "--model", "m", "--device", "null", "--null-step-us", "0.5,7",
                    "--num-warmups", "2"),
              err);
    assert_true(qd_options_are_virtual(&o));
    assert_int_equal(o.num_warmups, 2);
    REFUSE(&command_run, "--null-step-us is of --device null", "--model", "m", "--null-step-us", "1");
    REFUSE(&command_run, "--null-steps is of --device null", "--model", "m", "--null-steps", "f", "--device", "emu");
    REFUSE(&command_run, "exclude each other", "--model", "m", "--device", "null", "--null-steps", "f",
           "--null-step-us", "1");
    REFUSE(&command_run, "excludes --num-warmups", "--model", "m", "--device", "null", "--null-steps", "f",
           "--num-warmups", "1");
    REFUSE(&command_run, "outside", "--model", "m", "--device", "null", "--null-step-us", "-1");
    REFUSE(&command_run, "not a number", "--model", "m", "--device", "null", "--null-step-us", "inf");
    REFUSE(&command_run, "--dp-coupling vllm-0.9.1 is of --device null in virtual time", "--model", "m",
           "--dp-coupling", "vllm-0.9.1", "--device", "null");
    REFUSE(&command_run, "--dp-coupling vllm-0.9.1 excludes --async-scheduling", "--model", "m", "--dp-coupling",
           "vllm-0.9.1", "--device", "null", "--null-step-us", "1", "--async-scheduling");
    REFUSE(&command_run, "none of", "--model", "m", "--dp-coupling", "vllm");
}

static void positional_words_stop_at_the_limit(void **state)
{
    (void)state;
    struct qd_options o;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(PARSE(&command_report, &o, err, "--matrix", "tp=1", "path"), err);
    assert_int_equal(o.n_positional, 1);
    assert_string_equal(o.positional[0], "path");
    ASSERT_OK(PARSE(&command_report, &o, err, "--", "--path"), err);
    assert_string_equal(o.positional[0], "--path");
    REFUSE(&command_report, "unexpected argument \"b\"", "a", "b");
}

static void a_sweep_is_the_product_of_its_lists(void **state)
{
    (void)state;
    struct qd_options o;
    char err[QD_ERR_LEN] = "", name[128];
    ASSERT_OK(PARSE(&command_sweep, &o, err, "--model", "m", "--tp", "1,2", "--num-runs", "5", "--budget",
                    "64-256*2", "--ignore-eos"),
              err);
    assert_int_equal(o.repeats, 5);
    struct qd_sweep_plan plan;
    ASSERT_OK(qd_sweep_plan_make(&o, &plan, err, sizeof err), err);
    assert_int_equal(plan.n_cells, 6);
    qd_sweep_plan_name(&plan, 0, name, sizeof name);
    assert_string_equal(name, "tp=1-budget=64");
    qd_sweep_plan_name(&plan, 5, name, sizeof name);
    assert_string_equal(name, "tp=2-budget=256");

    static const char *const expected[] = {"qdyno", "run", "--model", "m", "--tensor-parallel-size", "2",
                                           "--max-num-batched-tokens", "128", "--ignore-eos", "--label", "x", NULL};
    char **argv = qd_sweep_plan_argv(&plan, 4, (const char *const[]){"--label", "x", NULL});
    assert_non_null(argv);
    for (int i = 0; expected[i] != NULL; i++) assert_string_equal(argv[i], expected[i]);
    assert_null(argv[11]);
    free(argv);
    qd_sweep_plan_free(&plan);
}

static void cells_of_too_many_gpus_are_left_out(void **state)
{
    (void)state;
    struct qd_options o;
    struct qd_sweep_plan plan;
    char err[QD_ERR_LEN] = "", name[128];
    ASSERT_OK(PARSE(&command_sweep, &o, err, "--model", "m", "--tp", "1-8*2", "--dp", "1-8*2", "--budget",
                    "4096,20480,40960,73728", "--max-gpus", "8"),
              err);
    ASSERT_OK(qd_sweep_plan_make(&o, &plan, err, sizeof err), err);
    assert_int_equal(plan.n_cells, 40);
    qd_sweep_plan_name(&plan, 39, name, sizeof name);
    assert_string_equal(name, "tp=8-dp=1-budget=73728");
    assert_string_equal(qd_sweep_plan_value(&plan, 16, 0), "2"); /* after 4 x 4 of TP 1 */
    assert_string_equal(qd_sweep_plan_value(&plan, 27, 1), "4"); /* TP 2 has no DP 8 */
    assert_string_equal(qd_sweep_plan_value(&plan, 28, 0), "4");
    qd_sweep_plan_free(&plan);

    ASSERT_OK(PARSE(&command_sweep, &o, err, "--model", "m", "--dp", "2", "--tp", "2,4", "--max-gpus", "4"), err);
    ASSERT_OK(qd_sweep_plan_make(&o, &plan, err, sizeof err), err);
    assert_int_equal(plan.n_cells, 1);
    qd_sweep_plan_free(&plan);
    ASSERT_OK(PARSE(&command_sweep, &o, err, "--model", "m", "--dp", "2", "--tp", "2,4", "--max-gpus", "3"), err);
    assert_int_equal(qd_sweep_plan_make(&o, &plan, err, sizeof err), QD_ERR_INPUT);
    assert_string_equal(err, "--max-gpus 3 leaves no cell");
}

static void every_value_of_a_list_is_checked(void **state)
{
    (void)state;
    REFUSE(&command_sweep, "outside", "--model", "m", "--budget", "64,0");
    REFUSE(&command_sweep, "no range", "--model", "m", "--budget", "64-32");
    REFUSE(&command_sweep, "not a whole number", "--model", "m", "--num-runs", "1,2");
    REFUSE(&command_sweep, "not a whole number", "--model", "m", "--budget", "64,1e3");
    REFUSE(&command_sweep, "none of", "--model", "m", "--device", "cpu,null");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_defaults),
        cmocka_unit_test(options_with_several_values),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(lists_count_as_given),
        cmocka_unit_test(virtual_time_is_of_null),
        cmocka_unit_test(positional_words_stop_at_the_limit),
        cmocka_unit_test(a_sweep_is_the_product_of_its_lists),
        cmocka_unit_test(cells_of_too_many_gpus_are_left_out),
        cmocka_unit_test(every_value_of_a_list_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
