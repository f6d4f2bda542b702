/* PTX instructions, one by one: values from the PTX manual's definitions, worked out by hand. */
#include "tests/emu/ptx_rig.h"

enum { MAX_TEXT = 64 * 1024 };

static int unload(void **state)
{
    (void)state;
    qd_emu_ptx_unload_all();
    return 0;
}

/* A snippet finds a, b, c in %rd1..3 and, narrowed, in %r1..3, %rs1..3, %f1..3; its result is in register 0
 * of the kind that `result` names. */
struct snippet {
    const char *code;
    const char *result; /* rd, r, rs, f or p */
    uint64_t a, b, c, want;
};

#define M1 UINT64_MAX /* -1 */
enum {
    ONE = 0x3f800000,
    TWO = 0x40000000,
    HALF = 0x3f000000,
    NAN_BITS = 0x7fc00000,
    INF = 0x7f800000,
};
#define NEGATIVE(bits) ((bits) | 0x80000000u)
#define NEGATIVE_64(x) ((uint64_t)(-(int64_t)(x)))
#define LOW_32(x)      ((uint32_t)(x))

static const struct snippet integers[] = {
    {"add.s32 %r0, %r1, %r2;", "r", 0x7fffffff, 1, 0, 0x80000000},
    {"add.s64 %rd0, %rd1, -8;", "rd", 7, 0, 0, M1},
    {"sub.s16 %rs0, %rs1, %rs2;", "rs", 0, 1, 0, 0xffff},
    {"mul.lo.s32 %r0, %r1, %r2;", "r", 0x10001, 0x10001, 0, 0x20001},
    {"mul.lo.s64 %rd0, %rd1, %rd2;", "rd", 0x100000001, 0x100000001, 0, 0x200000001},
    {"mul.lo.s16 %rs0, %rs1, 3;", "rs", 0x8001, 0, 0, 0x8003},
    {"mul.hi.u32 %r0, %r1, %r2;", "r", M1, M1, 0, 0xfffffffe},
    {"mul.hi.s32 %r0, %r1, %r2;", "r", M1, M1, 0, 0},
    {"mul.hi.s32 %r0, %r1, %r2;", "r", 0x80000000, 2, 0, 0xffffffff},
    {"mul.wide.u32 %rd0, %r1, %r2;", "rd", M1, M1, 0, 0xfffffffe00000001},
    {"mul.wide.u32 %rd0, %r1, -1431655765;", "rd", 3, 0, 0, 0x200000001},
    {"mul.wide.s32 %rd0, %r1, %r2;", "rd", M1, 3, 0, NEGATIVE_64(3)},
    {"mul.wide.s16 %r0, %rs1, %rs2;", "r", 0x8000, 0x8000, 0, 0x40000000},
    {"mul.wide.u16 %r0, %rs1, -21845;", "r", 3, 0, 0, 0x20001},
    {"mad.lo.s32 %r0, %r1, %r2, %r3;", "r", M1, 5, 3, LOW_32(-2)},
    {"div.s32 %r0, %r1, %r2;", "r", NEGATIVE_64(7), 2, 0, LOW_32(-3)},
    {"div.s32 %r0, %r1, %r2;", "r", 0x80000000, M1, 0, 0x80000000},
    {"div.s64 %rd0, %rd1, %rd2;", "rd", UINT64_C(1) << 63, M1, 0, UINT64_C(1) << 63},
    {"div.u32 %r0, %r1, %r2;", "r", NEGATIVE_64(7), 2, 0, 0x7ffffffc},
    {"rem.s32 %r0, %r1, %r2;", "r", NEGATIVE_64(7), 2, 0, LOW_32(-1)},
    {"rem.s64 %rd0, %rd1, %rd2;", "rd", UINT64_C(1) << 63, M1, 0, 0},
    {"rem.u64 %rd0, %rd1, %rd2;", "rd", M1, 10, 0, 5},
    {"neg.s32 %r0, %r1;", "r", 0x80000000, 0, 0, 0x80000000},
    {"min.s32 %r0, %r1, %r2;", "r", M1, 1, 0, 0xffffffff},
    {"min.u32 %r0, %r1, %r2;", "r", M1, 1, 0, 1},
    {"max.s32 %r0, %r1, -128;", "r", NEGATIVE_64(200), 0, 0, LOW_32(-128)},
    {"max.u64 %rd0, %rd1, %rd2;", "rd", 5, M1, 0, M1},
    /* shifts take no amount modulo anything */
    {"shl.b32 %r0, %r1, %r2;", "r", 3, 31, 0, 0x80000000},
    {"shl.b32 %r0, %r1, %r2;", "r", M1, 32, 0, 0},
    {"shl.b32 %r0, %r1, %r2;", "r", M1, M1, 0, 0},
    {"shl.b64 %rd0, %rd1, %r2;", "rd", 3, 63, 0, UINT64_C(1) << 63},
    {"shl.b16 %rs0, %rs1, %r2;", "rs", M1, 16, 0, 0},
    {"shr.s32 %r0, %r1, %r2;", "r", NEGATIVE_64(8), 1, 0, LOW_32(-4)},
    {"shr.s32 %r0, %r1, %r2;", "r", NEGATIVE_64(8), 40, 0, LOW_32(-1)},
    {"shr.s32 %r0, %r1, %r2;", "r", 8, 40, 0, 0},
    {"shr.u32 %r0, %r1, %r2;", "r", M1, 31, 0, 1},
    {"shr.u32 %r0, %r1, %r2;", "r", M1, 32, 0, 0},
    {"shr.s64 %rd0, %rd1, %r2;", "rd", UINT64_C(1) << 63, 70, 0, M1},
    {"shr.u64 %rd0, %rd1, 33;", "rd", M1, 0, 0, 0x7fffffff},
    {"shr.u16 %rs0, %rs1, 1;", "rs", 0x8000, 0, 0, 0x4000},
    {"shr.s16 %rs0, %rs1, 1;", "rs", 0x8000, 0, 0, 0xc000},
    {"and.b32 %r0, %r1, -16;", "r", 0x12345678, 0, 0, 0x12345670},
    {"or.b64 %rd0, %rd1, %rd2;", "rd", 0xf0, 0x0f, 0, 0xff},
    {"xor.b16 %rs0, %rs1, %rs2;", "rs", 0xffff, 0x00ff, 0, 0xff00},
    {"not.b32 %r0, %r1;", "r", 0, 0, 0, 0xffffffff},
    {"bfi.b32 %r0, %r1, %r2, 3, 29;", "r", 5, 7, 0, 0x2f},
    {"bfi.b32 %r0, %r1, %r2, 4, 0;", "r", M1, 7, 0, 7},
    {"bfi.b32 %r0, %r1, %r2, 32, 4;", "r", M1, 7, 0, 7},
    {"bfi.b32 %r0, %r1, %r2, 28, 8;", "r", M1, 7, 0, 0xf0000007},
    {"bfi.b64 %rd0, %rd1, %rd2, 32, 32;", "rd", 2, 0xffffffff00000001, 0, 0x200000001},
    {"brev.b32 %r0, %r1;", "r", 0x00000003, 0, 0, 0xc0000000},
    {"bfind.shiftamt.u32 %r0, %r1;", "r", 1, 0, 0, 31},
    {"bfind.shiftamt.u32 %r0, %r1;", "r", 0x80000001, 0, 0, 0},
    {"bfind.shiftamt.u32 %r0, %r1;", "r", 0, 0, 0, 0xffffffff},
    {"mov.b64 %rd0, {%r1,%r2};", "rd", 0xffffffff00000001, 2, 0, 0x200000001},
    {"mov.b64 {%r4,%r0}, %rd1;", "r", 0x700000001, 0, 0, 7},
    {"mov.b64 {%r0,%r4}, %rd1;", "r", 0x700000001, 0, 0, 1},
    {"mov.b32 %r0, {%rs1,%rs2};", "r", 0x10001, 0x20002, 0, 0x20001},
    {"mov.b32 {%rs4,%rs0}, %r1;", "rs", 0x70001, 0, 0, 7},
};

