/* What qd_cuda_gemm_choose promises, that every choice runs, and what qd_cuda_gemm refuses. */
#include "tests/gpu/gemm_cases.h"

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

/* N and K of the linear layers of Qwen3-8B, whole and an eighth, and of small models. */
static const struct shape {
    int64_t n, k;
} shapes[] = {
    {6144, 4096}, {4096, 4096}, {24576, 4096}, {4096, 12288}, {151936, 4096}, {768, 4096}, {4096, 512},
    {3072, 4096}, {4096, 1536}, {4096, 1024},  {1024, 3072},  {192, 64},      {16, 128},   {8, 64},
};
static const int64_t token_counts[] = {1, 8, 16, 17, 33, 64, 65, 128, 200, 512, 1024, 1025, 2048, 20480};
/* GPUs with 99 KiB of shared memory a block (sm_86, sm_89), 163 KiB (sm_80) and 227 KiB (sm_90). */
static const struct qd_cuda_gpu_size gpus[] = {{1, 101376},   {84, 101376},  {142, 101376}, {16, 166912},
                                               {108, 166912}, {132, 232448}, {142, 232448}};
static const struct qd_cuda_gpu_size L40S = {142, 101376}, H100 = {132, 232448};

static int64_t max_tokens(enum qd_cuda_gemm_kernel kernel)
{
    if (kernel == QD_CUDA_GEMM_SKINNY_DIRECT) return 16;
    return kernel == QD_CUDA_GEMM_SKINNY_RING ? 64 : INT64_MAX;
}

static void choices_are_valid(void)
{
    for (size_t i = 0; i < LENGTH(shapes); i++) {
        const int64_t n = shapes[i].n, k = shapes[i].k;
        for (size_t j = 0; j < LENGTH(token_counts) * LENGTH(gpus); j++) {
            const int64_t m = token_counts[j / LENGTH(gpus)];
            const struct qd_cuda_gpu_size gpu = gpus[j % LENGTH(gpus)];
            struct qd_cuda_gemm_plan plan = qd_cuda_gemm_choose(m, n, k, true, gpu, false);
            GPU_EXPECT(qd_cuda_gemm_shared_bytes(plan.kernel, m) <= (size_t)gpu.shared_bytes,
                       "M %lld: kernel %d with %d bytes of shared memory", (long long)m, (int)plan.kernel,
                       gpu.shared_bytes);
            GPU_EXPECT(m <= max_tokens(plan.kernel), "M %lld: kernel %d", (long long)m, (int)plan.kernel);
            GPU_EXPECT(plan.n_slices >= 1 && k / 64 % plan.n_slices == 0, "K %lld in %d slices", (long long)k,
                       (int)plan.n_slices);
            GPU_EXPECT(m <= 1024 || plan.n_slices == 1, "%d slices of M %lld", (int)plan.n_slices,
                       (long long)m);
            plan = qd_cuda_gemm_choose(m, n, k, false, gpu, false);
            GPU_EXPECT(plan.n_slices == 1, "%d slices that nobody sums", (int)plan.n_slices);
        }
    }
}

/* What takes the place of kernels that need more than 99 KiB. */
static void small_shared_memory_has_kernels_for_all(void)
{
    static const struct {
        int64_t m;
        enum qd_cuda_gemm_kernel small, large;
    } chosen[] = {{16, QD_CUDA_GEMM_SKINNY_DIRECT, QD_CUDA_GEMM_SKINNY_DIRECT},
                  {17, QD_CUDA_GEMM_SKINNY_RING, QD_CUDA_GEMM_SKINNY_RING},
                  {32, QD_CUDA_GEMM_SKINNY_RING, QD_CUDA_GEMM_SKINNY_RING},
                  {33, QD_CUDA_GEMM_TILE_128X128_3_STAGES, QD_CUDA_GEMM_SKINNY_RING},
                  {64, QD_CUDA_GEMM_TILE_128X128_3_STAGES, QD_CUDA_GEMM_SKINNY_RING},
                  {65, QD_CUDA_GEMM_TILE_128X128_3_STAGES, QD_CUDA_GEMM_TILE_128X256},
                  {8192, QD_CUDA_GEMM_TILE_128X128_3_STAGES, QD_CUDA_GEMM_TILE_128X256}};
    for (size_t i = 0; i < LENGTH(chosen); i++) {
        const struct qd_cuda_gemm_plan small =
            qd_cuda_gemm_choose(chosen[i].m, 6144, 4096, true, L40S, false);
        const struct qd_cuda_gemm_plan large =
            qd_cuda_gemm_choose(chosen[i].m, 6144, 4096, true, H100, false);
        GPU_EXPECT(small.kernel == chosen[i].small && large.kernel == chosen[i].large,
                   "M %lld: kernels %d and %d", (long long)chosen[i].m, (int)small.kernel, (int)large.kernel);
    }
}

