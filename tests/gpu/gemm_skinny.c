/* The skinny GEMM kernels against the specification: tails, ring wrap-around, epilogues, slices, invariance.
 */
#include "tests/gpu/gemm_cases.h"

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

static const int64_t token_counts[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64};

static const struct skinny {
    enum qd_cuda_gemm_kernel kernel;
    size_t n_counts; /* of token_counts that it takes */
} skinny[] = {{QD_CUDA_GEMM_SKINNY_DIRECT, 7}, {QD_CUDA_GEMM_SKINNY_RING, LENGTH(token_counts)}};

/* How many of token_counts the kernel takes and fits the device with. */
static size_t n_counts(size_t kernel)
{
    size_t n = skinny[kernel].n_counts;
    while (!gemm_fits(skinny[kernel].kernel, token_counts[n - 1])) n--;
    return n;
}

static void all_token_counts_fit(void)
{
    if (n_counts(1) < skinny[1].n_counts)
        gpu_skip("the ring for 64 tokens needs more shared memory than the device has");
}

static void tokens_and_their_tails(void)
{
    for (size_t i = 0; i < LENGTH(skinny); i++) {
        for (size_t j = 0; j < n_counts(i); j++)
            gemm_check(&(struct gemm_case){.kernel = skinny[i].kernel,
                                           .n_slices = 1,
                                           .m = token_counts[j],
                                           .n = 136,
                                           .k = 128,
                                           .padded = j % 2 == 0});
    }
}

static void columns_and_their_tails(void)
{
    static const int64_t columns[] = {8, 24, 56, 64, 72, 120, 128, 136, 264};
    for (size_t i = 0; i < LENGTH(skinny); i++) {
        for (size_t j = 0; j < LENGTH(columns); j++)
            gemm_check(&(struct gemm_case){.kernel = skinny[i].kernel,
                                           .n_slices = 1,
                                           .m = 11,
                                           .n = columns[j],
                                           .k = 64,
                                           .padded = j % 2 == 1});
    }
}

/* Steps below, equal to and above the number of stages; odd numbers leave half a buffer of tokens; several
 * rounds of each ring. */
static void rings_wrap(void)
{
    for (size_t i = 0; i < LENGTH(skinny); i++) {
        for (int64_t k = 64; k <= 1024; k += k < 704 ? 64 : 320)
            gemm_check(&(struct gemm_case){.kernel = skinny[i].kernel,
                                           .n_slices = 1,
                                           .m = 13,
                                           .n = 136,
                                           .k = k,
                                           .values = k % 128 ? GEMM_EXACT : GEMM_RANDOM,
                                           .padded = true});
    }
}

/* Every width of the kernels over enough steps that each buffer is filled more than once. */
static void rings_wrap_at_every_width(void)
{
    for (size_t i = 0; i < LENGTH(skinny); i++) {
        for (size_t j = 3; j < n_counts(i); j += 3)
            gemm_check(&(struct gemm_case){.kernel = skinny[i].kernel,
                                           .n_slices = 1,
                                           .m = token_counts[j],
                                           .n = 72,
                                           .k = 640,
                                           .values = GEMM_RANDOM});
    }
}

static void epilogues(void)
{
    static const int64_t tokens[] = {1, 13, 27, 50};
    for (size_t i = 0; i < LENGTH(skinny); i++) {
        for (size_t j = 0; j < LENGTH(tokens) && tokens[j] <= token_counts[n_counts(i) - 1]; j++)
            gemm_check_epilogues((struct gemm_case){.kernel = skinny[i].kernel, .m = tokens[j]});
    }
}

static void narrow_silu_mul(void)
{
    for (size_t i = 0; i < LENGTH(skinny); i++) {
        for (int64_t n = 16; n <= 48; n += 16)
            gemm_check(&(struct gemm_case){.kernel = skinny[i].kernel,
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
    for (size_t i = 0; i < LENGTH(skinny); i++)
        gemm_check_silu_mul_apart((struct gemm_case){.kernel = skinny[i].kernel, .m = 13});
}

static void far_rows(void)
{
    for (size_t i = 0; i < LENGTH(skinny); i++) gemm_check_far(skinny[i].kernel);
}

static void slices(void)
{
    for (size_t i = 0; i < LENGTH(skinny); i++)
        gemm_check_slices((struct gemm_case){.kernel = skinny[i].kernel, .m = 14});
}

static void bits_do_not_depend_on_m(void)
{
    for (size_t i = 0; i < LENGTH(skinny); i++) {
        for (int32_t n_slices = 1; n_slices <= 2; n_slices++)
            gemm_check_same_rows(
                (struct gemm_case){.kernel = skinny[i].kernel, .n_slices = n_slices, .n = 136, .k = 640},
                token_counts, n_counts(i));
    }
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"all_token_counts_fit", all_token_counts_fit},
        {"tokens_and_their_tails", tokens_and_their_tails},
        {"columns_and_their_tails", columns_and_their_tails},
        {"rings_wrap", rings_wrap},
        {"rings_wrap_at_every_width", rings_wrap_at_every_width},
        {"epilogues", epilogues},
        {"narrow_silu_mul", narrow_silu_mul},
        {"silu_mul_apart", silu_mul_apart},
        {"slices", slices},
        {"far_rows", far_rows},
        {"bits_do_not_depend_on_m", bits_do_not_depend_on_m},
    };
    return gpu_main(tests, LENGTH(tests), argc, argv);
}
