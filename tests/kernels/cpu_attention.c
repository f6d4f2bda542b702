/* qk_norm_rope_kv and attention of the cpu device against the specification: head sizes, groupings, page
 * boundaries, decodes and chunks in one step. Pages are shuffled and their unused rows are NaN. */
#include "tests/support/attention_rig.h"
#include "tests/support/compare.h"
#include "tests/support/test.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct heads all_heads[] = {{4, 4, 64}, {4, 2, 64}, {4, 2, 128}, {5, 1, 64}, {8, 1, 128},
                                         {2, 1, 16}, {6, 2, 32}, {2, 2, 80},  {1, 1, 128}};

/* What the sequences hold before, and the step that is judged: decodes around page boundaries among chunks.
 */
static const struct chunk mixed[] = {
    {0, 0, 1},  {1, 15, 1},  {2, 16, 33},  {3, 14, 1},   {4, 0, 40},  {5, 31, 1},  {6, 100, 1},  {7, 32, 1},
    {8, 17, 2}, {9, 90, 20}, {10, 255, 1}, {11, 256, 1}, {12, 0, 16}, {13, 1, 17}, {14, 33, 15}, {15, 16, 1}};
enum { MAX_LEN = 257 };

/* Fills the pool up to `prior` of every chunk. */
static void fill_prior(struct attention_rig *rig, const struct chunk *chunks, int32_t n_chunks)
{
    struct chunk before[32];
    int32_t n = 0;
    for (int32_t i = 0; i < n_chunks; i++) {
        if (chunks[i].prior > 0) before[n++] = (struct chunk){chunks[i].seq, 0, chunks[i].prior};
    }
    qd_bf16 *q, *out;
    if (n == 0) return;
    attention_rig_run(rig, before, n, &q, &out);
    free(q);
    free(out);
    attention_rig_run_ref(rig, before, n, &q, NULL);
    free(q);
}

/* q: as a norm, one bf16 apart where fp32 straddles a tie; a rotated value near 0 is a difference of larger
 * ones. Observed: nmse 5.7e-9 fused, 4.0e-9 hf; 99.98 % equal. */
static const struct tolerance rotated = {.abs = 1e-6, .rel = 0x1p-7, .nmse = 3e-8, .same = 0.999};
static const struct tolerance rotated_hf = {.abs = 0x1p-7, .rel = 0x1p-7, .nmse = 3e-8, .same = 0.999};
/* Fused: fp32 softmax and sums against double, plus what a moved rounding of one key element does; in hf a
 * moved rounding of a score (up to 2^-8 of a score below 16) shifts a probability by up to 6 % of itself.
 * Observed: nmse 5.2e-9 fused, 1.9e-8 hf; 99.8 % equal; abs 9e-4 beyond one bf16 in fused. */
static const struct tolerance fused = {.abs = 2e-3, .rel = 0x1p-7, .nmse = 3e-8, .same = 0.995};
static const struct tolerance hf = {.abs = 4e-3, .rel = 0x1p-7, .nmse = 1e-7, .same = 0.99};

static void check_step(const char *isa, enum qd_numerics numerics, struct heads heads,
                       const struct chunk *chunks, int32_t n_chunks, int32_t max_len,
                       struct deviation *q_observed, struct deviation *observed)
{
    struct attention_rig rig = attention_rig_init(qd_device_find("cpu"), (struct setting){isa, 2, numerics},
                                                  heads, n_chunks, max_len);
    const size_t n = (size_t)count_tokens(chunks, n_chunks) * attention_rig_width(&rig);
    qd_bf16 *q, *out, *q_want, *want;
    char what[96];
    snprintf(what, sizeof what, "%s numerics %d heads %d/%d/%d", isa, numerics, heads.n_heads,
             heads.n_kv_heads, heads.head_dim);
    fill_prior(&rig, chunks, n_chunks);
    attention_rig_run(&rig, chunks, n_chunks, &q, &out);
    attention_rig_run_ref(&rig, chunks, n_chunks, &q_want, &want);
    compare_bf16(what, q, q_want, n, numerics == QD_NUMERICS_HF ? rotated_hf : rotated, q_observed);
    compare_bf16(what, out, want, n, numerics == QD_NUMERICS_HF ? hf : fused, observed);
    free(q);
    free(out);
    free(q_want);
    free(want);
    attention_rig_free(&rig);
}