static void batch_invariant_choices_know_only_the_weight(void)
{
    for (size_t i = 0; i < LENGTH(shapes); i++) {
        for (int may_slice = 0; may_slice <= 1; may_slice++) {
            const struct qd_cuda_gemm_plan first =
                qd_cuda_gemm_choose(1, shapes[i].n, shapes[i].k, may_slice, gpus[0], true);
            GPU_EXPECT(may_slice || first.n_slices == 1, "%d slices that nobody sums", (int)first.n_slices);
            GPU_EXPECT(shapes[i].k / 64 % first.n_slices == 0, "%d slices", (int)first.n_slices);
            for (size_t j = 0; j < LENGTH(token_counts) * LENGTH(gpus); j++) {
                const struct qd_cuda_gpu_size gpu = gpus[j % LENGTH(gpus)];
                const enum qd_cuda_gemm_kernel kernel = gpu.shared_bytes == L40S.shared_bytes
                                                            ? QD_CUDA_GEMM_TILE_128X128_3_STAGES
                                                            : QD_CUDA_GEMM_TILE_128X128;
                const struct qd_cuda_gemm_plan plan = qd_cuda_gemm_choose(
                    token_counts[j / LENGTH(gpus)], shapes[i].n, shapes[i].k, may_slice, gpu, true);
                GPU_EXPECT(plan.kernel == kernel && plan.n_slices == first.n_slices, "shape %zu, case %zu", i,
                           j);
            }
        }
    }
}

/* The splits that the design works out by hand for one token of Qwen3-8B on 132 SMs. */
static void splits_fill_the_device(void)
{
    static const struct {
        int64_t n, k;
        int32_t n_slices;
    } designed[] = {{6144, 4096, 4},   {4096, 4096, 2}, {24576, 4096, 1}, {4096, 12288, 2},
                    {151936, 4096, 1}, {768, 4096, 8},  {4096, 512, 2},   {3072, 4096, 8}};
    for (size_t i = 0; i < LENGTH(designed); i++) {
        const struct qd_cuda_gemm_plan plan =
            qd_cuda_gemm_choose(1, designed[i].n, designed[i].k, true, H100, false);
        GPU_EXPECT(plan.kernel == QD_CUDA_GEMM_SKINNY_DIRECT && plan.n_slices == designed[i].n_slices,
                   "N %lld K %lld: kernel %d, %d slices", (long long)designed[i].n, (long long)designed[i].k,
                   (int)plan.kernel, (int)plan.n_slices);
    }
    /* A long prompt: whole waves of the large tile, nothing split. */
    const struct qd_cuda_gemm_plan prompt = qd_cuda_gemm_choose(8192, 24576, 4096, true, H100, false);
    GPU_EXPECT(prompt.kernel == QD_CUDA_GEMM_TILE_128X256 && prompt.n_slices == 1, "kernel %d, %d slices",
               (int)prompt.kernel, (int)prompt.n_slices);
}

/* With as much shared memory as the GPU has, or less. */
static void choices_run(void)
{
    static const int64_t tokens[] = {1, 16, 17, 64, 65, 130};
    for (size_t i = 0; i < LENGTH(tokens); i++) {
        for (int choice = 0; choice < 4; choice++) {
            const struct qd_cuda_gpu_size gpu = {4, choice / 2 == 0 ? L40S.shared_bytes
                                                                    : (int)gpu_shared_bytes()};
            struct gemm_case c = {.m = tokens[i], .n = 136, .k = 512, .padded = true};
            const struct qd_cuda_gemm_plan plan =
                qd_cuda_gemm_choose(c.m, c.n, c.k, true, gpu, choice % 2 == 1);
            c.kernel = plan.kernel;
            c.n_slices = plan.n_slices;
            gemm_check(&c);
        }
    }
}

static void expect_refused(const struct qd_cuda_gemm_args *valid, struct qd_cuda_gemm_args changed,
                           const char *text)
{
    GPU_LAUNCH(qd_cuda_gemm, valid); /* what is refused differs from it in one thing */
    GPU_REFUSED(qd_cuda_gemm, &changed, text);
}

#define EXPECT_REFUSED(valid, text, ...)                                                                     \
    do {                                                                                                     \
        struct qd_cuda_gemm_args changed_ = valid;                                                           \
        __VA_ARGS__;                                                                                         \
        expect_refused(&(valid), changed_, text);                                                            \
    } while (0)

enum { M = 16, N = 32, K = 128 };

