/* embed and silu_mul of the cpu device against the specification. */
#include <math.h>

#include "kernels/ref/ref.h"
#include "tests/support/compare.h"
#include "tests/support/devices.h"
#include "tests/support/memory.h"
#include "tests/support/steps.h"
#include "tests/support/test.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct qd_device open_cpu(const char *isa, int n_threads, enum qd_numerics numerics)
{
    return device_open(qd_device_find("cpu"), (struct setting){isa, n_threads, numerics},
                       test_shape(2, 1, 64));
}

/* Rows come out bit for bit, from a table as it is and from a packed one (a tied lm_head). */
static void embed(void **state)
{
    static const int64_t vocabs[] = {1, 15, 16, 17, 515}, all_dims[] = {1, 8, 72, 128, 1000},
                         all_tokens[] = {1, 2, 31};
    need_isa(*state);
    struct qd_device device = open_cpu(*state, 2, QD_NUMERICS_FUSED);
    for (size_t i = 0; i < COUNT(vocabs) * COUNT(all_dims); i++) {
        const int64_t vocab = vocabs[i / COUNT(all_dims)], dim = all_dims[i % COUNT(all_dims)];
        qd_bf16 *table = new_random_bf16((size_t)(vocab * dim), i, 1);
        table[0] = 0x8000; /* minus zero keeps its sign */
        const struct qd_weight rows = {table, vocab, dim, QD_LAYOUT_ROWS};
        const struct qd_weight packed = device_weight(device, table, vocab, dim);
        for (size_t b = 0; b < COUNT(all_tokens); b++) {
            const int64_t n = all_tokens[b];
            int32_t source[31];
            qd_bf16 *want = malloc((size_t)(n * dim) * sizeof *want);
            for (int64_t t = 0; t < n; t++)
                source[t] =
                    t == 0 ? (int32_t)vocab - 1 : (int32_t)random_below(i, (uint64_t)t, (uint32_t)vocab);
            struct qd_embed_args args = {rows, source, n, want};
            qd_ref_embed(&args, NULL);
            for (int layout = 0; layout < 2; layout++) {
                struct guarded out = guarded_alloc((size_t)(n * dim) * sizeof(qd_bf16));
                args.table = layout == 0 ? rows : packed;
                args.out = out.data;
                assert_int_equal(qd_device_embed(device, &args), QD_OK);
                compare_same_bf16(layout == 0 ? "embed rows" : "embed packed", out.data, want,
                                  (size_t)(n * dim));
                guarded_free("embed", &out);
            }
            free(want);
        }
        free(table);
    }
    device_close(&device);
}

/* One bf16 apart where fp32 and double straddle a tie (after the inner rounding in hf). exp is good to about
 * 2 ulp of fp32. Observed: all equal. */
static const struct tolerance gate = {.rel = 0x1p-7, .nmse = 1e-6, .same = 0.99};

static void silu_mul(void **state)
{
    static const int64_t widths[] = {1, 3, 7, 8, 9, 15, 16, 17, 100, 1024}, all_rows[] = {1, 2, 17};
    need_isa(*state);
    for (int numerics = 0; numerics < 2; numerics++) {
        struct deviation observed = DEVIATION_NONE;
        struct qd_device device = open_cpu(*state, 2, (enum qd_numerics)numerics);
        for (size_t i = 0; i < COUNT(widths) * COUNT(all_rows); i++) {
            const int64_t n = widths[i / COUNT(all_rows)], m = all_rows[i % COUNT(all_rows)];
            qd_bf16 *in = new_random_bf16((size_t)(m * 2 * n), i, 8),
                    *want = malloc((size_t)(m * n) * sizeof *want);
            struct guarded out = guarded_alloc((size_t)(m * n) * sizeof(qd_bf16));
            struct qd_silu_mul_args args = {in, m, n, want};
            qd_ref_silu_mul(&args, (enum qd_numerics)numerics);
            args.out = out.data;
            assert_int_equal(device.ops->silu_mul(device.ctx, &args), QD_OK);
            compare_bf16("silu_mul", out.data, want, (size_t)(m * n),
                         (struct tolerance){gate.abs, gate.rel, gate.nmse, m * n < 200 ? 0.9 : gate.same},
                         &observed);
            guarded_free("silu_mul", &out);
            free(in);
            free(want);
        }
        deviation_print(numerics == QD_NUMERICS_HF ? "silu_mul hf" : "silu_mul fused", &observed);
        device_close(&device);
    }
}

/* Gates far out: silu is 0 below, the gate itself above; NaN stays NaN and in its place. */
static void silu_mul_of_extremes(void **state)
{
    enum { N = 11 };
    static const float gates[N] = {0, -0.0f, 1e-30f, -100, 100, 3e38f, -3e38f, -87.4f, NAN, -1, 1};
    need_isa(*state);
    for (int numerics = 0; numerics < 2; numerics++) {
        struct qd_device device = open_cpu(*state, 1, (enum qd_numerics)numerics);
        qd_bf16 in[2 * N], want[N], got[N];
        for (int i = 0; i < N; i++) {
            const int at = i < 8 ? i : 16 + i - 8, group = i < 8 ? 8 : 3;
            in[at] = qd_bf16_from_f32(gates[i]);
            in[at + group] = qd_bf16_from_f32(0.5f);
        }
        struct qd_silu_mul_args args = {in, 1, N, want};
        qd_ref_silu_mul(&args, (enum qd_numerics)numerics);
        args.out = got;
        assert_int_equal(device.ops->silu_mul(device.ctx, &args), QD_OK);
        /* below -87 the true value is under 1e-36: 0 is as good */
        compare_bf16("silu_mul of extremes", got, want, N,
                     (struct tolerance){.abs = 1e-36, .rel = 0x1p-7, .nmse = 1e-6}, NULL);
        device_close(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_ISA(embed),
        EVERY_ISA(silu_mul),
        EVERY_ISA(silu_mul_of_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
