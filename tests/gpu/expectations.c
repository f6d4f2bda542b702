/* The runner itself: each of its expectations fails where it should. Every case is a test run in a child
 * process, with its output thrown away, before this process touches the device.
 */
#include <fcntl.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/gpu/runner.h"

enum { BYTES = 21, SECOND_MODE_PASSED = 3 };

static void writes_within(void)
{
    unsigned char data[BYTES] = {1};
    gpu_write(gpu_alloc(BYTES), data, BYTES);
}

static void writes_before(void)
{
    unsigned char *device = gpu_alloc(BYTES), byte = 1;
    gpu_write(device - 1, &byte, 1);
}

static void writes_behind(void)
{
    unsigned char *device = gpu_alloc(BYTES), byte = 1;
    gpu_write(device + BYTES, &byte, 1);
}

static void expects_unwritten_memory(void)
{
    qd_bf16 got[2];
    gpu_download(got, gpu_alloc(sizeof got), sizeof got);
    gpu_expect_close_bf16("out", got, got, 2, 1e9f, 1e9f);
}

static void expects_infinity(void)
{
    const float got[2] = {1.0f, INFINITY}, want[2] = {1.0f, 3e38f};
    gpu_expect_close_f32("out", got, want, 2, 1e9f, 1e9f);
}

static void is_within_the_tolerance(void)
{
    const float got[2] = {1.0f, 4.5f}, want[2] = {1.0f, 4.0f};
    gpu_expect_close_f32("out", got, want, 2, 0.125f, 0.0f);
}

static void exceeds_the_tolerance(void)
{
    const float got[2] = {1.0f, 4.5f}, want[2] = {1.0f, 4.0f};
    gpu_expect_close_f32("out", got, want, 2, 0.12f, 0.0f);
}

static void has_too_many_other_bits(void)
{
    qd_bf16 got[100], want[100];
    for (int i = 0; i < 100; i++) {
        want[i] = 0x3f80;
        got[i] = i < 4 ? 0x3f81 : 0x3f80;
    }
    gpu_expect_rounded_bf16("out", got, want, 100, 0.01f, 0.0f, 0.03);
}

static void differs_between_modes(void)
{
    static int calls;
    const int call = calls++;
    gpu_expect_same_bits("out", &call, sizeof call);
}

static void differs_in_a_byte(void)
{
    gpu_expect_equal("out", "ab", "aB", 2);
}

static qd_status refusing_launcher(const int *args, struct CUstream_st *stream, char *err, size_t errlen)
{
    (void)stream;
    return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%d is odd", *args);
}

static void launches_what_is_refused(void)
{
    const int args = 3;
    GPU_LAUNCH(refusing_launcher, &args);
}

static void is_refused_as_expected(void)
{
    const int args = 3;
    GPU_REFUSED(refusing_launcher, &args, "3 is odd");
}

static void is_refused_for_another_reason(void)
{
    const int args = 3;
    GPU_REFUSED(refusing_launcher, &args, "even");
}

static void skips(void)
{
    gpu_skip("this case skips");
}

/* The bits of a mode that failed are no measure for the next: in the second mode the expectation holds. */
static void has_other_bits_after_a_failure(void)
{
    static int calls;
    const int call = calls++;
    gpu_expect_same_bits("out", &call, sizeof call);
    GPU_EXPECT(call > 0, "the first mode fails");
    if (call == 1) _exit(SECOND_MODE_PASSED);
}

static void fails_and_then_skips(void)
{
    static int calls;
    GPU_EXPECT(calls++ > 0, "the first mode fails");
    gpu_skip("the others skip");
}

static const struct {
    struct gpu_test test;
    int status; /* of gpu_main */
} CASES[] = {
    {{"writes_within", writes_within}, 0},
    {{"writes_before", writes_before}, 1},
    {{"writes_behind", writes_behind}, 1},
    {{"expects_unwritten_memory", expects_unwritten_memory}, 1},
    {{"expects_infinity", expects_infinity}, 1},
    {{"is_within_the_tolerance", is_within_the_tolerance}, 0},
    {{"exceeds_the_tolerance", exceeds_the_tolerance}, 1},
    {{"has_too_many_other_bits", has_too_many_other_bits}, 1},
    {{"differs_between_modes", differs_between_modes}, 1},
    {{"differs_in_a_byte", differs_in_a_byte}, 1},
    {{"launches_what_is_refused", launches_what_is_refused}, 1},
    {{"is_refused_as_expected", is_refused_as_expected}, 0},
    {{"is_refused_for_another_reason", is_refused_for_another_reason}, 1},
    {{"skips", skips}, 0},
    {{"has_other_bits_after_a_failure", has_other_bits_after_a_failure}, SECOND_MODE_PASSED},
    {{"fails_and_then_skips", fails_and_then_skips}, 1},
};
enum { N_CASES = sizeof CASES / sizeof *CASES };
static int status_of[N_CASES];

/* gpu_main's status over one case, -1 when the child did not end by itself. */
static int run_case(const struct gpu_test *test)
{
    char *argv[] = {NULL};
    int status = -1;
    const pid_t child = fork();
    if (child == 0) {
        dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
        _exit(gpu_main(test, 1, 0, argv));
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

static void expectations_fail_where_they_should(void)
{
    for (int i = 0; i < N_CASES; i++)
        GPU_EXPECT(status_of[i] == CASES[i].status, "%s: exit status %d", CASES[i].test.name, status_of[i]);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"expectations_fail_where_they_should", expectations_fail_where_they_should},
    };
    for (int i = 0; i < N_CASES; i++) status_of[i] = run_case(&CASES[i].test);
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
