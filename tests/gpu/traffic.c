/* What the kernels move and multiply, against their design (kernels/README.md): bytes of global memory, mma
 * products, bank conflicts. Figures follow from shapes and tiles alone. Counted where the emulator interprets
 * PTX, skipped elsewhere. Results are the other tests' business.
 */
#include <stdio.h>
#include <unistd.h>

#include "kernels/base/size.h"
#include "tests/gpu/attention_rig.h"
#include "tests/gpu/gemm_cases.h"
#include "tests/gpu/partials.h"

#define N_OF(array) ((int32_t)(sizeof(array) / sizeof *(array)))

enum { BF16 = 2, F32 = 4 }; /* bytes */

static void expect_count(const char *kernel, const char *counter, uint64_t got, int64_t want)
{
    GPU_EXPECT(got == (uint64_t)want, "%s: %s %llu, not %lld", kernel, counter, (unsigned long long)got,
               (long long)want);
}
#define EXPECT_COUNT(kernel, counter, want) expect_count(kernel, #counter, counted.counter, want)

/* At least `want`, and at most `more` more. */
static void expect_within(const char *kernel, uint64_t got, int64_t want, int64_t more)
{
    GPU_EXPECT(got >= (uint64_t)want && got <= (uint64_t)(want + more), "%s: %llu bytes, not %lld to %lld",
               kernel, (unsigned long long)got, (long long)want, (long long)(want + more));
}

/* Products of 16 x 8 x 16 over a whole number of tiles. */
static int64_t products(int64_t m, int64_t n, int64_t k)
{
    return m / 16 * (n / 8) * (k / 16);
}

/* ---- GEMM ---- */

static struct qd_emu_counters count_gemm(const struct gemm_case *c)
{
    const struct gemm_inputs in = gemm_inputs_of(c);
    gemm_run(c, &in);
    return gpu_take_counters();
}

static int64_t stored_by_gemm(const struct gemm_case *c)
{
    return c->n_slices * c->m * gemm_columns_out(c) * (int64_t)gemm_element_bytes(c);
}

/* Every tile reads its rows of a and of w once, rows that do not exist not at all, and multiplies whole
 * tiles. */
static void check_gemm_tile(const char *name, struct gemm_case c, int64_t tile_n)
{
    const int64_t blocks_m = qd_div_up(c.m, 128), blocks_n = qd_div_up(c.n, tile_n);
    const struct qd_emu_counters counted = count_gemm(&c);
    EXPECT_COUNT(name, launches, 1);
    EXPECT_COUNT(name, mma, products(blocks_m * 128, blocks_n * tile_n, c.k));
    EXPECT_COUNT(name, async_copy_bytes, (c.m * blocks_n + c.n * blocks_m) * c.k * BF16);
    EXPECT_COUNT(name, loaded_bytes, (c.m * blocks_n + c.n * blocks_m) * c.k * BF16);
    EXPECT_COUNT(name, stored_bytes, stored_by_gemm(&c));
    /* nvcc leaves one pair of a thread's fp32 results as two stores, of which ptxas makes one of 8 bytes
     * again (seen in the machine code): until then each of them takes two wavefronts. */
    const uint64_t split = gemm_element_bytes(&c) == F32 ? 2 * 8 * counted.blocks : 0; /* of 8 warps */
    GPU_EXPECT(counted.shared_conflicts <= split, "%s: %llu bank conflicts", name,
               (unsigned long long)counted.shared_conflicts);
}

static void test_gemm_tile(void)
{
    static const struct {
        const char *name;
        enum qd_cuda_gemm_kernel kernel;
        int64_t tile_n;
    } kernels[] = {{"128x256", QD_CUDA_GEMM_TILE_128X256, 256},
                   {"128x128", QD_CUDA_GEMM_TILE_128X128, 128},
                   {"128x128, 3 stages", QD_CUDA_GEMM_TILE_128X128_3_STAGES, 128}};
    for (int32_t i = 0; i < N_OF(kernels); i++) {
        struct gemm_case c = {.kernel = kernels[i].kernel, .n_slices = 1, .m = 128, .n = 256, .k = 192};
        check_gemm_tile(kernels[i].name, c, kernels[i].tile_n);
        c.m = 131, c.n = 272;
        for (int e = QD_EPILOGUE_STORE; e <= QD_EPILOGUE_SILU_MUL; e++) {
            c.epilogue = (enum qd_epilogue)e;
            check_gemm_tile(kernels[i].name, c, kernels[i].tile_n);
        }
        c.epilogue = QD_EPILOGUE_STORE;
        c.n_slices = 3;
        check_gemm_tile(kernels[i].name, c, kernels[i].tile_n);
    }
}