static const struct snippet floats[] = {
    {"add.f32 %f0, %f1, %f2;", "f", ONE, TWO, 0, 0x40400000},
    {"sub.rn.f32 %f0, %f1, %f2;", "f", ONE, ONE, 0, 0},
    {"mul.rn.f32 %f0, %f1, %f2;", "f", 0x00800000, HALF, 0, 0x00400000}, /* subnormals stay */
    {"mul.f32 %f0, %f1, 0fC0000000;", "f", ONE, 0, 0, 0xc0000000},
    {"neg.f32 %f0, %f1;", "f", 0, 0, 0, 0x80000000},
    {"div.rn.f32 %f0, %f1, %f2;", "f", ONE, 0x40400000, 0, 0x3eaaaaab},
    {"rcp.rn.f32 %f0, %f1;", "f", 0x40400000, 0, 0, 0x3eaaaaab},
    {"rcp.rn.f32 %f0, %f1;", "f", 0x80000000, 0, 0, NEGATIVE(INF)},
    {"rsqrt.approx.f32 %f0, %f1;", "f", 0x40800000, 0, 0, HALF},
    {"ex2.approx.ftz.f32 %f0, %f1;", "f", 0x40400000, 0, 0, 0x41000000},
    {"ex2.approx.ftz.f32 %f0, %f1;", "f", 0xc2fe0000, 0, 0, 0}, /* 2^-127 is flushed */
    /* (1 + 2^-23)^2 - (1 + 2^-22) = 2^-46, which a rounded product would lose */
    {"fma.rn.f32 %f0, %f1, %f2, %f3;", "f", 0x3f800001, 0x3f800001, 0xbf800002, 0x28800000},
    {"mul.rn.f32 %f0, %f1, %f2; add.rn.f32 %f0, %f0, %f3;", "f", 0x3f800001, 0x3f800001, 0xbf800002, 0},
    {"min.f32 %f0, %f1, %f2;", "f", NAN_BITS, ONE, 0, ONE},
    {"max.f32 %f0, %f1, %f2;", "f", ONE, NAN_BITS, 0, ONE},
    {"min.f32 %f0, %f1, %f2;", "f", 0, 0x80000000, 0, 0x80000000},
    {"max.f32 %f0, %f1, %f2;", "f", 0x80000000, 0, 0, 0},
    {"min.f32 %f0, %f1, %f2;", "f", NEGATIVE(INF), ONE, 0, NEGATIVE(INF)},
};

