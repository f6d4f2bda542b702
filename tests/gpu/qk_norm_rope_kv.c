/* qk_norm_rope_kv.cu: both head sizes, both numerics, slices, pages out of order, tokens without a slot, far
 * pages. */
#include <math.h>

#include "kernels/cuda/kernels.h"
#include "kernels/ref/ref.h"
#include "tests/gpu/partials.h"
#include "tests/gpu/runner.h"

static const float EPS = 1e-6f;
enum {
    BOUND = 4,
    N_PAGES = 5,
    MAX_POSITION = 300,
    UNTOUCHED = 0xffff /* NaN: what the pool holds where nothing is stored */
};
/* Norm and rotation give a*c - b*s with |a|, |b| < BOUND (weights below 2, a norm below sqrt(hd) = 11.4, in
 * practice 2 for uniform inputs). fused: fp32 errors of some 2^-21 BOUND, and a rounding may turn: one step
 * of the result. hf: a turn of a, of b and of each product, 2^-8 of BOUND each, and one of the result. Turns
 * are rare. Seen in the emulator: 0.67 of the tolerance, 1 of 10,240 elements with other bits. */
static const float RTOL = 0x1p-7f;
static const float ATOL[] = {[QD_NUMERICS_FUSED] = 0x1p-20f * BOUND, [QD_NUMERICS_HF] = 0x1p-6f * BOUND};
static const double OTHER_BITS = 0.005;

struct shape {
    int32_t n_heads, n_kv_heads, head_dim, n_tokens;
    enum qd_partial_dtype dtype;
    int n_slices;
};

/* Everything that both sides are given. */
struct inputs {
    struct test_partial qkv;
    qd_bf16 *q_weight, *k_weight; /* [hd] */
    int32_t *position;            /* [T] */
    int64_t *slot;                /* [T]; every fifth below 0 */
    struct qd_rope rope;
    size_t n_qkv, n_q, n_pool; /* elements */
};

static struct inputs new_inputs(const struct shape *s)
{
    const size_t hd = (size_t)s->head_dim, n_tokens = (size_t)s->n_tokens;
    struct inputs in = {.n_qkv = n_tokens * (size_t)(s->n_heads + 2 * s->n_kv_heads) * hd,
                        .n_q = n_tokens * (size_t)s->n_heads * hd,
                        .n_pool = 2 * N_PAGES * (size_t)s->n_kv_heads * QD_KV_BLOCK_SIZE * hd};
    in.qkv = new_partial(in.n_qkv, s->dtype, s->n_slices, 3.0f, hd + n_tokens);
    in.q_weight = gpu_host_alloc(hd * 2);
    in.k_weight = gpu_host_alloc(hd * 2);
    gpu_random_bf16(in.q_weight, hd, 2.0f, 70);
    gpu_random_bf16(in.k_weight, hd, 2.0f, 71);
    in.position = gpu_host_alloc(n_tokens * sizeof *in.position);
    in.slot = gpu_host_alloc(n_tokens * sizeof *in.slot);
    for (int32_t t = 0; t < s->n_tokens; t++) {
        in.position[t] = 37 * t % MAX_POSITION;
        in.slot[t] =
            t % 5 == 4 ? -1 - t : 29 * t % (N_PAGES * QD_KV_BLOCK_SIZE); /* 29 and 80 have no divisor */
    }
    float *inv_freq = gpu_host_alloc(hd / 2 * sizeof *inv_freq);
    for (size_t i = 0; i < hd / 2; i++) inv_freq[i] = powf(1e6f, -2.0f * (float)i / (float)hd);
    in.rope = (struct qd_rope){.inv_freq = inv_freq, .attention_scaling = 1.25f};
    return in;
}

/* One page more than the device's: where the specification puts what has no slot. */
static qd_bf16 *untouched_pool(const struct shape *s, int64_t n_pages)
{
    const size_t bytes = 2 * (size_t)n_pages * (size_t)(s->n_kv_heads * QD_KV_BLOCK_SIZE * s->head_dim) * 2;
    qd_bf16 *pool = gpu_host_alloc(bytes);
    memset(pool, 0xff, bytes);
    return pool;
}