/* Every weight once. Each 16 rows of weights read the tokens anew, from caches. */
static void test_gemm_skinny_direct(void)
{
    static const int64_t ms[] = {1, 8, 9, 16};
    for (int32_t i = 0; i < N_OF(ms) * 2; i++) {
        const struct gemm_case c = {
            .kernel = QD_CUDA_GEMM_SKINNY_DIRECT, .n_slices = 1 + i % 2, .m = ms[i / 2], .n = 192, .k = 384};
        const int64_t tokens = qd_div_up(c.m, 8) * 8;
        const struct qd_emu_counters counted = count_gemm(&c);
        EXPECT_COUNT("direct", mma, products(c.n, tokens, c.k));
        EXPECT_COUNT("direct", loaded_bytes, (c.n + c.n / 16 * tokens) * c.k * BF16);
        EXPECT_COUNT("direct", stored_bytes, stored_by_gemm(&c));
        EXPECT_COUNT("direct", shared_conflicts, 0);
    }
}

/* Every weight once; the tokens once for each 128 rows of weights. */
static void test_gemm_skinny_ring(void)
{
    static const struct {
        int64_t m, padded; /* tokens that a block multiplies */
    } cases[] = {{1, 8}, {9, 16}, {17, 32}, {33, 64}, {64, 64}};
    for (int32_t i = 0; i < N_OF(cases) * 2; i++) {
        const struct gemm_case c = {.kernel = QD_CUDA_GEMM_SKINNY_RING,
                                    .n_slices = 1 + i % 2,
                                    .m = cases[i / 2].m,
                                    .n = i % 4 == 0 ? 256 : 136,
                                    .k = 384};
        const int64_t blocks = qd_div_up(c.n, 128);
        const struct qd_emu_counters counted = count_gemm(&c);
        EXPECT_COUNT("ring", mma, products(blocks * 128, cases[i / 2].padded, c.k));
        EXPECT_COUNT("ring", async_copy_bytes, (c.n + blocks * c.m) * c.k * BF16);
        EXPECT_COUNT("ring", loaded_bytes, (c.n + blocks * c.m) * c.k * BF16);
        EXPECT_COUNT("ring", stored_bytes, stored_by_gemm(&c));
        EXPECT_COUNT("ring", shared_conflicts, 0);
    }
}

/* ---- rows ---- */

static void *device_bf16(int64_t n)
{
    qd_bf16 *host = gpu_host_alloc((size_t)n * sizeof *host);
    gpu_random_bf16(host, (size_t)n, 1.0f, 1);
    return gpu_upload(host, (size_t)n * sizeof *host);
}

/* Each row once in and once out, the weight once a row. */
static void test_rmsnorm(void)
{
    static const int64_t dims[] = {8, 264, 4096, 5120};
    for (int32_t i = 0; i < N_OF(dims); i++) {
        const int64_t rows = 3, n = rows * dims[i];
        const struct qd_cuda_rmsnorm_args args = {.x = device_bf16(n),
                                                  .weight = device_bf16(dims[i]),
                                                  .n_rows = rows,
                                                  .dim = dims[i],
                                                  .eps = 1e-6f,
                                                  .out = gpu_alloc_output((size_t)n * BF16)};
        GPU_LAUNCH(qd_cuda_rmsnorm, &args);
        const struct qd_emu_counters counted = gpu_take_counters();
        EXPECT_COUNT("rmsnorm", loaded_bytes, 2 * n * BF16);
        EXPECT_COUNT("rmsnorm", stored_bytes, n * BF16);
        EXPECT_COUNT("rmsnorm", shared_conflicts, 0);
    }
}

