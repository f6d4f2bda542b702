/* What the GEMM tests share: inputs, one run into a poisoned output, and its comparison with the
 * specification.
 *
 * Inputs are of two kinds. Exact ones are multiples of 1/8 within [-1, 1]: every product and every sum of up
 * to 2^17 of them is exact in fp32 in any order, so that the result must equal the specification's bit for
 * bit (SiLU: to its own rounding). Random ones have full mantissas: sums then differ by their rounding.
 */
#ifndef QD_TESTS_GPU_GEMM_CASES_H
#define QD_TESTS_GPU_GEMM_CASES_H

#include <math.h>

#include "kernels/cuda/kernels.h"
#include "kernels/ref/ref.h"
#include "tests/gpu/runner.h"

enum gemm_values {
    GEMM_EXACT,
    GEMM_RANDOM,
    GEMM_ROW_OF_SIGN, /* a row is all 1 or all -1: sums of +-K, where SiLU saturates */
};

struct gemm_case {
    enum qd_cuda_gemm_kernel kernel;
    int32_t n_slices;
    int64_t m, n, k;
    enum qd_epilogue epilogue;
    enum qd_numerics numerics;
    enum gemm_values values;
    bool padded; /* lda > K, ldo > N, slices apart */
};

enum { GEMM_PADDING = 8, GEMM_ROWS_BEHIND = 2 };

static inline int64_t gemm_columns_out(const struct gemm_case *c)
{
    return c->epilogue == QD_EPILOGUE_SILU_MUL ? c->n / 2 : c->n;
}

static inline size_t gemm_element_bytes(const struct gemm_case *c)
{
    return c->epilogue == QD_EPILOGUE_STORE_F32 || c->n_slices > 1 ? sizeof(float) : sizeof(qd_bf16);
}

/* Rows of K elements at `stride`, NaN in the columns behind them and in GEMM_ROWS_BEHIND rows at the end. Row
 * r's values depend on seed, r and K alone. */
static inline qd_bf16 *gemm_matrix(int64_t rows, int64_t k, int64_t stride, enum gemm_values values,
                                   uint64_t seed)
{
    const size_t n = (size_t)((rows + GEMM_ROWS_BEHIND) * stride);
    qd_bf16 *matrix = gpu_host_alloc(n * sizeof *matrix);
    memset(matrix, 0xff, n * sizeof *matrix);
    for (int64_t r = 0; r < rows; r++) {
        qd_bf16 *row = matrix + r * stride;
        gpu_random_bf16(row, (size_t)k, 1.0f, seed + (uint64_t)r);
        const float sign = copysignf(1, qd_bf16_to_f32(row[0]));
        for (int64_t i = 0; i < k && values == GEMM_EXACT; i++)
            row[i] = qd_bf16_from_f32(roundf(qd_bf16_to_f32(row[i]) * 8) / 8);
        for (int64_t i = 0; i < k && values == GEMM_ROW_OF_SIGN; i++) row[i] = qd_bf16_from_f32(sign);
    }
    return matrix;
}

struct gemm_inputs {
    int64_t lda;
    qd_bf16 *a, *w; /* [m][k] row stride lda, [n][k] */
};

static inline struct gemm_inputs gemm_inputs_of(const struct gemm_case *c)
{
    const int64_t lda = c->k + (c->padded ? GEMM_PADDING : 0);
    return (struct gemm_inputs){lda, gemm_matrix(c->m, c->k, lda, c->values, 1000),
                                gemm_matrix(c->n, c->k, c->k, c->values, 500000)};
}

static const unsigned char GEMM_POISON = 0xff;

/* Every byte between what was stored must be as it was before. */
static inline void gemm_expect_poison(const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        GPU_EXPECT(bytes[i] == GEMM_POISON, "a store beyond the output's columns or rows");
}

/* What a run stored, without what lies between: [n_slices][m][columns]. */
static inline void *gemm_dense(const struct gemm_case *c, const unsigned char *stored, size_t stored_bytes,
                               int64_t ldo, int64_t slice_stride)
{
    const size_t element = gemm_element_bytes(c), row_bytes = (size_t)gemm_columns_out(c) * element;
    unsigned char *dense = gpu_host_alloc(row_bytes * (size_t)(c->n_slices * c->m));
    size_t end = 0; /* of the row before */
    for (int64_t i = 0; i < c->n_slices * c->m; i++) {
        const size_t begin = (size_t)(i / c->m * slice_stride + i % c->m * ldo) * element;
        gemm_expect_poison(stored + end, begin - end);
        memcpy(dense + (size_t)i * row_bytes, stored + begin, row_bytes);
        end = begin + row_bytes;
    }
    gemm_expect_poison(stored + end, stored_bytes - end);
    return dense;
}

