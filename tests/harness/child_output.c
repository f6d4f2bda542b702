/* What a sweep keeps of a child's streams: this program is its own child, and says more than a pipe holds. */
#include "tests/support/test.h"

#include "harness/cli/child.h"

enum { N_LINES = 20000 }; /* of 10 bytes: more than a pipe holds */

/* The child: numbered lines on both streams, interleaved; "brief": one of each. */
static int talk(const char *how)
{
    bool brief = strcmp(how, "brief") == 0;
    for (int i = 0; i < (brief ? 1 : N_LINES); i++) {
        printf("out %5d\n", i);
        fprintf(stderr, "err %5d\n", i);
    }
    return brief ? 7 : 0;
}

static void run(const char *how, struct qd_child_result *result)
{
    char err[QD_ERR_LEN] = "", copy[16];
    snprintf(copy, sizeof copy, "%s", how);
    char word[] = "child", talk_word[] = "talk", *argv[] = {word, talk_word, copy, NULL};
    struct qd_child_limits limits = {.timeout_s = 60, .grace_s = QD_CHILD_GRACE_S};
    ASSERT_OK(qd_child_run(argv, &limits, NULL, NULL, result, err, sizeof err), err);
    assert_false(result->timed_out);
    assert_int_equal(result->signal, 0);
}

static void the_first_output_and_the_last_messages_are_kept(void **state)
{
    (void)state;
    struct qd_child_result result;
    run("much", &result);
    assert_int_equal(result.exit_code, 0);
    assert_int_equal(strlen(result.output), QD_CHILD_OUTPUT - 1);
    assert_int_equal(strncmp(result.output, "out     0\nout     1\n", 20), 0);
    assert_null(strstr(result.output, "err"));
    char line[32];
    qd_child_last_line(&result, line, sizeof line);
    assert_string_equal(line, "err 19999");
    assert_null(strstr(result.tail, "out"));
}

static void little_output_is_kept_whole(void **state)
{
    (void)state;
    struct qd_child_result result;
    run("brief", &result);
    assert_int_equal(result.exit_code, 7);
    assert_string_equal(result.output, "out     0\n");
    assert_string_equal(result.tail, "err     0\n");
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "talk") == 0) return talk(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_output_and_the_last_messages_are_kept),
        cmocka_unit_test(little_output_is_kept_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
