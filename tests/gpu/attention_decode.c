/* attention_decode.cu and attention_merge.cu against the specification. */
#include "tests/gpu/attention_rig.h"

#include <math.h>

#include "kernels/base/size.h"

enum { MAX_CHUNKS = 32, SMALLEST_PART = 128, MANY_SMS = 1000, ONE_SM = 1 };

#define N_OF(array) ((int32_t)(sizeof(array) / sizeof *(array)))

static int32_t decodes(struct rig_chunk *chunks, const int32_t *kv_len, int32_t n)
{
    for (int32_t i = 0; i < n; i++) chunks[i] = (struct rig_chunk){i, kv_len[i] - 1, 1};
    return n;
}

/* Around pages, a round of the four warps, and the smallest part. */
static void test_every_length(void)
{
    static const int32_t kv_len[] = {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 191, 193, 256, 300, 1025};
    static const struct {
        const char *name;
        struct rig_heads heads;
        enum qd_numerics numerics;
        int n_sms;
    } cases[] = {
        {"split", {4, 2, 64}, QD_NUMERICS_FUSED, MANY_SMS},
        {"whole", {4, 2, 64}, QD_NUMERICS_FUSED, ONE_SM},
        {"split 128", {2, 2, 128}, QD_NUMERICS_FUSED, MANY_SMS},
        {"whole 128", {4, 1, 128}, QD_NUMERICS_FUSED, ONE_SM},
        {"split, hf", {4, 2, 128}, QD_NUMERICS_HF, MANY_SMS},
        {"whole, hf", {4, 2, 64}, QD_NUMERICS_HF, ONE_SM},
    };
    struct rig_chunk chunks[MAX_CHUNKS];
    const int32_t n = decodes(chunks, kv_len, N_OF(kv_len));
    for (int32_t i = 0; i < N_OF(cases); i++) {
        struct attention_rig rig = attention_rig_init(cases[i].heads, n, kv_len[n - 1], 11);
        rig.numerics = cases[i].numerics;
        rig.n_sms = cases[i].n_sms;
        attention_rig_check(cases[i].name, &rig, chunks, n);
    }
}

/* Query heads of a KV head: rows from there to 16 are padding. */
static void test_groups(void)
{
    static const int32_t kv_len[] = {33, 7, 260};
    static const struct {
        const char *name;
        struct rig_heads heads;
    } groups[] = {
        {"1 each", {3, 3, 128}}, {"2 each", {4, 2, 64}},   {"4 each", {8, 2, 128}}, {"5 each", {10, 2, 128}},
        {"8 each", {8, 1, 64}},  {"16 each", {32, 2, 64}}, {"9 each", {9, 1, 128}},
    };
    struct rig_chunk chunks[MAX_CHUNKS];
    const int32_t n = decodes(chunks, kv_len, N_OF(kv_len));
    for (int32_t i = 0; i < N_OF(groups); i++) {
        struct attention_rig rig = attention_rig_init(groups[i].heads, n, 260, 12);
        attention_rig_check(groups[i].name, &rig, chunks, n);
    }
}

/* Rising scores make the last key the heaviest, falling ones the first. */
static void test_strained_maximum(void)
{
    static const int32_t kv_len[] = {1, 31, 130, 300, 303};
    static const struct {
        const char *name;
        rig_values values;
        int32_t head_dim;
        enum qd_numerics numerics;
    } cases[] = {
        {"rising", rig_rising_scores, 64, QD_NUMERICS_FUSED},
        {"rising, hf", rig_rising_scores, 128, QD_NUMERICS_HF},
        {"falling", rig_falling_scores, 128, QD_NUMERICS_FUSED},
        {"alternating", rig_alternating_scores, 64, QD_NUMERICS_FUSED},
        {"equal", rig_equal_scores, 128, QD_NUMERICS_FUSED},
    };
    struct rig_chunk chunks[MAX_CHUNKS];
    const int32_t n = decodes(chunks, kv_len, N_OF(kv_len));
    for (int32_t i = 0; i < N_OF(cases); i++) {
        struct attention_rig rig =
            attention_rig_init((struct rig_heads){2, 1, cases[i].head_dim}, n, 304, 13);
        rig.values = cases[i].values;
        rig.numerics = cases[i].numerics;
        attention_rig_check(cases[i].name, &rig, chunks, n);
    }
}

