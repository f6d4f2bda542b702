/* Attention of the cpu device is invariant bit for bit: to the chunking of a prompt, to what else is in the
 * step, to the number of threads, and from run to run. */
#include "tests/support/attention_rig.h"
#include "tests/support/compare.h"
#include "tests/support/test.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { PROMPT = 70 };
static const struct heads all_heads[] = {{4, 2, 64}, {5, 1, 128}, {3, 3, 16}};

/* out[PROMPT][width] of sequence 0, processed in chunks of `size`; with company, other sequences share each
 * step, before and behind it. */
static qd_bf16 *run_prompt(const char *isa, int n_threads, enum qd_numerics numerics, struct heads heads,
                           int32_t size, bool company)
{
    struct attention_rig rig = attention_rig_init(
        qd_device_find("cpu"), (struct setting){isa, n_threads, numerics}, heads, 3, 2 * PROMPT);
    const size_t width = attention_rig_width(&rig);
    qd_bf16 *whole = malloc(PROMPT * width * sizeof *whole);
    assert_non_null(whole);
    int32_t step = 0;
    for (int32_t prior = 0; prior < PROMPT; prior += size, step++) {
        const int32_t q_len = prior + size < PROMPT ? size : PROMPT - prior;
        const struct chunk alone[] = {{0, prior, q_len}};
        const struct chunk among[] = {
            {1, step, 1}, {0, prior, q_len}, {2, step == 0 ? 0 : 36 + step, step == 0 ? 37 : 1}};
        qd_bf16 *q, *out;
        attention_rig_run(&rig, company ? among : alone, company ? 3 : 1, &q, &out);
        memcpy(whole + (size_t)prior * width, out + (company ? width : 0),
               (size_t)q_len * width * sizeof *out);
        free(q);
        free(out);
    }
    attention_rig_free(&rig);
    return whole;
}

static void invariant(const char *isa, enum qd_numerics numerics)
{
    static const int32_t sizes[] = {1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 48, 64, 69, PROMPT};
    for (size_t i = 0; i < COUNT(all_heads); i++) {
        const struct heads h = all_heads[i];
        const size_t n = PROMPT * (size_t)(h.n_heads * h.head_dim);
        qd_bf16 *want = run_prompt(isa, 1, numerics, h, PROMPT, false);
        for (size_t s = 0; s < COUNT(sizes) * 2; s++) {
            const bool company = s % 2 == 1;
            const int n_threads = 1 + (int)(s / 2 % 3);
            char what[96];
            qd_bf16 *got = run_prompt(isa, n_threads, numerics, h, sizes[s / 2], company);
            snprintf(what, sizeof what, "%s numerics %d, chunks of %d, %d threads%s", isa, numerics,
                     sizes[s / 2], n_threads, company ? ", in company" : "");
            compare_same_bf16(what, got, want, n);
            free(got);
        }
        free(want);
    }
}

static void fused(void **state)
{
    need_isa(*state);
    invariant(*state, QD_NUMERICS_FUSED);
}

static void hf(void **state)
{
    need_isa(*state);
    invariant(*state, QD_NUMERICS_HF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {EVERY_ISA(fused), EVERY_ISA(hf)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
