/* The progress line: what it says, how often, on a terminal and elsewhere. */
#include "tests/support/test.h"

#include "harness/cli/progress.h"
#include "tests/support/files.h"

enum { SECOND_NS = 1000000000 };

/* Standard error goes into a file meanwhile. */
struct capture {
    struct temp_dir dir;
    int saved;
};

static struct capture capture_begin(void)
{
    struct capture capture = {.dir = temp_dir_create(), .saved = dup(STDERR_FILENO)};
    assert_true(capture.saved >= 0);
    assert_non_null(freopen(in_dir(&capture.dir, "stderr"), "w", stderr));
    return capture;
}

static void capture_end(struct capture *capture, const char *expected)
{
    fflush(stderr);
    dup2(capture->saved, STDERR_FILENO);
    close(capture->saved);
    char *text = read_text(in_dir(&capture->dir, "stderr"));
    assert_string_equal(text, expected);
    free(text);
    temp_dir_remove(&capture->dir);
}

/* Begun that many seconds ago, and last drawn then. */
static struct qd_progress begun(int seconds, bool terminal)
{
    struct qd_progress progress;
    qd_progress_begin(&progress, "run");
    assert_false(progress.terminal); /* a file is none */
    progress.terminal = terminal;
    progress.begin_ns -= (int64_t)seconds * SECOND_NS;
    progress.last_ns = progress.begin_ns;
    return progress;
}

static void plain_lines_come_seldom(void **state)
{
    (void)state;
    struct capture capture = capture_begin();
    struct qd_progress progress = begun(20, false);
    qd_progress_update(&progress, 1, 5, "8 tokens");
    qd_progress_update(&progress, 2, 5, "9 tokens"); /* at once: not drawn */
    progress.last_ns -= 4 * (int64_t)SECOND_NS;
    qd_progress_update(&progress, 3, 5, "10 tokens");
    progress.last_ns -= 2 * (int64_t)SECOND_NS;
    qd_progress_update(&progress, 4, 5, "");
    qd_progress_end(&progress);
    capture_end(&capture, "run: 20 %, 8 tokens, 80 s left\nrun: 80 %, 5 s left\n");
}

static void a_terminal_line_is_drawn_over(void **state)
{
    (void)state;
    struct capture capture = capture_begin();
    struct qd_progress progress = begun(10, true);
    qd_progress_update(&progress, 1, 2, "a");
    progress.last_ns += SECOND_NS;
    qd_progress_update(&progress, 2, 2, "b"); /* too early: not drawn */
    progress.last_ns -= 2 * (int64_t)SECOND_NS;
    qd_progress_update(&progress, 2, 2, "c");
    qd_progress_end(&progress);
    capture_end(&capture, "\r\033[Krun: 50 %, a, 10 s left\r\033[Krun: 100 %, c, 0 s left\r\033[K");
}

static void an_unknown_total_has_no_share(void **state)
{
    (void)state;
    struct capture capture = capture_begin();
    struct qd_progress progress = begun(10, false);
    qd_progress_update(&progress, 7, 0, "7 tokens");
    progress = begun(10, false);
    qd_progress_update(&progress, 0, 4, "");
    capture_end(&capture, "run: 7 tokens\nrun: 0 %\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_lines_come_seldom),
        cmocka_unit_test(a_terminal_line_is_drawn_over),
        cmocka_unit_test(an_unknown_total_has_no_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
