/* silu_mul.cu: bf16 and fp32 slices, both numerics, groups around a block, the ends of the range. */
#include <math.h>

#include "kernels/cuda/kernels.h"
#include "kernels/ref/ref.h"
#include "kernels/ref/shared.h"
#include "tests/gpu/partials.h"
#include "tests/gpu/runner.h"

/* silu is within 2^-19 of the double result, which can turn a rounding: one bf16 step (2^-7 at most). hf
 * rounds twice: a step, times up, and another. In the emulator, whose exp2 is that of libm, all
 * elements had the same bits. */
static const float RTOL[] = {[QD_NUMERICS_FUSED] = 0x1p-7f, [QD_NUMERICS_HF] = 0x1p-6f};
static const double OTHER_BITS = 0.002;

static const enum qd_numerics NUMERICS[] = {QD_NUMERICS_FUSED, QD_NUMERICS_HF};

/* [m][2n] sums to [m][n]. */
static qd_bf16 *expected(const float *sum, int64_t m, int64_t n, enum qd_numerics numerics)
{
    qd_bf16 *out = gpu_host_alloc((size_t)(m * n) * sizeof *out);
    for (int64_t row = 0; row < m; row++) {
        for (int64_t i = 0; i < n; i++) {
            int64_t group;
            const float *gate = sum + row * 2 * n + qd_ref_gate_column(i, n, &group);
            out[row * n + i] = qd_ref_silu_mul_one((double)gate[0], (double)gate[group], numerics);
        }
    }
    return out;
}

static void check_silu(int64_t m, int64_t n, enum qd_partial_dtype dtype, int n_slices,
                       enum qd_numerics numerics)
{
    const size_t n_out = (size_t)(m * n), out_bytes = n_out * sizeof(qd_bf16);
    const struct test_partial in = new_partial(2 * n_out, dtype, n_slices, 6.0f, (uint64_t)n);
    qd_bf16 *got = gpu_host_alloc(out_bytes);
    struct qd_cuda_silu_mul_args args = {
        .gate_up = in.device, .m = m, .n = n, .numerics = numerics, .out = gpu_alloc_output(out_bytes)};
    GPU_LAUNCH(qd_cuda_silu_mul, &args);
    gpu_download(got, args.out, out_bytes);
    gpu_expect_rounded_bf16("out", got, expected(in.sum, m, n, numerics), n_out, RTOL[numerics], 0,
                            OTHER_BITS);
    gpu_expect_same_bits("out", got, out_bytes);
}

/* 2048 columns are a block's groups of 8. */
static void matches_reference(enum qd_numerics numerics)
{
    static const int64_t shapes[][2] = {{1, 8},    {3, 16},   {7, 24},   {5, 1216},  {1, 2040}, {1, 2048},
                                        {1, 2056}, {131, 64}, {3, 3072}, {2, 12288}, {1, 25600}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_silu(shapes[i][0], shapes[i][1], QD_PARTIAL_BF16, 1, numerics);
        check_silu(shapes[i][0], shapes[i][1], QD_PARTIAL_F32, 1 + (int)i % 8, numerics);
    }
}

static void fused(void)
{
    matches_reference(QD_NUMERICS_FUSED);
}

static void hf(void)
{
    matches_reference(QD_NUMERICS_HF);
}

static void sums_every_number_of_slices(void)
{
    for (int n_slices = 1; n_slices <= 8; n_slices++)
        check_silu(3, 1024, QD_PARTIAL_F32, n_slices, NUMERICS[n_slices % 2]);
}

static void does_nothing_without_rows(void)
{
    struct qd_cuda_silu_mul_args args = {.n = 64, .gate_up = {.n_slices = 1}};
    GPU_LAUNCH(qd_cuda_silu_mul, &args);
}

/* Gates where exp overflows or vanishes: large ones pass, very negative ones give zero, not NaN; at 0
 * nothing. */