static const struct snippet conversions[] = {
    {"cvt.rni.s32.f32 %r0, %f1;", "r", 0x40200000, 0, 0, 2},          /* 2.5 */
    {"cvt.rni.s32.f32 %r0, %f1;", "r", 0x40600000, 0, 0, 4},          /* 3.5 */
    {"cvt.rni.s32.f32 %r0, %f1;", "r", 0xc0200000, 0, 0, LOW_32(-2)}, /* -2.5 */
    {"cvt.rzi.s32.f32 %r0, %f1;", "r", 0xc039999a, 0, 0, LOW_32(-2)}, /* -2.9 */
    {"cvt.rmi.s32.f32 %r0, %f1;", "r", 0xc0066666, 0, 0, LOW_32(-3)}, /* -2.1 */
    {"cvt.rpi.s32.f32 %r0, %f1;", "r", 0x40066666, 0, 0, 3},          /* 2.1 */
    {"cvt.rzi.s32.f32 %r0, %f1;", "r", 0x4f000000, 0, 0, 0x7fffffff}, /* 2^31 */
    {"cvt.rzi.s32.f32 %r0, %f1;", "r", NEGATIVE(INF), 0, 0, 0x80000000},
    {"cvt.rzi.s32.f32 %r0, %f1;", "r", NAN_BITS, 0, 0, 0},
    {"cvt.rzi.u32.f32 %r0, %f1;", "r", NEGATIVE(ONE), 0, 0, 0},
    {"cvt.rzi.u32.f32 %r0, %f1;", "r", 0x4f7fffff, 0, 0, 0xffffff00}, /* 2^32 - 256 */
    {"cvt.rzi.u32.f32 %r0, %f1;", "r", 0x4f800000, 0, 0, 0xffffffff}, /* 2^32 */
    {"cvt.rn.f32.s32 %f0, %r1;", "f", 16777217, 0, 0, 0x4b800000},    /* to even: 2^24 */
    {"cvt.rn.f32.s32 %f0, %r1;", "f", 16777219, 0, 0, 0x4b800002},    /* to even: 2^24 + 4 */
    {"cvt.rn.f32.s32 %f0, %r1;", "f", M1, 0, 0, NEGATIVE(ONE)},
    {"cvt.rn.f32.u32 %f0, %r1;", "f", M1, 0, 0, 0x4f800000},
    {"cvt.rn.f32.u64 %f0, %rd1;", "f", M1, 0, 0, 0x5f800000},
    {"cvt.s64.s32 %rd0, %r1;", "rd", 0x80000000, 0, 0, 0xffffffff80000000},
    {"cvt.s64.s32 %rd0, %rd1;", "rd", 0x180000000, 0, 0, 0xffffffff80000000},
    {"cvt.u64.u32 %rd0, %r1;", "rd", 0x80000000, 0, 0, 0x80000000},
    {"cvt.u32.u64 %r0, %rd1;", "r", 0x123456789, 0, 0, 0x23456789},
    {"cvt.u16.u32 %rs0, %r1;", "rs", 0x12345, 0, 0, 0x2345},
    {"cvt.s32.s8 %r0, %r1;", "r", 0x180, 0, 0, LOW_32(-128)},
    {"cvt.u32.u8 %r0, %rs1;", "r", 0x180, 0, 0, 0x80},
    {"cvt.rn.bf16x2.f32 %r0, %f1, %f2;", "r", ONE, TWO, 0, 0x3f804000}, /* a in the upper half */
    {"cvt.rn.bf16x2.f32 %r0, %f1, %f2;", "r", 0x3f808000, 0x3f818000, 0, 0x3f803f82}, /* ties to even */
};

