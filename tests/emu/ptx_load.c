/* The PTX front end refuses what it does not know when a module is loaded, by name and with file and line. */
#include "tests/emu/ptx_rig.h"

static int unload(void **state)
{
    (void)state;
    qd_emu_ptx_unload_all();
    return 0;
}

/* The statement stands on line 15. */
static int load_statement(const char *statement)
{
    char text[2048];
    snprintf(text, sizeof text,
             PTX_HEADER ".extern .shared .align 16 .b8 dynamic[];\n"
                        ".visible .entry kernel(\n"
                        "    .param .u64 pointer,\n"
                        "    .param .align 8 .b8 block[24]\n"
                        ")\n.maxntid 128, 1, 1\n{\n"
                        "    .reg .pred %%p<4>;\n    .reg .b16 %%rs<4>;\n    .reg .b32 %%r<4>;\n"
                        "    .reg .f32 %%f<4>; .reg .b64 %%rd<4>;\n"
                        "%s\n    ret;\n}\n",
             statement);
    return ptx_load_text(text);
}

static const struct {
    const char *statement, *reason;
} refused[] = {
    /* opcodes and modifiers */
    {"vadd.s32.s32.s32 %r1, %r2, %r3;", "vadd.s32.s32.s32: the instruction is not supported"},
    {"add.sat.s32 %r1, %r2, %r3;", "add.sat.s32: the instruction is not supported"},
    {"add.f64 %rd1, %rd2, %rd3;", "add.f64: the instruction is not supported"},
    {"add.ftz.f32 %f1, %f2, %f3;", "add.ftz.f32: the instruction is not supported"},
    {"mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r1}, {%f1};", "m16n8k8"},
    {"red.global.add.f32 [%rd1], %f1;", "red.global.add.f32: the instruction is not supported"},
    {"call (%r1), function, (%r2);", "call: the instruction is not supported"},
    {"ld.global.L1::evict_last.u32 %r1, [%rd1];", "ld.global.L1::evict_last.u32: the instruction is not supported"},
    {"ld.local.u32 %r1, [%rd1];", "ld.local.u32: the instruction is not supported"},
    {"ld.global.v8.u32 %r1, [%rd1];", "ld.global.v8.u32: the instruction is not supported"},
    {"ld.global.u32.u32 %r1, [%rd1];", "ld.global.u32.u32: the instruction is not supported"},
    {"ld.global.pred %p1, [%rd1];", "ld.global.pred: the instruction is not supported"},
    {"ld.u32 %r1, [%rd1];", "ld.u32: the instruction is not supported"},
    {"st.param.u64 [pointer], %rd1;", "st.param.u64: the instruction is not supported"},
    {"cp.async.cg.shared.global.L2::128B [%r1], [%rd1], 8, %r2;", "`8` is a number that is not supported"},
    /* numbers and kinds of operands */
    {"add.s32 %r1, %r2;", "add.s32: not with such operands"},
    {"add.s32 %r1, %r2, %r3, %r1;", "add.s32: not with such operands"},
    {"add.s32 %r1, [%r2], %r3;", "add.s32: not with such operands"},
    {"add.s32 {%r1, %r2}, %r2, %r3;", "add.s32: not with such operands"},
    {"ld.global.v2.u32 {%r1, %r2, %r3}, [%rd1];", "not with such operands"},
    {"ld.global.v2.u32 %r1, [%rd1];", "not with such operands"},
    {"ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1}, [%r2];", "not with such operands"},
    {"shfl.sync.up.b32 %r1, %r2, 1, 0, -1;", "not with such operands"},
    /* names */
    {"add.s32 %r1, %r2, %r4;", "`%r4` is not declared"},
    {"add.s32 %r1, %r2, %rx;", "`%rx` is not declared"},
    {"mov.u32 %r1, %clock;", "`%clock` is not declared"},
    {"mov.u32 %r1, elsewhere;", "`elsewhere` is not declared"},
    {"mov.u32 %tid.x, %r1;", "`%tid.x` cannot be written"},
    {"mov.u32 1, %r1;", "`1` cannot be written"},
    {"@%q1 ret;", "`%q1` is not declared"},
    {"bra $nowhere;", "no label `$nowhere`"},
    /* addresses */
    {"ld.global.u32 %r1, [%rd1+4294967296];", "`4294967296` is an offset beyond 32 bits"},
    /* syntax and declarations */
    {"add.s32 %r1, %r2, %r3", "add.s32: not with such operands"},
    {"add.s32 %r1, %r2, !%r3;", "`!` is not declared"},
    {"{ add.s32 %r1, %r2, %r3; }", "{ is not understood"},
    {".local .align 8 .b8 __local_depot0[8];", ".local is not understood"},
    {".reg .b32 %x;", "; is not understood"},
};

