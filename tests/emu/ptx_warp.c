/* Warp and block instructions of the PTX front end. */
#include "tests/emu/ptx_rig.h"

enum { LANES = 32, SEEDS = 4 };

static int unload(void **state)
{
    (void)state;
    qd_emu_ptx_unload_all();
    return 0;
}

static void set_schedule(uint64_t seed)
{
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.schedule = seed > 0 ? QD_EMU_SCHEDULE_RANDOM : QD_EMU_SCHEDULE_FIXED;
    mode.seed = seed;
    qd_emu_set_mode(&mode);
}

/* Each thread stores %r0 to out[its index in the grid]; it finds its index in the block in %r1, in[%r1] in
 * %r2. */
static void load_warp(const char *code)
{
    char text[4096];
    snprintf(text, sizeof text,
             PTX_HEADER
             ".visible .entry warp(.param .u64 from, .param .u64 to)\n{\n"
             ".reg .pred %%p<10>; .reg .b32 %%r<10>; .reg .b64 %%rd<10>;\n"
             ".shared .align 4 .b8 object[512];\n"
             "ld.param.u64 %%rd1, [from]; ld.param.u64 %%rd2, [to];\n"
             "mov.u32 %%r1, %%tid.x; mul.wide.u32 %%rd3, %%r1, 4; add.s64 %%rd1, %%rd1, %%rd3;\n"
             "ld.global.u32 %%r2, [%%rd1];\n"
             "mov.u32 %%r3, %%ctaid.x; mov.u32 %%r4, %%ntid.x; mad.lo.s32 %%r3, %%r3, %%r4, %%r1;\n"
             "mul.wide.u32 %%rd3, %%r3, 4; add.s64 %%rd2, %%rd2, %%rd3;\n"
             "%s\nst.global.u32 [%%rd2], %%r0;\nret;\n}\n",
             code);
    ptx_assert_loads(text);
}

static int run_warp(unsigned threads, const uint32_t *in, uint32_t *out)
{
    return ptx_run("warp", 1, threads, 2, (uint64_t[]){ptx_address(in), ptx_address(out)});
}

/* The manual's description of shfl.sync, line by line: the source lane, and the predicate in *inside. */
static unsigned manual_source(const char *mode, unsigned lane, unsigned b, unsigned c, bool *inside)
{
    const int bval = (int)(b & 31), cval = (int)(c & 31), mask = (int)(c >> 8 & 31);
    const int max_lane = ((int)lane & mask) | (cval & ~mask), min_lane = (int)lane & mask;
    int j = (int)lane;
    if (strcmp(mode, "up") == 0) j = (int)lane - bval, *inside = j >= max_lane;
    if (strcmp(mode, "bfly") == 0) j = (int)lane ^ bval, *inside = j <= max_lane;
    if (strcmp(mode, "idx") == 0) j = min_lane | (bval & ~mask), *inside = j <= max_lane;
    return *inside ? (unsigned)j : lane;
}

static void shuffles_read_the_lane_that_the_manual_names(void **state)
{
    (void)state;
    static const char *const modes[] = {"up", "bfly", "idx"};
    uint32_t in[LANES], out[LANES];
    for (uint32_t l = 0; l < LANES; l++) in[l] = 100 + l;
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        for (unsigned by = 0; by < LANES; by += 1 + by / 4) {
            char code[256];
            const unsigned c = m == 0 ? 0 : 31;
            snprintf(code, sizeof code,
                     "shfl.sync.%s.b32 %%r0|%%p1, %%r2, %u, %u, -1;\n@%%p1 add.s32 %%r0, %%r0, 1000;",
                     modes[m], by, c);
            load_warp(code);
            assert_int_equal(run_warp(LANES, in, out), 0);
            for (unsigned l = 0; l < LANES; l++) {
                bool inside = false;
                const unsigned source = manual_source(modes[m], l, by, c, &inside);
                assert_int_equal(out[l], 100 + source + (inside ? 1000 : 0));
            }
            qd_emu_ptx_unload_all();
        }
    }
}

static void votes_count_the_lanes(void **state)
{
    (void)state;
    uint32_t in[LANES], out[LANES];
    for (uint32_t l = 0; l < LANES; l++) in[l] = l % 3 == 0;
    load_warp("setp.ne.s32 %p1, %r2, 0; vote.sync.ballot.b32 %r0, %p1, -1;");
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        if (run_warp(LANES, in, out) != 0) fail_msg("%s", err);
        for (unsigned l = 0; l < LANES; l++) assert_int_equal(out[l], 0x49249249u);
    }
}