static const struct snippet predicates[] = {
    {"setp.lt.s32 %p0, %r1, %r2;", "p", M1, 1, 0, 1},
    {"setp.lt.u32 %p0, %r1, %r2;", "p", M1, 1, 0, 0},
    {"setp.gt.s64 %p0, %rd1, %rd2;", "p", 1, M1, 0, 1},
    {"setp.ge.u64 %p0, %rd1, %rd2;", "p", M1, M1, 0, 1},
    {"setp.ne.s16 %p0, %rs1, 0;", "p", 0x10000, 0, 0, 0},
    {"setp.eq.b32 %p0, %r1, 1;", "p", 0x100000001, 0, 0, 1},
    {"setp.eq.f32 %p0, %f1, %f2;", "p", 0, 0x80000000, 0, 1},
    {"setp.eq.f32 %p0, %f1, %f2;", "p", NAN_BITS, NAN_BITS, 0, 0},
    {"setp.ne.f32 %p0, %f1, %f2;", "p", NAN_BITS, ONE, 0, 0},
    {"setp.neu.f32 %p0, %f1, %f2;", "p", NAN_BITS, ONE, 0, 1},
    {"setp.equ.f32 %p0, %f1, %f2;", "p", NAN_BITS, ONE, 0, 1},
    {"setp.equ.f32 %p0, %f1, %f2;", "p", TWO, ONE, 0, 0},
    {"setp.lt.f32 %p0, %f1, %f2;", "p", ONE, NAN_BITS, 0, 0},
    {"setp.ltu.f32 %p0, %f1, %f2;", "p", ONE, NAN_BITS, 0, 1},
    {"setp.leu.f32 %p0, %f1, %f2;", "p", TWO, ONE, 0, 0},
    {"setp.leu.f32 %p0, %f1, %f2;", "p", ONE, ONE, 0, 1},
    {"setp.gtu.f32 %p0, %f1, %f2;", "p", NAN_BITS, ONE, 0, 1},
    {"setp.geu.f32 %p0, %f1, %f2;", "p", ONE, TWO, 0, 0},
    {"setp.num.f32 %p0, %f1, %f2;", "p", ONE, TWO, 0, 1},
    {"setp.num.f32 %p0, %f1, %f2;", "p", ONE, NAN_BITS, 0, 0},
    {"setp.nan.f32 %p0, %f1, %f1;", "p", NAN_BITS, 0, 0, 1},
    {"setp.nan.f32 %p0, %f1, %f1;", "p", INF, 0, 0, 0},
    {"setp.eq.s32 %p1, %r1, 1; setp.eq.s32 %p2, %r2, 1; and.pred %p0, %p1, %p2;", "p", 1, 2, 0, 0},
    {"setp.eq.s32 %p1, %r1, 1; setp.eq.s32 %p2, %r2, 1; or.pred %p0, %p1, %p2;", "p", 1, 2, 0, 1},
    {"setp.eq.s32 %p1, %r1, 1; setp.eq.s32 %p2, %r2, 1; xor.pred %p0, %p1, %p2;", "p", 1, 1, 0, 0},
    {"setp.eq.s32 %p1, %r1, 1; not.pred %p0, %p1;", "p", 1, 0, 0, 0},
    {"mov.pred %p0, 1;", "p", 0, 0, 0, 1},
    {"mov.pred %p0, -1; mov.u32 %r0, 5; @%p0 mov.u32 %r0, 6;", "r", 0, 0, 0, 6},
    {"setp.eq.s32 %p1, %r1, 1; selp.b32 %r0, %r2, -1, %p1;", "r", 1, 7, 0, 7},
    {"setp.eq.s32 %p1, %r1, 1; selp.b32 %r0, %r2, -1, %p1;", "r", 0, 7, 0, 0xffffffff},
    {"setp.eq.s32 %p1, %r1, 1; selp.f32 %f0, 0f40000000, %f2, %p1;", "f", 1, ONE, 0, TWO},
    {"setp.eq.s32 %p1, %r1, 1; mov.u32 %r0, 5; @%p1 mov.u32 %r0, 6;", "r", 1, 0, 0, 6},
    {"setp.eq.s32 %p1, %r1, 1; mov.u32 %r0, 5; @!%p1 mov.u32 %r0, 6;", "r", 1, 0, 0, 5},
    /* the sum of 1 .. a */
    {"mov.u32 %r0, 0; $loop: add.s32 %r0, %r0, %r1; add.s32 %r1, %r1, -1; setp.gt.s32 %p1, %r1, 0; "
     "@%p1 bra $loop; bra.uni $out; mov.u32 %r0, 0; $out:",
     "r", 10, 0, 0, 55},
    /* never written: poison, also when others came and went */
    {"mov.u32 %r0, %r9;", "r", 0, 0, 0, 0xdeadbeef},
    {"mov.u64 %rd0, %rd9;", "rd", 0, 0, 0, 0xdeadbeefdeadbeef},
    {"add.s32 %r4, %r1, 1; add.s32 %r0, %r4, %r9;", "r", 1, 0, 0, 0xdeadbeef + 2},
    {"setp.eq.s32 %p1, %r1, 1; @%p1 mov.u32 %r9, 1; mov.u32 %r0, %r9;", "r", 0, 0, 0, 0xdeadbeef},
};