static struct qd_cuda_gemm_args valid_args(enum qd_cuda_gemm_kernel kernel, int32_t n_slices)
{
    return (struct qd_cuda_gemm_args){
        .a = gpu_alloc(M * K * sizeof(qd_bf16)),
        .m = M,
        .n = N,
        .k = K,
        .lda = K,
        .w = gpu_alloc(N * K * sizeof(qd_bf16)),
        .plan = {kernel, n_slices},
        .out = gpu_alloc(2 * M * N * sizeof(float)),
        .ldo = N,
        .slice_stride = M * N,
    };
}

static void does_nothing_without_tokens(void)
{
    for (int kernel = QD_CUDA_GEMM_TILE_128X256; kernel <= QD_CUDA_GEMM_SKINNY_RING; kernel++) {
        struct qd_cuda_gemm_args args = valid_args((enum qd_cuda_gemm_kernel)kernel, 1);
        args.m = 0;
        GPU_LAUNCH(qd_cuda_gemm, &args);
    }
}

static void shapes_refused(void)
{
    const struct qd_cuda_gemm_args valid = valid_args(QD_CUDA_GEMM_TILE_128X128_3_STAGES, 1);
    EXPECT_REFUSED(valid, "M -1", changed_.m = -1);
    EXPECT_REFUSED(valid, "N 12", changed_.n = 12);
    EXPECT_REFUSED(valid, "N 0", changed_.n = 0);
    EXPECT_REFUSED(valid, "N 24", changed_.n = 24, changed_.epilogue = QD_EPILOGUE_SILU_MUL);
    EXPECT_REFUSED(valid, "K 96", changed_.k = 96);
    EXPECT_REFUSED(valid, "K 0", changed_.k = 0);
    EXPECT_REFUSED(valid, "M 4294967296", changed_.m = INT64_C(1) << 32);
    EXPECT_REFUSED(valid, "N 4294967296", changed_.n = INT64_C(1) << 32);
    EXPECT_REFUSED(valid, "K 4294967296", changed_.k = INT64_C(1) << 32);
}

static void layouts_refused(void)
{
    const struct qd_cuda_gemm_args valid = valid_args(QD_CUDA_GEMM_TILE_128X128_3_STAGES, 1);
    EXPECT_REFUSED(valid, "lda 120", changed_.lda = 120);
    EXPECT_REFUSED(valid, "lda 132", changed_.lda = 132);
    EXPECT_REFUSED(valid, "ldo 24", changed_.ldo = 24);
    EXPECT_REFUSED(valid, "ldo 36", changed_.ldo = 36);
    EXPECT_REFUSED(valid, "ldo 8", changed_.ldo = 8, changed_.epilogue = QD_EPILOGUE_SILU_MUL);
    EXPECT_REFUSED(valid, "aligned", changed_.a = valid.a + 1);
    EXPECT_REFUSED(valid, "aligned", changed_.w = valid.w + 4);
    EXPECT_REFUSED(valid, "aligned", changed_.out = (char *)valid.out + 8);
}

static void plans_refused(void)
{
    const struct qd_cuda_gemm_args valid = valid_args(QD_CUDA_GEMM_SKINNY_DIRECT, 2);
    EXPECT_REFUSED(valid, "3 slices", changed_.plan.n_slices = 3);
    EXPECT_REFUSED(valid, "0 slices", changed_.plan.n_slices = 0);
    EXPECT_REFUSED(valid, "plain store", changed_.epilogue = QD_EPILOGUE_SILU_MUL);
    EXPECT_REFUSED(valid, "plain store", changed_.epilogue = QD_EPILOGUE_STORE_F32);
    EXPECT_REFUSED(valid, "slice stride", changed_.slice_stride = M * N - 8);
    EXPECT_REFUSED(valid, "slice stride", changed_.slice_stride = M * N + 4);
    EXPECT_REFUSED(valid, "17 tokens", changed_.m = 17, changed_.slice_stride = 17 * N);
    EXPECT_REFUSED(valid, "65 tokens", changed_.m = 65, changed_.slice_stride = 65 * N,
                   changed_.plan.kernel = QD_CUDA_GEMM_SKINNY_RING);
    EXPECT_REFUSED(valid, "kernel 5", changed_.plan.kernel = (enum qd_cuda_gemm_kernel)5);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"choices_are_valid", choices_are_valid},
        {"batch_invariant_choices_know_only_the_weight", batch_invariant_choices_know_only_the_weight},
        {"small_shared_memory_has_kernels_for_all", small_shared_memory_has_kernels_for_all},
        {"splits_fill_the_device", splits_fill_the_device},
        {"choices_run", choices_run},
        {"does_nothing_without_tokens", does_nothing_without_tokens},
        {"shapes_refused", shapes_refused},
        {"layouts_refused", layouts_refused},
        {"plans_refused", plans_refused},
    };
    return gpu_main(tests, LENGTH(tests), argc, argv);
}