/* Whether the device has the shared memory that the kernel takes for m tokens. */
static inline bool gemm_fits(enum qd_cuda_gemm_kernel kernel, int64_t m)
{
    return qd_cuda_gemm_shared_bytes(kernel, m) <= gpu_shared_bytes();
}

/* Runs the kernel into a poisoned output; what it stored as gemm_dense. */
static inline void *gemm_run(const struct gemm_case *c, const struct gemm_inputs *in)
{
    const int64_t ldo = gemm_columns_out(c) + (c->padded ? 2 * GEMM_PADDING : 0);
    const int64_t slice_stride = c->m * ldo + (c->padded ? GEMM_PADDING : 0);
    const size_t out_bytes = (size_t)(c->n_slices * slice_stride) * gemm_element_bytes(c);
    const size_t a_elements = (size_t)((c->m + GEMM_ROWS_BEHIND) * in->lda);
    const size_t w_elements = (size_t)((c->n + GEMM_ROWS_BEHIND) * c->k);
    unsigned char *stored = gpu_host_alloc(out_bytes);
    memset(stored, GEMM_POISON, out_bytes);
    const struct qd_cuda_gemm_args args = {
        .a = gpu_upload(in->a, a_elements * sizeof(qd_bf16)),
        .m = c->m,
        .n = c->n,
        .k = c->k,
        .lda = in->lda,
        .w = gpu_upload(in->w, w_elements * sizeof(qd_bf16)),
        .epilogue = c->epilogue,
        .numerics = c->numerics,
        .plan = {c->kernel, c->n_slices},
        .out = gpu_write_once(gpu_upload(stored, out_bytes), out_bytes),
        .ldo = ldo,
        .slice_stride = slice_stride,
    };
    GPU_LAUNCH(qd_cuda_gemm, &args);
    gpu_download(stored, args.out, out_bytes);
    return gemm_dense(c, stored, out_bytes, ldo, slice_stride);
}

/* The specification for columns [k_begin, k_begin + k) of both inputs. */
static inline void *gemm_reference(const struct gemm_case *c, const struct gemm_inputs *in,
                                   enum qd_epilogue epilogue, int64_t k_begin, int64_t k)
{
    qd_bf16 *w = gpu_host_alloc((size_t)(c->n * k) * sizeof *w);
    for (int64_t r = 0; r < c->n; r++) memcpy(w + r * k, in->w + r * c->k + k_begin, (size_t)k * sizeof *w);
    const int64_t columns = gemm_columns_out(c);
    void *out = gpu_host_alloc((size_t)(c->m * columns) * sizeof(float));
    const struct qd_gemm_nt_args args = {
        .a = in->a + k_begin,
        .m = c->m,
        .lda = in->lda,
        .w = {w, c->n, k, QD_LAYOUT_ROWS},
        .epilogue = epilogue,
        .out = out,
        .ldo = columns,
    };
    qd_ref_gemm_nt(&args, c->numerics);
    return out;
}

/* Each of K additions rounds a partial sum to 2^-24 of it; partial sums of products of values uniform in [-1,
 * 1) stay within 4 standard deviations of sqrt(K)/3. Observed: 0.02 of it. */
static inline float gemm_sum_tolerance(const struct gemm_case *c)
{
    if (c->values != GEMM_RANDOM) return 0;
    const float k = (float)c->k;
    return k * 0x1p-24f * 4 * sqrtf(k) / 3;
}

/* Relative error of a bf16 result: sums that differ may round to neighbours, 2^-7 of the smaller at most.
 * silu_mul differs by the error of its exponential even where sums are exact; hf rounds twice behind it. */
static inline float gemm_bf16_tolerance(const struct gemm_case *c)
{
    if (c->epilogue == QD_EPILOGUE_SILU_MUL) return c->numerics == QD_NUMERICS_HF ? 0x1p-6f : 0x1p-7f;
    return c->values != GEMM_RANDOM ? 0 : 0x1p-7f;
}

/* Share of silu_mul's results that may lie on the other side of a rounding boundary, which an error of 2^-19
 * seldom reaches over: a rounding left out shows in every third. Observed: none. */