static void barriers_order_the_block(void **state)
{
    (void)state;
    uint32_t in[128], out[128];
    for (uint32_t t = 0; t < 128; t++) in[t] = 7 * t;
    /* out[t] = in[127 - t], through shared memory, after one barrier of each kind */
    load_warp("shl.b32 %r5, %r1, 2; mov.u32 %r6, object; add.s32 %r7, %r6, %r5; st.shared.u32 [%r7], %r2;\n"
              "bar.warp.sync -1; bar.sync 0; bar.sync 1, 128;\n"
              "sub.s32 %r7, %r6, %r5; ld.shared.u32 %r0, [%r7+508];");
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        if (run_warp(128, in, out) != 0) fail_msg("%s", err);
        for (unsigned t = 0; t < 128; t++) assert_int_equal(out[t], 7 * (127 - t));
    }
}

static void an_arrival_does_not_wait(void **state)
{
    (void)state;
    uint32_t in[64] = {0}, out[64];
    /* The second warp writes and arrives; the first one waits for it, then reads. */
    load_warp("mov.u32 %r0, 1; setp.gt.u32 %p1, %r1, 31; @%p1 bra $second;\n"
              "bar.sync 2, 64; ld.shared.u32 %r0, [object]; bra.uni $out;\n"
              "$second: mov.u32 %r5, 42; st.shared.u32 [object], %r5; bar.arrive 2, 64;\n$out:");
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        if (run_warp(64, in, out) != 0) fail_msg("%s", err);
        for (unsigned t = 0; t < 64; t++) assert_int_equal(out[t], t < 32 ? 42 : 1);
    }
}

static void what_a_warp_does_wrong_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *code, *reason;
    } wrong[] = {
        {"setp.gt.u32 %p1, %r1, 15; @%p1 bra $other; shfl.sync.bfly.b32 %r0|%p2, %r2, 1, 31, -1; bra.uni "
         "$out;\n"
         "$other: shfl.sync.bfly.b32 %r0|%p2, %r2, 1, 31, -1; $out:",
         "divergent warp collective"},
        {"shfl.sync.idx.b32 %r0|%p2, %r2, 1, 30, -1;", "clamps lanes at 0x1e"},
        {"shfl.sync.bfly.b32 %r0|%p2, %r2, 1, 6175, -1;", "clamps lanes at 0x181f"}, /* segments of 8 */
        {"shfl.sync.idx.b32 %r0|%p2, %r2, 1, 31, 1;", "a shuffle of lanes 00000001"},
        {"setp.gt.u32 %p1, %r1, 15; @%p1 bra $out; bar.sync 0; $out:", "thread 16 has exited"},
        {"setp.eq.u32 %p1, %r1, 3; @%p1 ret; bar.warp.sync -1;", "exited"},
    };
    uint32_t in[LANES] = {0}, out[LANES];
    set_schedule(0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        load_warp(wrong[i].code);
        assert_int_equal(run_warp(LANES, in, out), -1);
        ASSERT_CONTAINS(err, wrong[i].reason);
        ASSERT_CONTAINS(err, "rig.ptx:");
        qd_emu_ptx_unload_all();
    }
}

static void special_registers_name_the_thread(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t want; /* of the last thread */
    } specials[] = {
        {"%tid.x", 15}, {"%ntid.x", 16}, {"%ctaid.x", 4}, {"%ctaid.y", 2}, {"%nctaid.x", 5},
    };
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        char text[1024];
        uint32_t got = 0;
        uint64_t to = ptx_address(&got);
        struct qd_emu_launch launch = {.name = "last",
                                       .args = (void *[]){&to},
                                       .grid = {5, 3, 2},
                                       .block = {16, 4, 2},
                                       .shared_limit = QD_EMU_MAX_SHARED_BYTES};
        snprintf(text, sizeof text,
                 PTX_HEADER
                 ".visible .entry last(.param .u64 to)\n{\n.reg .b32 %%r<2>; .reg .b64 %%rd<2>;\n"
                 "ld.param.u64 %%rd1, [to]; mov.u32 %%r1, %s; st.global.u32 [%%rd1], %%r1; ret;\n}\n",
                 specials[i].name);
        ptx_assert_loads(text);
        set_schedule(0);
        if (ptx_launch(&launch, (unsigned[]){8}, 1) != 0) fail_msg("%s", err);
        if (got != specials[i].want) fail_msg("%s: %u, not %u", specials[i].name, got, specials[i].want);
        qd_emu_ptx_unload_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(shuffles_read_the_lane_that_the_manual_names, unload),
        cmocka_unit_test_teardown(votes_count_the_lanes, unload),
        cmocka_unit_test_teardown(barriers_order_the_block, unload),
        cmocka_unit_test_teardown(an_arrival_does_not_wait, unload),
        cmocka_unit_test_teardown(what_a_warp_does_wrong_is_an_error, unload),
        cmocka_unit_test_teardown(special_registers_name_the_thread, unload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