/* In memory: %rd12 is the address of a, b, c. */
static const struct snippet accesses[] = {
    {"ld.global.s8 %rs0, [%rd12+3];", "rs", 0x80000000, 0, 0, 0xff80},
    {"ld.global.u8 %rs0, [%rd12+3];", "rs", 0x80000000, 0, 0, 0x80},
    {"ld.global.s16 %r0, [%rd12+2];", "r", 0x80000000, 0, 0, 0xffff8000},
    {"ld.global.s32 %rd0, [%rd12];", "rd", 0x180000000, 0, 0, 0xffffffff80000000},
    {"ld.global.u32 %rd0, [%rd12];", "rd", 0x180000000, 0, 0, 0x80000000},
    {"add.s64 %rd4, %rd12, 16; ld.global.u64 %rd0, [%rd4+-8];", "rd", 0, 5, 0, 5},
    {"ld.global.v2.u32 {%r4, %r0}, [%rd12+8];", "r", 0, 0x700000001, 0, 7},
    {"ld.global.v4.u16 {%rs4, %rs5, %rs0, %rs6}, [%rd12];", "rs", 0x4000300020001, 0, 0, 3},
    {"ld.global.v2.u64 {%rd4, %rd0}, [%rd12];", "rd", 1, 2, 0, 2},
    {"st.global.u8 [%rd12+1], %r2; ld.global.u32 %r0, [%rd12];", "r", 0x11111111, 0x1ff, 0, 0x1111ff11},
    {"st.global.u16 [%rd12+2], %r2; ld.global.u64 %rd0, [%rd12];", "rd", 0, 0x12345, 0, 0x23450000},
    {"st.global.u32 [%rd12], %rd2; ld.global.u64 %rd0, [%rd12];", "rd", 0, M1, 0, 0xffffffff},
    {"st.global.v2.f32 [%rd12], {%f2, %f3}; ld.global.u64 %rd0, [%rd12];", "rd", 0, ONE, TWO,
     0x400000003f800000},
    {"st.shared.v4.u8 [object+4], {%rs1, %rs2, %rs3, %rs1}; ld.shared.u32 %r0, [object+4];", "r", 1, 0x102, 3,
     0x01030201},
    {"mov.u32 %r4, dynamic; st.shared.u64 [%r4+8], %rd1; add.s32 %r5, %r4, 16; ld.shared.u32 %r0, [%r5+-4];",
     "r", 0x900000000, 0, 0, 9},
    {"ld.shared.u32 %r0, [object];", "r", 0, 0, 0, 0xffffffff}, /* poison */
    {"atom.global.add.u32 %r0, [%rd12], %r2;", "r", 5, 7, 0, 5},
    {"atom.global.add.u32 %r4, [%rd12], %r2; ld.global.u32 %r0, [%rd12];", "r", 5, 7, 0, 12},
    {"atom.global.cas.b32 %r0, [%rd12], 5, %r2;", "r", 5, 7, 0, 5},
    {"atom.global.cas.b32 %r4, [%rd12], 5, %r2; ld.global.u32 %r0, [%rd12];", "r", 5, 7, 0, 7},
    {"atom.global.cas.b32 %r4, [%rd12], 6, %r2; ld.global.u32 %r0, [%rd12];", "r", 5, 7, 0, 5},
    {"st.shared.u32 [object], %r1; mov.u32 %r4, object; atom.shared.add.u32 %r5, [%r4], %r2; "
     "ld.shared.u32 %r0, [object];",
     "r", 5, 7, 0, 12},
    {"st.shared.u32 [object], %r1; mov.u32 %r4, object; red.shared.add.u32 [%r4], %r2; "
     "ld.shared.u32 %r0, [object];",
     "r", 5, 7, 0, 12},
    {"st.release.sys.global.u32 [%rd12], %r2; membar.gl; ld.acquire.sys.global.u32 %r0, [%rd12];", "r", 0, 7,
     0, 7},
    {"ld.volatile.global.u64 %rd0, [%rd12+16];", "rd", 0, 0, 9, 9},
    {"ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r4,%r5,%r0,%r6}, [%rd12];", "r", 0, 0x700000006, 0, 6},
};

