/* A child that ends too late, by a signal, or because its parent is asked to stop. This program is its own
 * child. */
#include "tests/support/test.h"

#include <signal.h>

#include "harness/cli/child.h"
#include "kernels/base/clock.h"

/* Long enough for a child that listens, on a machine that does other work. */
static const double GRACE_S = 2;

static volatile sig_atomic_t interrupted;
static volatile sig_atomic_t stop;

static void note(int signal)
{
    stop = signal;
}

/* The child's part. */
static int behave(const char *how)
{
    if (strcmp(how, "crash") == 0) {
        fprintf(stderr, "about to end\n\n");
        raise(SIGKILL);
    }
    if (strcmp(how, "orderly") == 0) signal(SIGINT, note);
    if (strcmp(how, "stubborn") == 0) signal(SIGINT, SIG_IGN);
    fprintf(stderr, "waiting\n");
    while (stop == 0) usleep(1000);
    fprintf(stderr, "asked by %d\n", (int)stop);
    return 130;
}

static struct qd_child_result run(const char *how, double timeout_s, void (*tick)(void *arg))
{
    struct qd_child_result result;
    char err[QD_ERR_LEN] = "", copy[16];
    snprintf(copy, sizeof copy, "%s", how);
    char word[] = "child", behave_word[] = "behave", *argv[] = {word, behave_word, copy, NULL};
    interrupted = 0;
    struct qd_child_limits limits = {.timeout_s = timeout_s, .grace_s = GRACE_S, .interrupted = &interrupted};
    ASSERT_OK(qd_child_run(argv, &limits, tick, &result, &result, err, sizeof err), err);
    return result;
}

static void a_late_child_is_asked_to_stop(void **state)
{
    (void)state;
    char line[64];
    struct qd_child_result result = run("orderly", 0.3, NULL);
    assert_true(result.timed_out);
    assert_false(result.interrupted);
    assert_int_equal(result.exit_code, 130);
    assert_int_equal(result.signal, 0);
    qd_child_last_line(&result, line, sizeof line);
    assert_string_equal(line, "asked by 2");
    result = run("deaf", 0.3, NULL);
    assert_true(result.timed_out);
    assert_int_equal(result.exit_code, -1);
    assert_int_equal(result.signal, SIGINT);
}

/* Not before the grace period, and not long after it. */
static void a_child_that_does_not_listen_is_killed(void **state)
{
    (void)state;
    int64_t begin_ns = qd_clock_now_ns();
    struct qd_child_result result = run("stubborn", 0.3, NULL);
    double seconds = (double)(qd_clock_now_ns() - begin_ns) * 1e-9;
    assert_true(result.timed_out);
    assert_int_equal(result.exit_code, -1);
    assert_int_equal(result.signal, SIGKILL);
    assert_true(seconds >= 0.3 + GRACE_S && seconds < QD_CHILD_GRACE_S);
}

static void interrupt_when_it_waits(void *arg)
{
    const struct qd_child_result *so_far = arg;
    if (strstr(so_far->tail, "waiting") != NULL) interrupted = SIGINT;
}

static void an_interrupt_is_passed_on(void **state)
{
    (void)state;
    struct qd_child_result result = run("orderly", 60, interrupt_when_it_waits);
    assert_true(result.interrupted);
    assert_false(result.timed_out);
    assert_int_equal(result.exit_code, 130);
}

static void a_signal_is_told_from_an_exit(void **state)
{
    (void)state;
    char line[6];
    struct qd_child_result result = run("crash", 60, NULL);
    assert_int_equal(result.exit_code, -1);
    assert_int_equal(result.signal, SIGKILL);
    assert_false(result.timed_out || result.interrupted);
    qd_child_last_line(&result, line, sizeof line); /* cut to the room, empty lines passed over */
    assert_string_equal(line, "about");
}

/* A parent that was started with SIGCHLD ignored would find no status of any child. */
static void an_inherited_disposition_changes_nothing(void **state)
{
    (void)state;
    signal(SIGCHLD, SIG_IGN);
    struct qd_child_result result = run("orderly", 0.3, NULL);
    assert_true(result.timed_out);
    assert_int_equal(result.exit_code, 130);
    assert_int_equal(result.signal, 0);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "behave") == 0) return behave(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_child_is_asked_to_stop),
        cmocka_unit_test(a_child_that_does_not_listen_is_killed),
        cmocka_unit_test(an_interrupt_is_passed_on),
        cmocka_unit_test(a_signal_is_told_from_an_exit),
        cmocka_unit_test(an_inherited_disposition_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