/* Element offsets beyond 2^32 of K, and of V beyond 2^33: the pool's pages that are used are its last. */
static void test_far_pages(void)
{
    static const int32_t kv_len[] = {200, 40};
    struct rig_chunk chunks[MAX_CHUNKS];
    const int32_t n = decodes(chunks, kv_len, N_OF(kv_len));
    struct attention_rig rig = attention_rig_init((struct rig_heads){2, 1, 64}, n, 200, 14);
    rig.first_page = (1 << 22) + 7; /* of 2^10 elements */
    attention_rig_check("far pages", &rig, chunks, n);
}

/* Chunks of prompts and single tokens in one step, in a grid larger than the plan. */
static void test_mixed_step(void)
{
    static const struct rig_chunk chunks[] = {{0, 299, 1}, {1, 5, 20}, {2, 16, 1},
                                              {3, 0, 130}, {4, 0, 1},  {5, 64, 2}};
    struct attention_rig rig = attention_rig_init((struct rig_heads){4, 2, 64}, 6, 300, 15);
    attention_rig_check("exact grid", &rig, chunks, N_OF(chunks));
    rig.grid_padding = 2;
    attention_rig_check("padded grid", &rig, chunks, N_OF(chunks));
    const size_t bytes = attention_rig_elements(&rig, chunks, N_OF(chunks)) * sizeof(qd_bf16);
    const qd_bf16 *padded = attention_rig_run(&rig, chunks, N_OF(chunks));
    rig.grid_padding = 0;
    const qd_bf16 *exact = attention_rig_run(&rig, chunks, N_OF(chunks));
    GPU_EXPECT(memcmp(exact, padded, bytes) == 0, "the padded grid changed the result");
}

/* Equal scores, and a value for every part, every warp's pages, or all alike: enormous ones cancel, exactly
 * and only when the sums are added from the lowest index on. */
static void fill_row(qd_bf16 *row, int32_t n, float value)
{
    for (int32_t i = 0; i < n; i++) row[i] = qd_bf16_from_f32(value);
}

static void cancelling(int32_t index, qd_bf16 *row, int32_t head_dim)
{
    static const float value[] = {0x1p100f, -0x1p100f, 1.0f, 1.0f};
    fill_row(row, head_dim, value[index]);
}

static void cancelling_parts(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                             int32_t position, qd_bf16 *row)
{
    (void)seq, (void)head;
    if (what == RIG_VALUE)
        cancelling(position / SMALLEST_PART, row, rig->heads.head_dim);
    else
        fill_row(row, rig->heads.head_dim, 0.0f);
}

static void cancelling_warps(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                             int32_t position, qd_bf16 *row)
{
    (void)seq, (void)head;
    if (what == RIG_VALUE)
        cancelling(position / QD_KV_BLOCK_SIZE % 4, row, rig->heads.head_dim);
    else
        fill_row(row, rig->heads.head_dim, 0.0f);
}

static void check_order(struct rig_heads heads, rig_values values, int32_t kv_len)
{
    const struct rig_chunk chunk = {0, kv_len - 1, 1};
    struct attention_rig rig = attention_rig_init(heads, 1, kv_len, 16);
    rig.values = values;
    rig.n_sms = MANY_SMS;
    attention_rig_fill(&rig, &chunk, 1);
    const qd_bf16 *out = attention_rig_run(&rig, &chunk, 1);
    for (size_t i = 0; i < attention_rig_elements(&rig, &chunk, 1); i++)
        GPU_EXPECT(out[i] == qd_bf16_from_f32(0.5f), "out[%zu] is %g", i, (double)qd_bf16_to_f32(out[i]));
}

static void test_order_of_sums(void)
{
    check_order((struct rig_heads){5, 1, 128}, cancelling_parts, 4 * SMALLEST_PART);
    check_order((struct rig_heads){4, 2, 64}, cancelling_parts, 4 * SMALLEST_PART);
    check_order((struct rig_heads){5, 1, 128}, cancelling_warps, SMALLEST_PART);
    check_order((struct rig_heads){4, 2, 64}, cancelling_warps, SMALLEST_PART);
}

/* A plan of one sequence and KV head by hand, with the kernel's arrays behind the header. */
struct hand_plan {
    struct qd_cuda_attention_plan header;
    struct qd_cuda_decode_item decode[8];
    struct qd_cuda_merge_item merge[1];
};

