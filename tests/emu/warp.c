/* Warp collectives and barriers of the emulator: what they compute, in every schedule, and what they refuse.
 */
#include "tests/support/test.h"

#include "tests/emu/rig.h"

static void shuffles_sum_a_warp(void **state)
{
    (void)state;
    uint32_t in[96], out[96];
    for (uint32_t i = 0; i < 96; i++) in[i] = i * i;
    struct emu_args args = {.in = in, .out = out};
    for (int seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        memset(out, 0, sizeof out);
        assert_runs("warp_sum", 1, 96, &args);
        for (uint32_t i = 0; i < 96; i++) {
            uint32_t want = 0;
            for (uint32_t l = i / WARP * WARP; l < (i / WARP + 1) * WARP; l++) want += l * l;
            assert_int_equal(out[i], want);
        }
    }
}

/* CUDA's tables for some lanes, written out by hand. Of 20 lanes, those read as poison that are not there. */
static void shuffles_read_other_lanes(void **state)
{
    (void)state;
    uint32_t out[3 * WARP];
    struct emu_args args = {.out = out};
    set_schedule(0);
    assert_runs("shuffles", 1, WARP, &args);
    static const uint32_t want[][4] = {
        {0, 5, 0, 6}, {2, 5, 2, 4}, {11, 5, 8, 13}, {17, 5, 14, 23}, {31, 5, 28, 25}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        for (int k = 0; k < 3; k++) assert_int_equal(out[3 * want[i][0] + (uint32_t)k], want[i][k + 1]);
    assert_runs("shuffles", 1, 20, &args);
    assert_int_equal(out[3 * 11 + 2], 13);
    assert_int_equal(out[3 * 17 + 2], (uint32_t)QD_EMU_POISON);
}

static void a_warp_votes(void **state)
{
    (void)state;
    uint32_t out[WARP];
    struct emu_args args = {.out = out};
    for (int seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        assert_runs("votes", 1, WARP, &args);
        for (int i = 0; i < WARP; i++) assert_int_equal(out[i], 0x49249249u);
    }
}

static void a_partial_last_warp_takes_part(void **state)
{
    (void)state;
    uint32_t out[40] = {0};
    struct emu_args args = {.out = out, .n = 3};
    set_schedule(0);
    assert_runs("exchange", 1, 40, &args);
    for (int i = 0; i < 40; i++) assert_int_equal(out[i], 3);
}

static void divergent_collectives_are_refused(void **state)
{
    (void)state;
    assert_refused("divergent_shuffle", WARP, "divergent warp collective");
    ASSERT_CONTAINS(err, "kernels.cu:");
    assert_refused("half_a_warp", WARP, "__syncwarp of lanes 0000ffff");
    assert_refused("shuffle_by_32", WARP, "by 32 lanes");
    assert_refused("lane_exits_early", WARP, "exited");
}

static void barriers_order_a_block(void **state)
{
    (void)state;
    uint32_t out[3 * 256];
    struct emu_args args = {.out = out, .n = 10};
    for (int seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        memset(out, 0, sizeof out);
        assert_runs("exchange", 3, 256, &args);
        for (int i = 0; i < 3 * 256; i++) assert_int_equal(out[i], 10);
    }
}

static void named_barriers_pair_producer_and_consumer(void **state)
{
    (void)state;
    uint32_t in[20], out[WARP], sum = 0;
    for (uint32_t i = 0; i < 20; i++) in[i] = i * 7, sum += in[i];
    struct emu_args args = {.in = in, .out = out, .n = 20};
    for (int seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        assert_runs("named_pair", 1, 64, &args);
        for (uint32_t i = 0; i < WARP; i++) assert_int_equal(out[i], sum + 20 * (31 - i));
    }
}

static void wrong_barriers_are_refused(void **state)
{
    (void)state;
    assert_refused("barrier_counts_differ", 96, "threads here, but");
    assert_refused("barrier_of_part_of_a_warp", 64, "only lanes");
    assert_refused("barrier_after_exit", 64, "exited");
    assert_refused("two_barriers_cross", 64, "deadlock");
    ASSERT_CONTAINS(err, "32 threads from thread 32 on wait for barrier 2 at");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shuffles_sum_a_warp),
        cmocka_unit_test(shuffles_read_other_lanes),
        cmocka_unit_test(a_warp_votes),
        cmocka_unit_test(a_partial_last_warp_takes_part),
        cmocka_unit_test(divergent_collectives_are_refused),
        cmocka_unit_test(barriers_order_a_block),
        cmocka_unit_test(named_barriers_pair_producer_and_consumer),
        cmocka_unit_test(wrong_barriers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
