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

/* CUDA's tables for lane 11 and its neighbours, written out by hand. */
static void shuffles_stay_in_their_width(void **state)
{
    (void)state;
    uint32_t out[3 * WARP];
    struct emu_args args = {.out = out, .n = 8};
    set_schedule(0);
    assert_runs("shuffles", 1, WARP, &args);
    static const uint32_t want[][4] = {
        {8, 13, 8, 14}, {11, 13, 8, 13}, {13, 13, 10, 11}, {31, 29, 28, 25}, {0, 5, 0, 6}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        for (int k = 0; k < 3; k++) assert_int_equal(out[3 * want[i][0] + (uint32_t)k], want[i][k + 1]);
    args.n = 32;
    assert_runs("shuffles", 1, WARP, &args);
    assert_int_equal(out[3 * 11], 5);
    assert_int_equal(out[3 * 2 + 1], 2);
    assert_int_equal(out[3 * 31 + 2], 25);
}

static void a_lane_outside_the_mask_reads_as_poison(void **state)
{
    (void)state;
    uint32_t out[16] = {0};
    struct emu_args args = {.out = out};
    set_schedule(0);
    assert_runs("shuffle_from_outside", 1, WARP, &args);
    for (int i = 0; i < 16; i++) assert_int_equal(out[i], (uint32_t)QD_EMU_POISON);
}

static void halves_of_a_warp_vote_apart(void **state)
{
    (void)state;
    uint32_t out[WARP];
    struct emu_args args = {.out = out};
    for (int seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        assert_runs("votes", 1, WARP, &args);
        for (int i = 0; i < WARP; i++)
            assert_int_equal(out[i], i < 16 ? 0x9249u : 0x49240000u);
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
    assert_refused("not_in_its_mask", WARP, "not in its own mask");
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
        cmocka_unit_test(shuffles_stay_in_their_width),
        cmocka_unit_test(a_lane_outside_the_mask_reads_as_poison),
        cmocka_unit_test(halves_of_a_warp_vote_apart),
        cmocka_unit_test(a_partial_last_warp_takes_part),
        cmocka_unit_test(divergent_collectives_are_refused),
        cmocka_unit_test(barriers_order_a_block),
        cmocka_unit_test(named_barriers_pair_producer_and_consumer),
        cmocka_unit_test(wrong_barriers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