static const char *to_64_bits(const char *result)
{
    if (strcmp(result, "r") == 0) return "cvt.u64.u32 %rd0, %r0;";
    if (strcmp(result, "rs") == 0) return "cvt.u64.u16 %rd0, %rs0;";
    if (strcmp(result, "f") == 0) return "mov.b32 %r0, %f0; cvt.u64.u32 %rd0, %r0;";
    if (strcmp(result, "p") == 0) return "selp.u64 %rd0, 1, 0, %p0;";
    return "";
}

static void load_snippet(const struct snippet *s)
{
    char *text = malloc(MAX_TEXT);
    assert_non_null(text);
    snprintf(text, MAX_TEXT,
             PTX_HEADER ".extern .shared .align 16 .b8 dynamic[];\n"
                        ".visible .entry snippet(.param .u64 from, .param .u64 to)\n{\n"
                        ".reg .pred %%p<10>; .reg .b16 %%rs<10>; .reg .b32 %%r<10>;\n"
                        ".reg .f32 %%f<10>; .reg .b64 %%rd<14>;\n"
                        ".shared .align 4 .b8 object[8];\n"
                        "ld.param.u64 %%rd11, [from]; cvta.to.global.u64 %%rd12, %%rd11;\n"
                        "ld.param.u64 %%rd13, [to];\n"
                        "ld.global.u64 %%rd1, [%%rd12]; ld.global.u64 %%rd2, [%%rd12+8];\n"
                        "ld.global.u64 %%rd3, [%%rd12+16];\n"
                        "cvt.u32.u64 %%r1, %%rd1; cvt.u32.u64 %%r2, %%rd2; cvt.u32.u64 %%r3, %%rd3;\n"
                        "cvt.u16.u32 %%rs1, %%r1; cvt.u16.u32 %%rs2, %%r2; cvt.u16.u32 %%rs3, %%r3;\n"
                        "mov.b32 %%f1, %%r1; mov.b32 %%f2, %%r2; mov.b32 %%f3, %%r3;\n"
                        "%s\n%s\nst.global.u64 [%%rd13], %%rd0;\nret;\n}\n",
             s->code, to_64_bits(s->result));
    ptx_assert_loads(text);
    free(text);
}