/* q [T][Hq*hd] and the pool [2][N_PAGES] as the specification has them. */
static void expect(const struct shape *s, const struct inputs *in, enum qd_numerics numerics, qd_bf16 *q,
                   qd_bf16 *pool)
{
    const struct qd_step_limits limits = {.max_tokens = s->n_tokens, .max_seqs = 1, .max_blocks = 1};
    struct qd_step *step = gpu_host_alloc(qd_step_capacity(&limits));
    GPU_EXPECT(qd_step_begin(step, &limits, s->n_tokens, 1, 1, 0) == QD_OK, "qd_step_begin");
    for (int32_t t = 0; t < s->n_tokens; t++) {
        qd_step_position(step)[t] = in->position[t];
        qd_step_slot_mapping(step)[t] = in->slot[t] >= 0 ? in->slot[t] : N_PAGES * QD_KV_BLOCK_SIZE;
    }
    const struct qd_kv_layer kv = {untouched_pool(s, N_PAGES + 1), N_PAGES + 1, s->n_kv_heads, s->head_dim};
    qd_ref_qk_norm_rope_kv(&(struct qd_qk_norm_rope_kv_args){.step = step,
                                                             .qkv = qd_partial_stored(rounded_sum(&in->qkv, in->n_qkv)),
                                                             .q_norm_weight = in->q_weight,
                                                             .k_norm_weight = in->k_weight,
                                                             .eps = EPS,
                                                             .n_heads = s->n_heads,
                                                             .n_kv_heads = s->n_kv_heads,
                                                             .head_dim = s->head_dim,
                                                             .kv = kv,
                                                             .q_out = q},
                           &in->rope, numerics);
    const size_t half = in->n_pool / 2; /* K pages, then V pages, without the last of each */
    memcpy(pool, kv.data, half * sizeof *pool);
    memcpy(pool + half, kv.data + half / N_PAGES * (N_PAGES + 1), half * sizeof *pool);
}

static struct qd_cuda_qk_norm_rope_kv_args new_args(const struct shape *s, const struct inputs *in,
                                                    enum qd_numerics numerics)
{
    const size_t hd = (size_t)s->head_dim, half = hd / 2, table = MAX_POSITION * half;
    float *cos_table = gpu_host_alloc(table * sizeof *cos_table),
          *sin_table = gpu_host_alloc(table * sizeof *sin_table);
    for (int32_t p = 0; p < MAX_POSITION; p++)
        qd_ref_rope(&in->rope, s->head_dim, p, numerics, cos_table + (size_t)p * half,
                    sin_table + (size_t)p * half);
    return (struct qd_cuda_qk_norm_rope_kv_args){
        .qkv = in->qkv.device,
        .n_tokens = s->n_tokens,
        .position = gpu_upload(in->position, (size_t)s->n_tokens * sizeof *in->position),
        .slot_mapping = gpu_upload(in->slot, (size_t)s->n_tokens * sizeof *in->slot),
        .cos = gpu_upload(cos_table, table * sizeof *cos_table),
        .sin = gpu_upload(sin_table, table * sizeof *sin_table),
        .q_norm_weight = gpu_upload(in->q_weight, hd * 2),
        .k_norm_weight = gpu_upload(in->k_weight, hd * 2),
        .eps = EPS,
        .n_heads = s->n_heads,
        .n_kv_heads = s->n_kv_heads,
        .head_dim = s->head_dim,
        .numerics = numerics,
        .kv = {gpu_write_once(gpu_upload(untouched_pool(s, N_PAGES), in->n_pool * 2), in->n_pool * 2),
               N_PAGES, s->n_kv_heads, s->head_dim},
        .q_out = gpu_alloc_output(in->n_q * 2),
    };
}

/* Compares the pool where something is stored, and finds the rest untouched. */
static void expect_pool(qd_bf16 *got, qd_bf16 *want, const struct inputs *in, enum qd_numerics numerics)
{
    for (size_t i = 0; i < in->n_pool; i++) {
        if (want[i] != UNTOUCHED) continue;
        GPU_EXPECT(got[i] == UNTOUCHED, "pool[%zu] was written: 0x%04x", i, got[i]);
        got[i] = want[i] = 0;
    }
    const size_t half = in->n_pool / 2;
    gpu_expect_rounded_bf16("k", got, want, half, RTOL, ATOL[numerics], OTHER_BITS);
    gpu_expect_equal("v", got + half, want + half, half * sizeof *got);
}

