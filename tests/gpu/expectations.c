/* The runner itself: each of its expectations fails where it should. Every case is a test run in a child
 * process, with its output thrown away, before this process touches the device.
 */
#include <fcntl.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/gpu/runner.h"

enum { BYTES = 21 };

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

static const struct {
    struct gpu_test test;
    bool fails;
} CASES[] = {
    {{"writes_within", writes_within}, false},
    {{"writes_before", writes_before}, true},
    {{"writes_behind", writes_behind}, true},
    {{"expects_unwritten_memory", expects_unwritten_memory}, true},
    {{"expects_infinity", expects_infinity}, true},
    {{"is_within_the_tolerance", is_within_the_tolerance}, false},
    {{"exceeds_the_tolerance", exceeds_the_tolerance}, true},
    {{"has_too_many_other_bits", has_too_many_other_bits}, true},
    {{"differs_between_modes", differs_between_modes}, true},
    {{"differs_in_a_byte", differs_in_a_byte}, true},
    {{"launches_what_is_refused", launches_what_is_refused}, true},
    {{"is_refused_as_expected", is_refused_as_expected}, false},
    {{"is_refused_for_another_reason", is_refused_for_another_reason}, true},
    {{"skips", skips}, false},
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
        GPU_EXPECT(status_of[i] == (CASES[i].fails ? 1 : 0), "%s: exit status %d", CASES[i].test.name,
                   status_of[i]);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"expectations_fail_where_they_should", expectations_fail_where_they_should},
    };
    for (int i = 0; i < N_CASES; i++) status_of[i] = run_case(&CASES[i].test);
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
