/* Bits of the cpu device do not depend on chunks, threads or what the pages held before. */
#include "tests/support/test.h"

#include "kernels/cpu/host/device.h"
#include "tests/support/devices.h"
#include "tests/support/golden.h"
#include "tests/support/model_run.h"

#define MODELS "tests/data/goldens/models/"

enum { N_TOKENS = 50, MAX_LEN = 128 };

static const char *const dirs[] = {MODELS "mha-oddsize-f32", MODELS "tied-gqa2-hd64", MODELS "yarn4-hd128"};
static const char *const sets[] = {"avx2", "portable"};

typedef void check_fn(qd_model_t *model, const struct run_options *options, const int32_t *tokens,
                      int32_t vocab_size);

/* Calls check for every model, instruction set and numerics. */
static void for_all(int tp, check_fn *check)
{
    for (size_t d = 0; d < sizeof dirs / sizeof *dirs; d++) {
        struct qd_golden golden;
        golden_load(&golden, dirs[d]);
        int p = 0;
        while (golden.lengths[p] < N_TOKENS) p++;
        qd_model_t *model = load_model(dirs[d], &qd_cpu_ops, tp);
        for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
            if (!has_isa(sets[s])) continue;
            for (int hf = 0; hf < 2; hf++) {
                struct run_options options = {
                    .isa = sets[s],
                    .numerics = hf ? QD_NUMERICS_HF : QD_NUMERICS_FUSED,
                    .max_tokens = MAX_LEN,
                    .max_logit_rows = MAX_LEN,
                    .max_model_len = MAX_LEN,
                };
                check(model, &options, golden.prompts[p], golden.vocab_size);
            }
        }
        qd_model_free(model);
        qd_golden_free(&golden);
    }
}

static void assert_same_bits(const float *a, const float *b, int32_t vocab_size, const char *what, int number)
{
    for (int32_t t = 0; t < N_TOKENS; t++)
        for (int32_t i = 0; i < vocab_size; i++)
            if (memcmp(&a[t * vocab_size + i], &b[t * vocab_size + i], sizeof *a) != 0)
                fail_msg("%s %d: logit %d of position %d is %.9g, expected %.9g", what, number, i, t,
                         (double)b[t * vocab_size + i], (double)a[t * vocab_size + i]);
}

static void check_chunks(qd_model_t *model, const struct run_options *options, const int32_t *tokens,
                         int32_t vocab_size)
{
    struct model_run run;
    model_run_open(&run, model, &qd_cpu_ops, options);
    float *whole = model_run_logits(&run, tokens, N_TOKENS, N_TOKENS, vocab_size);
    for (int32_t chunk = 1; chunk < N_TOKENS; chunk++) {
        float *parts = model_run_logits(&run, tokens, N_TOKENS, chunk, vocab_size);
        assert_same_bits(whole, parts, vocab_size, "chunks of", chunk);
        free(parts);
    }
    free(whole);
    model_run_close(&run);
}

static void check_threads(qd_model_t *model, const struct run_options *options, const int32_t *tokens,
                          int32_t vocab_size)
{
    static const int counts[] = {1, 2, 3, 7}; /* more than this machine may have: unpinned, no spinning */
    float *expected = NULL;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct run_options with_threads = *options;
        struct model_run run;
        with_threads.n_threads = counts[i];
        model_run_open(&run, model, &qd_cpu_ops, &with_threads);
        float *logits = model_run_logits(&run, tokens, N_TOKENS, 17, vocab_size);
        model_run_close(&run);
        if (expected == NULL) {
            expected = logits;
            continue;
        }
        assert_same_bits(expected, logits, vocab_size, "threads:", counts[i]);
        free(logits);
    }
    free(expected);
}

/* The logits that were wanted are the same whether others were wanted as well. */
static void check_rows(qd_model_t *model, const struct run_options *options, const int32_t *tokens,
                       int32_t vocab_size)
{
    struct run_options few_rows = *options;
    struct model_run all, few;
    few_rows.max_logit_rows = 3; /* chunks are cut to three rows */
    model_run_open(&all, model, &qd_cpu_ops, options);
    model_run_open(&few, model, &qd_cpu_ops, &few_rows);
    float *expected = model_run_logits(&all, tokens, N_TOKENS, N_TOKENS, vocab_size);
    float *logits = model_run_logits(&few, tokens, N_TOKENS, N_TOKENS, vocab_size);
    assert_same_bits(expected, logits, vocab_size, "rows a step:", 3);
    free(logits);
    free(expected);
    model_run_close(&few);
    model_run_close(&all);
}

static void chunks_change_nothing(void **state)
{
    (void)state;
    for_all(1, check_chunks);
}

static void chunks_change_nothing_on_two_ranks(void **state)
{
    (void)state;
    for_all(2, check_chunks);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    for_all(1, check_threads);
    for_all(2, check_threads);
}

static void unwanted_rows_change_nothing(void **state)
{
    (void)state;
    for_all(1, check_rows);
    for_all(2, check_rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_change_nothing),
        cmocka_unit_test(chunks_change_nothing_on_two_ranks),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(unwanted_rows_change_nothing),
    };
    return cmocka_run_group_tests_name("invariance", tests, NULL, NULL);
}
