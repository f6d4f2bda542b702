/* The models of the PTX instructions against the manual's tables, written out here once more. */
#include "tests/support/test.h"

#include "tests/emu/rig.h"

#include <math.h>

#include "kernels/base/bf16.h"

enum { M = 16, N = 8, K = 16 };

/* ---- mma ---- */

struct product {
    uint16_t a[M][K], b[N][K]; /* bf16; b transposed */
    float d[M][N];
};

static void multiply(struct product *p, enum qd_emu_mma_sum sum)
{
    struct qd_emu_mode mode = qd_emu_default_mode();
    mode.mma_sum = sum;
    qd_emu_set_mode(&mode);
    float out[M][N];
    struct emu_args args = {.in = (const uint32_t *)(const void *)p, .out = (uint32_t *)(void *)out};
    assert_runs("product", 1, WARP, &args);
    memcpy(p->d, out, sizeof out);
}

/* One element of a and one of b at a time: 1 at [i][j] says where it went. */
static void mma_multiplies_every_pair_of_elements(void **state)
{
    (void)state;
    for (int at = 0; at < M * K; at++) {
        struct product p = {0};
        p.a[at / K][at % K] = qd_bf16_from_f32(2);
        for (int n = 0; n < N; n++) p.b[n][at % K] = qd_bf16_from_f32((float)(n + 1));
        for (int i = 0; i < M * N; i++) p.d[i / N][i % N] = (float)i;
        multiply(&p, QD_EMU_MMA_SUM_F32);
        for (int i = 0; i < M * N; i++) {
            float want = (float)i + (i / N == at / K ? 2 * (float)(i % N + 1) : 0);
            assert_true(p.d[i / N][i % N] == want);
        }
    }
    for (int at = 0; at < N * K; at++) {
        struct product p = {0};
        p.b[at / K][at % K] = qd_bf16_from_f32(3);
        for (int m = 0; m < M; m++) p.a[m][at % K] = qd_bf16_from_f32((float)(m + 1));
        multiply(&p, QD_EMU_MMA_SUM_F32);
        for (int i = 0; i < M * N; i++)
            assert_true(p.d[i / N][i % N] == (i % N == at / K ? 3 * (float)(i / N + 1) : 0));
    }
}

/* 2^24 + 1 - 2^24: fp32 in k order loses the 1, double keeps it. */
static void mma_sums_as_the_mode_says(void **state)
{
    (void)state;
    for (int sum = QD_EMU_MMA_SUM_F32; sum <= QD_EMU_MMA_SUM_F64; sum++) {
        struct product p = {.d = {{16777216.0f}}};
        p.a[0][3] = p.b[0][3] = qd_bf16_from_f32(1);
        p.a[0][9] = qd_bf16_from_f32(-4096), p.b[0][9] = qd_bf16_from_f32(4096);
        multiply(&p, (enum qd_emu_mma_sum)sum);
        assert_true(p.d[0][0] == (sum == QD_EMU_MMA_SUM_F64 ? 1.0f : 0.0f));
    }
}

static void mma_keeps_subnormals_and_nan(void **state)
{
    (void)state;
    struct product p = {0};
    p.a[5][2] = 0x0001; /* the smallest bf16 */
    p.b[6][2] = qd_bf16_from_f32(2);
    p.a[7][0] = 0x7fc0;
    multiply(&p, QD_EMU_MMA_SUM_F32);
    assert_true(p.d[5][6] == 0x1p-132f);
    assert_true(isnan(p.d[7][0]));
    assert_true(p.d[6][0] == 0);
}

/* ---- ldmatrix ---- */

