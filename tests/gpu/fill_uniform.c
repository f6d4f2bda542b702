/* fill_uniform.cu: bit for bit what the host draws, for whole tensors and any rank's slice of them. */
#include "kernels/cuda/kernels.h"
#include "kernels/ref/ref.h"
#include "tests/gpu/runner.h"

/* One slice against the specification; what the slice leaves out stays as it was. */
static void check(struct qd_store_fill args)
{
    int64_t rows = args.interleaved ? 2 * args.n_rows + 8 : args.n_rows;
    size_t bytes = (size_t)(rows * args.ld) * sizeof(qd_bf16);
    qd_bf16 *got = gpu_host_alloc(bytes), *want = gpu_host_alloc(bytes);
    memset(want, 0x5a, bytes);
    args.to = gpu_upload(want, bytes);
    GPU_LAUNCH(qd_cuda_fill_uniform, &args);
    gpu_download(got, args.to, bytes);
    args.to = want;
    qd_ref_fill_uniform(&args);
    gpu_expect_equal("weights", got, want, bytes);
}

static void draws_whole_tensors(void)
{
    static const int64_t shapes[][2] = {{1, 8},     {7, 8},    {3, 1024}, {5, 1032},
                                        {131, 136}, {2, 4096}, {1, 12288}};
    static const float widths[] = {3.4641016f, 0.054126588f, 0.06928203f, 1e-30f};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t k = 0; k < sizeof widths / sizeof *widths; k++)
            check((struct qd_store_fill){.seed = 42 + i,
                                         .tensor = 3 * k,
                                         .width = widths[k],
                                         .n_cols = shapes[i][1],
                                         .n_rows = shapes[i][0],
                                         .n_slice_cols = shapes[i][1],
                                         .ld = shapes[i][1]});
}

/* Rows and columns of a rank, at the end of a padded weight's row; seeds and tensors beyond 32 bits. */
static void draws_slices(void)
{
    check((struct qd_store_fill){.seed = UINT64_C(0xfedcba9876543210),
                                 .tensor = UINT64_C(0x123456789),
                                 .width = 2.0f,
                                 .n_cols = 1536,
                                 .row_begin = 17,
                                 .n_rows = 5,
                                 .col_begin = 96,
                                 .n_slice_cols = 96,
                                 .ld = 128});
    /* An index beyond 2^31. */
    check((struct qd_store_fill){.seed = 1,
                                 .tensor = 1,
                                 .width = 1.0f,
                                 .n_cols = 4096,
                                 .row_begin = 1 << 20,
                                 .n_rows = 2,
                                 .n_slice_cols = 64,
                                 .ld = 64});
    for (int64_t n_rows = 8; n_rows <= 24; n_rows += 8)
        check((struct qd_store_fill){.seed = 5,
                                     .tensor = 9,
                                     .width = 1.0f,
                                     .n_cols = 64,
                                     .row_begin = 8,
                                     .n_rows = n_rows,
                                     .n_slice_cols = 64,
                                     .interleaved = true,
                                     .ld = 64});
}

static void does_nothing_without_rows(void)
{
    struct qd_store_fill args = {.n_cols = 8, .n_slice_cols = 8, .ld = 8};
    GPU_LAUNCH(qd_cuda_fill_uniform, &args);
    args = (struct qd_store_fill){.n_rows = 5, .n_cols = 8, .ld = 8};
    GPU_LAUNCH(qd_cuda_fill_uniform, &args);
}

static void refuses(void)
{
    const struct qd_store_fill good = {.n_cols = 64, .n_rows = 1, .n_slice_cols = 32, .ld = 32};
    struct {
        struct qd_store_fill args;
        const char *reason;
    } cases[] = {{good, "not in whole 8s"}, {good, "not in whole 8s"}, {good, "not in whole 8s"},
                 {good, "not in whole 8s"}, {good, "not in whole 8s"}, {good, "columns 40 + 32 of 64"},
                 {good, "rows 24 apart"},   {good, "-1 rows"},         {good, "2147483648 rows"},
                 {good, "rows from -1"}};
    cases[0].args.n_cols = 60;
    cases[1].args.col_begin = 4;
    cases[2].args.n_slice_cols = 12;
    cases[3].args.ld = 36;
    cases[4].args.to = (qd_bf16 *)(uintptr_t)8;
    cases[5].args.col_begin = 40;
    cases[6].args.ld = 24;
    cases[7].args.n_rows = -1;
    cases[8].args.n_rows = INT64_C(1) << 31;
    cases[9].args.row_begin = -1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        GPU_REFUSED(qd_cuda_fill_uniform, &cases[i].args, cases[i].reason);
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"draws_whole_tensors", draws_whole_tensors},
        {"draws_slices", draws_slices},
        {"does_nothing_without_rows", does_nothing_without_rows},
        {"refuses", refuses},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