static void keeps_its_form_at_the_ends(void)
{
    static const float gates[8] = {0.0f, -0.0f, 88.0f, 3e38f, -86.0f, -100.0f, -3e38f, 1e-30f};
    qd_bf16 in[16], got[8], want[8];
    for (int i = 0; i < 8; i++) {
        in[i] = qd_bf16_from_f32(gates[i]);
        in[8 + i] = qd_bf16_from_f32(0.5f);
        const double gate = (double)qd_bf16_to_f32(in[i]);
        want[i] = qd_bf16_from_f32((float)(gate / (1.0 + exp(-gate)) * 0.5));
    }
    for (int i = 0; i < 2; i++) {
        struct qd_cuda_silu_mul_args args = {
            .gate_up = {.data = gpu_upload(in, sizeof in), .dtype = QD_PARTIAL_BF16, .n_slices = 1},
            .m = 1,
            .n = 8,
            .numerics = NUMERICS[i],
            .out = gpu_alloc_output(sizeof got)};
        GPU_LAUNCH(qd_cuda_silu_mul, &args);
        gpu_download(got, args.out, sizeof got);
        /* exp2 flushes what is not a normal number. */
        gpu_expect_close_bf16("out", got, want, 8, RTOL[NUMERICS[i]], 0x1p-126f);
    }
}

/* The same group at the start of one matrix and at the end of another. */
static void a_group_is_the_same_anywhere(void)
{
    enum { M = 9, N = 264 };
    static qd_bf16 in[M * 2 * N], together[M * N], alone[N];
    gpu_random_bf16(in, M * 2 * N, 4.0f, 50);
    struct qd_cuda_silu_mul_args args = {
        .gate_up = {.data = gpu_upload(in, sizeof in), .dtype = QD_PARTIAL_BF16, .n_slices = 1},
        .m = M,
        .n = N,
        .out = gpu_alloc_output(sizeof together)};
    GPU_LAUNCH(qd_cuda_silu_mul, &args);
    gpu_download(together, args.out, sizeof together);
    args.gate_up.data = gpu_upload(in + (M - 1) * 2 * N, 2 * sizeof alone);
    args.m = 1;
    args.out = gpu_alloc_output(sizeof alone);
    GPU_LAUNCH(qd_cuda_silu_mul, &args);
    gpu_download(alone, args.out, sizeof alone);
    gpu_expect_equal("row", alone, together + (M - 1) * N, sizeof alone);
}

/* The second slice lies more than 2^31 elements behind the first. */
static void reads_far_slices(void)
{
    enum { N = 8 };
    const size_t stride = (size_t)0x80000000u + 64;
    const struct test_partial near = new_partial(2 * N, QD_PARTIAL_F32, 2, 4.0f, 60);
    float *far = gpu_alloc_sparse(2 * stride * sizeof *far), slice[2 * N];
    qd_bf16 got[N];
    for (size_t s = 0; s < 2; s++) {
        gpu_download(slice, (const float *)near.device.data + s * (size_t)near.device.stride, sizeof slice);
        gpu_write(far + s * stride, slice, sizeof slice);
    }
    struct qd_cuda_silu_mul_args args = {
        .gate_up = {.data = far, .dtype = QD_PARTIAL_F32, .n_slices = 2, .stride = (int64_t)stride},
        .m = 1,
        .n = N,
        .out = gpu_alloc_output(sizeof got)};
    GPU_LAUNCH(qd_cuda_silu_mul, &args);
    gpu_download(got, args.out, sizeof got);
    gpu_expect_rounded_bf16("out", got, expected(near.sum, 1, N, QD_NUMERICS_FUSED), N, RTOL[0], 0,
                            OTHER_BITS);
}

static void refuses(void)
{
    const struct qd_cuda_silu_mul_args good = {.gate_up = {.n_slices = 1}, .m = 1, .n = 8};
    struct qd_cuda_silu_mul_args args = good;
    args.n = 12;
    GPU_REFUSED(qd_cuda_silu_mul, &args, "1 x 12");
    args.n = 0;
    GPU_REFUSED(qd_cuda_silu_mul, &args, "1 x 0");
    args = good;
    args.m = -1;
    GPU_REFUSED(qd_cuda_silu_mul, &args, "-1 x 8");
    args = good;
    args.m = INT64_C(1) << 40;
    GPU_REFUSED(qd_cuda_silu_mul, &args, "rows");
    args = good;
    args.gate_up.n_slices = 2;
    GPU_REFUSED(qd_cuda_silu_mul, &args, "2 bf16 slices");
    args.gate_up.dtype = QD_PARTIAL_F32;
    args.gate_up.stride = 20;
    GPU_REFUSED(qd_cuda_silu_mul, &args, "stride of 20");
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"fused", fused},
        {"hf", hf},
        {"sums_every_number_of_slices", sums_every_number_of_slices},
        {"does_nothing_without_rows", does_nothing_without_rows},
        {"keeps_its_form_at_the_ends", keeps_its_form_at_the_ends},
        {"a_group_is_the_same_anywhere", a_group_is_the_same_anywhere},
        {"reads_far_slices", reads_far_slices},
        {"refuses", refuses},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