static const double GEMM_OTHER_BITS = 0.01;

/* Slices one by one, and their sum in index order against the whole. */
static inline void gemm_compare_slices(const struct gemm_case *c, const struct gemm_inputs *in,
                                       const float *slices)
{
    struct gemm_case exact_sums = *c;
    exact_sums.numerics = QD_NUMERICS_FUSED; /* slices are never rounded */
    const size_t n = (size_t)(c->m * c->n);
    const int64_t k = c->k / c->n_slices;
    float *sums = gpu_host_alloc(n * sizeof *sums);
    for (int32_t s = 0; s < c->n_slices; s++) {
        const float *want = gemm_reference(&exact_sums, in, QD_EPILOGUE_STORE_F32, s * k, k);
        gpu_expect_close_f32("slice", slices + (size_t)s * n, want, n, 0, gemm_sum_tolerance(c));
        for (size_t i = 0; i < n; i++) sums[i] = s == 0 ? slices[i] : sums[i] + slices[(size_t)s * n + i];
    }
    const float *want = gemm_reference(&exact_sums, in, QD_EPILOGUE_STORE_F32, 0, c->k);
    gpu_expect_close_f32("sum of slices", sums, want, n, 0, gemm_sum_tolerance(c));
}

/* Runs the case, compares every element with the specification and the bits with those of other modes. */
static inline void gemm_check(const struct gemm_case *c)
{
    const struct gemm_inputs in = gemm_inputs_of(c);
    const void *got = gemm_run(c, &in);
    const size_t n = (size_t)(c->m * gemm_columns_out(c));
    gpu_expect_same_bits("output", got, (size_t)c->n_slices * n * gemm_element_bytes(c));
    if (c->n_slices > 1) {
        gemm_compare_slices(c, &in, got);
        return;
    }
    const void *want = gemm_reference(c, &in, c->epilogue, 0, c->k);
    const float atol = gemm_sum_tolerance(c), rtol = gemm_bf16_tolerance(c);
    if (c->epilogue == QD_EPILOGUE_STORE_F32)
        gpu_expect_close_f32("output", got, want, n, c->numerics == QD_NUMERICS_HF ? rtol : 0, atol);
    else if (c->epilogue == QD_EPILOGUE_SILU_MUL)
        gpu_expect_rounded_bf16("output", got, want, n, rtol, atol, GEMM_OTHER_BITS);
    else
        gpu_expect_close_bf16("output", got, want, n, rtol, atol);
}

/* Both numerics of each epilogue; `c` gives kernel and M. */
static inline void gemm_check_epilogues(struct gemm_case c)
{
    c.n_slices = 1;
    c.n = 272; /* a multiple of 16 that ends within every kernel's tile */
    c.k = 192;
    c.padded = true;
    for (int e = QD_EPILOGUE_STORE; e <= QD_EPILOGUE_SILU_MUL; e++) {
        c.epilogue = (enum qd_epilogue)e;
        for (int numerics = QD_NUMERICS_FUSED; numerics <= QD_NUMERICS_HF; numerics++) {
            c.numerics = (enum qd_numerics)numerics;
            c.values = GEMM_EXACT;
            gemm_check(&c);
            c.values = c.epilogue == QD_EPILOGUE_SILU_MUL ? GEMM_ROW_OF_SIGN : GEMM_RANDOM;
            gemm_check(&c);
        }
    }
}

/* 1 .. 4 slices, of one step each and longer; `c` gives kernel and M. */
static inline void gemm_check_slices(struct gemm_case c)
{
    c.epilogue = QD_EPILOGUE_STORE;
    c.n = 136;
    for (c.n_slices = 1; c.n_slices <= 4; c.n_slices++) {
        c.numerics = c.n_slices % 2 ? QD_NUMERICS_FUSED : QD_NUMERICS_HF; /* slices are rounded in neither */
        c.padded = c.n_slices != 3;
        c.values = GEMM_EXACT;
        c.k = 64 * c.n_slices;
        gemm_check(&c);
        c.k = 768;
        c.values = GEMM_RANDOM;
        gemm_check(&c);
    }
}