static void mixed_steps(const char *isa, enum qd_numerics numerics)
{
    struct deviation q_observed = DEVIATION_NONE, observed = DEVIATION_NONE;
    for (size_t i = 0; i < COUNT(all_heads); i++)
        check_step(isa, numerics, all_heads[i], mixed, COUNT(mixed), MAX_LEN, &q_observed, &observed);
    deviation_print("q", &q_observed);
    deviation_print("attention", &observed);
}

static void mixed_fused(void **state)
{
    need_isa(*state);
    mixed_steps(*state, QD_NUMERICS_FUSED);
}

static void mixed_hf(void **state)
{
    need_isa(*state);
    mixed_steps(*state, QD_NUMERICS_HF);
}

/* Every prompt length and every decode position around the first pages. */
static void every_short_length(void **state)
{
    static const struct heads heads = {2, 1, 32};
    need_isa(*state);
    for (int numerics = 0; numerics < 2; numerics++) {
        struct deviation q_observed = DEVIATION_NONE, observed = DEVIATION_NONE;
        for (int32_t len = 1; len <= 34; len++) {
            const struct chunk whole[] = {{0, 0, len}}, last[] = {{0, len - 1, 1}},
                               half[] = {{0, len / 2, len - len / 2}};
            check_step(*state, (enum qd_numerics)numerics, heads, whole, 1, len, &q_observed, &observed);
            check_step(*state, (enum qd_numerics)numerics, heads, last, 1, len, &q_observed, &observed);
            check_step(*state, (enum qd_numerics)numerics, heads, half, 1, len, &q_observed, &observed);
        }
        deviation_print("attention of short prompts", &observed);
    }
}

static void long_context(void **state)
{
    static const struct chunk chunks[] = {{0, 1500, 1}, {0, 1023, 3}};
    static const struct heads heads = {2, 1, 64};
    need_isa(*state);
    for (int numerics = 0; numerics < 2; numerics++) {
        struct deviation q_observed = DEVIATION_NONE, observed = DEVIATION_NONE;
        for (int i = 0; i < 2; i++)
            check_step(*state, (enum qd_numerics)numerics, heads, &chunks[i], 1, 1501, &q_observed,
                       &observed);
        deviation_print("attention over 1500 keys", &observed);
    }
}

/* A first token sees itself alone: its output is its value, bit for bit, in both numerics. */
static void one_key_returns_its_value(void **state)
{
    need_isa(*state);
    for (size_t i = 0; i < COUNT(all_heads) * 2; i++) {
        const struct heads heads = all_heads[i / 2];
        const struct chunk first[] = {{0, 0, 1}, {1, 0, 1}, {2, 0, 1}};
        struct attention_rig rig = attention_rig_init(
            qd_device_find("cpu"), (struct setting){*state, 1, (enum qd_numerics)(i % 2)}, heads, 3, 1);
        const int32_t hd = heads.head_dim, group = heads.n_heads / heads.n_kv_heads;
        qd_bf16 *q, *out, *qkv = attention_rig_qkv(&rig, first, 3);
        attention_rig_run(&rig, first, 3, &q, &out);
        for (int32_t t = 0; t < 3; t++) {
            const qd_bf16 *v =
                qkv + (t * (heads.n_heads + 2 * heads.n_kv_heads) + heads.n_heads + heads.n_kv_heads) * hd;
            for (int32_t h = 0; h < heads.n_heads; h++)
                compare_same_bf16("value", out + (t * heads.n_heads + h) * hd, v + h / group * hd,
                                  (size_t)hd);
        }
        free(q);
        free(out);
        free(qkv);
        attention_rig_free(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERY_ISA(mixed_fused),
        EVERY_ISA(mixed_hf),
        EVERY_ISA(every_short_length),
        EVERY_ISA(long_context),
        EVERY_ISA(one_key_returns_its_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
