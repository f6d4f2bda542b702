/* What the PTX front end counts of a launch: bytes, wavefronts, bank conflicts; and stores that come twice.
 */
#include "tests/emu/ptx_rig.h"

enum { LANES = 32 };

static int unload(void **state)
{
    (void)state;
    const struct qd_emu_mode mode = qd_emu_default_mode();
    qd_emu_set_mode(&mode);
    qd_emu_write_once(NULL, 0);
    qd_emu_ptx_unload_all();
    return 0;
}

/* %r1: the thread; %r2: a shared object of 8 KiB; %rd1: global memory, %rd2: 4 bytes a thread further. The
 * code is on line 11. */
static void load_code(const char *code)
{
    char text[4096];
    snprintf(text, sizeof text,
             PTX_HEADER ".visible .entry traffic(.param .u64 memory)\n{\n"
                        ".reg .pred %%p<4>; .reg .b16 %%rs<4>; .reg .b32 %%r<10>; .reg .b64 %%rd<10>;\n"
                        ".shared .align 128 .b8 object[8192];\n"
                        "mov.u32 %%r1, %%tid.x; mov.u32 %%r2, object;\n"
                        "ld.param.u64 %%rd1, [memory];\n"
                        "mul.wide.u32 %%rd2, %%r1, 4; add.s64 %%rd2, %%rd1, %%rd2;\n%s\nret;\n}\n",
             code);
    ptx_assert_loads(text);
}

static int run(unsigned blocks, unsigned threads, const void *memory)
{
    err[0] = '\0';
    return ptx_run("traffic", blocks, threads, 1, (uint64_t[]){ptx_address(memory)});
}

static struct qd_emu_counters count(const char *code, unsigned blocks, unsigned threads, const void *memory)
{
    load_code(code);
    qd_emu_reset_counters();
    if (run(blocks, threads, memory) != 0) fail_msg("%s: %s", code, err);
    qd_emu_ptx_unload_all();
    return qd_emu_read_counters();
}

/* ---- global memory ---- */

static const struct {
    const char *code;
    unsigned loaded, stored, copied; /* bytes of one thread */
} moves[] = {
    {"ld.global.u8 %r3, [%rd2];", 1, 0, 0},
    {"ld.global.nc.v2.u16 {%rs1, %rs2}, [%rd2];", 4, 0, 0},
    {"ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1];", 16, 0, 0},
    {"st.global.u32 [%rd2], %r1; st.global.u16 [%rd2], %rs1;", 0, 6, 0},
    {"st.global.v2.u64 [%rd1], {%rd1, %rd1};", 0, 16, 0},
    {"atom.global.add.u32 %r3, [%rd1], 1;", 4, 4, 0},
    {"ld.acquire.sys.global.u32 %r3, [%rd1]; st.release.sys.global.u32 [%rd1], %r3;", 0, 0, 0},
    {"ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1];", 16, 0, 0},
    {"mad.lo.s32 %r3, %r1, 16, %r2; cp.async.cg.shared.global.L2::128B [%r3], [%rd1], 16, 5;\n"
     "cp.async.commit_group; cp.async.wait_group 0;",
     5, 0, 5},
    {"st.shared.u32 [%r2], %r1; ld.shared.u32 %r3, [%r2];", 0, 0, 0},
};

static void global_bytes_are_counted(void **state)
{
    (void)state;
    _Alignas(16) uint32_t memory[2 * LANES] = {0};
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        const struct qd_emu_counters c = count(moves[i].code, 3, LANES + 7, memory);
        const uint64_t threads = UINT64_C(3) * (LANES + 7);
        if (c.loaded_bytes != threads * moves[i].loaded || c.stored_bytes != threads * moves[i].stored ||
            c.async_copy_bytes != threads * moves[i].copied)
            fail_msg("%s: %llu loaded, %llu stored, %llu copied", moves[i].code,
                     (unsigned long long)c.loaded_bytes, (unsigned long long)c.stored_bytes,
                     (unsigned long long)c.async_copy_bytes);
    }
}

/* ---- shared memory ---- */

