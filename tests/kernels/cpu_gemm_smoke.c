/* gemm_nt of every instruction set against a double loop, and the promises around it: bits that depend
 * neither on the number of rows nor of threads nor of passes, tails, strides, packing, refusals. */
#include "tests/support/test.h"

#include <math.h>

#include "kernels/base/random.h"
#include "kernels/cpu/host/isa.h"
#include "kernels/cpu/host/pack.h"

enum { MAX_M = 64, SENTINEL = 0x5a, PAD = 3, SCRATCH_BYTES = 1 << 20 };

/* A context with nothing but what the op uses. */
struct bench {
    struct qd_cpu cpu;
    int n_threads;
};

static void bench_open(struct bench *b, const char *isa, int n_threads, enum qd_numerics numerics,
                       size_t scratch_bytes)
{
    char err[QD_ERR_LEN] = "";
    struct qd_team_config team = {.n_members = n_threads, .label = "test"};
    *b = (struct bench){.n_threads = n_threads};
    b->cpu.config.numerics = numerics;
    ASSERT_OK(qd_cpu_isa_select(isa, &b->cpu.kernels, err, sizeof err), err);
    ASSERT_OK(qd_team_create(&team, &b->cpu.team, err, sizeof err), err);
    b->cpu.scratch_bytes = scratch_bytes;
    b->cpu.scratch = calloc((size_t)n_threads, sizeof *b->cpu.scratch);
    for (int i = 0; i < n_threads; i++) b->cpu.scratch[i] = aligned_alloc(64, scratch_bytes);
}

static void bench_close(struct bench *b)
{
    for (int i = 0; i < b->n_threads; i++) free(b->cpu.scratch[i]);
    free(b->cpu.scratch);
    qd_team_destroy(b->cpu.team);
}

/* The instruction sets that this processor runs; ends with NULL. */
static const char *const *isas(void)
{
    static const char *const both[] = {"portable", "avx2", NULL}, *const one[] = {"portable", NULL};
    const struct qd_cpu_kernels *kernels;
    return qd_cpu_isa_select("avx2", &kernels, NULL, 0) == QD_OK ? both : one;
}

/* bf16 in steps of 1/16 within [-4, 4): sums of a few thousand products are exact in fp32. */
static qd_bf16 value(uint64_t key, int64_t i)
{
    uint32_t word = qd_philox(key, 0, (uint64_t)i).word[0];
    return qd_bf16_from_f32((float)((int)(word % 128) - 64) / 16.0f);
}

struct problem {
    int64_t m, n, k, lda;
    qd_bf16 *a, *rows, *packed; /* [m][lda]; [n][k]; panels of it */
};

static struct problem problem_make(int64_t m, int64_t n, int64_t k)
{
    char err[QD_ERR_LEN] = "";
    struct problem p = {.m = m, .n = n, .k = k, .lda = k + PAD};
    size_t bytes = qd_cpu_weight_bytes(n, k, QD_LAYOUT_PACKED);
    p.a = malloc((size_t)(m * p.lda) * sizeof *p.a);
    p.rows = malloc((size_t)(n * k) * sizeof *p.rows);
    p.packed = aligned_alloc(64, (bytes + 63) / 64 * 64);
    for (int64_t i = 0; i < m * p.lda; i++) p.a[i] = value(1, i);
    for (int64_t i = 0; i < n * k; i++) p.rows[i] = p.packed[i] = value(2, i);
    ASSERT_OK(qd_cpu_pack_weight(p.packed, n, k, err, sizeof err), err);
    return p;
}

static void problem_free(struct problem *p)
{
    free(p->a);
    free(p->rows);
    free(p->packed);
}

static double dot(const struct problem *p, int64_t row, int64_t column)
{
    double sum = 0;
    for (int64_t k = 0; k < p->k; k++)
        sum += (double)qd_bf16_to_f32(p->a[row * p->lda + k]) *
               (double)qd_bf16_to_f32(p->rows[column * p->k + k]);
    return sum;
}

