/* GPUs with less shared memory a block than sm_80 has: what each GEMM kernel is counted with is what it
 * needs, and whole models run within the 99 KiB of sm_86 and sm_89.
 */
#include <cuda_runtime.h>

#include "tests/support/test.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/emu/mode.h"
#include "tests/support/compare.h"
#include "tests/support/model_run.h"

enum {
    SMALL = 99 * 1024,
    WITHOUT_ASKING = 48 * 1024, /* no GPU has less */
    N = 16,
    K = 64,
    MAX_M = 130,
    VOCAB = 515, /* of the preset micro */
    N_PROMPTS = IS_SANITIZED ? 2 : 4,
};

static int end_gpus(void **state)
{
    (void)state;
    qd_emu_shutdown();
    return qd_emu_set_gpus((struct qd_emu_gpus){0});
}

/* A product of zeros on a GPU that has so much shared memory a block. */
static qd_status multiply(enum qd_cuda_gemm_kernel kernel, int64_t m, size_t limit, char *err, size_t errlen)
{
    void *a, *w, *out;
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.shared_bytes = limit}), 0);
    assert_int_equal(cudaMalloc(&a, MAX_M * K * sizeof(qd_bf16)), cudaSuccess);
    assert_int_equal(cudaMalloc(&w, N * K * sizeof(qd_bf16)), cudaSuccess);
    assert_int_equal(cudaMalloc(&out, MAX_M * N * sizeof(qd_bf16)), cudaSuccess);
    const struct qd_cuda_gemm_args args = {
        .a = a, .m = m, .n = N, .k = K, .lda = K, .w = w, .plan = {kernel, 1}, .out = out, .ldo = N};
    qd_status st = qd_cuda_gemm(&args, NULL, err, errlen);
    if (st == QD_OK) assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    qd_emu_shutdown();
    return st;
}

static void gemm_kernels_need_what_they_are_counted_with(void **state)
{
    (void)state;
    static const struct {
        enum qd_cuda_gemm_kernel kernel;
        int64_t m;
    } cases[] = {{QD_CUDA_GEMM_TILE_128X256, 130},
                 {QD_CUDA_GEMM_TILE_128X128, 130},
                 {QD_CUDA_GEMM_TILE_128X128_3_STAGES, 130},
                 {QD_CUDA_GEMM_SKINNY_RING, 8},
                 {QD_CUDA_GEMM_SKINNY_RING, 16},
                 {QD_CUDA_GEMM_SKINNY_RING, 32},
                 {QD_CUDA_GEMM_SKINNY_RING, 33},
                 {QD_CUDA_GEMM_SKINNY_RING, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char err[QD_ERR_LEN] = "";
        const size_t bytes = qd_cuda_gemm_shared_bytes(cases[i].kernel, cases[i].m);
        assert_true(bytes > WITHOUT_ASKING);
        ASSERT_OK(multiply(cases[i].kernel, cases[i].m, bytes, err, sizeof err), err);
        assert_int_equal(multiply(cases[i].kernel, cases[i].m, bytes - 1, err, sizeof err),
                         QD_ERR_ENVIRONMENT);
        ASSERT_CONTAINS(err, "shared memory");
    }
    char err[QD_ERR_LEN] = "";
    assert_int_equal(qd_cuda_gemm_shared_bytes(QD_CUDA_GEMM_SKINNY_DIRECT, 16), 0);
    ASSERT_OK(multiply(QD_CUDA_GEMM_SKINNY_DIRECT, 16, WITHOUT_ASKING, err, sizeof err), err);
}

/* Logits [n_tokens][VOCAB] of a prompt in chunks, on GPUs that have so much shared memory a block. */
static float *run_micro(int tp, bool batch_invariant, size_t limit, int32_t n_tokens, int32_t chunk)
{
    const struct run_options options = {.max_tokens = MAX_M,
                                        .max_logit_rows = MAX_M,
                                        .max_model_len = 2 * MAX_M,
                                        .batch_invariant = batch_invariant};
    int32_t tokens[MAX_M];
    for (int32_t i = 0; i < n_tokens; i++) tokens[i] = (7 * i + 3) % 500;
    assert_int_equal(qd_emu_set_gpus((struct qd_emu_gpus){.shared_bytes = limit}), 0);
    qd_model_t *model = make_model("micro", &qd_emu_ops, tp);
    struct model_run run;
    model_run_open(&run, model, &qd_emu_ops, &options);
    float *logits = model_run_logits(&run, tokens, n_tokens, chunk, VOCAB);
    model_run_close(&run);
    qd_model_free(model);
    qd_emu_shutdown();
    return logits;
}

/* A prompt of chunk tokens and a decode behind it have the same logits as with more shared memory. */
static void expect_same_logits(int tp, bool batch_invariant, int32_t chunk)
{
    const int32_t n_tokens = chunk + 1;
    float *small = run_micro(tp, batch_invariant, SMALL, n_tokens, chunk);
    float *large = run_micro(tp, batch_invariant, 0, n_tokens, chunk);
    compare_same_f32("logits", small, large, (size_t)n_tokens * VOCAB);
    free(small);
    free(large);
}

/* Prompts of lengths that get each kernel. Ring and tiles sum in the same order, so that even where another
 * kernel is chosen the emulator gives the same bits. */
static void models_run_in_99_kib(void **state)
{
    static const int32_t chunks[] = {50, 31, 11, 129};
    for (size_t i = 0; i < N_PROMPTS; i++) expect_same_logits(*(const int *)*state, false, chunks[i]);
}

static void batch_invariant_models_run_in_99_kib(void **state)
{
    (void)state;
    expect_same_logits(1, true, 33);
}

static int sizes[] = {1, 2};

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(gemm_kernels_need_what_they_are_counted_with, end_gpus),
        {"models_run_in_99_kib_tp1", models_run_in_99_kib, NULL, end_gpus, &sizes[0]},
        {"models_run_in_99_kib_tp2", models_run_in_99_kib, NULL, end_gpus, &sizes[1]},
        cmocka_unit_test_teardown(batch_invariant_models_run_in_99_kib, end_gpus),
    };
    return cmocka_run_group_tests_name("cuda_shared_memory", tests, NULL, NULL);
}
