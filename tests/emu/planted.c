/* The emulator's self-check: every planted bug is caught in exactly the modes that claim it. A run is caught
 * when the launch fails, an output element is wrong, or a sanitizer speaks up. */
#include "tests/support/test.h"

#include "tests/emu/planted.h"
#include "tests/emu/ptx_module.h"

#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

#include <cuda_runtime.h>

#include "kernels/emu/mode.h"

enum {
    FIXED_LATEST = 1,
    FIXED_EAGER = 2,
    RANDOM_LATEST = 4, /* by one of SEEDS seeds at least */
    RANDOM_EAGER = 8,
    ASAN = 16, /* a report of AddressSanitizer or UndefinedBehaviorSanitizer */
    TSAN = 32, /* a report of ThreadSanitizer: a race or a fault; it misses races of many blocks, never
                  invents one */
    PTX = 64,  /* in the PTX front end, whatever the schedule and arrival */
    ALL_SCHEDULES = FIXED_LATEST | FIXED_EAGER | RANDOM_LATEST | RANDOM_EAGER,
};

/* The column that this build of the test is for; 0: those of schedules and arrivals. */
#if defined(__SANITIZE_ADDRESS__)
enum { BUILD_COLUMN = ASAN };
#elif defined(QD_EMU_TSAN)
enum { BUILD_COLUMN = TSAN };
#else
enum { BUILD_COLUMN = 0 };
#endif

enum { SEEDS = 10, TILES = 6, BLOCKS = 2, PAIRS = BLOCKS * PLANTED_TOTAL_THREADS };

static const struct {
    enum planted_bug bug;
    const char *name;
    unsigned caught_by;
} bugs[] = {
    {PLANTED_NONE, "no bug", 0},
    {PLANTED_NO_BARRIER_AFTER_WAIT, "no barrier after the wait for a copy", ALL_SCHEDULES | TSAN},
    {PLANTED_LATE_REFILL, "no barrier before a buffer is refilled", ALL_SCHEDULES | TSAN},
    {PLANTED_LAX_WAIT, "a wait that leaves a group too many", FIXED_LATEST | RANDOM_LATEST},
    {PLANTED_NO_BARRIER, "no barrier after a write to shared memory", ALL_SCHEDULES | TSAN},
    {PLANTED_SHARED_PAST_END, "shared memory out of bounds by one", ALL_SCHEDULES | ASAN},
    {PLANTED_GLOBAL_PAST_END, "global memory out of bounds by one", ALL_SCHEDULES | ASAN | TSAN},
    {PLANTED_MISALIGNED, "a misaligned vector access", ASAN | PTX},
    {PLANTED_DIVERGENT_SHUFFLE, "a divergent shuffle", ALL_SCHEDULES},
    {PLANTED_NO_FENCE, "no fence before another block reads", TSAN},
    {PLANTED_UNWRITTEN, "an output element that nobody writes", ALL_SCHEDULES},
    {PLANTED_DOUBLE_WRITE, "an output element that two blocks write", TSAN | PTX},
    {PLANTED_SECOND_WRITE, "an output element that a thread writes twice", PTX},
};

static void fill(uint32_t *in, size_t n)
{
    for (size_t i = 0; i < n; i++) in[i] = (uint32_t)(i * 2654435761u >> 7);
}

static uint32_t *device_copy(const uint32_t *host, size_t n)
{
    void *p;
    assert_int_equal(cudaMalloc(&p, n * sizeof *host), cudaSuccess);
    if (host) assert_int_equal(cudaMemcpy(p, host, n * sizeof *host, cudaMemcpyHostToDevice), cudaSuccess);
    return p;
}

/* True when the kernel ran and its results are right. */
static bool pipeline_is_right(enum planted_bug bug)
{
    enum { T = PLANTED_PIPELINE_THREADS };
    uint32_t in[TILES * T * 4], out[T];
    fill(in, TILES * T * 4);
    struct planted_args args = {
        .in = device_copy(in, TILES * T * 4), .out = device_copy(NULL, T), .n = TILES};
    char err[QD_ERR_LEN];
    bool right = planted_run_pipeline(bug, &args, err, sizeof err) == 0;
    if (!right) return false; /* the GPU has failed: there is nothing to copy */
    assert_int_equal(cudaMemcpy(out, args.out, sizeof out, cudaMemcpyDeviceToHost), cudaSuccess);
    for (int t = 0; t < T; t++) {
        uint32_t want = 0;
        for (int i = 0; i < TILES; i++) want += in[(i * T + T - 1 - t) * 4];
        right &= out[t] == want;
    }
    return right;
}