static void check_snippets(const struct snippet *snippets, size_t n)
{
    for (const struct snippet *s = snippets; s < snippets + n; s++) {
        _Alignas(16) uint64_t from[3] = {s->a, s->b, s->c};
        uint64_t got = 0;
        load_snippet(s);
        if (ptx_run("snippet", 1, 1, 2, (uint64_t[]){ptx_address(from), ptx_address(&got)}) != 0)
            fail_msg("%s: %s", s->code, err);
        if (got != s->want)
            fail_msg("%s: a = %#llx, b = %#llx, c = %#llx: %#llx, not %#llx", s->code,
                     (unsigned long long)s->a, (unsigned long long)s->b, (unsigned long long)s->c,
                     (unsigned long long)got, (unsigned long long)s->want);
        qd_emu_ptx_unload_all();
    }
}

#define CHECK(name)                                                                                          \
    static void name##_are_exact(void **state)                                                               \
    {                                                                                                        \
        (void)state;                                                                                         \
        check_snippets(name, sizeof name / sizeof *name);                                                    \
    }
CHECK(integers)
CHECK(floats)
CHECK(conversions)
CHECK(predicates)
CHECK(accesses)

/* ---- errors when they run ---- */

/* Thread 3 of block 1 does it, after the others. */
static const char *const failing =
    PTX_HEADER ".shared .align 8 .b8 object[24];\n"
               ".visible .entry failing(.param .u64 pointer, .param .u64 other)\n{\n"
               ".reg .pred %%p<4>; .reg .b32 %%r<4>; .reg .b64 %%rd<4>;\n"
               "mov.u32 %%r1, %%ctaid.x; mov.u32 %%r2, %%tid.x; mul.lo.s32 %%r1, %%r1, %%r2;\n"
               "setp.ne.s32 %%p1, %%r1, 3; @%%p1 ret;\n"
               "ld.param.u64 %%rd1, [pointer];\nmov.u32 %%r1, object;\nmov.u32 %%r2, 0;\n"
               "%s\nret;\n}\n"; /* on line 13 */

