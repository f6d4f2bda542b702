/* gemm_nt of the cpu device against the specification, and that a row's bits depend on nothing but the row:
 * neither on the other rows of the call, nor on strides, nor on threads. */
#include <math.h>

#include "kernels/ref/ref.h"
#include "tests/support/compare.h"
#include "tests/support/devices.h"
#include "tests/support/memory.h"
#include "tests/support/test.h"

enum { M = 100 }; /* the largest batch; smaller ones are its first rows */
static const int64_t batches[] = {1, 2, 3, 5, 6, 7, 16, 17, 31, 64, M};
static const int64_t all_n[] = {1, 2, 8, 15, 16, 17, 48, 100, 515};
static const int64_t all_k[] = {1, 8, 64, 72, 96, 128, 200, 320, 1000};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Sums of up to 1000 products of values below 1 and 1.7/sqrt(K): fp32 rounding of a chain of K additions is
 * at most K * 2^-24 * sum |a w| < 1e-3, and far smaller on average. Observed: abs 1.3e-6, nmse 5.0e-14. */
static const struct tolerance sums = {.abs = 4e-6, .nmse = 2e-13};
/* The same where the sum is rounded to bf16: one bf16 apart where the fp32 sums straddle a tie. Observed:
 * nmse 4.7e-9 stored, 5.5e-8 gated; 99.93 % and 99 % equal (1 of 100). */
static const struct tolerance rounded = {.abs = 4e-6, .rel = 0x1p-7, .nmse = 2e-7, .same = 0.98};
/* Three roundings in a row (gate, silu, product): two bf16 apart. Observed: rel 0.012, nmse
 * 5.5e-9, 99.9 % equal. */
static const struct tolerance rounded_thrice = {.abs = 4e-6, .rel = 0x1p-6, .nmse = 1e-6, .same = 0.97};

/* One problem with its weight on the device and the specification's answer for all M rows. */
struct problem {
    int64_t n, k, n_out;
    enum qd_epilogue epilogue;
    struct qd_weight weight;
    qd_bf16 *a;       /* [M][k] */
    void *want;       /* [M][n_out] */
    size_t out_bytes; /* of one element */
    bool hf_gate;     /* the silu_mul epilogue in hf numerics */
};

static struct problem problem_init(struct qd_device device, enum qd_numerics numerics, int64_t n, int64_t k,
                                   enum qd_epilogue epilogue, qd_bf16 *a, qd_bf16 *w)
{
    struct problem p = {.n = n, .k = k, .epilogue = epilogue, .a = a};
    p.hf_gate = epilogue == QD_EPILOGUE_SILU_MUL && numerics == QD_NUMERICS_HF;
    p.n_out = epilogue == QD_EPILOGUE_SILU_MUL ? n / 2 : n;
    p.out_bytes = epilogue == QD_EPILOGUE_STORE_F32 ? sizeof(float) : sizeof(qd_bf16);
    p.want = malloc((size_t)(M * p.n_out) * p.out_bytes);
    assert_non_null(p.want);
    qd_ref_gemm_nt(&(struct qd_gemm_nt_args){a, M, k, {w, n, k, QD_LAYOUT_ROWS}, epilogue, p.want, p.n_out, NULL},
                   numerics);
    p.weight = device_weight(device, w, n, k);
    return p;
}

