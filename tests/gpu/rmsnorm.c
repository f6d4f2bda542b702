/* rmsnorm.cu: every number of threads, both numerics, selected rows, rows in place, sums whose result is
 * exact. */
#include "kernels/cuda/kernels.h"
#include "kernels/ref/ref.h"
#include "tests/gpu/runner.h"

static const float EPS = 1e-6f;
/* fp32 sums and rsqrt move a value by some 2^-21, which can turn a rounding: one bf16 step (2^-7 at most). hf
 * rounds twice: a step, times the weight, and another. Such turns are rare. Seen in the emulator: at most 1
 * element of a result in fused and 15 of 2048 in hf, where eps alone counts and 1/sqrt(eps) is nearly a bf16.
 */
static const float RTOL[] = {[QD_NUMERICS_FUSED] = 0x1p-7f, [QD_NUMERICS_HF] = 0x1p-6f};
static const double OTHER_BITS = 0.01;
static const enum qd_numerics NUMERICS[] = {QD_NUMERICS_FUSED, QD_NUMERICS_HF};

/* Rows of x, which rows to normalise (NULL: all). Rows of x that are not selected are NaN. */
struct shape {
    int64_t dim, n_x;
    const int32_t *rows;
    int64_t n_rows;
};

static bool is_selected(const struct shape *s, int64_t row)
{
    if (s->rows == NULL) return true;
    for (int64_t r = 0; r < s->n_rows; r++)
        if (s->rows[r] == row) return true;
    return false;
}

static qd_bf16 *new_x(const struct shape *s, float scale)
{
    const size_t n = (size_t)(s->n_x * s->dim);
    qd_bf16 *x = gpu_host_alloc(n * sizeof *x);
    gpu_random_bf16(x, n, scale, (uint64_t)s->dim);
    for (int64_t row = 0; row < s->n_x; row++)
        if (!is_selected(s, row)) memset(x + row * s->dim, 0xff, (size_t)s->dim * sizeof *x);
    return x;
}

static void check_norm(const struct shape *s, float scale, enum qd_numerics numerics)
{
    const size_t weight_bytes = (size_t)s->dim * 2, out_n = (size_t)(s->n_rows * s->dim);
    qd_bf16 *x = new_x(s, scale), *weight = gpu_host_alloc(weight_bytes);
    qd_bf16 *got = gpu_host_alloc(out_n * 2), *want = gpu_host_alloc(out_n * 2);
    gpu_random_bf16(weight, (size_t)s->dim, 2.0f, 5);

    struct qd_cuda_rmsnorm_args args = {
        .x = gpu_upload(x, (size_t)(s->n_x * s->dim) * 2),
        .weight = gpu_upload(weight, weight_bytes),
        .rows = s->rows != NULL ? gpu_upload(s->rows, (size_t)s->n_rows * 4) : NULL,
        .n_rows = s->n_rows,
        .dim = s->dim,
        .eps = EPS,
        .numerics = numerics,
        .out = gpu_alloc_output(out_n * 2),
    };
    GPU_LAUNCH(qd_cuda_rmsnorm, &args);
    gpu_download(got, args.out, out_n * 2);
    qd_ref_rmsnorm(&(struct qd_rmsnorm_args){.x = x,
                                             .weight = weight,
                                             .rows = s->rows,
                                             .n_rows = s->n_rows,
                                             .dim = s->dim,
                                             .eps = EPS,
                                             .out = want},
                   numerics);
    gpu_expect_rounded_bf16("out", got, want, out_n, RTOL[numerics], 0, OTHER_BITS);
    gpu_expect_same_bits("out", got, out_n * 2);
}

static void matches_reference(enum qd_numerics numerics)
{
    static const int64_t dims[] = {8, 16, 40, 248, 256, 264, 1000, 1024, 2048, 2560, 4096, 5120, 8184, 8192};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        const struct shape all = {.dim = dims[i], .n_x = 3, .n_rows = 3};
        check_norm(&all, 3.0f, numerics);
    }
    static const int64_t rows[] = {1, 2, 131};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct shape all = {.dim = 64, .n_x = rows[i], .n_rows = rows[i]};
        check_norm(&all, 3.0f, numerics);
    }
    /* So small that eps counts, as much as the mean square and alone. */
    const struct shape few = {.dim = 1024, .n_x = 2, .n_rows = 2};
    check_norm(&few, 1e-3f, numerics);
    check_norm(&few, 1e-22f, numerics);
}

static void fused(void)
{
    matches_reference(QD_NUMERICS_FUSED);
}

static void hf(void)
{
    matches_reference(QD_NUMERICS_HF);
}

/* Out of order, one twice. */
static void normalises_selected_rows(void)
{
    static const int32_t rows[] = {6, 0, 3, 3, 10};
    const struct shape some = {.dim = 2560, .n_x = 11, .rows = rows, .n_rows = 5};
    for (int i = 0; i < 2; i++) check_norm(&some, 1.0f, NUMERICS[i]);
}

static void does_nothing_without_rows(void)
{
    struct qd_cuda_rmsnorm_args args = {.dim = 1024, .eps = EPS};
    GPU_LAUNCH(qd_cuda_rmsnorm, &args);
}