/* The residual once in and out, every slice once, the weight once a row. */
static void test_reduce_add_rmsnorm(void)
{
    for (int n_slices = 0; n_slices <= 5; n_slices++) { /* 0: bf16 */
        const int64_t rows = 3, dim = 1032, n = rows * dim;
        const enum qd_partial_dtype dtype = n_slices == 0 ? QD_PARTIAL_BF16 : QD_PARTIAL_F32;
        const struct test_partial in = new_partial((size_t)n, dtype, n_slices == 0 ? 1 : n_slices, 1.0f, 2);
        const struct qd_cuda_reduce_add_rmsnorm_args args = {.residual = device_bf16(n),
                                                             .partials = {in.device.data},
                                                             .dtype = dtype,
                                                             .n_slices = in.device.n_slices,
                                                             .slice_stride = in.device.stride,
                                                             .peers = {.n_ranks = 1},
                                                             .weight = device_bf16(dim),
                                                             .n_rows = rows,
                                                             .dim = dim,
                                                             .eps = 1e-6f,
                                                             .out = gpu_alloc_output((size_t)n * BF16)};
        GPU_LAUNCH(qd_cuda_reduce_add_rmsnorm, &args);
        const struct qd_emu_counters counted = gpu_take_counters();
        const int64_t partial_bytes = n_slices == 0 ? BF16 : n_slices * F32;
        EXPECT_COUNT("reduce_add_rmsnorm", loaded_bytes, n * (BF16 + partial_bytes + BF16));
        EXPECT_COUNT("reduce_add_rmsnorm", stored_bytes, n * (BF16 + BF16));
        EXPECT_COUNT("reduce_add_rmsnorm", shared_conflicts, 0);
    }
}

static void test_silu_mul(void)
{
    for (int n_slices = 0; n_slices <= 3; n_slices++) { /* 0: bf16 */
        const int64_t m = 5, n = 1216;
        const enum qd_partial_dtype dtype = n_slices == 0 ? QD_PARTIAL_BF16 : QD_PARTIAL_F32;
        const struct test_partial in =
            new_partial((size_t)(2 * m * n), dtype, n_slices == 0 ? 1 : n_slices, 1.0f, 3);
        const struct qd_cuda_silu_mul_args args = {
            .gate_up = in.device, .m = m, .n = n, .out = gpu_alloc_output((size_t)(m * n) * BF16)};
        GPU_LAUNCH(qd_cuda_silu_mul, &args);
        const struct qd_emu_counters counted = gpu_take_counters();
        EXPECT_COUNT("silu_mul", loaded_bytes, 2 * m * n * (n_slices == 0 ? BF16 : n_slices * F32));
        EXPECT_COUNT("silu_mul", stored_bytes, m * n * BF16);
    }
}

/* Heads of q, k and v once in and once out, norm weights and angles once a head that has them; a head's
 * lanes, of 16 elements, look up its token's position and slot each. */
static void test_qk_norm_rope_kv(void)
{
    enum { T = 5, HQ = 6, HKV = 2, PAGES = 2, N_POSITIONS = 8 };
    for (int32_t hd = 64; hd <= 128; hd *= 2) {
        static const int32_t position[T] = {0, 3, 1, 7, 2};
        static const int64_t slot[T] = {31, 0, 4, 17, 16};
        const int64_t n = T * (HQ + 2 * HKV) * hd, angles = N_POSITIONS * hd / 2;
        const struct test_partial in = new_partial((size_t)n, QD_PARTIAL_BF16, 1, 1.0f, 4);
        const size_t pool_bytes = (size_t)(2 * PAGES * HKV * 16 * hd * BF16);
        const struct qd_cuda_qk_norm_rope_kv_args args = {
            .qkv = in.device,
            .n_tokens = T,
            .position = gpu_upload(position, sizeof position),
            .slot_mapping = gpu_upload(slot, sizeof slot),
            .cos = new_partial((size_t)angles, QD_PARTIAL_F32, 1, 1.0f, 5).device.data,
            .sin = new_partial((size_t)angles, QD_PARTIAL_F32, 1, 1.0f, 6).device.data,
            .q_norm_weight = device_bf16(hd),
            .k_norm_weight = device_bf16(hd),
            .eps = 1e-6f,
            .n_heads = HQ,
            .n_kv_heads = HKV,
            .head_dim = hd,
            .kv = {gpu_alloc_output(pool_bytes), PAGES, HKV, hd},
            .q_out = gpu_alloc_output((size_t)(T * HQ * hd * BF16))};
        GPU_LAUNCH(qd_cuda_qk_norm_rope_kv, &args);
        const struct qd_emu_counters counted = gpu_take_counters();
        const int64_t lookups = hd / 16 * (HQ * 4 + HKV * (4 + 8) + HKV * 8);
        EXPECT_COUNT("qk_norm_rope_kv", loaded_bytes,
                     n * BF16 + T * (HQ + HKV) * (hd * BF16 + hd * F32) + T * lookups);
        EXPECT_COUNT("qk_norm_rope_kv", stored_bytes, n * BF16);
    }
}