static void check_shape(const struct shape *s, enum qd_numerics numerics)
{
    const struct inputs in = new_inputs(s);
    qd_bf16 *q = gpu_host_alloc(in.n_q * 2), *q_want = gpu_host_alloc(in.n_q * 2);
    qd_bf16 *pool = gpu_host_alloc(in.n_pool * 2), *pool_want = gpu_host_alloc(in.n_pool * 2);
    const struct qd_cuda_qk_norm_rope_kv_args args = new_args(s, &in, numerics);
    expect(s, &in, numerics, q_want, pool_want);
    GPU_LAUNCH(qd_cuda_qk_norm_rope_kv, &args);
    gpu_download(q, args.q_out, in.n_q * 2);
    gpu_download(pool, args.kv.data, in.n_pool * 2);
    gpu_expect_same_bits("q", q, in.n_q * 2);
    gpu_expect_same_bits("pool", pool, in.n_pool * 2);
    gpu_expect_rounded_bf16("q", q, q_want, in.n_q, RTOL, ATOL[numerics], OTHER_BITS);
    expect_pool(pool, pool_want, &in, numerics);
}

/* Heads that fill a block of 16 or 32, that do not, and the models'. */
static void matches_reference(enum qd_numerics numerics)
{
    static const struct shape shapes[] = {
        {1, 1, 64, 1, QD_PARTIAL_BF16, 1},   {1, 1, 128, 1, QD_PARTIAL_BF16, 1},
        {3, 2, 64, 7, QD_PARTIAL_BF16, 1},   {5, 1, 128, 7, QD_PARTIAL_BF16, 1},
        {8, 4, 128, 16, QD_PARTIAL_BF16, 1}, {6, 1, 64, 17, QD_PARTIAL_BF16, 1},
        {16, 8, 128, 5, QD_PARTIAL_BF16, 1}, {32, 8, 128, 3, QD_PARTIAL_BF16, 1},
        {40, 8, 128, 2, QD_PARTIAL_BF16, 1}, {64, 8, 128, 1, QD_PARTIAL_BF16, 1},
        {2, 1, 128, 67, QD_PARTIAL_BF16, 1}, {5, 1, 128, 6, QD_PARTIAL_F32, 1},
        {16, 8, 128, 2, QD_PARTIAL_F32, 3},  {4, 2, 64, 13, QD_PARTIAL_F32, 8},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check_shape(&shapes[i], numerics);
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
    for (int n_slices = 1; n_slices <= 8; n_slices++) {
        const struct shape s = {4, 2, n_slices % 2 == 0 ? 64 : 128, 3, QD_PARTIAL_F32, n_slices};
        check_shape(&s, QD_NUMERICS_HF);
    }
}

static void does_nothing_without_tokens(void)
{
    struct qd_cuda_qk_norm_rope_kv_args args = {
        .qkv = {.n_slices = 1}, .n_heads = 2, .n_kv_heads = 1, .head_dim = 64, .kv = {NULL, 1, 1, 64}};
    GPU_LAUNCH(qd_cuda_qk_norm_rope_kv, &args);
}

/* A token alone has the bits it has in company. */
static void a_token_is_the_same_anywhere(void)
{
    enum { T = 6, ROW = 5 * 128, QKV = 7 * 128 };
    static qd_bf16 together[T * ROW], alone[ROW];
    const struct shape s = {5, 1, 128, T, QD_PARTIAL_BF16, 1};
    const struct inputs in = new_inputs(&s);
    const struct qd_cuda_qk_norm_rope_kv_args args = new_args(&s, &in, QD_NUMERICS_FUSED);
    GPU_LAUNCH(qd_cuda_qk_norm_rope_kv, &args);
    gpu_download(together, args.q_out, sizeof together);
    for (int t = 0; t < T; t++) {
        struct qd_cuda_qk_norm_rope_kv_args one = args;
        one.qkv.data = (const qd_bf16 *)args.qkv.data + t * QKV;
        one.position += t;
        one.slot_mapping = gpu_upload(&in.slot[t], sizeof in.slot[t]);
        one.n_tokens = 1;
        one.q_out = gpu_alloc_output(sizeof alone);
        GPU_LAUNCH(qd_cuda_qk_norm_rope_kv, &one);
        gpu_download(alone, one.q_out, sizeof alone);
        gpu_expect_equal("q", alone, together + t * ROW, sizeof alone);
    }
}

/* A page whose K begins beyond 2^31 elements, and its V beyond 2^32. */
static void stores_to_far_pages(void)
{
    const struct shape s = {1, 8, 128, 1, QD_PARTIAL_BF16, 1};
    const int64_t page_elements = INT64_C(8) * QD_KV_BLOCK_SIZE * 128;
    const int64_t page = INT64_C(0x80000000) / page_elements + 3, n_pages = page + 1;
    const int64_t slot = page * QD_KV_BLOCK_SIZE + 5, near_slot = 5; /* the same place in page 0 */
    const struct inputs in = new_inputs(&s);
    struct qd_cuda_qk_norm_rope_kv_args args = new_args(&s, &in, QD_NUMERICS_HF);
    const size_t page_bytes = (size_t)page_elements * sizeof(qd_bf16);
    qd_bf16 *near = gpu_host_alloc(page_bytes), *got = gpu_host_alloc(page_bytes);

    args.slot_mapping = gpu_upload(&near_slot, sizeof near_slot);
    GPU_LAUNCH(qd_cuda_qk_norm_rope_kv, &args);
    const qd_bf16 *near_pool = args.kv.data;
    args.slot_mapping = gpu_upload(&slot, sizeof slot);
    args.kv.n_blocks = n_pages;
    args.kv.data = gpu_alloc_sparse((size_t)n_pages * 2 * page_bytes);
    for (int64_t v = 0; v < 2; v++)
        gpu_write(args.kv.data + (v * n_pages + page) * page_elements, untouched_pool(&s, 1), page_bytes);
    GPU_LAUNCH(qd_cuda_qk_norm_rope_kv, &args);
    for (int64_t v = 0; v < 2; v++) {
        gpu_download(near, near_pool + v * N_PAGES * page_elements, page_bytes);
        gpu_download(got, args.kv.data + (v * n_pages + page) * page_elements, page_bytes);
        gpu_expect_equal(v == 0 ? "k page" : "v page", got, near, page_bytes);
    }
}

static void refuses(void)
{
    const struct qd_cuda_qk_norm_rope_kv_args good = {.qkv = {.n_slices = 1},
                                                      .n_tokens = 1,
                                                      .n_heads = 2,
                                                      .n_kv_heads = 1,
                                                      .head_dim = 64,
                                                      .kv = {.n_blocks = 1, .n_kv_heads = 1, .head_dim = 64}};
    struct qd_cuda_qk_norm_rope_kv_args args = good;
    args.head_dim = 96;
    GPU_REFUSED(qd_cuda_qk_norm_rope_kv, &args, "head_dim 96");
    args = good;
    args.kv.head_dim = 128;
    GPU_REFUSED(qd_cuda_qk_norm_rope_kv, &args, "a pool of 1 x 128");
    args = good;
    args.kv.n_kv_heads = 2;
    GPU_REFUSED(qd_cuda_qk_norm_rope_kv, &args, "a pool of 2 x 64");
    args = good;
    args.n_heads = 0;
    GPU_REFUSED(qd_cuda_qk_norm_rope_kv, &args, "0 + 1 heads");
    args = good;
    args.n_tokens = -1;
    GPU_REFUSED(qd_cuda_qk_norm_rope_kv, &args, "-1 tokens");
    args.n_tokens = INT64_C(1) << 40;
    GPU_REFUSED(qd_cuda_qk_norm_rope_kv, &args, "tokens");
    args = good;
    args.qkv.n_slices = 2;
    GPU_REFUSED(qd_cuda_qk_norm_rope_kv, &args, "2 bf16 slices");
    args.qkv.dtype = QD_PARTIAL_F32;
    args.qkv.stride = 4;
    GPU_REFUSED(qd_cuda_qk_norm_rope_kv, &args, "stride of 4");
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"fused", fused},
        {"hf", hf},
        {"sums_every_number_of_slices", sums_every_number_of_slices},
        {"does_nothing_without_tokens", does_nothing_without_tokens},
        {"a_token_is_the_same_anywhere", a_token_is_the_same_anywhere},
        {"stores_to_far_pages", stores_to_far_pages},
        {"refuses", refuses},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