static bool total_is_right(enum planted_bug bug)
{
    uint32_t in[2 * PAIRS], out[1 + PAIRS], scratch[BLOCKS + 1] = {0}, all = 0;
    fill(in, 2 * PAIRS);
    struct planted_args args = {.in = device_copy(in, 2 * PAIRS),
                                .out = device_copy(NULL, 1 + PAIRS),
                                .scratch = device_copy(scratch, BLOCKS + 1),
                                .n = PAIRS};
    char err[QD_ERR_LEN];
    qd_emu_write_once(args.out, sizeof out);
    bool right = planted_run_total(bug, BLOCKS, &args, err, sizeof err) == 0;
    if (!right) return false; /* the GPU has failed: there is nothing to copy */
    assert_int_equal(cudaMemcpy(out, args.out, sizeof out, cudaMemcpyDeviceToHost), cudaSuccess);
    for (int i = 0; i < PAIRS; i++) {
        right &= out[1 + i] == in[2 * i] + in[2 * i + 1];
        all += in[2 * i] + in[2 * i + 1];
    }
    return right && out[0] == all;
}

static bool is_right(enum planted_bug bug)
{
    if (bug == PLANTED_NONE) return pipeline_is_right(bug) && total_is_right(bug);
    return bug <= PLANTED_LAX_WAIT ? pipeline_is_right(bug) : total_is_right(bug);
}

/* Exit statuses; the sanitizers have others. */
enum outcome { RIGHT = 0, WRONG = 100, REPORTED };

/* In a process of its own, since a sanitizer's report ends it. */
static enum outcome outcome_of(enum planted_bug bug, enum qd_emu_schedule schedule,
                               enum qd_emu_arrival arrival, uint64_t seed)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct qd_emu_mode mode = qd_emu_default_mode();
        mode.schedule = schedule;
        mode.arrival = arrival;
        mode.seed = seed;
        qd_emu_set_mode(&mode);
        signal(SIGSEGV, SIG_DFL); /* in place of cmocka's, which would go on with the tests here */
        assert_non_null(freopen("/dev/null", "w", stderr)); /* the report */
        const bool right = is_right(bug);
        qd_emu_shutdown();
        exit(right ? RIGHT : WRONG);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == RIGHT) return RIGHT;
    return WIFEXITED(status) && WEXITSTATUS(status) == WRONG ? WRONG : REPORTED;
}

static unsigned caught_by_random(enum planted_bug bug, enum qd_emu_arrival arrival, unsigned column)
{
    int caught = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        caught += outcome_of(bug, QD_EMU_SCHEDULE_RANDOM, arrival, seed) != RIGHT;
    printf(" %s %d/%d", column == RANDOM_LATEST ? "random latest" : "random eager", caught, SEEDS);
    return caught > 0 ? column : 0;
}

/* The columns that catch the bug; in a sanitizer's build its own is all there is. */
static unsigned caught_by(enum planted_bug bug)
{
    const enum outcome latest = outcome_of(bug, QD_EMU_SCHEDULE_FIXED, QD_EMU_ARRIVAL_LATEST, 0);
    if (BUILD_COLUMN != 0) return latest == REPORTED ? (unsigned)BUILD_COLUMN : 0;
    unsigned caught = latest != RIGHT ? FIXED_LATEST : 0;
    if (outcome_of(bug, QD_EMU_SCHEDULE_FIXED, QD_EMU_ARRIVAL_EAGER, 0) != RIGHT) caught |= FIXED_EAGER;
    caught |= caught_by_random(bug, QD_EMU_ARRIVAL_LATEST, RANDOM_LATEST);
    return caught | caught_by_random(bug, QD_EMU_ARRIVAL_EAGER, RANDOM_EAGER);
}

static void check_table(bool is_ptx)
{
    const unsigned columns = BUILD_COLUMN != 0 ? (unsigned)BUILD_COLUMN : ALL_SCHEDULES;
    for (size_t i = 0; i < sizeof bugs / sizeof *bugs; i++) {
        printf("%s:", bugs[i].name);
        const unsigned caught = caught_by(bugs[i].bug);
        const unsigned want =
            is_ptx && (bugs[i].caught_by & PTX) ? ALL_SCHEDULES : bugs[i].caught_by & columns;
        printf(" caught %#x\n", caught);
        if (caught != want) fail_msg("%s: caught %#x, not %#x", bugs[i].name, caught, want);
    }
}

static void each_bug_is_caught_where_the_table_says(void **state)
{
    (void)state;
    check_table(false);
}

static void each_bug_is_caught_in_ptx(void **state)
{
    (void)state;
    char path[PATH_MAX], err[QD_ERR_LEN];
    if (BUILD_COLUMN != 0) SKIP("sanitizers do not see what interpreted kernels do");
    ptx_find_module("planted", path, sizeof path);
    if (access(path, R_OK) != 0) SKIP("no nvcc made %s", path);
    if (qd_emu_ptx_load(path, err, sizeof err) != 0) fail_msg("%s", err);
    check_table(true);
    qd_emu_ptx_unload_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bug_is_caught_where_the_table_says),
        cmocka_unit_test(each_bug_is_caught_in_ptx),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
