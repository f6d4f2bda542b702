/* What the emulator's tests share: modes, and launches that must succeed or fail. */
#ifndef QD_TESTS_EMU_RIG_H
#define QD_TESTS_EMU_RIG_H

#include "tests/emu/kernels.h"
#include "tests/support/test.h"

enum { SEEDS = 5, WARP = 32 };

static char err[QD_ERR_LEN];

static inline void set_schedule(int seed)
{
    struct qd_emu_mode mode = qd_emu_default_mode();
    if (seed > 0) mode.schedule = QD_EMU_SCHEDULE_RANDOM, mode.seed = (uint64_t)seed;
    qd_emu_set_mode(&mode);
}

static inline void assert_runs_with(const char *kernel, unsigned blocks, unsigned threads,
                                    size_t shared_bytes, const struct emu_args *args)
{
    err[0] = '\0';
    if (emu_run(kernel, blocks, threads, shared_bytes, args, err, sizeof err) != 0) fail_msg("%s", err);
}

static inline void assert_runs(const char *kernel, unsigned blocks, unsigned threads,
                               const struct emu_args *args)
{
    assert_runs_with(kernel, blocks, threads, 0, args);
}

/* The launch fails in the mode that is set, with a text that names the kernel and has `needle` in it. */
static inline void assert_fails(const char *kernel, unsigned threads, size_t shared_bytes,
                                const struct emu_args *args, const char *needle)
{
    assert_int_equal(emu_run(kernel, 2, threads, shared_bytes, args, err, sizeof err), -1);
    ASSERT_CONTAINS(err, needle);
    ASSERT_CONTAINS(err, kernel);
}

/* The same in every schedule. */
static inline void assert_refused(const char *kernel, unsigned threads, const char *needle)
{
    uint32_t out[1024];
    struct emu_args args = {.out = out};
    for (int seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        assert_fails(kernel, threads, 0, &args, needle);
    }
}

#endif