/* out[m][n_out + PAD] in a buffer of sentinels with PAD elements before and after. */
static unsigned char *run(struct bench *b, const struct problem *p, enum qd_epilogue epilogue, int64_t n_out,
                          size_t size)
{
    size_t count = (size_t)(p->m * (n_out + PAD)) + 2 * PAD;
    unsigned char *buffer = malloc(count * size);
    memset(buffer, SENTINEL, count * size);
    struct qd_gemm_nt_args args = {.a = p->a, .m = p->m, .lda = p->lda, .epilogue = epilogue};
    args.w = (struct qd_weight){p->packed, p->n, p->k, QD_LAYOUT_PACKED};
    args.out = buffer + PAD * size;
    args.ldo = n_out + PAD;
    assert_int_equal(b->cpu.kernels->gemm_nt(&b->cpu, &args), QD_OK);

    for (size_t i = 0; i < count; i++) {
        bool inside = i >= PAD && i < count - PAD && (int64_t)(i - PAD) % (n_out + PAD) < n_out;
        for (size_t byte = 0; !inside && byte < size; byte++)
            if (buffer[i * size + byte] != SENTINEL) fail_msg("element %zu outside of a row was written", i);
    }
    return buffer;
}

static const struct {
    int64_t m, n, k;
} SHAPES[] = {{1, 1, 1},    {1, 16, 8},    {1, 209, 64},  {2, 33, 17},  {2, 96, 40},   {3, 64, 37},
              {4, 15, 5},   {5, 16, 3},    {6, 48, 64},   {7, 18, 129}, {12, 31, 20},  {13, 160, 31},
              {17, 17, 17}, {37, 70, 650}, {50, 100, 19}, {64, 8, 256}, {64, 257, 128}};
enum { N_SHAPES = sizeof SHAPES / sizeof SHAPES[0] };

/* The sums are exact, so fused fp32 must be equal and bf16 its rounding. */
static void check_stores(const char *isa, int n_threads, enum qd_numerics numerics)
{
    struct bench b;
    bench_open(&b, isa, n_threads, numerics, SCRATCH_BYTES);
    for (int s = 0; s < N_SHAPES; s++) {
        struct problem p = problem_make(SHAPES[s].m, SHAPES[s].n, SHAPES[s].k);
        unsigned char *wide = run(&b, &p, QD_EPILOGUE_STORE_F32, p.n, sizeof(float));
        unsigned char *half = run(&b, &p, QD_EPILOGUE_STORE, p.n, sizeof(qd_bf16));
        for (int64_t i = 0; i < p.m * p.n; i++) {
            int64_t at = PAD + i / p.n * (p.n + PAD) + i % p.n;
            float want = (float)dot(&p, i / p.n, i % p.n);
            qd_bf16 rounded = ((qd_bf16 *)(void *)half)[at];
            if (numerics == QD_NUMERICS_HF)
                assert_float_equal(((float *)(void *)wide)[at], qd_bf16_round(want), 0);
            else
                assert_float_equal(((float *)(void *)wide)[at], want, 0);
            assert_int_equal(rounded, qd_bf16_from_f32(want));
        }
        free(wide);
        free(half);
        problem_free(&p);
    }
    bench_close(&b);
}

static void test_stores_exact_sums(void **state)
{
    (void)state;
    for (const char *const *isa = isas(); *isa != NULL; isa++)
        for (int threads = 1; threads <= 3; threads++) {
            check_stores(*isa, threads, QD_NUMERICS_FUSED);
            check_stores(*isa, threads, QD_NUMERICS_HF);
        }
}

static float silu(float x)
{
    return (float)((double)x / (1.0 + exp(-(double)x)));
}

