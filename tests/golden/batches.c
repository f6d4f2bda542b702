/* A sequence's logits do not depend on what shares its steps: several sequences in random chunks over
 * scattered pages, prefill and decode mixed, against each one alone. */
#include "tests/support/test.h"

#include "kernels/base/random.h"
#include "kernels/base/size.h"
#include "kernels/cpu/host/device.h"
#include "tests/support/devices.h"
#include "tests/support/golden.h"
#include "tests/support/model_run.h"

#define MODELS "tests/data/goldens/models/"

enum {
    N_SEQS = 4,
    N_TOKENS = 40,
    N_PAGES = (N_TOKENS + QD_KV_BLOCK_SIZE - 1) / QD_KV_BLOCK_SIZE, /* of one sequence */
    POOL = N_SEQS * N_PAGES,
};

/* Where one sequence is. */
struct sequence {
    int32_t tokens[N_TOKENS];
    int32_t pages[N_PAGES];
    int32_t n_done;
    int32_t first_row; /* positions before want no logits */
    float *alone;      /* [N_TOKENS][vocab] expected logits */
};

static uint32_t draw(uint64_t seed, uint64_t index, uint32_t below)
{
    return qd_philox(seed, 1, index).word[0] % below;
}

/* Pages of all sequences: a shuffle of the pool. */
static void deal_pages(struct sequence *sequences, uint64_t seed)
{
    int32_t pool[POOL];
    for (int32_t i = 0; i < POOL; i++) pool[i] = i;
    for (uint32_t i = POOL - 1; i > 0; i--) {
        uint32_t k = draw(seed, 1000 + i, i + 1);
        int32_t page = pool[i];
        pool[i] = pool[k];
        pool[k] = page;
    }
    for (int s = 0; s < N_SEQS; s++)
        memcpy(sequences[s].pages, pool + s * N_PAGES, sizeof sequences[s].pages);
}

/* Chunk lengths of the next step; 0: the sequence pauses. Long prefill chunks and single tokens both occur.
 */
static void choose_chunks(const struct sequence *sequences, uint64_t seed, uint64_t step, int32_t *lengths)
{
    static const int32_t choices[] = {0, 1, 1, 2, 5, 16, 23};
    for (uint64_t s = 0; s < N_SEQS; s++) {
        int32_t left = N_TOKENS - sequences[s].n_done;
        lengths[s] = choices[draw(seed, step * N_SEQS + s, sizeof choices / sizeof *choices)];
        if (lengths[s] > left) lengths[s] = left;
    }
}

/* From first_row on, every token but the first of a chunk of several wants logits: rows are a strict subset.
 */
static bool wants_logits(const struct sequence *sequence, int32_t position, int32_t chunk)
{
    return position >= sequence->first_row && (chunk == 1 || position > sequence->n_done);
}

static void fill_step(struct qd_step *step, const struct qd_step_limits *limits,
                      const struct sequence *sequences, const int32_t *lengths)
{
    int32_t n_tokens = 0, n_seqs = 0, n_blocks = 0, n_rows = 0;
    for (int s = 0; s < N_SEQS; s++) {
        if (lengths[s] == 0) continue;
        n_tokens += lengths[s];
        n_seqs++;
        n_blocks += (int32_t)qd_div_up(sequences[s].n_done + lengths[s], QD_KV_BLOCK_SIZE);
        for (int32_t i = 0; i < lengths[s]; i++)
            n_rows += wants_logits(&sequences[s], sequences[s].n_done + i, lengths[s]);
    }
    assert_int_equal(qd_step_begin(step, limits, n_tokens, n_seqs, n_blocks, n_rows), QD_OK);
    step->flags = QD_STEP_WANT_LOGITS;
    int32_t t = 0, q = 0, b = 0, row = 0;
    for (int s = 0; s < N_SEQS; s++) {
        const struct sequence *sequence = &sequences[s];
        if (lengths[s] == 0) continue;
        qd_step_cu_seqlens_q(step)[q] = t;
        qd_step_block_offset(step)[q] = b;
        int32_t end = sequence->n_done + lengths[s];
        qd_step_kv_len(step)[q++] = end;
        for (int32_t p = 0; p * QD_KV_BLOCK_SIZE < end; p++)
            qd_step_block_table(step)[b++] = sequence->pages[p];
        for (int32_t position = sequence->n_done; position < end; position++, t++) {
            int64_t page = sequence->pages[position / QD_KV_BLOCK_SIZE];
            qd_step_token_source(step)[t] = sequence->tokens[position];
            qd_step_position(step)[t] = position;
            qd_step_slot_mapping(step)[t] = page * QD_KV_BLOCK_SIZE + position % QD_KV_BLOCK_SIZE;
            if (!wants_logits(sequence, position, lengths[s])) continue;
            qd_step_sampling(step)[row] = (struct qd_sampling){.top_p = 1.0f, .slot = -1};
            qd_step_logit_row(step)[row++] = t;
        }
    }
    qd_step_cu_seqlens_q(step)[q] = t;
    qd_step_block_offset(step)[q] = b;
}

