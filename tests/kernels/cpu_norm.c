/* rmsnorm and reduce_add_rmsnorm of the cpu device against the specification; rows and threads do not matter.
 */
#include "kernels/ref/ref.h"
#include "tests/support/compare.h"
#include "tests/support/devices.h"
#include "tests/support/memory.h"
#include "tests/support/test.h"

enum { ROWS = 31 };
static const int64_t dims[] = {1, 7, 8, 64, 72, 96, 128, 200, 1000, 1024};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The fp32 sum of squares is off by at most dim * 2^-24 and the reciprocal root by half of that, so a
 * rounding moves where a value lies that close to a tie, by one bf16; in hf the inner rounding may move too.
 * Observed: nmse 1.8e-8, 99.95 % equal. */
static const struct tolerance norm = {.rel = 0x1p-7, .nmse = 1e-7, .same = 0.995};

static struct qd_device open_cpu(const char *isa, int n_threads, enum qd_numerics numerics)
{
    return device_open(qd_device_find("cpu"), (struct setting){isa, n_threads, numerics},
                       test_shape(2, 1, 64));
}

/* Rows of very different sizes: the first is zero, others go down to where eps matters. */
static qd_bf16 *new_rows(int64_t n, int64_t dim, uint64_t seed)
{
    qd_bf16 *x = malloc((size_t)(n * dim) * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        random_bf16(x + i * dim, (size_t)dim, seed * 1000 + (uint64_t)i,
                    i == 0       ? 0
                    : i % 3 == 0 ? 1e-3
                                 : 3.0 * (double)i);
    return x;
}

/* rows: NULL or n indices. */
static void check_rmsnorm(struct qd_device device, enum qd_numerics numerics, int64_t dim,
                          const int32_t *rows, int64_t n, struct deviation *observed)
{
    qd_bf16 *x = new_rows(ROWS, dim, (uint64_t)dim), *weight = new_norm_weight((size_t)dim, 5);
    qd_bf16 *want = malloc((size_t)(n * dim) * sizeof *want);
    struct guarded out = guarded_alloc((size_t)(n * dim) * sizeof(qd_bf16));
    struct qd_rmsnorm_args args = {x, weight, rows, n, dim, 1e-6f, want};
    qd_ref_rmsnorm(&args, numerics);
    args.out = out.data;
    assert_int_equal(qd_device_rmsnorm(device, &args), QD_OK);
    compare_bf16("rmsnorm", out.data, want, (size_t)(n * dim), norm, observed);
    if (rows == NULL) { /* in place */
        args.out = x;
        assert_int_equal(qd_device_rmsnorm(device, &args), QD_OK);
        compare_same_bf16("rmsnorm in place", x, out.data, (size_t)(n * dim));
    }
    guarded_free("rmsnorm", &out);
    free(x);
    free(weight);
    free(want);
}

static void rmsnorm(void **state)
{
    static const int32_t chosen[] = {30, 2, 2, 17, 0};
    need_isa(*state);
    for (int numerics = 0; numerics < 2; numerics++) {
        struct deviation observed = DEVIATION_NONE;
        struct qd_device device = open_cpu(*state, 1, (enum qd_numerics)numerics);
        for (size_t i = 0; i < COUNT(dims); i++) {
            check_rmsnorm(device, (enum qd_numerics)numerics, dims[i], NULL, ROWS, &observed);
            check_rmsnorm(device, (enum qd_numerics)numerics, dims[i], NULL, 1, &observed);
            check_rmsnorm(device, (enum qd_numerics)numerics, dims[i], chosen, COUNT(chosen), &observed);
        }
        deviation_print(numerics == QD_NUMERICS_HF ? "rmsnorm hf" : "rmsnorm fused", &observed);
        device_close(&device);
    }
}

/* One partial of some kind, as the device and the specification both read it. */
struct partial_case {
    enum qd_partial_dtype dtype;
    int n_slices;
    int64_t gap; /* elements between slices beyond rows * dim */
};

static void *new_partial(const struct partial_case *c, int64_t stride, uint64_t seed)
{
    const size_t n = (size_t)(c->n_slices * stride);
    if (c->dtype == QD_PARTIAL_BF16) return new_random_bf16(n, seed, 2);
    float *data = malloc(n * sizeof *data);
    assert_non_null(data);
    random_f32(data, n, seed, 2);
    return data;
}

static void check_reduce(struct qd_device device, enum qd_numerics numerics, int64_t dim,
                         const struct partial_case *c, const int32_t *rows, int64_t n,
                         struct deviation *observed)
{
    const int64_t stride = ROWS * dim + c->gap;
    const size_t n_out = (size_t)(n * dim), n_residual = (size_t)(ROWS * dim);
    void *data = new_partial(c, stride, (uint64_t)dim);
    const void *parts[] = {data};
    qd_bf16 *weight = new_norm_weight((size_t)dim, 6), *residual_want = new_rows(ROWS, dim, 9);
    qd_bf16 *want = malloc(n_out * sizeof *want);
    struct guarded out = guarded_alloc(n_out * sizeof(qd_bf16)),
                   residual = guarded_alloc(n_residual * sizeof(qd_bf16));
    memcpy(residual.data, residual_want, n_residual * sizeof(qd_bf16));
    struct qd_reduce_add_rmsnorm_args args = {
        residual_want, {data, c->dtype, c->n_slices, stride, false}, weight, rows, n, dim, 1e-6f, want};
    qd_ref_reduce_add_rmsnorm(&args, parts, 1, numerics);
    args.residual = residual.data;
    args.out = out.data;
    assert_int_equal(qd_device_reduce_add_rmsnorm(device, &args), QD_OK);
    compare_same_bf16("residual", residual.data, residual_want, n_residual);
    compare_bf16("reduce_add_rmsnorm", out.data, want, n_out, norm, observed);
    guarded_free("reduce_add_rmsnorm out", &out);
    guarded_free("reduce_add_rmsnorm residual", &residual);
    free(data);
    free(weight);
    free(residual_want);
    free(want);
}

static void reduce_add_rmsnorm(void **state)
{
    static const struct partial_case cases[] = {
        {QD_PARTIAL_BF16, 1, 0}, {QD_PARTIAL_F32, 1, 0}, {QD_PARTIAL_F32, 3, 0}, {QD_PARTIAL_F32, 4, 24}};
    static const int32_t chosen[] = {1, 5, 30};
    need_isa(*state);
    for (int numerics = 0; numerics < 2; numerics++) {
        struct deviation observed = DEVIATION_NONE;
        struct qd_device device = open_cpu(*state, 2, (enum qd_numerics)numerics);
        for (size_t i = 0; i < COUNT(dims) * COUNT(cases); i++) {
            const struct partial_case *c = &cases[i % COUNT(cases)];
            const int64_t dim = dims[i / COUNT(cases)];
            check_reduce(device, (enum qd_numerics)numerics, dim, c, NULL, ROWS, &observed);
            check_reduce(device, (enum qd_numerics)numerics, dim, c, chosen, COUNT(chosen), &observed);
        }
        deviation_print("reduce_add_rmsnorm", &observed);
        device_close(&device);
    }
}

/* The bits of a row are the same alone, among others, and on any number of threads. */
static void rows_and_threads_do_not_matter(void **state)
{
    enum { DIM = 1000 }; /* enough elements for the team */
    need_isa(*state);
    qd_bf16 *x = new_rows(ROWS, DIM, 3), *weight = new_norm_weight(DIM, 4), whole[ROWS * DIM],
            got[ROWS * DIM];
    for (int n_threads = 1; n_threads <= 4; n_threads++) {
        struct qd_device device = open_cpu(*state, n_threads, QD_NUMERICS_FUSED);
        struct qd_rmsnorm_args args = {x, weight, NULL, ROWS, DIM, 1e-6f, n_threads == 1 ? whole : got};
        assert_int_equal(qd_device_rmsnorm(device, &args), QD_OK);
        if (n_threads > 1) compare_same_bf16("threads", got, whole, ROWS * DIM);
        for (int32_t row = 0; row < ROWS; row++) {
            args.rows = &row, args.n_rows = 1, args.out = got;
            assert_int_equal(qd_device_rmsnorm(device, &args), QD_OK);
            compare_same_bf16("alone", got, whole + row * DIM, DIM);
        }
        device_close(&device);
    }
    free(x);
    free(weight);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_ISA(rmsnorm),
        EVERY_ISA(reduce_add_rmsnorm),
        EVERY_ISA(rows_and_threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