/* The rows of every M in ms[n_ms] have the bits of the same rows of the largest, ms[n_ms - 1]. */
static inline void gemm_check_same_rows(struct gemm_case c, const int64_t *ms, size_t n_ms)
{
    c.m = ms[n_ms - 1];
    c.values = GEMM_RANDOM;
    const struct gemm_inputs all = gemm_inputs_of(&c);
    const size_t row_bytes = (size_t)gemm_columns_out(&c) * gemm_element_bytes(&c);
    const size_t slice_bytes = (size_t)c.m * row_bytes;
    const unsigned char *whole = gemm_run(&c, &all);
    for (size_t i = 0; i + 1 < n_ms; i++) {
        c.m = ms[i];
        const struct gemm_inputs in = gemm_inputs_of(&c);
        const unsigned char *part = gemm_run(&c, &in);
        for (int32_t s = 0; s < c.n_slices; s++) {
            const size_t bytes = (size_t)c.m * row_bytes;
            GPU_EXPECT(memcmp(part + (size_t)s * bytes, whole + (size_t)s * slice_bytes, bytes) == 0,
                       "other bits with M %lld than with %lld, slice %d", (long long)c.m,
                       (long long)ms[n_ms - 1], (int)s);
        }
    }
}

/* silu_mul.cu over the sums gives the bits of the epilogue, so that splitting K or not is all that tells the
 * two ways apart. */
static inline void gemm_check_silu_mul_apart(struct gemm_case c)
{
    c.n_slices = 1;
    c.n = 272;
    c.k = 128;
    c.values = GEMM_RANDOM;
    const struct gemm_inputs in = gemm_inputs_of(&c);
    const size_t n_sums = (size_t)(c.m * c.n), out_bytes = n_sums / 2 * sizeof(qd_bf16);
    c.epilogue = QD_EPILOGUE_STORE_F32;
    const float *sums = gemm_run(&c, &in);
    c.epilogue = QD_EPILOGUE_SILU_MUL;
    for (int numerics = QD_NUMERICS_FUSED; numerics <= QD_NUMERICS_HF; numerics++) {
        c.numerics = (enum qd_numerics)numerics;
        const struct qd_cuda_silu_mul_args apart = {
            .gate_up = {.data = gpu_upload(sums, n_sums * sizeof *sums),
                        .dtype = QD_PARTIAL_F32,
                        .n_slices = 1},
            .m = c.m,
            .n = c.n / 2,
            .numerics = c.numerics,
            .out = gpu_alloc_output(out_bytes),
        };
        GPU_LAUNCH(qd_cuda_silu_mul, &apart);
        qd_bf16 *want = gpu_host_alloc(out_bytes);
        gpu_download(want, apart.out, out_bytes);
        gpu_expect_equal("silu_mul", gemm_run(&c, &in), want, out_bytes);
    }
}

/* Rows of a and of the output 2^30 elements apart and slices further: offsets that 32 bits do not hold. */
static inline void gemm_check_far(enum qd_cuda_gemm_kernel kernel)
{
    const struct gemm_case c = {.kernel = kernel, .n_slices = 2, .m = 3, .n = 16, .k = 128};
    const int64_t far = (INT64_C(1) << 30) + GEMM_PADDING, slice_stride = c.m * far;
    const struct gemm_inputs in = gemm_inputs_of(&c);
    const size_t row_bytes = (size_t)c.n * sizeof(float);
    qd_bf16 *a = gpu_alloc_sparse((size_t)((c.m - 1) * far + c.k) * sizeof *a);
    float *out = gpu_alloc_sparse((size_t)(slice_stride + (c.m - 1) * far + c.n) * sizeof *out);
    for (int64_t row = 0; row < c.m; row++)
        gpu_write(a + row * far, in.a + row * in.lda, (size_t)c.k * sizeof *a);
    const struct qd_cuda_gemm_args args = {
        .a = a,
        .m = c.m,
        .n = c.n,
        .k = c.k,
        .lda = far,
        .w = gpu_upload(in.w, (size_t)(c.n * c.k) * sizeof *in.w),
        .plan = {kernel, c.n_slices},
        .out = out,
        .ldo = far,
        .slice_stride = slice_stride,
    };
    GPU_LAUNCH(qd_cuda_gemm, &args);
    float *slices = gpu_host_alloc((size_t)(c.n_slices * c.m) * row_bytes);
    for (int64_t i = 0; i < c.n_slices * c.m; i++)
        gpu_download(slices + i * c.n, out + i / c.m * slice_stride + i % c.m * far, row_bytes);
    gemm_compare_slices(&c, &in, slices);
}

#endif
