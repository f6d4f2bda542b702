/* The tile GEMM kernels against the specification: tails, ring wrap-around, epilogues, slices, raster,
 * invariance. */
#include "tests/gpu/gemm_cases.h"

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

static const enum qd_cuda_gemm_kernel kernels[] = {QD_CUDA_GEMM_TILE_128X128_3_STAGES,
                                                   QD_CUDA_GEMM_TILE_128X128, QD_CUDA_GEMM_TILE_128X256};
/* How many of them fit the device; the others are not tested on it. */
static size_t n_kernels(void)
{
    size_t n = 1;
    while (n < LENGTH(kernels) && gemm_fits(kernels[n], 1)) n++;
    return n;
}

static void all_kernels_fit(void)
{
    if (n_kernels() < LENGTH(kernels))
        gpu_skip("the larger tiles need more shared memory than the device has");
}

static const int64_t token_counts[] = {1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129};

static void rows_and_their_tails(void)
{
    for (size_t i = 0; i < n_kernels(); i++) {
        for (size_t j = 0; j < LENGTH(token_counts); j++)
            gemm_check(&(struct gemm_case){.kernel = kernels[i],
                                           .n_slices = 1,
                                           .m = token_counts[j],
                                           .n = 136,
                                           .k = 128,
                                           .padded = j % 2 == 0});
    }
}

static void columns_and_their_tails(void)
{
    static const int64_t columns[] = {8, 24, 64, 128, 136, 248, 256, 264, 520};
    for (size_t i = 0; i < n_kernels(); i++) {
        for (size_t j = 0; j < LENGTH(columns); j++)
            gemm_check(&(struct gemm_case){.kernel = kernels[i],
                                           .n_slices = 1,
                                           .m = 33,
                                           .n = columns[j],
                                           .k = 64,
                                           .padded = j % 2 == 1});
    }
}

/* Steps below, equal to and above the number of stages, and several rounds of the ring. */
static void ring_wraps(void)
{
    for (size_t i = 0; i < n_kernels(); i++) {
        for (int64_t k = 64; k <= 576; k += k < 320 ? 64 : 128)
            gemm_check(&(struct gemm_case){.kernel = kernels[i],
                                           .n_slices = 1,
                                           .m = 65,
                                           .n = 136,
                                           .k = k,
                                           .values = k % 128 ? GEMM_EXACT : GEMM_RANDOM,
                                           .padded = true});
    }
}

static void epilogues(void)
{
    for (size_t i = 0; i < n_kernels(); i++)
        gemm_check_epilogues((struct gemm_case){.kernel = kernels[i], .m = 70});
}

static void narrow_silu_mul(void)
{
    for (size_t i = 0; i < n_kernels(); i++) {
        for (int64_t n = 16; n <= 48; n += 16)
            gemm_check(&(struct gemm_case){.kernel = kernels[i],
                                           .n_slices = 1,
                                           .m = 3,
                                           .n = n,
                                           .k = 64,
                                           .epilogue = QD_EPILOGUE_SILU_MUL,
                                           .padded = n == 32});
    }
}

static void silu_mul_apart(void)
{
    for (size_t i = 0; i < n_kernels(); i++)
        gemm_check_silu_mul_apart((struct gemm_case){.kernel = kernels[i], .m = 13});
}

static void far_rows(void)
{
    for (size_t i = 0; i < n_kernels(); i++) gemm_check_far(kernels[i]);
}

static void slices(void)
{
    for (size_t i = 0; i < n_kernels(); i++)
        gemm_check_slices((struct gemm_case){.kernel = kernels[i], .m = 70});
}

/* More row blocks than a raster group holds, the last group shorter. */
static void raster_groups(void)
{
    for (size_t i = 0; i < n_kernels(); i++)
        gemm_check(
            &(struct gemm_case){.kernel = kernels[i], .n_slices = 1, .m = 9 * 128 + 1, .n = 264, .k = 64});
}

static void bits_do_not_depend_on_m(void)
{
    static const int64_t some[] = {1, 8, 17, 63, 64, 65, 128, 129};
    for (size_t i = 0; i < n_kernels(); i++) {
        for (int32_t n_slices = 1; n_slices <= 2; n_slices++)
            gemm_check_same_rows(
                (struct gemm_case){.kernel = kernels[i], .n_slices = n_slices, .n = 136, .k = 256}, some,
                LENGTH(some));
    }
}

/* All tiles sum in the same order: a device that cannot launch one of them has a twin with the same bits. */
static void bits_do_not_depend_on_the_tile(void)
{
    struct gemm_case c = {.m = 70, .n = 136, .k = 768, .values = GEMM_RANDOM};
    const struct gemm_inputs in = gemm_inputs_of(&c);
    for (int e = QD_EPILOGUE_STORE; e <= QD_EPILOGUE_SILU_MUL; e++) {
        c.epilogue = (enum qd_epilogue)e;
        c.n = e == QD_EPILOGUE_SILU_MUL ? 128 : 136;
        for (c.n_slices = 1; c.n_slices <= (e == QD_EPILOGUE_STORE ? 2 : 1); c.n_slices++) {
            c.kernel = kernels[0];
            const size_t bytes = (size_t)(c.n_slices * c.m * gemm_columns_out(&c)) * gemm_element_bytes(&c);
            const void *want = gemm_run(&c, &in);
            for (size_t i = 1; i < n_kernels(); i++) {
                c.kernel = kernels[i];
                gpu_expect_equal("output", gemm_run(&c, &in), want, bytes);
            }
        }
    }
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"all_kernels_fit", all_kernels_fit},
        {"rows_and_their_tails", rows_and_their_tails},
        {"columns_and_their_tails", columns_and_their_tails},
        {"ring_wraps", ring_wraps},
        {"epilogues", epilogues},
        {"narrow_silu_mul", narrow_silu_mul},
        {"silu_mul_apart", silu_mul_apart},
        {"slices", slices},
        {"far_rows", far_rows},
        {"raster_groups", raster_groups},
        {"bits_do_not_depend_on_m", bits_do_not_depend_on_m},
        {"bits_do_not_depend_on_the_tile", bits_do_not_depend_on_the_tile},
    };
    return gpu_main(tests, LENGTH(tests), argc, argv);
}