static void ldmatrix_hands_out_rows_and_columns(void **state)
{
    (void)state;
    uint16_t in[4][8][8];
    for (int i = 0; i < 4 * 64; i++) in[i / 64][i / 8 % 8][i % 8] = (uint16_t)(i * 251 + 7);
    uint32_t out[WARP][11];
    struct emu_args args = {.in = (const uint32_t *)(const void *)in, .out = out[0]};
    for (int seed = 0; seed < SEEDS; seed++) {
        set_schedule(seed);
        memset(out, 0, sizeof out);
        assert_runs("matrices", 1, WARP, &args);
        for (int l = 0; l < WARP; l++) {
            int g = l / 4, c = l % 4 * 2;
            for (int i = 0; i < 4; i++) {
                uint32_t rows = in[i][g][c] | (uint32_t)in[i][g][c + 1] << 16;
                uint32_t columns = in[i][c][g] | (uint32_t)in[i][c + 1][g] << 16;
                if (i < 1) assert_int_equal(out[l][0], rows);
                if (i < 2) assert_int_equal(out[l][1 + i], rows);
                assert_int_equal(out[l][3 + i], rows);
                assert_int_equal(out[l][7 + i], columns);
            }
        }
    }
}

/* ---- conversions ---- */

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void exp2_flushes_and_pack_rounds_to_even(void **state)
{
    (void)state;
    static const struct {
        float x;
        float exp2;
        uint16_t bf16;
    } cases[] = {
        {0, 1, 0},
        {10, 1024, 0x4120},
        {-126, 0x1p-126f, 0xc2fc},
        {-126.5f, 0, 0xc2fd},
        {-INFINITY, 0, 0xff80},
        {INFINITY, INFINITY, 0x7f80},
        {0x1.01p0f, 0x1.00b1bp+1f, 0x3f80},      /* half-way, down to even */
        {0x1.03p0f, 0x1.021682p+1f, 0x3f82},     /* half-way, up to even */
        {0x1.010002p0f, 0x1.00b1b2p+1f, 0x3f81}, /* just above half-way */
        {NAN, NAN, 0x7fff},
    };
    enum { CASES = sizeof cases / sizeof *cases };
    uint32_t in[CASES], out[2 * CASES];
    for (int i = 0; i < CASES; i++) in[i] = bits_of(cases[i].x);
    struct emu_args args = {.in = in, .out = out, .n = CASES};
    set_schedule(0);
    assert_runs("conversions", 1, 1, &args);
    for (int i = 0; i < CASES; i++) {
        float got;
        memcpy(&got, &out[i], sizeof got);
        if (isnan(cases[i].exp2))
            assert_true(isnan(got));
        else if (isinf(cases[i].exp2) || cases[i].exp2 == 0)
            assert_true(got == cases[i].exp2);
        else
            assert_true(fabsf(got - cases[i].exp2) <= 4e-7f * cases[i].exp2); /* ex2.approx: 2 ulp */
        assert_int_equal(out[CASES + i], cases[i].bf16 | (uint32_t)cases[(i + 1) % CASES].bf16 << 16);
    }
}

static void weight_loads_are_aligned_and_counted(void **state)
{
    (void)state;
    _Alignas(16) uint32_t in[4 * WARP + 1];
    uint32_t out[WARP];
    for (uint32_t i = 0; i < 4 * WARP; i++) in[i] = i;
    struct emu_args args = {.in = in, .out = out, .n = 0};
    set_schedule(0);
    qd_emu_reset_counters();
    assert_runs("load_weights", 1, WARP, &args);
    for (uint32_t i = 0; i < WARP; i++) assert_int_equal(out[i], 8 * i + 3);
    assert_int_equal(qd_emu_read_counters().loaded_bytes, sizeof(uint32_t) * 4 * WARP);
    args.n = 1;
    assert_fails("load_weights", WARP, 0, &args, "not 16-byte aligned");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mma_multiplies_every_pair_of_elements),
        cmocka_unit_test(mma_sums_as_the_mode_says),
        cmocka_unit_test(mma_keeps_subnormals_and_nan),
        cmocka_unit_test(ldmatrix_hands_out_rows_and_columns),
        cmocka_unit_test(exp2_flushes_and_pack_rounds_to_even),
        cmocka_unit_test(weight_loads_are_aligned_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