static void what_is_not_known_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (load_statement(refused[i].statement) == 0) fail_msg("loaded: %s", refused[i].statement);
        if (strstr(err, refused[i].reason) == NULL || strstr(err, "rig.ptx:1") == NULL)
            fail_msg("%s: \"%s\", not \"%s\"", refused[i].statement, err, refused[i].reason);
    }
    assert_int_equal(load_statement("foo.u32 %r1;"), -1);
    ASSERT_CONTAINS(err, "rig.ptx:15: foo.u32: the instruction is not supported");
}

static void what_nvcc_writes_is_known(void **state)
{
    (void)state;
    static const char *const statements[] = {
        "ld.global.s32 %rd1, [%rd2+-8]; ld.param.u32 %r1, [block+20];",
        "st.global.u16 [%rd1], %r1;",
        "mov.u32 %r1, dynamic;",
        "mov.b64 %rd1, block; ld.param.v2.u32 {%r1, %r2}, [%rd1+8];",
        "mov.b64 %rd1, {%r1,%r2}; mov.b64 {%r1,%r2}, %rd1;",
        ".pragma \"nounroll\";\n$L__BB0_1:\n@!%p1 bra $L__BB0_1;\nbra.uni $end; $end:",
        "// a remark\nmul.wide.u32 %rd1, %r1, -1431655765; // and another",
        "ld.volatile.global.u64 %rd1, [%rd2];",
        "ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r1,%r2,%r3,%r1}, [%rd1];",
        "mov.f32 %f1, 0fFF800000; selp.f32 %f2, %f1, 0f00000000, %p1;",
    };
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (load_statement(statements[i]) != 0) fail_msg("%s: %s", statements[i], err);
        qd_emu_ptx_unload_all();
    }
}

static void modules_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *reason;
    } modules[] = {
        {PTX_HEADER ".global .align 4 .b8 table[4];\n", "rig.ptx:4: .global is not understood"},
        {PTX_HEADER ".func helper()\n{\n}\n", ".func is not understood"},
        {PTX_HEADER ".visible .func helper()\n{\n}\n", ".func is not understood"},
        {PTX_HEADER ".visible .entry k()\n.reqnctapercluster 2\n{\n ret;\n}\n", ".reqnctapercluster is not understood"},
        {PTX_HEADER ".visible .entry k()\n{\n ret;\n", "the end is not understood"},
        {PTX_HEADER ".visible .entry k", "the end is not understood"},
    };
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        assert_int_equal(ptx_load_text(modules[i].text), -1);
        ASSERT_CONTAINS(err, modules[i].reason);
    }
    assert_int_equal(qd_emu_ptx_load("/nowhere/module.ptx", err, sizeof err), -1);
    ASSERT_CONTAINS(err, "/nowhere/module.ptx");
}

static void a_launch_must_fit_its_entry(void **state)
{
    (void)state;
    assert_int_equal(load_statement(""), 0);
    uint64_t args[3] = {0};
    struct qd_emu_launch other = {.name = "other"};
    assert_int_equal(qd_emu_ptx_replace(&other, NULL, 0, err, sizeof err), 0);
    assert_null(other.call); /* no loaded module has it */
    assert_int_equal(ptx_run("kernel", 1, 32, 1, args), -1);
    ASSERT_CONTAINS(err, "kernel kernel: 1 arguments for 2 parameters");
    assert_int_equal(ptx_run("kernel", 1, 32, 2, args), -1);
    ASSERT_CONTAINS(err, "argument 1 of 8 bytes for a parameter of 24");
    assert_int_equal(ptx_run("kernel", 1, 129, 2, args), -1);
    ASSERT_CONTAINS(err, "a block of 129 threads, compiled for at most 128");
}

/* A thread's registers and constants lie on its stack. */
static void what_fits_no_stack_is_refused(void **state)
{
    (void)state;
    enum { MOVES = 13000, MOVE_LEN = 40 };
    char *text = malloc(1024 + MOVES * MOVE_LEN);
    assert_non_null(text);
    size_t length = (size_t)sprintf(text, PTX_HEADER ".visible .entry k()\n{\n.reg .b32 %%r<1>;\n");
    for (int i = 0; i < MOVES; i++) length += (size_t)sprintf(text + length, "mov.u32 %%r0, %d;\n", i);
    strcpy(text + length, "ret;\n}\n");
    assert_int_equal(ptx_load_text(text), -1);
    ASSERT_CONTAINS(err, "more than 12288 registers and constants");
    assert_int_equal(ptx_load_text(PTX_HEADER ".visible .entry k()\n{\n.reg .b32 %r<12289>;\nret;\n}\n"), -1);
    ASSERT_CONTAINS(err, "more than 12288 registers and constants");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_is_not_known_is_refused_by_name, unload),
        cmocka_unit_test_teardown(what_nvcc_writes_is_known, unload),
        cmocka_unit_test_teardown(modules_are_refused, unload),
        cmocka_unit_test_teardown(what_fits_no_stack_is_refused, unload),
        cmocka_unit_test_teardown(a_launch_must_fit_its_entry, unload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