#define LANES_APART(bytes) "mad.lo.s32 %r3, %r1, " #bytes ", %r2; "
#define LOAD_4             "ld.shared.u32 %r4, [%r3];"
#define LOAD_8             "ld.shared.v2.u32 {%r4, %r5}, [%r3];"
#define LOAD_16            "ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r3];"
#define MATRICES_1         "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3];"
#define MATRICES_4         "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4, %r5, %r6, %r7}, [%r3];"

static const struct {
    const char *code;
    unsigned wavefronts, conflicts; /* of a warp */
} shared_accesses[] = {
    {LANES_APART(1) "ld.shared.u8 %r4, [%r3];", 1, 0},
    {LANES_APART(2) "ld.shared.u16 %rs1, [%r3];", 1, 0},
    {LANES_APART(128) "ld.shared.u16 %rs1, [%r3];", 32, 31},
    {LANES_APART(0) LOAD_4, 1, 0},
    {LANES_APART(4) LOAD_4, 1, 0},
    {LANES_APART(8) LOAD_4, 2, 1},
    {LANES_APART(12) LOAD_4, 1, 0}, /* an odd number of words */
    {LANES_APART(16) LOAD_4, 4, 3},
    {LANES_APART(128) LOAD_4, 32, 31},
    {LANES_APART(132) LOAD_4, 1, 0},
    {LANES_APART(128) "st.shared.u32 [%r3], %r1;", 32, 31},
    {"and.b32 %r3, %r1, 15; mad.lo.s32 %r3, %r3, 128, %r2; " LOAD_4, 16, 15}, /* two lanes want each word */
    {LANES_APART(0) LOAD_8, 2, 0},
    {LANES_APART(8) LOAD_8, 2, 0},
    {LANES_APART(16) LOAD_8, 4, 2},
    {LANES_APART(64) LOAD_8, 16, 14},
    {LANES_APART(16) LOAD_16, 4, 0},
    {LANES_APART(32) LOAD_16, 8, 4},
    {LANES_APART(128) LOAD_16, 32, 28},
    {LANES_APART(144) LOAD_16, 4, 0},
    {LANES_APART(144) "st.shared.v2.u64 [%r3], {%rd1, %rd1};", 4, 0},
    {LANES_APART(16) MATRICES_1, 1, 0},
    {LANES_APART(128) MATRICES_1, 8, 7},
    {LANES_APART(16) MATRICES_4, 4, 0},
    {LANES_APART(32) MATRICES_4, 8, 4},
    {LANES_APART(144) MATRICES_4, 4, 0},
    {LANES_APART(128) "and.b32 %r4, %r1, 7; shl.b32 %r4, %r4, 4; xor.b32 %r3, %r3, %r4; " MATRICES_4, 4, 0},
    {LANES_APART(128) "atom.shared.add.u32 %r4, [%r3], 1;", 0, 0},
    {LANES_APART(128) "red.shared.add.u32 [%r3], 1;", 0, 0},
    /* Lanes that do not take part: even ones only, and the last eight only. */
    {LANES_APART(64) "and.b32 %r4, %r1, 1; setp.eq.s32 %p1, %r4, 0;\n@%p1 ld.shared.u32 %r4, [%r3];", 16, 15},
    {LANES_APART(16) "setp.ge.u32 %p1, %r1, 24;\n@%p1 ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r3];", 1, 0},
    /* Lane l takes l + 1 turns, 8 bytes apart, and from turn to turn another bank: in turn t lanes t .. 31
     * take part, two words a bank while there are more than 16 of them. */
    {LANES_APART(8) "mov.u32 %r5, 0;\nagain:\n" LOAD_4 "\nadd.s32 %r3, %r3, 4;\n"
                    "add.s32 %r5, %r5, 1;\nsetp.le.u32 %p1, %r5, %r1;\n@%p1 bra again;",
     32 + 16, 16},
    /* The branch of odd lanes has accesses of its own. */
    {LANES_APART(4) "and.b32 %r4, %r1, 1; setp.eq.s32 %p1, %r4, 0;\n@%p1 bra even;\n" LOAD_4
                    "\neven:\n" LOAD_4,
     2, 0},
};