/* Each row once; a thread may look up its token's source. */
static void test_embed(void)
{
    enum { T = 3, H = 1032, IDS = 7, MOST_THREADS = 256 };
    static const int32_t source[T] = {6, 0, 3};
    const struct qd_cuda_embed_args args = {.table = device_bf16(IDS * H),
                                            .n_ids = IDS,
                                            .hidden_dim = H,
                                            .token_source = gpu_upload(source, sizeof source),
                                            .n_tokens = T,
                                            .out = gpu_alloc_output(T * H * BF16)};
    GPU_LAUNCH(qd_cuda_embed, &args);
    const struct qd_emu_counters counted = gpu_take_counters();
    expect_within("embed", counted.loaded_bytes, T * H * BF16, T * MOST_THREADS * (int64_t)sizeof *source);
    EXPECT_COUNT("embed", stored_bytes, T * H * BF16);
}

/* A row's logits once for the largest, once more for a draw. What threads look up beside: a quarter at most.
 */
static void test_sample(void)
{
    enum { VOCAB = 1 << 17 };
    const struct qd_sampling kinds[] = {{.top_p = 1, .slot = -1}, {.temperature = 1, .top_p = 1, .slot = -1}};
    for (int32_t i = 0; i < N_OF(kinds); i++) {
        const size_t scratch_bytes = qd_cuda_sample_scratch_bytes(1);
        void *zeros = gpu_host_alloc(scratch_bytes);
        memset(zeros, 0, scratch_bytes);
        const struct qd_cuda_sample_args args = {
            .logits = {new_partial(VOCAB, QD_PARTIAL_F32, 1, 1.0f, 7).device.data},
            .ld = VOCAB,
            .shard_rows = VOCAB,
            .vocab_size = VOCAB,
            .n_rows = 1,
            .sampling = gpu_upload(&kinds[i], sizeof kinds[i]),
            .peers = {.n_ranks = 1},
            .scratch = {gpu_upload(zeros, scratch_bytes)},
            .sampled = gpu_alloc(sizeof(int32_t)),
            .ids = gpu_alloc_output(sizeof(int32_t))};
        GPU_LAUNCH(qd_cuda_sample, &args);
        const struct qd_emu_counters counted = gpu_take_counters();
        expect_within("sample", counted.loaded_bytes, (1 + i) * VOCAB * F32, VOCAB * F32 / 4);
        EXPECT_COUNT("sample", shared_conflicts, 0);
    }
}

/* ---- attention ---- */

static struct qd_emu_counters count_attention(struct attention_rig *rig, const struct rig_chunk *chunks,
                                              int32_t n_chunks)
{
    attention_rig_fill(rig, chunks, n_chunks);
    attention_rig_run(rig, chunks, n_chunks);
    return gpu_take_counters();
}

/* Single tokens: K and V once for all query heads of a KV head, whether split or not; 16 query rows and whole
 * pages are multiplied, for the scores and for the values. */
static void test_attention_decode(void)
{
    enum { SMALLEST_PART = 128 };
    static const int32_t kv_len[] = {1, 16, 300, 1025};
    static const struct rig_heads heads[] = {{4, 2, 64}, {8, 2, 128}, {5, 5, 128}, {32, 2, 64}};
    static const int n_sms[] = {1, 1000}; /* whole sequences, and many parts */
    for (int32_t i = 0; i < N_OF(heads) * N_OF(n_sms); i++) {
        const struct rig_heads h = heads[i / 2];
        struct rig_chunk chunks[N_OF(kv_len)];
        struct attention_rig rig = attention_rig_init(h, N_OF(kv_len), 1025, 21);
        rig.n_sms = n_sms[i % 2];
        int64_t keys = 0, pages = 0, part_bytes = 0;
        for (int32_t s = 0; s < N_OF(kv_len); s++) {
            chunks[s] = (struct rig_chunk){s, kv_len[s] - 1, 1};
            keys += kv_len[s];
            pages += qd_div_up(kv_len[s], 16);
            if (kv_len[s] > SMALLEST_PART && i % 2 == 1) /* sums and two statistics of each head */
                part_bytes += qd_div_up(kv_len[s], SMALLEST_PART) * h.n_heads * (h.head_dim + 2) * F32;
        }
        const struct qd_emu_counters counted = count_attention(&rig, chunks, N_OF(kv_len));
        EXPECT_COUNT("decode", async_copy_bytes, 2 * keys * h.n_kv_heads * h.head_dim * BF16);
        EXPECT_COUNT("decode", mma, 2 * products(16, 16, h.head_dim) * pages * h.n_kv_heads);
        EXPECT_COUNT("decode", stored_bytes, N_OF(kv_len) * h.n_heads * h.head_dim * BF16 + part_bytes);
        EXPECT_COUNT("decode", shared_conflicts, 0);
    }
}