static void compare_rows(const struct qd_group_result *result, struct sequence *sequences,
                         const int32_t *lengths)
{
    int32_t row = 0;
    size_t vocab = (size_t)result->vocab_size;
    for (int s = 0; s < N_SEQS; s++) {
        for (int32_t i = 0; i < lengths[s]; i++) {
            int32_t position = sequences[s].n_done + i;
            if (!wants_logits(&sequences[s], position, lengths[s])) continue;
            const float *expected = sequences[s].alone + (size_t)position * vocab;
            if (memcmp(expected, result->logits + (size_t)row++ * vocab, vocab * sizeof(float)) != 0)
                fail_msg("sequence %d position %d has other logits in a batch", s, position);
        }
        sequences[s].n_done += lengths[s];
    }
    assert_int_equal(row, result->n_ids);
}

static void run_batches(struct model_run *run, struct sequence *sequences, uint64_t seed)
{
    char err[QD_ERR_LEN] = "";
    struct qd_step *step = calloc(1, qd_step_capacity(&run->limits));
    assert_non_null(step);
    deal_pages(sequences, seed);
    int32_t lengths[N_SEQS], left = N_SEQS * N_TOKENS;
    for (uint64_t index = 0; left > 0; index++) {
        choose_chunks(sequences, seed, index, lengths);
        int32_t n = 0;
        for (int s = 0; s < N_SEQS; s++) n += lengths[s];
        if (n == 0) continue;
        fill_step(step, &run->limits, sequences, lengths);
        struct qd_group_result result;
        ASSERT_OK(qd_group_launch(run->group, step, err, sizeof err), err);
        ASSERT_OK(qd_group_wait(run->group, &result, err, sizeof err), err);
        compare_rows(&result, sequences, lengths);
        left -= n;
    }
    free(step);
}

/* One sequence, token by token with a step always in flight behind the one that runs, and logits at the end
 * alone: ranks must not run ahead of each other when nothing is sampled. */
static void run_ahead(struct model_run *run, struct sequence *sequences)
{
    char err[QD_ERR_LEN] = "";
    struct qd_step *step = calloc(1, qd_step_capacity(&run->limits));
    assert_non_null(step);
    struct qd_group_result result;
    int32_t lengths[N_SEQS] = {1};
    sequences[0].first_row = N_TOKENS - 1;
    for (int32_t position = 0; position < N_TOKENS; position++) {
        sequences[0].n_done = position;
        fill_step(step, &run->limits, sequences, lengths);
        ASSERT_OK(qd_group_launch(run->group, step, err, sizeof err), err);
        if (position > 0) ASSERT_OK(qd_group_wait(run->group, &result, err, sizeof err), err);
    }
    ASSERT_OK(qd_group_wait(run->group, &result, err, sizeof err), err);
    compare_rows(&result, sequences, lengths);
    sequences[0].first_row = 0;
    free(step);
}

static void check_batches(const char *dir, int tp, const char *isa, enum qd_numerics numerics)
{
    struct qd_golden golden;
    golden_load(&golden, dir);
    int p = 0;
    while (golden.lengths[p] < N_TOKENS + N_SEQS) p++;
    qd_model_t *model = load_model(dir, &qd_cpu_ops, tp);
    struct run_options options = {
        .isa = isa,
        .numerics = numerics,
        .max_tokens = N_SEQS * N_TOKENS,
        .max_logit_rows = N_SEQS * N_TOKENS,
        .max_model_len = POOL * QD_KV_BLOCK_SIZE,
    };
    struct model_run run;
    struct sequence sequences[N_SEQS];
    model_run_open(&run, model, &qd_cpu_ops, &options);
    for (int s = 0; s < N_SEQS; s++) {
        memcpy(sequences[s].tokens, golden.prompts[p] + s, sizeof sequences[s].tokens);
        sequences[s].alone =
            model_run_logits(&run, sequences[s].tokens, N_TOKENS, N_TOKENS, golden.vocab_size);
    }
    for (uint64_t seed = 0; seed < 5; seed++) {
        for (int s = 0; s < N_SEQS; s++) sequences[s].n_done = 0;
        run_batches(&run, sequences, seed);
    }
    run_ahead(&run, sequences);
    for (int s = 0; s < N_SEQS; s++) free(sequences[s].alone);
    model_run_close(&run);
    qd_model_free(model);
    qd_golden_free(&golden);
}

static void check_models(int tp)
{
    static const char *const dirs[] = {MODELS "mha-oddsize-f32", MODELS "tied-gqa2-hd64",
                                       MODELS "yarn4-hd128"};
    static const char *const sets[] = {"avx2", "portable"};
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (!has_isa(sets[s])) continue;
        for (size_t d = 0; d < sizeof dirs / sizeof *dirs; d++) {
            check_batches(dirs[d], tp, sets[s], QD_NUMERICS_FUSED);
            check_batches(dirs[d], tp, sets[s], QD_NUMERICS_HF);
        }
    }
}

static void batches_change_nothing(void **state)
{
    (void)state;
    check_models(1);
}

static void batches_change_nothing_on_two_ranks(void **state)
{
    (void)state;
    check_models(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_change_nothing),
        cmocka_unit_test(batches_change_nothing_on_two_ranks),
    };
    return cmocka_run_group_tests_name("batches", tests, NULL, NULL);
}