/* `m` rows on the device with the given row strides; the result without its padding. The caller frees it. */
static void *multiply(struct qd_device device, const struct problem *p, int64_t m, int64_t lda, int64_t ldo)
{
    const size_t row_bytes = (size_t)p->n_out * p->out_bytes, pitch = (size_t)ldo * p->out_bytes;
    /* a guarded input of exact size: what a kernel reads behind it is NaN's neighbour, not luck */
    struct guarded a = guarded_alloc((size_t)((m - 1) * lda + p->k) * sizeof(qd_bf16));
    struct guarded out = guarded_alloc((size_t)(m - 1) * pitch + row_bytes);
    unsigned char *dense = malloc((size_t)m * row_bytes + 1);
    for (int64_t i = 0; i < m; i++)
        memcpy((qd_bf16 *)a.data + i * lda, p->a + i * p->k, (size_t)p->k * sizeof(qd_bf16));
    assert_int_equal(qd_device_gemm_nt(device, &(struct qd_gemm_nt_args){a.data, m, lda, p->weight,
                                                                         p->epilogue, out.data, ldo, NULL}),
                     QD_OK);
    for (int64_t i = 0; i < m; i++) {
        const unsigned char *row = (const unsigned char *)out.data + (size_t)i * pitch;
        memcpy(dense + (size_t)i * row_bytes, row, row_bytes);
        for (size_t b = row_bytes; b < pitch && i + 1 < m; b++) assert_int_equal(row[b], 0xff);
    }
    guarded_free("gemm_nt input", &a);
    guarded_free("gemm_nt", &out);
    return dense;
}

static void check(const struct problem *p, const char *what, const void *got, struct deviation *observed)
{
    const size_t n = (size_t)(M * p->n_out);
    if (p->epilogue == QD_EPILOGUE_STORE_F32)
        compare_f32(what, got, p->want, n, sums, observed);
    else
        compare_bf16(what, got, p->want, n, p->hf_gate ? rounded_thrice : rounded, observed);
}

static void sweep(const char *isa, enum qd_numerics numerics, enum qd_epilogue epilogue)
{
    struct qd_device device =
        device_open(qd_device_find("cpu"), (struct setting){isa, 1, numerics}, test_shape(2, 1, 64));
    struct deviation observed = DEVIATION_NONE;
    char what[128];
    for (size_t i = 0; i < COUNT(all_n) * COUNT(all_k); i++) {
        const int64_t n = all_n[i / COUNT(all_k)] * (epilogue == QD_EPILOGUE_SILU_MUL ? 2 : 1),
                      k = all_k[i % COUNT(all_k)];
        qd_bf16 *a = new_random_bf16((size_t)(M * k), i, 1),
                *w = new_random_bf16((size_t)(n * k), i + 1000, 1.7 / sqrt((double)k));
        struct problem p = problem_init(device, numerics, n, k, epilogue, a, w);
        void *whole = multiply(device, &p, M, k, p.n_out);
        snprintf(what, sizeof what, "%s epilogue %d M %d N %d K %d", isa, epilogue, M, (int)n, (int)k);
        check(&p, what, whole, &observed);
        for (size_t b = 0; b + 1 < COUNT(batches); b++) {
            void *part = multiply(device, &p, batches[b], k + (int64_t)(b % 3), p.n_out + (int64_t)(b % 4));
            if (memcmp(part, whole, (size_t)(batches[b] * p.n_out) * p.out_bytes) != 0)
                fail_msg("%s: rows differ in a batch of %d", what, (int)batches[b]);
            free(part);
        }
        free(whole);
        free(p.want);
        free(a);
        free(w);
    }
    snprintf(what, sizeof what, "%s numerics %d epilogue %d", isa, numerics, epilogue);
    deviation_print(what, &observed);
    device_close(&device);
}

static void store(void **state)
{
    need_isa(*state);
    sweep(*state, QD_NUMERICS_FUSED, QD_EPILOGUE_STORE);
}

static void store_f32(void **state)
{
    need_isa(*state);
    sweep(*state, QD_NUMERICS_FUSED, QD_EPILOGUE_STORE_F32);
}

static void silu_mul_fused(void **state)
{
    need_isa(*state);
    sweep(*state, QD_NUMERICS_FUSED, QD_EPILOGUE_SILU_MUL);
}

static void silu_mul_hf(void **state)
{
    need_isa(*state);
    sweep(*state, QD_NUMERICS_HF, QD_EPILOGUE_SILU_MUL);
}

/* Small integers: every partial sum is exact, so bits must be equal whatever the order. In hf the fp32 output
 * is rounded to bf16 too. */