/* gate rows 16g .. +8, up rows after them; n gate and n up in a shorter last group */
static void check_silu(struct bench *b, int64_t m, int64_t n_out, int64_t k)
{
    struct problem p = problem_make(m, 2 * n_out, k);
    unsigned char *out = run(b, &p, QD_EPILOGUE_SILU_MUL, n_out, sizeof(qd_bf16));
    for (int64_t i = 0; i < m * n_out; i++) {
        int64_t row = i / n_out, column = i % n_out, group = column / 8 * 8;
        int64_t width = n_out - group < 8 ? n_out - group : 8, gate_row = 2 * group + column % 8;
        float gate = (float)dot(&p, row, gate_row), up = (float)dot(&p, row, gate_row + width), want;
        if (b->cpu.config.numerics == QD_NUMERICS_HF)
            want = qd_bf16_round(qd_bf16_round(silu(qd_bf16_round(gate))) * qd_bf16_round(up));
        else
            want = qd_bf16_round(silu(gate) * up);
        float got = qd_bf16_to_f32(((qd_bf16 *)(void *)out)[PAD + row * (n_out + PAD) + column]);
        /* the vector exponential is off by up to 2 ulp of fp32, which may tip a rounding: one ulp of bf16,
         * and in hf of the inner rounding too */
        if (!(fabsf(got - want) <= fabsf(want) * 0x1.1p-6f))
            fail_msg("%lld x %lld x %lld at %lld: %g, not %g", (long long)m, (long long)n_out, (long long)k,
                     (long long)i, (double)got, (double)want);
    }
    free(out);
    problem_free(&p);
}

static void test_silu_mul_pairs_gate_with_up(void **state)
{
    (void)state;
    static const int64_t widths[] = {1, 5, 7, 8, 11, 24, 37};
    for (const char *const *isa = isas(); *isa != NULL; isa++)
        for (int numerics = 0; numerics < 2; numerics++) {
            struct bench b;
            bench_open(&b, *isa, 2, (enum qd_numerics)numerics, SCRATCH_BYTES);
            for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
                for (int64_t m = 1; m < 20; m += 3) check_silu(&b, m, widths[i], 9);
            bench_close(&b);
        }
}

/* Random fp32-like sums, where any other order of addition would show. */
static struct problem rough_problem(int64_t m, int64_t n, int64_t k)
{
    struct problem p = problem_make(m, n, k);
    char err[QD_ERR_LEN] = "";
    for (int64_t i = 0; i < m * p.lda; i++)
        p.a[i] = (qd_bf16)(0x3c00 + qd_philox(3, 0, (uint64_t)i).word[0] % 0x400);
    memset(p.packed, 0, qd_cpu_weight_bytes(n, k, QD_LAYOUT_PACKED));
    for (int64_t i = 0; i < n * k; i++)
        p.packed[i] = (qd_bf16)((qd_philox(4, 0, (uint64_t)i).word[0] & 0x8000u) | (0x3c00 + i * 37 % 0x400));
    ASSERT_OK(qd_cpu_pack_weight(p.packed, n, k, err, sizeof err), err);
    return p;
}

