/* Recorded decode steps on emulated GPUs: replayed with other lengths, pages, seeds and sequences than they
 * were recorded with, they sample what steps sample that run op by op. Temperature 1 makes every draw depend
 * on all logits.
 */
#include "tests/support/test.h"

#include "kernels/base/size.h"
#include "kernels/cuda/device.h"
#include "kernels/emu/emu.h"
#include "tests/support/model_run.h"

enum {
    N_SEQS = 3,
    N_DECODES = 9,
    PAGES = 3, /* of a sequence */
    MAX_TOKENS = 64,
    MAX_LEN = PAGES * QD_KV_BLOCK_SIZE,
};
/* What each sequence sampled, in order. */
struct ids {
    int32_t of[N_SEQS][1 + N_DECODES];
    int32_t n[N_SEQS];
};
/* Prompts whose decodes cross a page, and one that is a decode itself. */
static const int32_t prompt_len[N_SEQS] = {13, 1, 29};
/* Sequences [begin, end) of each decode: batches of 3, 2 and 1 in turn, the first of 3 padded to 4. */
static const int32_t batches[N_DECODES][2] = {{0, 3}, {0, 2}, {2, 3}, {0, 3}, {1, 3},
                                              {0, 1}, {0, 3}, {0, 2}, {1, 2}};

/* How often the forward pass was called: an op of a table has no other way to report. */
static _Atomic int n_passes;

static qd_status counting_embed(void *ctx, const struct qd_embed_args *args)
{
    n_passes++;
    return qd_emu_ops.embed(ctx, args);
}

/* Launches of the merge of attention, which no step here needs: its sequences are too short to be split. */
static _Atomic int n_merges;

static int count_merges(struct qd_emu_launch *launch, const unsigned *arg_sizes, unsigned n_args, char *err,
                        size_t errlen)
{
    (void)arg_sizes, (void)n_args, (void)err, (void)errlen;
    if (strcmp(launch->name, "attention_merge") == 0) n_merges++;
    return 0;
}

/* A sequence's tokens at positions [begin, end): its prompt, or what its slot sampled last. */
static void fill_sequence(struct qd_step *step, int32_t seq, int32_t first, int32_t begin, int32_t end)
{
    for (int32_t position = begin; position < end; position++) {
        int32_t t = first + position - begin, page = 1 + position / QD_KV_BLOCK_SIZE * N_SEQS + seq;
        bool is_made = position >= prompt_len[seq];
        qd_step_token_source(step)[t] = is_made ? -(seq + 1) : (seq * 31 + position * 7) % 500;
        qd_step_position(step)[t] = position;
        qd_step_slot_mapping(step)[t] = (int64_t)page * QD_KV_BLOCK_SIZE + position % QD_KV_BLOCK_SIZE;
    }
}

/* The next step of sequences [begin, end), of which made[s] tokens were sampled: prompts at first, then
 * decodes. */
static void fill_step(struct qd_step *step, const struct qd_step_limits *limits, const int32_t *batch,
                      const int32_t *made)
{
    int32_t n_tokens = 0, n_blocks = 0, n = batch[1] - batch[0];
    for (int32_t s = batch[0]; s < batch[1]; s++) {
        n_tokens += made[s] > 0 ? 1 : prompt_len[s];
        n_blocks += (int32_t)qd_div_up(prompt_len[s] + made[s], QD_KV_BLOCK_SIZE);
    }
    assert_int_equal(qd_step_begin(step, limits, n_tokens, n, n_blocks, n), QD_OK);
    qd_step_cu_seqlens_q(step)[0] = qd_step_block_offset(step)[0] = n_tokens = n_blocks = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t s = batch[0] + i, len = prompt_len[s] + made[s], begin = made[s] > 0 ? len - 1 : 0;
        fill_sequence(step, s, n_tokens, begin, len);
        n_tokens += len - begin;
        for (int32_t b = 0; b < qd_div_up(len, QD_KV_BLOCK_SIZE); b++)
            qd_step_block_table(step)[n_blocks++] = 1 + b * N_SEQS + s;
        qd_step_cu_seqlens_q(step)[i + 1] = n_tokens;
        qd_step_block_offset(step)[i + 1] = n_blocks;
        qd_step_kv_len(step)[i] = len;
        qd_step_logit_row(step)[i] = n_tokens - 1;
        qd_step_sampling(step)[i] = (struct qd_sampling){.temperature = 1,
                                                         .top_p = 0.95f,
                                                         .slot = s,
                                                         .seed = 17 + (uint64_t)s,
                                                         .output_index = (uint64_t)made[s]};
    }
}

