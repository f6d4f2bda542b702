/* attention_prefill.cu against the specification. A step under batch_invariant sends single tokens to it,
 * too. */
#include "tests/gpu/attention_rig.h"

enum { MAX_CHUNKS = 128 };

#define N_OF(array) ((int32_t)(sizeof(array) / sizeof *(array)))

/* One sequence for every pair of lengths, all in one step. */
static int32_t cross(struct rig_chunk *chunks, const int32_t *prior, int32_t n_prior, const int32_t *q_len,
                     int32_t n_q_len)
{
    int32_t n = 0;
    for (int32_t i = 0; i < n_prior; i++)
        for (int32_t j = 0; j < n_q_len; j++, n++) chunks[n] = (struct rig_chunk){n, prior[i], q_len[j]};
    return n;
}

static void check_lengths(const char *what, struct rig_heads heads, enum qd_numerics numerics,
                          const int32_t *prior, int32_t n_prior, const int32_t *q_len, int32_t n_q_len)
{
    struct rig_chunk chunks[MAX_CHUNKS];
    const int32_t n = cross(chunks, prior, n_prior, q_len, n_q_len);
    struct attention_rig rig = attention_rig_init(heads, n, prior[n_prior - 1] + q_len[n_q_len - 1], 1);
    rig.batch_invariant = true;
    rig.numerics = numerics;
    attention_rig_check(what, &rig, chunks, n);
}

static void test_every_length(void)
{
    static const int32_t prior[] = {0, 1, 15, 16, 17, 63, 64, 65, 200};
    static const int32_t q_len[] = {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129};
    check_lengths("lengths", (struct rig_heads){1, 1, 64}, QD_NUMERICS_FUSED, prior, N_OF(prior), q_len,
                  N_OF(q_len));
}

static void test_lengths_head_dim_128(void)
{
    static const int32_t prior[] = {0, 15, 64, 200}, q_len[] = {1, 2, 17, 64, 129};
    check_lengths("lengths", (struct rig_heads){2, 1, 128}, QD_NUMERICS_FUSED, prior, N_OF(prior), q_len,
                  N_OF(q_len));
}

static void test_lengths_hf(void)
{
    static const int32_t prior[] = {0, 17, 65}, q_len[] = {1, 16, 129};
    check_lengths("head_dim 64", (struct rig_heads){2, 1, 64}, QD_NUMERICS_HF, prior, N_OF(prior), q_len,
                  N_OF(q_len));
    check_lengths("head_dim 128", (struct rig_heads){1, 1, 128}, QD_NUMERICS_HF, prior, N_OF(prior), q_len,
                  N_OF(q_len));
}

/* Query heads of a KV head: all ratios, with several KV heads. */
static void test_groups(void)
{
    static const struct rig_chunk chunks[] = {{1, 3, 5}, {0, 0, 17}, {2, 30, 2}};
    static const struct {
        const char *name;
        struct rig_heads heads;
    } groups[] = {
        {"1 each", {2, 2, 128}},        {"2 each", {4, 2, 64}},   {"4 each", {8, 2, 128}},
        {"5 each", {10, 2, 64}},        {"8 each", {16, 2, 128}}, {"16 each", {32, 2, 64}},
        {"three KV heads", {3, 3, 64}},
    };
    for (int32_t i = 0; i < N_OF(groups); i++) {
        struct attention_rig rig = attention_rig_init(groups[i].heads, 3, 40, 2);
        attention_rig_check(groups[i].name, &rig, chunks, N_OF(chunks));
    }
}

