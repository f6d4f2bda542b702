/* embed.cu: both token sources, ids outside the table, rows of every length, far rows. */
#include "kernels/cuda/kernels.h"
#include "kernels/ref/ref.h"
#include "tests/gpu/runner.h"

enum { N_IDS = 37, N_SLOTS = 5 };
static const int32_t SAMPLED[N_SLOTS] = {3, 36, 0, 19, 7};

/* One step of ids and slots against the specification. */
static void check_step(int64_t hidden_dim, int64_t n_tokens)
{
    const size_t table_n = (size_t)(N_IDS * hidden_dim), out_bytes = (size_t)(n_tokens * hidden_dim) * 2;
    qd_bf16 *table = gpu_host_alloc(table_n * 2), *got = gpu_host_alloc(out_bytes),
            *want = gpu_host_alloc(out_bytes);
    int32_t *source = gpu_host_alloc((size_t)n_tokens * 4);
    gpu_random_bf16(table, table_n, 1.0f, 1);
    for (int32_t t = 0; t < n_tokens; t++) source[t] = t % 3 == 1 ? -(t % N_SLOTS + 1) : 11 * t % N_IDS;

    struct qd_cuda_embed_args args = {.table = gpu_upload(table, table_n * 2),
                                      .n_ids = N_IDS,
                                      .hidden_dim = hidden_dim,
                                      .token_source = gpu_upload(source, (size_t)n_tokens * 4),
                                      .sampled = gpu_upload(SAMPLED, sizeof SAMPLED),
                                      .n_tokens = n_tokens,
                                      .out = gpu_alloc_output(out_bytes)};
    GPU_LAUNCH(qd_cuda_embed, &args);
    gpu_download(got, args.out, out_bytes);
    qd_ref_embed(&(struct qd_embed_args){.table = {.data = table, .n_rows = N_IDS, .n_cols = hidden_dim},
                                         .token_source = source,
                                         .n_tokens = n_tokens,
                                         .out = want},
                 SAMPLED);
    gpu_expect_equal("out", got, want, out_bytes);
    gpu_expect_same_bits("out", got, out_bytes);
}

/* Row lengths around a warp and a block of 16-byte loads, and the models'. */
static void copies_rows(void)
{
    static const int64_t dims[] = {8, 16, 248, 256, 264, 1024, 2040, 2048, 2056, 2560, 4096, 5120, 8192};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) check_step(dims[i], 7);
    static const int64_t tokens[] = {1, 2, 31, 131};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) check_step(64, tokens[i]);
}

static void does_nothing_without_tokens(void)
{
    struct qd_cuda_embed_args args = {.n_ids = 1, .hidden_dim = 64};
    GPU_LAUNCH(qd_cuda_embed, &args);
}

/* Ids one below, at and far beyond the end, from the step and from a slot. */
static void gives_zeros_for_unknown_ids(void)
{
    enum { H = 72 };
    static const int32_t source[] = {N_IDS, N_IDS - 1, INT32_MAX, -1, -2, -3, -4};
    static const int32_t sampled[] = {-1, N_IDS, INT32_MIN, N_IDS - 1};
    static const bool known[] = {false, true, false, false, false, false, true};
    enum { T = sizeof source / sizeof *source };
    static const qd_bf16 zeros[H];
    qd_bf16 table[N_IDS * H], got[T * H];
    gpu_random_bf16(table, N_IDS * H, 1.0f, 2);
    struct qd_cuda_embed_args args = {.table = gpu_upload(table, sizeof table),
                                      .n_ids = N_IDS,
                                      .hidden_dim = H,
                                      .token_source = gpu_upload(source, sizeof source),
                                      .sampled = gpu_upload(sampled, sizeof sampled),
                                      .n_tokens = T,
                                      .out = gpu_alloc_output(sizeof got)};
    GPU_LAUNCH(qd_cuda_embed, &args);
    gpu_download(got, args.out, sizeof got);
    for (int t = 0; t < T; t++)
        gpu_expect_equal(known[t] ? "known" : "unknown", got + t * H,
                         known[t] ? table + (N_IDS - 1) * H : zeros, H * sizeof *got);
}

/* A table of more than 2^31 elements of which the last row is read. */
static void reads_far_rows(void)
{
    enum { H = 4096 };
    const int64_t n_ids = INT64_C(0x80000000) / H + 3;
    const int32_t id = (int32_t)(n_ids - 1);
    qd_bf16 row[H], got[H];
    gpu_random_bf16(row, H, 1.0f, 3);
    qd_bf16 *table = gpu_alloc_sparse((size_t)(n_ids * H) * sizeof *table);
    gpu_write(table + id * (int64_t)H, row, sizeof row);
    struct qd_cuda_embed_args args = {.table = table,
                                      .n_ids = n_ids,
                                      .hidden_dim = H,
                                      .token_source = gpu_upload(&id, sizeof id),
                                      .n_tokens = 1,
                                      .out = gpu_alloc_output(sizeof got)};
    GPU_LAUNCH(qd_cuda_embed, &args);
    gpu_download(got, args.out, sizeof got);
    gpu_expect_equal("out", got, row, sizeof got);
}

static void refuses(void)
{
    struct qd_cuda_embed_args args = {.n_ids = 1, .hidden_dim = 12, .n_tokens = 1};
    GPU_REFUSED(qd_cuda_embed, &args, "hidden_dim 12");
    args.hidden_dim = 0;
    GPU_REFUSED(qd_cuda_embed, &args, "hidden_dim 0");
    args.hidden_dim = 8;
    args.n_tokens = -1;
    GPU_REFUSED(qd_cuda_embed, &args, "-1 tokens");
    args.n_tokens = INT64_C(1) << 31;
    GPU_REFUSED(qd_cuda_embed, &args, "tokens");
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"copies_rows", copies_rows},
        {"does_nothing_without_tokens", does_nothing_without_tokens},
        {"gives_zeros_for_unknown_ids", gives_zeros_for_unknown_ids},
        {"reads_far_rows", reads_far_rows},
        {"refuses", refuses},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
