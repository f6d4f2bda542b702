/* Shared memory and asynchronous copies of the emulator. */
#include "tests/support/test.h"

#include "kernels/emu/sanitize.h"
#include "tests/emu/rig.h"

static void set_arrival(enum qd_emu_arrival arrival, uint64_t seed)
{
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.arrival = arrival;
    mode.seed = seed;
    qd_emu_set_mode(&mode);
}

static void shared_memory_is_poisoned_for_each_block(void **state)
{
    (void)state;
    uint32_t out[5];
    struct emu_args args = {.out = out, .n = 100};
    set_schedule(0);
    assert_runs_with("poisoned_at_first", 5, 1, 100 * sizeof(uint32_t), &args);
    for (int i = 0; i < 5; i++) assert_int_equal(out[i], 108);
}

static void dynamic_memory_starts_where_the_mode_says(void **state)
{
    (void)state;
    uint32_t out[2];
    struct emu_args args = {.out = out};
    for (uint32_t odd = 0; odd < 2; odd++) {
        struct qd_emu_mode mode = qd_emu_default_mode();
        mode.shared_base_odd = odd;
        qd_emu_set_mode(&mode);
        assert_runs_with("dynamic_base", 1, 1, 1000, &args);
        assert_int_equal(out[0], 16 * odd);
        assert_int_equal(out[1], 16 * odd);
    }
}

static void shared_addresses_are_checked(void **state)
{
    (void)state;
    uint32_t out[WARP];
    struct emu_args args = {.out = out, .n = 0};
    set_schedule(0);
    assert_runs_with("ldmatrix_at", 1, WARP, 256, &args);
    args.n = 16; /* the last row lies behind the object */
    assert_fails("ldmatrix_at", WARP, 256, &args, "lie in no shared object");
    args.n = (uint32_t)-16; /* the first one before it */
    assert_fails("ldmatrix_at", WARP, 256, &args, "lie in no shared object");
    args.n = 8;
    assert_fails("ldmatrix_at", WARP, 256, &args, "not 16-byte aligned");
    ASSERT_CONTAINS(err, "kernels.cu:");
    ASSERT_CONTAINS(err, "block (0,0,0) thread (0,0,0)");
}

static void a_write_behind_an_object_is_found_when_the_block_ends(void **state)
{
    (void)state;
#ifdef QD_EMU_ASAN
    SKIP("AddressSanitizer ends the program at the write");
#endif
    struct emu_args args = {.n = 7};
    set_schedule(0);
    assert_runs("write_past_the_end", 1, 1, &args);
    args.n = 8;
    assert_fails("write_past_the_end", 1, 0, &args, "wrote past the end of words (32 bytes)");
}

static void shared_memory_has_limits(void **state)
{
    (void)state;
    uint32_t out[2];
    struct emu_args args = {.out = out};
    set_schedule(0);
    assert_fails("too_much_static", 1, 0, &args, "static shared memory beyond 49152 bytes with second");
    assert_runs_with("dynamic_base", 1, 1, QD_EMU_MAX_SHARED_BYTES, &args);
    assert_fails("dynamic_base", 1, QD_EMU_MAX_SHARED_BYTES + 1, &args, "bytes of shared memory");
}

static void copies_fill_up_with_zeros(void **state)
{
    (void)state;
    unsigned char in[WARP * 64], out[WARP * 64];
    for (size_t i = 0; i < sizeof in; i++) in[i] = (unsigned char)(i * 37 + 1);
    struct emu_args args = {.in = (const uint32_t *)(const void *)in, .out = (uint32_t *)(void *)out};
    for (int arrival = 0; arrival < 3; arrival++) {
        set_arrival((enum qd_emu_arrival)arrival, 3);
        assert_runs("copy_sizes", 1, WARP, &args);
        for (size_t i = 0; i < sizeof out; i++) assert_int_equal(out[i], i % 16 < i / 16 % 4 * 5 ? in[i] : 0);
    }
}

/* What a thread sees before its wait, and whether a source that changes in between is copied before or after.
 */
static void copies_arrive_when_the_mode_says(void **state)
{
    (void)state;
    bool early_seen = false, late_seen = false;
    for (uint64_t seed = 0; seed < 42; seed++) {
        _Alignas(16) uint32_t in[4] = {1, 2, 3, 4};
        uint32_t out[8];
        struct emu_args args = {.in = in, .out = out};
        enum qd_emu_arrival arrival = seed == 0   ? QD_EMU_ARRIVAL_EAGER
                                      : seed == 1 ? QD_EMU_ARRIVAL_LATEST
                                                  : QD_EMU_ARRIVAL_RANDOM;
        set_arrival(arrival, seed);
        assert_runs("copy_timing", 1, 1, &args);
        bool early = out[0] == 1;
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(out[i], early ? i + 1 : ~0u);
            assert_int_equal(out[4 + i], early ? i + 1 : i + 101);
        }
        if (seed < 2) assert_int_equal(early, seed == 0);
        if (seed >= 2) early_seen |= early, late_seen |= !early;
    }
    assert_true(early_seen && late_seen);
}

static void a_wait_leaves_the_latest_groups(void **state)
{
    (void)state;
    _Alignas(16) uint32_t in[8] = {7, 0, 0, 0, 8, 0, 0, 0};
    uint32_t out[2];
    struct emu_args args = {.in = in, .out = out, .n = 0};
    set_arrival(QD_EMU_ARRIVAL_LATEST, 0);
    assert_runs("copy_groups", 1, 1, &args);
    assert_int_equal(out[0], 7);
    assert_int_equal(out[1], 8);
    args.n = 1;
    assert_runs("copy_groups", 1, 1, &args);
    assert_int_equal(out[0], 7);
    assert_int_equal(out[1], ~0u);
}

static void wrong_copies_are_refused(void **state)
{
    (void)state;
    _Alignas(16) uint32_t in[8] = {0};
    struct emu_args args = {.in = in};
    for (int arrival = 0; arrival < 3; arrival++) {
        set_arrival((enum qd_emu_arrival)arrival, 3);
        assert_fails("copy_without_wait", 1, 0, &args, "1 cp.async copies that it never waited for");
        args.n = 4;
        assert_fails("copy_misaligned", 1, 0, &args, "shared address");
        args.n = 1 << 4;
        assert_fails("copy_misaligned", 1, 0, &args, "is not 16-byte aligned");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_memory_is_poisoned_for_each_block),
        cmocka_unit_test(dynamic_memory_starts_where_the_mode_says),
        cmocka_unit_test(shared_addresses_are_checked),
        cmocka_unit_test(a_write_behind_an_object_is_found_when_the_block_ends),
        cmocka_unit_test(shared_memory_has_limits),
        cmocka_unit_test(copies_fill_up_with_zeros),
        cmocka_unit_test(copies_arrive_when_the_mode_says),
        cmocka_unit_test(a_wait_leaves_the_latest_groups),
        cmocka_unit_test(wrong_copies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