/* Every row alone on one thread gives the bits of the whole, for any threads and any number of passes. */
static void test_bits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    enum { N = 150, K = 333 };
    for (const char *const *isa = isas(); *isa != NULL; isa++) {
        struct problem p = rough_problem(MAX_M, N, K);
        struct bench one;
        bench_open(&one, *isa, 1, QD_NUMERICS_FUSED, SCRATCH_BYTES);
        static float alone[MAX_M][N];
        for (int64_t row = 0; row < MAX_M; row++) {
            struct qd_gemm_nt_args args = {.a = p.a + row * p.lda, .m = 1, .lda = p.lda, .out = alone[row]};
            args.w = (struct qd_weight){p.packed, N, K, QD_LAYOUT_PACKED};
            args.epilogue = QD_EPILOGUE_STORE_F32;
            args.ldo = N;
            assert_int_equal(one.cpu.kernels->gemm_nt(&one.cpu, &args), QD_OK);
        }
        for (int threads = 1; threads <= 5; threads += 2)
            for (size_t strips = 1; strips <= 9; strips += 4) {
                struct bench many;
                bench_open(&many, *isa, threads, QD_NUMERICS_FUSED, (strips * 6 * K * 4 + 63) / 64 * 64);
                for (p.m = 1; p.m <= MAX_M; p.m += p.m < 20 ? 1 : 11) {
                    unsigned char *out = run(&many, &p, QD_EPILOGUE_STORE_F32, N, sizeof(float));
                    for (int64_t row = 0; row < p.m; row++)
                        assert_memory_equal((float *)(void *)out + PAD + row * (N + PAD), alone[row],
                                            sizeof alone[row]);
                    free(out);
                }
                bench_close(&many);
            }
        bench_close(&one);
        problem_free(&p);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    for (const char *const *isa = isas(); *isa != NULL; isa++) {
        struct bench b;
        bench_open(&b, *isa, 1, QD_NUMERICS_FUSED, 6 * 8 * sizeof(float));
        qd_bf16 a[16] = {0}, w[16 * 16] = {0}, out[16] = {7, 7, 7};
        struct qd_gemm_nt_args good = {.a = a, .m = 1, .lda = 8, .out = out, .ldo = 3};
        good.w = (struct qd_weight){w, 3, 8, QD_LAYOUT_PACKED};
        struct qd_gemm_nt_args bad = good;
        qd_status (*gemm_nt)(struct qd_cpu *, const struct qd_gemm_nt_args *) = b.cpu.kernels->gemm_nt;

        bad.w.layout = QD_LAYOUT_ROWS;
        assert_int_equal(gemm_nt(&b.cpu, &bad), QD_ERR_UNSUPPORTED);
        bad = good, bad.epilogue = QD_EPILOGUE_SILU_MUL;
        assert_int_equal(gemm_nt(&b.cpu, &bad), QD_ERR_ARGUMENT);
        bad = good, bad.w.n_cols = 0;
        assert_int_equal(gemm_nt(&b.cpu, &bad), QD_ERR_ARGUMENT);
        bad = good, bad.m = -1;
        assert_int_equal(gemm_nt(&b.cpu, &bad), QD_ERR_ARGUMENT);
        bad = good, bad.w.n_cols = bad.lda = 1 << 20;
        assert_int_equal(gemm_nt(&b.cpu, &bad), QD_ERR_TOO_LARGE);
        bad = good, bad.w.n_rows = 0;
        assert_int_equal(gemm_nt(&b.cpu, &bad), QD_OK);
        bad = good, bad.m = 0;
        assert_int_equal(gemm_nt(&b.cpu, &bad), QD_OK);
        assert_int_equal(out[0], 7);
        assert_int_equal(gemm_nt(&b.cpu, &good), QD_OK);
        assert_int_equal(out[2], 0);
        bench_close(&b);
    }
}

static void test_pack_places_and_pads(void **state)
{
    (void)state;
    enum { N = 37, K = 70 };
    struct problem p = problem_make(1, N, K);
    for (int64_t row = 0; row < 48; row++)
        for (int64_t k = 0; k < K; k++) {
            qd_bf16 got = p.packed[(row / 16 * K + k) * 16 + qd_cpu_panel_lane(row)];
            assert_int_equal(got, row < N ? p.rows[row * K + k] : 0);
        }
    problem_free(&p);
}

static void test_weight_bytes(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_cpu_weight_bytes(17, 5, QD_LAYOUT_ROWS), 17 * 5 * 2);
    assert_int_equal(qd_cpu_weight_bytes(17, 5, QD_LAYOUT_PACKED), 32 * 5 * 2);
    assert_int_equal(qd_cpu_weight_bytes(0, 5, QD_LAYOUT_PACKED), 0);
    assert_true(qd_cpu_weight_bytes(-1, 5, QD_LAYOUT_ROWS) == SIZE_MAX);
    assert_true(qd_cpu_weight_bytes(INT64_MAX, 1, QD_LAYOUT_PACKED) == SIZE_MAX);
    assert_true(qd_cpu_weight_bytes((int64_t)1 << 40, (int64_t)1 << 23, QD_LAYOUT_ROWS) == SIZE_MAX);
    assert_int_equal(qd_cpu_pack_weight(NULL, 0, 5, err, sizeof err), QD_OK);
    assert_int_equal(qd_cpu_pack_weight(NULL, -1, 5, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "-1 x 5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stores_exact_sums),
        cmocka_unit_test(test_silu_mul_pairs_gate_with_up),
        cmocka_unit_test(test_bits_do_not_depend_on_the_batch),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_pack_places_and_pads),
        cmocka_unit_test(test_weight_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