static void exact_integers(void **state)
{
    enum { N = 37, K = 300 };
    need_isa(*state);
    qd_bf16 a[M * K], w[N * K];
    for (size_t i = 0; i < M * K; i++) a[i] = qd_bf16_from_f32((float)random_below(1, i, 9) - 4);
    for (size_t i = 0; i < N * K; i++) w[i] = qd_bf16_from_f32((float)random_below(2, i, 17) - 8);
    for (int numerics = 0; numerics < 2; numerics++) {
        for (int epilogue = QD_EPILOGUE_STORE; epilogue <= QD_EPILOGUE_STORE_F32; epilogue++) {
            struct qd_device device =
                device_open(qd_device_find("cpu"), (struct setting){*state, 2, (enum qd_numerics)numerics},
                            test_shape(2, 1, 64));
            struct problem p =
                problem_init(device, (enum qd_numerics)numerics, N, K, (enum qd_epilogue)epilogue, a, w);
            void *got = multiply(device, &p, M, K, N);
            if (epilogue == QD_EPILOGUE_STORE)
                compare_same_bf16("integers", got, p.want, M * N);
            else
                compare_same_f32("integers, fp32", got, p.want, M * N);
            free(got);
            free(p.want);
            device_close(&device);
        }
    }
}

static void threads_do_not_matter(void **state)
{
    static const int64_t shapes[][2] = {{17, 72}, {100, 320}, {515, 128}, {16, 1000}};
    need_isa(*state);
    for (size_t i = 0; i < COUNT(shapes); i++) {
        const int64_t n = shapes[i][0], k = shapes[i][1];
        qd_bf16 *a = new_random_bf16((size_t)(M * k), i, 1), *w = new_random_bf16((size_t)(n * k), i + 50, 1);
        for (size_t b = 0; b < COUNT(batches); b++) {
            void *alone = NULL;
            for (int n_threads = 1; n_threads <= 4; n_threads++) {
                struct qd_device device =
                    device_open(qd_device_find("cpu"), (struct setting){*state, n_threads, QD_NUMERICS_FUSED},
                                test_shape(2, 1, 64));
                struct problem p = {
                    .n = n, .k = k, .n_out = n, .epilogue = QD_EPILOGUE_STORE_F32, .a = a, .out_bytes = 4};
                p.weight = device_weight(device, w, n, k);
                void *got = multiply(device, &p, batches[b], k, n);
                if (alone == NULL)
                    alone = got;
                else {
                    compare_same_f32("threads", got, alone, (size_t)(batches[b] * n));
                    free(got);
                }
                device_close(&device);
            }
            free(alone);
        }
        free(a);
        free(w);
    }
}

/* A NaN in one row stays in that row; an infinity too. */
static void broken_rows_stay_alone(void **state)
{
    enum { N = 33, K = 64, ROWS = 7 };
    need_isa(*state);
    struct qd_device device = device_open(
        qd_device_find("cpu"), (struct setting){*state, 1, QD_NUMERICS_FUSED}, test_shape(2, 1, 64));
    qd_bf16 *a = new_random_bf16(M * K, 1, 1), *w = new_random_bf16(N * K, 2, 1);
    a[2 * K + 5] = qd_bf16_from_f32(NAN);
    a[4 * K + 63] = qd_bf16_from_f32(INFINITY);
    struct problem p = problem_init(device, QD_NUMERICS_FUSED, N, K, QD_EPILOGUE_STORE_F32, a, w);
    void *got = multiply(device, &p, ROWS, K, N);
    compare_f32("broken rows", got, p.want, ROWS * N, sums, NULL);
    free(got);
    free(p.want);
    free(a);
    free(w);
    device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_ISA(store),
        EVERY_ISA(store_f32),
        EVERY_ISA(silu_mul_fused),
        EVERY_ISA(silu_mul_hf),
        EVERY_ISA(exact_integers),
        EVERY_ISA(threads_do_not_matter),
        EVERY_ISA(broken_rows_stay_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