static void run_step(struct model_run *run, const struct qd_step *step, const int32_t *batch, struct ids *ids)
{
    char err[QD_ERR_LEN] = "";
    struct qd_group_result result;
    ASSERT_OK(qd_group_launch(run->group, step, err, sizeof err), err);
    ASSERT_OK(qd_group_wait(run->group, &result, err, sizeof err), err);
    assert_int_equal(result.n_ids, batch[1] - batch[0]);
    for (int32_t s = batch[0]; s < batch[1]; s++) ids->of[s][ids->n[s]++] = result.ids[s - batch[0]];
}

/* The prompts in one step, then n_decodes steps of decodes; with `only` >= 0 those of this sequence. */
static struct ids generate(int tp, bool enforce_eager, bool batch_invariant, int32_t only, int n_decodes)
{
    struct qd_device_ops ops = qd_emu_ops;
    ops.embed = counting_embed;
    n_passes = 0;
    const struct run_options options = {.max_tokens = MAX_TOKENS,
                                        .max_logit_rows = 8,
                                        .max_model_len = (N_SEQS + 1) * MAX_LEN, /* pages of all */
                                        .enforce_eager = enforce_eager,
                                        .batch_invariant = batch_invariant};
    qd_model_t *model = make_model("micro", &ops, tp);
    struct model_run run;
    model_run_open(&run, model, &ops, &options);
    struct qd_step *step = calloc(1, qd_step_capacity(&run.limits));
    assert_non_null(step);
    struct ids ids = {.n = {0}};
    for (int i = -1; i < n_decodes; i++) {
        int32_t batch[2] = {i < 0 ? 0 : batches[i][0], i < 0 ? N_SEQS : batches[i][1]};
        if (only >= 0 && (only < batch[0] || only >= batch[1])) continue;
        if (only >= 0) batch[0] = only, batch[1] = only + 1;
        fill_step(step, &run.limits, batch, ids.n);
        run_step(&run, step, batch, &ids);
    }
    free(step);
    model_run_close(&run);
    qd_model_free(model);
    return ids;
}

static void expect_same(const struct ids *got, const struct ids *want, int32_t seq)
{
    assert_int_equal(got->n[seq], want->n[seq]);
    for (int i = 0; i < got->n[seq]; i++)
        if (got->of[seq][i] != want->of[seq][i])
            fail_msg("id %d of sequence %d is %d, expected %d", i, seq, got->of[seq][i], want->of[seq][i]);
}

/* Each size of a batch runs once op by op, is recorded once and then replayed. */
static void replays_sample_what_ops_sample(void **state)
{
    const int tp = *(const int *)*state;
    struct ids eager = generate(tp, true, false, -1, N_DECODES);
    assert_int_equal(n_passes, tp * (1 + N_DECODES));
    struct ids recorded = generate(tp, false, false, -1, N_DECODES);
    assert_int_equal(n_passes, tp * (1 + 3 * 2));
    for (int32_t s = 0; s < N_SEQS; s++) expect_same(&recorded, &eager, s);
}

/* Batch-invariant, a sequence alone, op by op, samples what it samples in recorded batches. */
static void a_batch_makes_no_difference(void **state)
{
    (void)state;
    struct ids together = generate(1, false, true, -1, N_DECODES);
    for (int32_t s = 0; s < N_SEQS; s++) {
        struct ids alone = generate(1, true, true, s, N_DECODES);
        expect_same(&alone, &together, s);
    }
}

/* The first decode of a size launches every kernel that will be recorded, needed or not: CUDA loads a kernel when
 * it is first launched, and may not while a stream captures. */
static void what_is_recorded_has_run_before(void **state)
{
    (void)state;
    n_merges = 0;
    qd_emu_set_replace(count_merges);
    (void)generate(1, false, false, 0, 1);
    const int before_recording = n_merges;
    (void)generate(1, false, false, 0, 2);
    qd_emu_set_replace(NULL);
    assert_true(before_recording > 0);
    assert_int_equal(n_merges, 3 * before_recording); /* of a step run and one run and recorded */
}

static int sizes[] = {1, 2, 4, 8};

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"replays_sample_what_ops_sample_tp1", replays_sample_what_ops_sample, NULL, NULL, &sizes[0]},
        {"replays_sample_what_ops_sample_tp2", replays_sample_what_ops_sample, NULL, NULL, &sizes[1]},
        {"replays_sample_what_ops_sample_tp4", replays_sample_what_ops_sample, NULL, NULL, &sizes[2]},
        {"replays_sample_what_ops_sample_tp8", replays_sample_what_ops_sample, NULL, NULL, &sizes[3]},
        cmocka_unit_test(a_batch_makes_no_difference),
        cmocka_unit_test(what_is_recorded_has_run_before),
    };
    return cmocka_run_group_tests_name("cuda_graph", tests, NULL, NULL);
}
