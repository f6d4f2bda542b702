/* With batch_invariant a token's attention has the same bits whatever chunk it is in, whatever else is in the
 * step, and wherever its pages are. */
#include "tests/gpu/attention_rig.h"

enum { PROMPT = 150, MAX_CHUNKS = PROMPT + 8 };

#define N_OF(array) ((int32_t)(sizeof(array) / sizeof *(array)))

static struct attention_rig invariant_rig(struct rig_heads heads, int32_t n_seqs, uint64_t seed)
{
    struct attention_rig rig = attention_rig_init(heads, n_seqs, 2 * PROMPT, seed);
    rig.batch_invariant = true;
    return rig;
}

/* Sequence 0's prompt in chunks of `size`, as if each were a sequence that shares the pages of those before
 * it. */
static int32_t cut(struct rig_chunk *chunks, int32_t size)
{
    int32_t n = 0;
    for (int32_t at = 0; at < PROMPT; at += size, n++)
        chunks[n] = (struct rig_chunk){0, at, PROMPT - at < size ? PROMPT - at : size};
    return n;
}

/* The prompt in one chunk, checked against the specification. */
static const qd_bf16 *whole_prompt(struct attention_rig *rig)
{
    static const struct rig_chunk whole = {0, 0, PROMPT};
    attention_rig_check("whole prompt", rig, &whole, 1);
    return attention_rig_run(rig, &whole, 1);
}

static void expect_same(const struct attention_rig *rig, const qd_bf16 *got, const qd_bf16 *want,
                        int32_t n_tokens, const char *what, int32_t number)
{
    const size_t n = (size_t)n_tokens * (size_t)(rig->heads.n_heads * rig->heads.head_dim);
    for (size_t i = 0; i < n; i++)
        GPU_EXPECT(got[i] == want[i], "%s %d: element %zu of token %zu is %#x, not %#x", what, number,
                   i % (n / (size_t)n_tokens), i / (n / (size_t)n_tokens), got[i], want[i]);
}

static void expect_same_when_cut(struct attention_rig *rig, const qd_bf16 *want, int32_t size)
{
    struct rig_chunk chunks[MAX_CHUNKS];
    const int32_t n = cut(chunks, size);
    expect_same(rig, attention_rig_run(rig, chunks, n), want, PROMPT, "chunks of", size);
}

static void test_every_chunk_size(void)
{
    struct attention_rig rig = invariant_rig((struct rig_heads){1, 1, 64}, 1, 21);
    const qd_bf16 *want = whole_prompt(&rig);
    for (int32_t size = 1; size < PROMPT; size++) expect_same_when_cut(&rig, want, size);
}

static void check_some_sizes(struct rig_heads heads, enum qd_numerics numerics)
{
    static const int32_t sizes[] = {7, 16, 63, 65, 128, 149};
    struct attention_rig rig = invariant_rig(heads, 1, 22);
    rig.numerics = numerics;
    const qd_bf16 *want = whole_prompt(&rig);
    for (int32_t i = 0; i < N_OF(sizes); i++) expect_same_when_cut(&rig, want, sizes[i]);
}

static void test_head_dim_128(void)
{
    check_some_sizes((struct rig_heads){2, 1, 128}, QD_NUMERICS_FUSED);
}

static void test_hf(void)
{
    check_some_sizes((struct rig_heads){2, 2, 64}, QD_NUMERICS_HF);
}

/* Step after step: the pool holds nothing yet beyond the chunk that runs. */
static void test_chunk_by_chunk(void)
{
    static const int32_t sizes[] = {11, 16, 50, 64, 128};
    struct attention_rig rig = invariant_rig((struct rig_heads){2, 1, 64}, 1, 23);
    const size_t width = (size_t)(rig.heads.n_heads * rig.heads.head_dim);
    const qd_bf16 *want = whole_prompt(&rig);
    struct rig_chunk chunks[MAX_CHUNKS];
    for (int32_t i = 0; i < N_OF(sizes); i++) {
        const int32_t n = cut(chunks, sizes[i]);
        for (int32_t c = 0; c < n; c++) {
            attention_rig_fill(&rig, &chunks[c], 1);
            expect_same(&rig, attention_rig_run(&rig, &chunks[c], 1), want + (size_t)chunks[c].prior * width,
                        chunks[c].q_len, "step by step, chunks of", sizes[i]);
        }
    }
}

/* Other sequences around it, single tokens among them, other pages, another device. */
static void test_other_company(void)
{
    static const struct rig_chunk together[] = {
        {1, 200, 1}, {2, 3, 140}, {0, 0, PROMPT}, {3, 0, 1}, {4, 64, 64}};
    const struct rig_heads heads = {4, 2, 64};
    struct attention_rig alone = invariant_rig(heads, 1, 24);
    const size_t width = (size_t)(heads.n_heads * heads.head_dim);
    const qd_bf16 *want = whole_prompt(&alone);
    for (int32_t i = 0; i < 3; i++) {
        struct attention_rig rig = invariant_rig(heads, 5, 25 + (uint64_t)i);
        rig.n_sms = 1 + 50 * i;
        rig.first_page = 1000 * i;
        rig.grid_padding = i;
        attention_rig_fill(&rig, together, N_OF(together));
        const qd_bf16 *got = attention_rig_run(&rig, together, N_OF(together));
        expect_same(&rig, got + (size_t)attention_rig_tokens(together, 2) * width, want, PROMPT, "company",
                    i);
    }
}

int main(int argc, char **argv)
{
    static const struct gpu_test tests[] = {
        {"every_chunk_size", test_every_chunk_size}, {"head_dim_128", test_head_dim_128},   {"hf", test_hf},
        {"chunk_by_chunk", test_chunk_by_chunk},     {"other_company", test_other_company},
    };
    return gpu_main(tests, sizeof tests / sizeof *tests, argc, argv);
}
