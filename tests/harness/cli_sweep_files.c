/* A sweep's folder: which command lines continue it, which runs it has, what is set aside. */
#include "tests/support/test.h"

#include "harness/cli/commands.h"
#include "harness/cli/sweep_files.h"
#include "tests/support/files.h"

enum { MAX_WORDS = 24 };

static int setup(void **state)
{
    struct temp_dir *dir = malloc(sizeof *dir);
    assert_non_null(dir);
    *dir = temp_dir_create();
    *state = dir;
    return 0;
}

static int teardown(void **state)
{
    temp_dir_remove(*state);
    free(*state);
    return 0;
}

/* A plan of the command line in `text`, words between single spaces. */
struct command_line {
    char text[512];
    char *words[MAX_WORDS];
    struct qd_options options;
    struct qd_sweep_plan plan;
};

static void parse(struct command_line *line, const char *text)
{
    char err[QD_ERR_LEN] = "";
    int argc = 0;
    snprintf(line->text, sizeof line->text, "sweep %s", text);
    for (char *word = strtok(line->text, " "); word != NULL; word = strtok(NULL, " ")) {
        assert_in_range(argc, 0, MAX_WORDS - 1);
        line->words[argc++] = word;
    }
    ASSERT_OK(qd_options_parse(&qd_command_sweep, argc, line->words, &line->options, err, sizeof err), err);
    ASSERT_OK(qd_sweep_plan_make(&line->options, &line->plan, err, sizeof err), err);
}

static qd_status check(const struct temp_dir *dir, const char *text, char *err)
{
    struct command_line line;
    parse(&line, text);
    qd_status status = qd_sweep_check_experiment(dir->path, &line.plan, err, QD_ERR_LEN);
    qd_sweep_plan_free(&line.plan);
    return status;
}

static void the_same_runs_continue(void **state)
{
    const struct temp_dir *dir = *state;
    char err[QD_ERR_LEN] = "";
    struct command_line line;
    parse(&line, "--model m --tp 1,2 --budget 64,128 --seed 5 --ignore-eos");
    ASSERT_OK(qd_sweep_write_experiment(dir->path, &line.plan, err, sizeof err), err);
    qd_sweep_plan_free(&line.plan);
    static const char *const same[] = {
        "--model m --tp 1,2 --budget 64,128 --seed 5 --ignore-eos",
        "--ignore-eos --seed=5 --max-num-batched-tokens 64,128 -m m --tensor-parallel-size 1,2",
        "--model m --tp 1,2 --budget 64,128 --seed 5 --ignore-eos --num-runs 9 --cell-timeout 5 --experiment "
        "e --resume",
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) ASSERT_OK(check(dir, same[i], err), err);
    static const char *const other[] = {
        "--model m --tp 1,2 --budget 64,128 --seed 5",
        "--model m --tp 1,2 --budget 64,128 --seed 6 --ignore-eos",
        "--model m --tp 1,2 --budget 64,128,256 --seed 5 --ignore-eos",
        "--model m --tp 1,2 --budget 64,128 --seed 5 --ignore-eos --temperature 1",
        "--model n --tp 1,2 --budget 64,128 --seed 5 --ignore-eos",
    };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        assert_int_equal(check(dir, other[i], err), QD_ERR_INPUT);
        ASSERT_CONTAINS(err, "experiment.json: was started with other options");
    }
}

static void what_is_no_experiment_is_named(void **state)
{
    const struct temp_dir *dir = *state;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(check(dir, "--model m", err), QD_ERR_NOT_FOUND);
    write_text(in_dir(dir, "experiment.json"), "[");
    assert_int_equal(check(dir, "--model m", err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "experiment.json: byte 1");
    write_text(in_dir(dir, "experiment.json"), "{\"commit\": \"another\"}");
    assert_int_equal(check(dir, "--model m", err), QD_ERR_INPUT);
    ASSERT_CONTAINS(err, "was started by commit another, this is ");
    write_text(in_dir(dir, "experiment.json"), "{}");
    assert_int_equal(check(dir, "--model m", err), QD_ERR_NOT_FOUND);
    ASSERT_CONTAINS(err, "commit");
}

static void only_whole_runs_count(void **state)
{
    const struct temp_dir *dir = *state;
    write_text(in_dir(dir, "run=0.json"), "{\"completed\": 1}\n");
    write_text(in_dir(dir, "run=1.json"), "{\"completed\": ");
    write_text(in_dir(dir, "run=3.json"), "{\"completed\": 0}\n");
    bool is_empty = true;
    assert_true(qd_sweep_has_run(dir->path, ".", 0, &is_empty));
    assert_false(is_empty);
    assert_true(qd_sweep_has_run(dir->path, ".", 3, &is_empty));
    assert_true(is_empty);
    assert_false(qd_sweep_has_run(dir->path, ".", 1, &is_empty));
    assert_false(qd_sweep_has_run(dir->path, ".", 2, &is_empty));
    assert_false(qd_sweep_has_run(dir->path, "no-such-cell", 0, &is_empty));
    write_text(in_dir(dir, "run=0.requests.jsonl"), "{}\n");
    write_text(in_dir(dir, "run=0.steps.jsonl"), "{}\n");
    qd_sweep_set_run_aside(dir->path, ".", 0);
    qd_sweep_set_run_aside(dir->path, ".", 2); /* nothing there: nothing happens */
    assert_false(qd_sweep_has_run(dir->path, ".", 0, &is_empty));
    assert_int_equal(access(in_dir(dir, "partial-run=0.json"), F_OK), 0);
    assert_int_equal(access(in_dir(dir, "partial-run=0.requests.jsonl"), F_OK), 0);
    assert_int_not_equal(access(in_dir(dir, "run=0.requests.jsonl"), F_OK), 0);
    assert_int_equal(access(in_dir(dir, "partial-run=0.steps.jsonl"), F_OK), 0);
}

static void a_failure_is_written_and_cleared(void **state)
{
    const struct temp_dir *dir = *state;
    struct qd_failure failure = {.kind = QD_FAILURE_TIMEOUT,
                                 .tp = 2,
                                 .dp = 1,
                                 .budget = 64,
                                 .run_number = 1,
                                 .exit_code = -1,
                                 .needed_bytes = -1,
                                 .available_bytes = -1,
                                 .phase = "run"};
    struct qd_failure back;
    char err[QD_ERR_LEN] = "";
    snprintf(failure.reason, sizeof failure.reason, "too late");
    ASSERT_OK(qd_sweep_write_failure(dir->path, "group/tp=2", &failure, err, sizeof err), err);
    ASSERT_OK(qd_failure_read(in_dir(dir, "group/tp=2/failed.json"), &back, err, sizeof err), err);
    assert_int_equal(back.kind, QD_FAILURE_TIMEOUT);
    assert_string_equal(back.reason, "too late");
    qd_sweep_clear_failure(dir->path, "group/tp=2");
    assert_int_equal(qd_failure_read(in_dir(dir, "group/tp=2/failed.json"), &back, err, sizeof err),
                     QD_ERR_NOT_FOUND);
    unlink(in_dir(dir, "group/tp=2/failed.json"));
    rmdir(in_dir(dir, "group/tp=2"));
    rmdir(in_dir(dir, "group"));
    write_text(in_dir(dir, "file"), "");
    assert_int_equal(qd_sweep_write_failure(dir->path, "file/tp=2", &failure, err, sizeof err), QD_ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_same_runs_continue, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_experiment_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(only_whole_runs_count, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failure_is_written_and_cleared, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