/* Work of one query head: 128 rows at a time from the diagonal down, in tiles of 64 keys of which those that
 * exist are read; 16 rows at a time skip tiles that none of them sees. */
static void add_prefill(const struct rig_chunk *c, int64_t *keys, int64_t *tiles)
{
    const int64_t kv_len = c->prior + c->q_len;
    for (int64_t q = 0; q < c->q_len; q += 128) {
        const int64_t end = c->prior + (q + 128 < c->q_len ? q + 128 : c->q_len); /* keys that rows see */
        const int64_t read = qd_div_up(end, 64) * 64;
        *keys += read < kv_len ? read : kv_len;
        for (int64_t row = q; row < q + 128 && row < c->q_len; row += 16) {
            const int64_t sees = c->prior + row + 16;
            *tiles += qd_div_up(sees < kv_len ? sees : kv_len, 64);
        }
    }
}

static void test_attention_prefill(void)
{
    static const struct rig_chunk chunks[] = {{0, 0, 1},    {1, 0, 64},   {2, 0, 128},  {3, 5, 129},
                                              {4, 299, 60}, {5, 63, 130}, {6, 128, 257}};
    static const struct rig_heads heads[] = {{4, 2, 64}, {2, 1, 128}};
    for (int32_t i = 0; i < N_OF(heads); i++) {
        const struct rig_heads h = heads[i];
        struct attention_rig rig = attention_rig_init(h, N_OF(chunks), 400, 22);
        rig.batch_invariant = true; /* single tokens, too */
        int64_t keys = 0, tiles = 0;
        for (int32_t s = 0; s < N_OF(chunks); s++) add_prefill(&chunks[s], &keys, &tiles);
        const int64_t q_bytes =
            (int64_t)attention_rig_tokens(chunks, N_OF(chunks)) * h.n_heads * h.head_dim * BF16;
        const struct qd_emu_counters counted = count_attention(&rig, chunks, N_OF(chunks));
        EXPECT_COUNT("prefill", async_copy_bytes, q_bytes + 2 * keys * h.n_heads * h.head_dim * BF16);
        EXPECT_COUNT("prefill", stored_bytes, q_bytes);
        EXPECT_COUNT("prefill", mma, 2 * products(16, 64, h.head_dim) * tiles * h.n_heads);
        EXPECT_COUNT("prefill", shared_conflicts, 0);
    }
}

/* Without arguments the PTX is taken that make leaves beside the folder of the tests, where there is any. */
int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"gemm_tile", test_gemm_tile},
        {"gemm_skinny_direct", test_gemm_skinny_direct},
        {"gemm_skinny_ring", test_gemm_skinny_ring},
        {"rmsnorm", test_rmsnorm},
        {"reduce_add_rmsnorm", test_reduce_add_rmsnorm},
        {"silu_mul", test_silu_mul},
        {"qk_norm_rope_kv", test_qk_norm_rope_kv},
        {"embed", test_embed},
        {"sample", test_sample},
        {"attention_decode", test_attention_decode},
        {"attention_prefill", test_attention_prefill},
    };
    const char *end = strstr(argv[0], "/tests/gpu/");
    char folder[4096], module[sizeof folder + sizeof "/gemm_tile.ptx"];
    snprintf(folder, sizeof folder, "%.*s/ptx", end != NULL ? (int)(end - argv[0]) : 0, argv[0]);
    snprintf(module, sizeof module, "%s/gemm_tile.ptx", folder);
    char *with_ptx[] = {argv[0], "--ptx", folder, NULL};
    if (argc == 1 && access(module, R_OK) == 0) argc = 3, argv = with_ptx;
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
