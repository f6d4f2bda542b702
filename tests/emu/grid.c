/* Blocks, devices, faults and counters of the emulator. */
#include "tests/support/test.h"

#include "tests/emu/rig.h"

#include <pthread.h>
#include <time.h>

static void blocks_run_in_the_schedules_order(void **state)
{
    (void)state;
    enum { BLOCKS = 12 };
    int moved = 0;
    for (int seed = 0; seed < SEEDS; seed++) {
        uint32_t out[BLOCKS + 1] = {0};
        struct emu_args args = {.out = out};
        set_schedule(seed);
        assert_runs("tickets", BLOCKS, WARP, &args);
        assert_int_equal(out[BLOCKS], BLOCKS);
        uint32_t seen = 0;
        for (uint32_t i = 0; i < BLOCKS; i++) {
            seen |= 1u << out[i];
            moved += seed > 0 && out[i] != i;
            if (seed == 0) assert_int_equal(out[i], i);
        }
        assert_int_equal(seen, (1u << BLOCKS) - 1);
    }
    assert_true(moved > 0);
}

static void blocks_that_wait_for_each_other_run_side_by_side(void **state)
{
    (void)state;
    for (int seed = 0; seed < SEEDS; seed++) {
        uint32_t out[1] = {0};
        struct emu_args args = {.out = out};
        set_schedule(seed);
        assert_runs("meet", 5, 40, &args);
        assert_int_equal(out[0], 5);
    }
}

static void more_blocks_than_fit_are_a_livelock(void **state)
{
    (void)state;
    uint32_t out[1] = {0};
    struct emu_args args = {.out = out};
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.resident_blocks = 4;
    mode.stall_ms = 50;
    qd_emu_set_mode(&mode);
    assert_int_equal(emu_run("meet", 5, WARP, 0, &args, err, sizeof err), -1);
    ASSERT_CONTAINS(err, "livelock");
    ASSERT_CONTAINS(err, "4 of 5 blocks resident");
    ASSERT_CONTAINS(err, "1 threads from thread 0 on wait for a flag at tests/emu/kernels.cu:");
    ASSERT_CONTAINS(err, "31 threads from thread 1 on wait for barrier 0");
}

static void polls_in_vain_are_a_livelock(void **state)
{
    (void)state;
    uint32_t out[1] = {0};
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.stall_ms = 20;
    qd_emu_set_mode(&mode);
    for (uint32_t way = 0; way < 2; way++) {
        struct emu_args args = {.out = out, .n = way};
        assert_int_equal(emu_run("poll_in_vain", 3, WARP, 0, &args, err, sizeof err), -1);
        ASSERT_CONTAINS(err, "livelock");
        ASSERT_CONTAINS(err, "wait for a flag at tests/emu/kernels.cu:");
    }
}

struct device {
    pthread_t thread;
    struct emu_args args;
    struct timespec start_after;
    int result;
    char err[QD_ERR_LEN];
};

static void *device_main(void *arg)
{
    struct device *d = arg;
    nanosleep(&d->start_after, NULL);
    d->result = emu_run("two_devices", 1, 1, 0, &d->args, d->err, sizeof d->err);
    qd_emu_release_thread();
    return NULL;
}

static void devices_wait_for_each_other(void **state)
{
    (void)state;
    enum { MEETINGS = 50 };
    uint32_t out[6] = {0};
    struct device devices[2] = {0};
    set_schedule(0);
    devices[1].start_after.tv_nsec = 20 * 1000 * 1000; /* no livelock: something may still happen */
    for (uint32_t i = 0; i < 2; i++) {
        devices[i].args = (struct emu_args){.out = out, .n = 2 * MEETINGS + i};
        pthread_create(&devices[i].thread, NULL, device_main, &devices[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(devices[i].thread, NULL);
        if (devices[i].result != 0) fail_msg("%s", devices[i].err);
        assert_int_equal(out[4 + i], MEETINGS);
    }
}

static void faults_end_the_launch_and_nothing_else(void **state)
{
    (void)state;
    if (IS_SANITIZED) SKIP("sanitizers end the program at a fault");
    uint32_t out[WARP];
    for (int i = 0; i < 3; i++) {
        struct emu_args args = {.in = (const uint32_t *)(uintptr_t)64, .out = out, .n = 9};
        set_schedule(i);
        assert_fails("write_far_away", WARP, 0, &args, "illegal memory access at 0x40");
        ASSERT_CONTAINS(err, "block (1,0,0) thread (9,0,0)");
        assert_fails("deep_stack", WARP, 0, &args, "illegal memory access");
        args.n = WARP; /* no thread does it */
        assert_runs("write_far_away", 2, WARP, &args);
    }
}

static void counters_add_up(void **state)
{
    (void)state;
    _Alignas(16) uint32_t in[16 * WARP] = {0};
    uint32_t out[16 * WARP];
    struct emu_args args = {.in = in, .out = out, .n = 4};
    set_schedule(0);
    qd_emu_reset_counters();
    assert_runs("product", 1, WARP, &args);
    assert_runs("copy_sizes", 1, WARP, &args);
    assert_runs("exchange", 3, 2 * WARP, &args);
    assert_runs("matrices", 1, WARP, &args);
    struct qd_emu_counters c = qd_emu_read_counters();
    assert_int_equal(c.launches, 4);
    assert_int_equal(c.blocks, 6);
    assert_int_equal(c.mma, 1);
    assert_int_equal(c.ldmatrix, 4);
    assert_int_equal(c.async_copy_bytes, WARP * (0 + 5 + 10 + 15));
    assert_int_equal(c.barriers, 3 * 8);
    qd_emu_reset_counters();
    assert_int_equal(qd_emu_read_counters().launches, 0);
}

static void impossible_shapes_are_refused(void **state)
{
    (void)state;
    struct emu_args args = {0};
    set_schedule(0);
    assert_fails("tickets", 1025, 0, &args, "blocks of 1025 x 1 x 1");
    assert_fails("tickets", 0, 0, &args, "blocks of 0 x 1 x 1");
    assert_int_equal(emu_run("tickets", 0, 1, 0, &args, err, sizeof err), -1);
    ASSERT_CONTAINS(err, "a grid of 0 x 1 x 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_run_in_the_schedules_order),
        cmocka_unit_test(blocks_that_wait_for_each_other_run_side_by_side),
        cmocka_unit_test(more_blocks_than_fit_are_a_livelock),
        cmocka_unit_test(polls_in_vain_are_a_livelock),
        cmocka_unit_test(devices_wait_for_each_other),
        cmocka_unit_test(faults_end_the_launch_and_nothing_else),
        cmocka_unit_test(counters_add_up),
        cmocka_unit_test(impossible_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