/* x = +-2^k everywhere: its norm is +-1, so the result is the weight with its sign. */
static void is_exact_where_the_sum_is(void)
{
    static const int64_t dims[] = {8, 1024, 2560, 8192};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        const size_t dim = (size_t)dims[d], bytes = dim * sizeof(qd_bf16);
        qd_bf16 *x = gpu_host_alloc(bytes), *weight = gpu_host_alloc(bytes), *want = gpu_host_alloc(bytes);
        gpu_random_bf16(weight, dim, 2.0f, 6);
        for (size_t i = 0; i < dim; i++) {
            const float sign = i % 3 == 0 ? -1.0f : 1.0f;
            x[i] = qd_bf16_from_f32(4.0f * sign);
            want[i] = qd_bf16_from_f32(qd_bf16_to_f32(weight[i]) * sign);
        }
        for (int i = 0; i < 2; i++) {
            struct qd_cuda_rmsnorm_args args = {.x = gpu_upload(x, bytes),
                                                .weight = gpu_upload(weight, bytes),
                                                .n_rows = 1,
                                                .dim = dims[d],
                                                .numerics = NUMERICS[i],
                                                .out = gpu_alloc_output(bytes)};
            qd_bf16 *got = gpu_host_alloc(bytes);
            GPU_LAUNCH(qd_cuda_rmsnorm, &args);
            gpu_download(got, args.out, bytes);
            gpu_expect_equal("out", got, want, bytes);
        }
    }
}

/* In place, and a row in company: the bits of the row alone. */
static void a_row_is_the_same_anywhere(void)
{
    enum { DIM = 1024, N = 7 };
    static qd_bf16 x[N * DIM], weight[DIM], together[N * DIM], alone[DIM];
    gpu_random_bf16(x, N * DIM, 1.0f, 7);
    gpu_random_bf16(weight, DIM, 1.0f, 8);
    qd_bf16 *d_x = gpu_upload(x, sizeof x);
    struct qd_cuda_rmsnorm_args args = {.x = d_x,
                                        .weight = gpu_upload(weight, sizeof weight),
                                        .n_rows = N,
                                        .dim = DIM,
                                        .eps = EPS,
                                        .out = d_x};
    GPU_LAUNCH(qd_cuda_rmsnorm, &args);
    gpu_download(together, d_x, sizeof together);
    args.n_rows = 1;
    for (int i = 0; i < N; i++) {
        args.x = gpu_upload(x + i * DIM, sizeof alone);
        args.out = gpu_alloc_output(sizeof alone);
        GPU_LAUNCH(qd_cuda_rmsnorm, &args);
        gpu_download(alone, args.out, sizeof alone);
        gpu_expect_equal("row", alone, together + i * DIM, sizeof alone);
    }
}

/* The last row of an x of more than 2^31 elements. */
static void reads_far_rows(void)
{
    enum { DIM = 8192 };
    static qd_bf16 x[DIM], weight[DIM], got[DIM], want[DIM];
    const int32_t row = (int32_t)(INT64_C(0x80000000) / DIM + 1);
    qd_bf16 *far = gpu_alloc_sparse((size_t)(row + 1) * DIM * sizeof *far);
    gpu_random_bf16(x, DIM, 1.0f, 9);
    gpu_random_bf16(weight, DIM, 1.0f, 10);
    gpu_write(far + row * (int64_t)DIM, x, sizeof x);
    struct qd_cuda_rmsnorm_args args = {.x = far,
                                        .weight = gpu_upload(weight, sizeof weight),
                                        .rows = gpu_upload(&row, sizeof row),
                                        .n_rows = 1,
                                        .dim = DIM,
                                        .eps = EPS,
                                        .out = gpu_alloc_output(sizeof got)};
    GPU_LAUNCH(qd_cuda_rmsnorm, &args);
    gpu_download(got, args.out, sizeof got);
    qd_ref_rmsnorm(
        &(struct qd_rmsnorm_args){.x = x, .weight = weight, .n_rows = 1, .dim = DIM, .eps = EPS, .out = want},
        QD_NUMERICS_FUSED);
    gpu_expect_rounded_bf16("out", got, want, DIM, RTOL[QD_NUMERICS_FUSED], 0, OTHER_BITS);
}

static void refuses(void)
{
    static const int64_t dims[] = {0, -8, 4, 12, 8200};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        struct qd_cuda_rmsnorm_args args = {.dim = dims[i], .n_rows = 1};
        GPU_REFUSED(qd_cuda_rmsnorm, &args, "multiple of 8 up to 8192");
    }
    struct qd_cuda_rmsnorm_args args = {.dim = 8, .n_rows = -1};
    GPU_REFUSED(qd_cuda_rmsnorm, &args, "-1 rows");
    args.n_rows = INT64_C(1) << 31;
    GPU_REFUSED(qd_cuda_rmsnorm, &args, "rows");
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"fused", fused},
        {"hf", hf},
        {"normalises_selected_rows", normalises_selected_rows},
        {"does_nothing_without_rows", does_nothing_without_rows},
        {"is_exact_where_the_sum_is", is_exact_where_the_sum_is},
        {"a_row_is_the_same_anywhere", a_row_is_the_same_anywhere},
        {"reads_far_rows", reads_far_rows},
        {"refuses", refuses},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