static struct hand_plan plan_by_hand(const int32_t (*keys)[2], int32_t n)
{
    struct hand_plan plan = {.header = {.n_decode = n,
                                        .n_merge = n > 1,
                                        .n_parts = n > 1 ? n : 0,
                                        .decode = offsetof(struct hand_plan, decode),
                                        .merge = offsetof(struct hand_plan, merge),
                                        .used_bytes = sizeof plan}};
    for (int32_t i = 0; i < n; i++)
        plan.decode[i] = (struct qd_cuda_decode_item){
            .kv_begin = keys[i][0], .kv_end = keys[i][1], .part = n > 1 ? i : -1};
    plan.merge[0] = (struct qd_cuda_merge_item){.n_parts = n};
    return plan;
}

static const qd_bf16 *run_by_hand(const struct attention_rig *rig, const struct rig_chunk *chunk,
                                  const int32_t (*keys)[2], int32_t n)
{
    const struct hand_plan plan = plan_by_hand(keys, n);
    const struct qd_cuda_attention_limits limits = {0, n, plan.header.n_merge, plan.header.n_parts};
    return attention_rig_launch(rig, attention_rig_step(rig, chunk, 1), attention_rig_queries(rig, chunk, 1),
                                &plan.header, &limits);
}

/* A part without keys must change nothing, wherever it stands; a token without any key gets zeros. */
static void test_empty_parts(void)
{
    static const int32_t plain[][2] = {{0, 128}, {128, 256}, {256, 300}};
    static const int32_t with_empty[][2] = {{0, 0}, {0, 128}, {128, 128}, {128, 256}, {256, 300}, {288, 288}};
    static const int32_t nothing[][2] = {{0, 0}}, nothing_twice[][2] = {{0, 0}, {16, 16}};
    const struct rig_chunk chunk = {0, 299, 1};
    struct attention_rig rig = attention_rig_init((struct rig_heads){5, 1, 64}, 1, 300, 17);
    attention_rig_fill(&rig, &chunk, 1);
    const size_t n = attention_rig_elements(&rig, &chunk, 1);
    const qd_bf16 *want = run_by_hand(&rig, &chunk, plain, N_OF(plain));
    const qd_bf16 *planned = attention_rig_run(&rig, &chunk, 1);
    GPU_EXPECT(memcmp(planned, want, n * sizeof *want) == 0, "not the parts that the planner makes");
    const qd_bf16 *got = run_by_hand(&rig, &chunk, with_empty, N_OF(with_empty));
    GPU_EXPECT(memcmp(got, want, n * sizeof *want) == 0, "empty parts changed the result");
    const qd_bf16 *zero = run_by_hand(&rig, &chunk, nothing, N_OF(nothing));
    const qd_bf16 *zero_merged = run_by_hand(&rig, &chunk, nothing_twice, N_OF(nothing_twice));
    for (size_t i = 0; i < n; i++) GPU_EXPECT(zero[i] == 0 && zero_merged[i] == 0, "out[%zu] is not 0", i);
}

/* Queries of head 1 are NaN, everything else is ordinary. */
static void nan_queries(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                        int32_t position, qd_bf16 *row)
{
    (void)seq, (void)position;
    float value = 0.25f;
    if (what == RIG_QUERY && head == 1) value = NAN;
    fill_row(row, rig->heads.head_dim, value);
}

/* A score that is no number makes the head's output none, and no other head's: neither a split nor a merge
 * may take it for a part without keys, whose maximum is -inf as well. */
static void test_nan_queries(void)
{
    static const struct rig_chunk chunks[] = {{0, 299, 1}, {1, 4, 1}, {2, 5, 20}};
    static const struct rig_heads heads = {4, 2, 64};
    struct attention_rig rig = attention_rig_init(heads, N_OF(chunks), 300, 18);
    rig.values = nan_queries;
    rig.n_sms = MANY_SMS;
    attention_rig_fill(&rig, chunks, N_OF(chunks));
    const qd_bf16 *out = attention_rig_run(&rig, chunks, N_OF(chunks));
    for (size_t i = 0; i < attention_rig_elements(&rig, chunks, N_OF(chunks)); i++) {
        const bool want = i / (size_t)heads.head_dim % (size_t)heads.n_heads == 1;
        GPU_EXPECT(isnan(qd_bf16_to_f32(out[i])) == want, "out[%zu] is %g", i,
                   (double)qd_bf16_to_f32(out[i]));
    }
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"every_length", test_every_length},
        {"groups", test_groups},
        {"strained_maximum", test_strained_maximum},
        {"far_pages", test_far_pages},
        {"mixed_step", test_mixed_step},
        {"order_of_sums", test_order_of_sums},
        {"empty_parts", test_empty_parts},
        {"nan_queries", test_nan_queries},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