/* Rising scores also make the key behind the last visible one the heaviest. */
static void test_strained_maximum(void)
{
    static const struct rig_chunk chunks[] = {{0, 0, 130}, {1, 63, 66}, {2, 190, 2}};
    static const struct {
        const char *name;
        rig_values values;
        int32_t head_dim;
        enum qd_numerics numerics;
    } cases[] = {
        {"rising", rig_rising_scores, 64, QD_NUMERICS_FUSED},
        {"rising, hf", rig_rising_scores, 128, QD_NUMERICS_HF},
        {"falling", rig_falling_scores, 128, QD_NUMERICS_FUSED},
        {"falling, hf", rig_falling_scores, 128, QD_NUMERICS_HF},
        {"alternating", rig_alternating_scores, 64, QD_NUMERICS_FUSED},
        {"equal", rig_equal_scores, 128, QD_NUMERICS_FUSED},
    };
    for (int32_t i = 0; i < N_OF(cases); i++) {
        struct attention_rig rig = attention_rig_init((struct rig_heads){1, 1, cases[i].head_dim}, 3, 192, 4);
        rig.values = cases[i].values;
        rig.numerics = cases[i].numerics;
        attention_rig_check(cases[i].name, &rig, chunks, N_OF(chunks));
    }
}

/* Element offsets beyond 2^32 of K, and of V beyond 2^33: the pool's pages that are used are its last. */
static void test_far_pages(void)
{
    static const struct rig_chunk chunks[] = {{0, 20, 40}, {1, 0, 3}};
    struct attention_rig rig = attention_rig_init((struct rig_heads){2, 1, 64}, 2, 60, 5);
    rig.first_page = (1 << 22) + 7; /* of 2^10 elements */
    attention_rig_check("far pages", &rig, chunks, N_OF(chunks));
}

/* A replayed launch has the grid of the capacities: surplus blocks must do nothing. */
static void test_padded_grid(void)
{
    static const struct rig_chunk chunks[] = {{0, 5, 130}, {1, 16, 16}};
    struct attention_rig rig = attention_rig_init((struct rig_heads){2, 1, 64}, 2, 140, 6);
    attention_rig_check("exact grid", &rig, chunks, N_OF(chunks));
    const size_t bytes = attention_rig_elements(&rig, chunks, N_OF(chunks)) * sizeof(qd_bf16);
    const qd_bf16 *exact = attention_rig_run(&rig, chunks, N_OF(chunks));
    rig.grid_padding = 3;
    const qd_bf16 *padded = attention_rig_run(&rig, chunks, N_OF(chunks));
    GPU_EXPECT(memcmp(exact, padded, bytes) == 0, "the padded grid changed the result");
}

static struct qd_cuda_attention_args supported_args(void)
{
    return (struct qd_cuda_attention_args){
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 64,
        .kv = {.n_kv_heads = 2, .head_dim = 64},
    };
}

static void test_refusals(void)
{
    struct qd_cuda_attention_args args = supported_args();
    GPU_LAUNCH(qd_cuda_attention, &args); /* no items: nothing is launched */
    args.head_dim = args.kv.head_dim = 96;
    GPU_REFUSED(qd_cuda_attention, &args, "head_dim 96");
    args = supported_args();
    args.n_heads = 5;
    GPU_REFUSED(qd_cuda_attention, &args, "5 heads on 2 KV heads");
    args.n_heads = 34;
    GPU_REFUSED(qd_cuda_attention, &args, "34 heads on 2 KV heads");
    args.n_heads = 0;
    GPU_REFUSED(qd_cuda_attention, &args, "0 heads on 2 KV heads");
    args = supported_args();
    args.kv.n_kv_heads = 1;
    GPU_REFUSED(qd_cuda_attention, &args, "a pool of 1 KV heads of 64, not 2 of 64");
    args = supported_args();
    args.limits.max_decode_items = -1;
    GPU_REFUSED(qd_cuda_attention, &args, "below 0");
    args.limits = (struct qd_cuda_attention_limits){.max_decode_items = 4, .max_parts = 4};
    GPU_REFUSED(qd_cuda_attention, &args, "4 parts with 0 merges");
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"every_length", test_every_length},
        {"lengths_head_dim_128", test_lengths_head_dim_128},
        {"lengths_hf", test_lengths_hf},
        {"groups", test_groups},
        {"strained_maximum", test_strained_maximum},
        {"far_pages", test_far_pages},
        {"padded_grid", test_padded_grid},
        {"refusals", test_refusals},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