static void bank_conflicts_are_counted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shared_accesses / sizeof *shared_accesses; i++) {
        for (int seed = 0; seed < 4; seed++) {
            struct qd_emu_mode mode = qd_emu_default_mode();
            mode.schedule = seed > 0 ? QD_EMU_SCHEDULE_RANDOM : QD_EMU_SCHEDULE_FIXED;
            mode.seed = (uint64_t)seed;
            qd_emu_set_mode(&mode);
            const struct qd_emu_counters c = count(shared_accesses[i].code, 2, LANES, NULL);
            if (c.shared_wavefronts != 2 * shared_accesses[i].wavefronts ||
                c.shared_conflicts != 2 * shared_accesses[i].conflicts)
                fail_msg("%s: %llu wavefronts, %llu conflicts", shared_accesses[i].code,
                         (unsigned long long)c.shared_wavefronts, (unsigned long long)c.shared_conflicts);
        }
    }
}

static void every_warp_has_banks_of_its_own(void **state)
{
    (void)state;
    const struct qd_emu_counters c = count(LANES_APART(16) LOAD_4, 1, 2 * LANES + 5, NULL);
    assert_int_equal(c.shared_wavefronts, 4 + 4 + 1);
    assert_int_equal(c.shared_conflicts, 3 + 3);
}

/* ---- stores that come twice ---- */

static const struct {
    const char *code;
    bool twice;
} stores[] = {
    {"st.global.u32 [%rd2], %r1;", false},
    {"st.global.u16 [%rd2], %rs1; st.global.u16 [%rd2+2], %rs1;", false},
    {"st.global.u32 [%rd2], %r1; st.global.u32 [%rd2], %r1;", true},
    {"st.global.v2.u16 [%rd2], {%rs1, %rs1}; st.global.u8 [%rd2+3], %rs1;", true},
    {"st.global.u32 [%rd1], %r1;", true},                                     /* by another thread */
    {"setp.lt.u32 %p1, %r1, 31; @%p1 st.global.u32 [%rd1+128], %r1;", false}, /* behind the range */
    {"atom.global.add.u32 %r3, [%rd1], 1;", false},
    {"st.release.sys.global.u32 [%rd1], %r1;", false},
};

static void a_second_store_ends_the_launch(void **state)
{
    (void)state;
    uint32_t memory[LANES + 1] = {0}, other[1] = {0};
    for (size_t i = 0; i < sizeof stores / sizeof *stores; i++) {
        qd_emu_write_once(other, sizeof other);
        qd_emu_write_once(memory, LANES * sizeof *memory);
        load_code(stores[i].code);
        for (int launch = 0; launch < 2; launch++) { /* each may write anew */
            if (run(1, LANES, memory) != (stores[i].twice ? -1 : 0)) fail_msg("%s: %s", stores[i].code, err);
            if (stores[i].twice) ASSERT_CONTAINS(err, "rig.ptx:11: a second store to ");
        }
        qd_emu_write_once(NULL, 0);
        assert_int_equal(run(1, LANES, memory), 0);
        qd_emu_ptx_unload_all();
    }
}

static void a_second_store_is_told_with_its_place(void **state)
{
    (void)state;
    uint32_t memory[LANES] = {0};
    char want[128];
    qd_emu_write_once(memory, sizeof memory);
    load_code("setp.ne.u32 %p1, %r1, 9;\n@%p1 ret;\nst.global.u32 [%rd2], %r1;");
    assert_int_equal(run(2, LANES, memory), -1); /* the second block does it again */
    snprintf(want, sizeof want, "rig.ptx:13: a second store to %p, byte 36 of 128", (void *)&memory[9]);
    ASSERT_CONTAINS(err, want);
    ASSERT_CONTAINS(err, "kernel traffic: ");
    ASSERT_CONTAINS(err, "[block (1,0,0) thread (9,0,0)]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(global_bytes_are_counted, unload),
        cmocka_unit_test_teardown(bank_conflicts_are_counted, unload),
        cmocka_unit_test_teardown(every_warp_has_banks_of_its_own, unload),
        cmocka_unit_test_teardown(a_second_store_ends_the_launch, unload),
        cmocka_unit_test_teardown(a_second_store_is_told_with_its_place, unload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
