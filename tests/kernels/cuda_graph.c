/* Recorded decode steps on emulated GPUs: recorded when the device is opened, on the null page, and replayed
 * with lengths, pages, seeds and sequences, they sample what steps sample that run op by op. Temperature 1
 * makes every draw depend on all logits.
 */
#include "tests/support/test.h"

#include "kernels/base/size.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/host.h"
#include "kernels/emu/emu.h"
#include "kernels/emu/mode.h"
#include "tests/support/model_run.h"

enum {
    N_SEQS = 3,
    N_DECODES = 6,
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
static const int32_t batches[N_DECODES][2] = {{0, 3}, {0, 2}, {2, 3}, {0, 3}, {1, 3}, {0, 1}};

/* How often the forward pass was called: an op of a table has no other way to report. */
static _Atomic int n_passes;

static qd_status counting_embed(void *ctx, const struct qd_embed_args *args)
{
    n_passes++;
    return qd_emu_ops.embed(ctx, args);
}

/* The pages of the rank that was opened last: what a rank allocates first. */
static void *_Atomic pages;
static _Atomic size_t page_bytes;

static qd_status remembering_alloc(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    qd_status st = qd_emu_ops.alloc(ctx, bytes, out, err, errlen);
    if (st == QD_OK && pages == NULL) {
        pages = *out;
        page_bytes = bytes;
    }
    return st;
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

static void launch(struct model_run *run, const struct qd_step *step)
{
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_group_launch(run->group, step, err, sizeof err), err);
}

static void take_ids(struct model_run *run, const int32_t *batch, struct ids *ids)
{
    char err[QD_ERR_LEN] = "";
    struct qd_group_result result;
    ASSERT_OK(qd_group_wait(run->group, &result, err, sizeof err), err);
    assert_int_equal(result.n_ids, batch[1] - batch[0]);
    for (int32_t s = batch[0]; s < batch[1]; s++) ids->of[s][ids->n[s]++] = result.ids[s - batch[0]];
}

struct how {
    int tp;
    bool enforce_eager, batch_invariant;
    int32_t only; /* this sequence alone; -1: all */
    int n_decodes;
    bool overlap; /* every step is launched before the ids of the one before are there */
};

/* The prompts in one step, then the decodes. */
static struct ids generate(struct how how, struct qd_device_stats *stats)
{
    struct qd_device_ops ops = qd_emu_ops;
    ops.embed = counting_embed;
    if (how.overlap) ops.step_ended = qd_cuda_step_ended;
    n_passes = 0;
    const struct run_options options = {.max_tokens = MAX_TOKENS,
                                        .max_logit_rows = 8,
                                        .max_model_len = (N_SEQS + 1) * MAX_LEN, /* pages of all */
                                        .enforce_eager = how.enforce_eager,
                                        .batch_invariant = how.batch_invariant};
    qd_model_t *model = make_model("micro", &ops, how.tp);
    struct model_run run;
    model_run_open(&run, model, &ops, &options);
    struct qd_step *step = calloc(1, qd_step_capacity(&run.limits));
    assert_non_null(step);
    struct ids ids = {.n = {0}};
    int32_t made[N_SEQS] = {0}, last[2] = {0, 0};
    for (int i = -1; i < how.n_decodes; i++) {
        int32_t batch[2] = {i < 0 ? 0 : batches[i][0], i < 0 ? N_SEQS : batches[i][1]};
        if (how.only >= 0 && (how.only < batch[0] || how.only >= batch[1])) continue;
        if (how.only >= 0) batch[0] = how.only, batch[1] = how.only + 1;
        fill_step(step, &run.limits, batch, made);
        launch(&run, step);
        for (int32_t s = batch[0]; s < batch[1]; s++) made[s]++;
        if (!how.overlap) take_ids(&run, batch, &ids);
        if (how.overlap && last[1] > 0) take_ids(&run, last, &ids);
        memcpy(last, batch, sizeof last);
    }
    if (how.overlap) take_ids(&run, last, &ids);
    *stats = qd_group_get_stats(run.group);
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

/* Batches of up to 8 are recorded for 1, 2, 4 and 8: the forward pass is called once to load and once to
 * record each, and for two runs of a warm-up; afterwards for the prompts alone. */
enum { N_GRAPHS = 4, N_WARM_UP_RUNS = 2, N_DECODED = 12, N_PADDED = 2 };

static void replays_sample_what_ops_sample(void **state)
{
    const int tp = *(const int *)*state;
    struct qd_device_stats stats;
    struct how how = {.tp = tp, .enforce_eager = true, .only = -1, .n_decodes = N_DECODES};
    struct ids eager = generate(how, &stats);
    assert_int_equal(n_passes, tp * (N_WARM_UP_RUNS + 1 + N_DECODES));
    assert_int_equal(stats.n_graphs, 0);
    assert_int_equal(stats.n_eager_steps, 1 + N_DECODES);
    assert_int_equal(stats.n_replayed_steps, 0);

    how.enforce_eager = false;
    struct ids recorded = generate(how, &stats);
    assert_int_equal(n_passes, tp * (2 * N_GRAPHS + N_WARM_UP_RUNS + 1));
    assert_int_equal(stats.n_graphs, N_GRAPHS);
    assert_true(stats.capture_ns > 0);
    assert_int_equal(stats.n_eager_steps, 1);
    assert_int_equal(stats.n_replayed_steps, N_DECODES);
    assert_int_equal(stats.n_eager_tokens, prompt_len[0] + prompt_len[1] + prompt_len[2]);
    assert_int_equal(stats.n_replayed_tokens, N_DECODED);
    assert_int_equal(stats.n_padded_tokens, N_PADDED);
    for (int32_t s = 0; s < N_SEQS; s++) expect_same(&recorded, &eager, s);
}

/* Steps that follow each other on the device, token sources being what the one before samples. */
static void two_steps_in_flight_sample_the_same(void **state)
{
    (void)state;
    struct qd_device_stats stats;
    for (int tp = 1; tp <= 2; tp++) {
        struct how how = {.tp = tp, .only = -1, .n_decodes = 4, .enforce_eager = tp == 1};
        struct ids want = generate(how, &stats);
        how.overlap = true;
        struct ids got = generate(how, &stats);
        assert_int_equal(stats.n_replayed_steps, how.enforce_eager ? 0 : how.n_decodes);
        for (int32_t s = 0; s < N_SEQS; s++) expect_same(&got, &want, s);
    }
}

/* While a kernel of a step has not ended, the next step is planned and launched. */
static _Atomic int n_planned;
static _Atomic bool is_held;

static qd_status counting_plan(void *ctx, const struct qd_plan_args *args)
{
    n_planned++;
    return qd_emu_ops.plan(ctx, args);
}

static int hold(struct qd_emu_launch *held, const unsigned *arg_sizes, unsigned n_args, char *err,
                size_t errlen)
{
    (void)held, (void)arg_sizes, (void)n_args, (void)err, (void)errlen;
    while (is_held) usleep(100);
    return 0;
}

static void a_step_is_launched_while_another_runs(void **state)
{
    (void)state;
    struct qd_device_ops ops = qd_emu_ops;
    ops.plan = counting_plan;
    ops.step_ended = qd_cuda_step_ended;
    const struct run_options options = {.n_threads = 1,
                                        .max_tokens = MAX_TOKENS,
                                        .max_logit_rows = 8,
                                        .max_model_len = (N_SEQS + 1) * MAX_LEN};
    qd_model_t *model = make_model("micro", &ops, 1);
    struct model_run run;
    qd_emu_set_replace(hold);
    model_run_open(&run, model, &ops, &options);
    struct qd_step *step = calloc(1, qd_step_capacity(&run.limits));
    assert_non_null(step);
    struct ids ids = {.n = {0}};
    const int32_t batch[2] = {0, 1}, none[N_SEQS] = {0}, one[N_SEQS] = {1};
    is_held = true;
    n_planned = 0;
    fill_step(step, &run.limits, batch, none);
    launch(&run, step);
    while (n_planned < 1) usleep(100);
    usleep(5000); /* the rank has gone on to look out for what comes */
    fill_step(step, &run.limits, batch, one);
    launch(&run, step);
    for (int tries = 0; n_planned < 2 && tries < 50000; tries++) usleep(100);
    const int while_held = n_planned;
    is_held = false;
    take_ids(&run, batch, &ids);
    take_ids(&run, batch, &ids);
    qd_emu_set_replace(NULL);
    free(step);
    model_run_close(&run);
    qd_model_free(model);
    assert_int_equal(while_held, 2);
}

/* Ranks that warm up, record and replay together, in random schedules. */
static void ranks_record_together_in_any_order(void **state)
{
    (void)state;
    struct qd_device_stats stats;
    struct how how = {.tp = 2, .only = -1, .n_decodes = 2};
    struct ids want = generate(how, &stats);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct qd_emu_mode mode = qd_emu_default_mode();
        mode.schedule = QD_EMU_SCHEDULE_RANDOM;
        mode.arrival = QD_EMU_ARRIVAL_RANDOM;
        mode.seed = seed;
        qd_emu_set_mode(&mode);
        struct ids got = generate(how, &stats);
        for (int32_t s = 0; s < N_SEQS; s++) expect_same(&got, &want, s);
    }
    const struct qd_emu_mode usual = qd_emu_default_mode();
    qd_emu_set_mode(&usual);
}

/* Batch-invariant, a sequence alone, op by op, samples what it samples in recorded batches. */
static void a_batch_makes_no_difference(void **state)
{
    (void)state;
    struct qd_device_stats stats;
    struct how how = {.tp = 1, .batch_invariant = true, .only = -1, .n_decodes = 3};
    struct ids together = generate(how, &stats);
    assert_int_equal(stats.n_replayed_steps, how.n_decodes);
    how.enforce_eager = true;
    for (how.only = 0; how.only < N_SEQS; how.only++) {
        struct ids alone = generate(how, &stats);
        expect_same(&alone, &together, how.only);
    }
}

/* The warm-up launches every kernel that is recorded, needed or not. */
static void what_is_recorded_has_run_before(void **state)
{
    (void)state;
    struct qd_device_stats stats;
    struct how how = {.tp = 1, .only = 0};
    n_merges = 0;
    qd_emu_set_replace(count_merges);
    (void)generate(how, &stats);
    const int of_opening = n_merges;
    how.n_decodes = 1;
    (void)generate(how, &stats);
    qd_emu_set_replace(NULL);
    assert_true(of_opening > 0);
    assert_int_equal(n_merges, 3 * of_opening); /* of two openings and a replay */
}

static void opening_writes_to_no_page(void **state)
{
    (void)state;
    struct qd_device_ops ops = qd_emu_ops;
    ops.alloc = remembering_alloc;
    const struct run_options options = {
        .max_tokens = MAX_TOKENS, .max_logit_rows = 8, .max_model_len = MAX_LEN};
    qd_model_t *model = make_model("micro", &ops, 1);
    struct model_run run;
    pages = NULL;
    model_run_open(&run, model, &ops, &options);
    assert_true(page_bytes > 0);
    const unsigned char *bytes = pages;
    for (size_t i = 0; i < page_bytes; i++)
        if (bytes[i] != 0) fail_msg("byte %zu of %zu was written to", i, (size_t)page_bytes);
    model_run_close(&run);
    qd_model_free(model);
}

/* A table of what is recorded, by limits: vLLM's sizes, as far as decodes reach. */
static void sizes_are_vllms(void **state)
{
    (void)state;
    const struct {
        int32_t max_seqs, max_tokens, max_blocks;
        int n;
        int32_t first[5], last;
    } cases[] = {
        {1, 8, 8, 1, {1}, 1},
        {3, 8, 8, 3, {1, 2, 3}, 3},
        {8, 8, 8, 4, {1, 2, 4, 8}, 8},
        {20, 2048, 99, 6, {1, 2, 4, 8, 16}, 20},
        {128, 2048, 5000, 19, {1, 2, 4, 8, 16}, 128},
        {256, 2048, 5000, 35, {1, 2, 4, 8, 16}, 256},
        {1024, 8192, 50000, 51, {1, 2, 4, 8, 16}, 512},
        {1024, 264, 50000, 36, {1, 2, 4, 8, 16}, 264},
        {128, 2048, 12, 5, {1, 2, 4, 8, 12}, 12},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qd_cuda cuda = {.config.limits = {.max_tokens = cases[i].max_tokens,
                                                 .max_seqs = cases[i].max_seqs,
                                                 .max_blocks = cases[i].max_blocks,
                                                 .max_logit_rows = cases[i].max_seqs}};
        qd_cuda_graph_init(&cuda);
        assert_int_equal(cuda.graphs.n, cases[i].n);
        for (int g = 0; g < 5 && cases[i].first[g] > 0; g++)
            assert_int_equal(cuda.graphs.of[g].size, cases[i].first[g]);
        for (int g = 1; g < cuda.graphs.n; g++) {
            int32_t size = cuda.graphs.of[g].size, step = size - cuda.graphs.of[g - 1].size;
            assert_true(size == cases[i].last || size < 16 || step == (size <= 256 ? 8 : 16));
        }
        assert_int_equal(cuda.graphs.of[cuda.graphs.n - 1].size, cases[i].last);
        cuda.config.enforce_eager = true;
        qd_cuda_graph_init(&cuda);
        assert_int_equal(cuda.graphs.n, 0);
    }
}

/* What fails in the warm-up is a failure of opening, with its rank. */
static _Atomic int n_embeds_left;

static qd_status failing_embed(void *ctx, const struct qd_embed_args *args)
{
    if (n_embeds_left-- > 0) return qd_emu_ops.embed(ctx, args);
    return qd_fail(QD_ERR_INTERNAL, ((struct qd_cuda *)ctx)->text, QD_ERR_LEN, "planted");
}

static void a_failure_while_recording_ends_opening(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_device_ops ops = qd_emu_ops;
    ops.embed = failing_embed;
    n_embeds_left = N_GRAPHS + N_WARM_UP_RUNS + 1; /* the second recording */
    qd_model_t *model = make_model("micro", &ops, 1);
    struct qd_model_config config = *qd_model_get_config(model);
    struct qd_shard shard;
    ASSERT_OK(qd_shard_make(&config, 1, 0, &shard, err, sizeof err), err);
    const struct qd_step_limits limits = {
        .max_tokens = MAX_TOKENS, .max_seqs = 8, .max_blocks = 8, .max_logit_rows = 8};
    const struct qd_program_options options = {.n_kv_blocks = 8, .limits = limits};
    struct qd_program program;
    ASSERT_OK(qd_model_program(model, &options, &program, err, sizeof err), err);
    const struct qd_group_config group_config = {.ops = &ops,
                                                 .tp = 1,
                                                 .device = {.n_ranks = 1,
                                                            .shape = qd_shard_shape(&config, &shard),
                                                            .limits = limits,
                                                            .max_model_len = 64},
                                                 .vocab_size = (int32_t)config.vocab_size,
                                                 .program = program};
    qd_group_t *group;
    assert_int_equal(qd_group_open(&group_config, &group, err, sizeof err), QD_ERR_INTERNAL);
    ASSERT_CONTAINS(err, "replica 0 rank 0: open model: warm-up: step 7: planted");
    qd_model_program_free(&program);
    qd_model_free(model);
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
        cmocka_unit_test(two_steps_in_flight_sample_the_same),
        cmocka_unit_test(a_step_is_launched_while_another_runs),
        cmocka_unit_test(ranks_record_together_in_any_order),
        cmocka_unit_test(opening_writes_to_no_page),
        cmocka_unit_test(sizes_are_vllms),
        cmocka_unit_test(a_failure_while_recording_ends_opening),
    };
    return cmocka_run_group_tests_name("cuda_graph", tests, NULL, NULL);
}