static const struct {
    const char *code, *reason;
} failures[] = {
    {"st.shared.u32 [object+2], %r1;", "is not 4-byte aligned"},
    {"ld.shared.v2.u32 {%r1, %r2}, [%r1+4];", "is not 8-byte aligned"},
    {"ld.shared.u32 %r1, [object+24];", "lie in no shared object"},
    {"ld.shared.v2.u64 {%rd1, %rd2}, [object+16];", "lie in no shared object"},
    {"st.shared.u32 [%r1+-4], %r1;", "lie in no shared object"},
    {"ld.shared.u32 %r1, [%r2];", "lie in no shared object"},
    {"atom.shared.add.u32 %r1, [%r1+24], 1;", "lie in no shared object"},
    {"red.shared.add.u32 [%r1+24], 1;", "lie in no shared object"},
    {"ld.global.u32 %r1, [%rd1+1];", "is not aligned"},
    {"ld.global.v2.u32 {%r1, %r2}, [%rd1+4];", "access of 8 bytes"},
    {"st.global.v4.u32 [%rd1+8], {%r1, %r1, %r1, %r1};", "access of 16 bytes"},
    {"mov.b64 %rd2, pointer; ld.param.u64 %rd1, [%rd2+16];", "outside of every parameter"},
    {"div.u32 %r1, %r1, %r2;", "integer division by zero"},
    {"rem.s32 %r1, %r1, %r2;", "integer division by zero"},
};

static void accesses_are_checked(void **state)
{
    (void)state;
    _Alignas(16) uint64_t memory[8] = {0};
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        char text[2048];
        snprintf(text, sizeof text, failing, failures[i].code);
        ptx_assert_loads(text);
        assert_int_equal(ptx_run("failing", 2, 32, 2, (uint64_t[]){ptx_address(memory), 0}), -1);
        ASSERT_CONTAINS(err, failures[i].reason);
        ASSERT_CONTAINS(err, "kernel failing: ");
        ASSERT_CONTAINS(err, "rig.ptx:13: ");
        ASSERT_CONTAINS(err, "[block (1,0,0) thread (3,0,0)]");
        qd_emu_ptx_unload_all();
    }
}

/* Addresses that nothing checks before they are used. */
static const char *const faults[] = {
    "ld.param.u64 %rd2, [other]; ld.global.u32 %r1, [%rd2];",
    "ld.param.u64 %rd2, [other]; st.global.u32 [%rd2], %r1;",
    "ld.param.u64 %rd2, [other]; atom.global.add.u32 %r1, [%rd2], 1;",
    "ld.param.u64 %rd2, [other]; ld.acquire.sys.global.u32 %r1, [%rd2];",
    "ld.param.u64 %rd2, [other]; ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r1, %r1, %r1, %r1}, [%rd2];",
};

static void a_fault_names_its_instruction(void **state)
{
    (void)state;
    if (IS_SANITIZED) SKIP("sanitizers end the program at a fault");
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        char text[2048];
        snprintf(text, sizeof text, failing, faults[i]);
        ptx_assert_loads(text);
        assert_int_equal(ptx_run("failing", 2, 32, 2, (uint64_t[]){0, 64}), -1);
        ASSERT_CONTAINS(err, "rig.ptx:13: illegal memory access at 0x40 [block (1,0,0) thread (3,0,0)]");
        qd_emu_ptx_unload_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(integers_are_exact, unload),
        cmocka_unit_test_teardown(floats_are_exact, unload),
        cmocka_unit_test_teardown(conversions_are_exact, unload),
        cmocka_unit_test_teardown(predicates_are_exact, unload),
        cmocka_unit_test_teardown(accesses_are_exact, unload),
        cmocka_unit_test_teardown(accesses_are_checked, unload),
        cmocka_unit_test_teardown(a_fault_names_its_instruction, unload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
