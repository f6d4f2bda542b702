/* sample over vocabulary shards: every rank gets the ids, and keeps them, that one rank with the whole row
 * gets, wherever the shards are cut. */
#include <math.h>
#include <pthread.h>

#include "tests/support/devices.h"
#include "tests/support/memory.h"
#include "tests/support/steps.h"
#include "tests/support/test.h"

enum { MAX_WORLD = 4, N_ROWS = 24, N_VOCAB = 1031, N_STEPS = 3 };

/* What all ranks of a run share. */
struct run {
    const char *isa;
    int world;
    int64_t cuts[MAX_WORLD + 1]; /* rank r holds ids cuts[r] .. cuts[r+1]-1 */
    const float *logits;         /* [N_ROWS][N_VOCAB] */
    struct qd_step *step;
};

struct rank {
    const struct run *run;
    struct qd_bootstrap bootstrap;
    pthread_t thread;
    int32_t ids[N_ROWS], kept[N_ROWS];
    qd_status status;
};

static qd_status run_steps(struct rank *rank, struct qd_device device)
{
    const struct run *run = rank->run;
    const int64_t begin = run->cuts[rank->bootstrap.rank], n = run->cuts[rank->bootstrap.rank + 1] - begin;
    const struct qd_sample_args args = {.step = run->step,
                                        .logits = run->logits + begin,
                                        .ld = N_VOCAB,
                                        .vocab_begin = begin,
                                        .n_vocab = n,
                                        .vocab_size = N_VOCAB,
                                        .ids = rank->ids};
    for (int i = 0; i < N_STEPS; i++) QD_TRY(qd_device_sample(device, &args));

    /* What the slots hold shows in an embedding whose rows are their own ids. */
    qd_bf16 table[N_VOCAB], out[N_ROWS];
    int32_t source[N_ROWS];
    for (int32_t i = 0; i < N_VOCAB; i++) table[i] = (qd_bf16)i;
    for (int32_t i = 0; i < N_ROWS; i++) source[i] = -(i + 1);
    QD_TRY(qd_device_embed(device, &(struct qd_embed_args){.table = {table, N_VOCAB, 1, QD_LAYOUT_ROWS},
                                                           .token_source = source,
                                                           .n_tokens = N_ROWS,
                                                           .out = out}));
    for (int32_t i = 0; i < N_ROWS; i++) rank->kept[i] = out[i];
    return QD_OK;
}

static void *rank_main(void *arg)
{
    struct rank *rank = arg;
    const struct qd_device_config config = {
        .first_rank = rank->bootstrap.rank,
        .n_ranks = rank->run->world,
        .n_threads = 2 * rank->run->world,
        .cpu_isa = rank->run->isa,
        .shape = {.hidden_dim = 16,
                  .ffn_dim = 16,
                  .vocab_size = N_VOCAB,
                  .n_layers = 1,
                  .n_heads = 1,
                  .n_kv_heads = 1,
                  .head_dim = 16},
        .limits = {.max_tokens = 64, .max_seqs = 64, .max_blocks = 64, .max_logit_rows = 64},
        .max_model_len = 64};
    struct qd_device device = {.ops = qd_device_find("cpu")};
    rank->status = device.ops->open(&config, &rank->bootstrap, &device.ctx, NULL, 0);
    if (rank->status != QD_OK) {
        rank->bootstrap.abort(rank->bootstrap.ctx, rank->bootstrap.rank, "open", "no device");
        return NULL;
    }
    rank->status = run_steps(rank, device);
    rank->bootstrap.barrier(rank->bootstrap.ctx, rank->bootstrap.rank, NULL, 0);
    device.ops->close(device.ctx);
    return NULL;
}

static void run_ranks(const struct run *run, struct rank *ranks)
{
    char err[QD_ERR_LEN] = "";
    qd_thread_bootstrap_t *bootstrap;
    ASSERT_OK(qd_thread_bootstrap_create(run->world, &bootstrap, err, sizeof err), err);
    for (int r = 0; r < run->world; r++) {
        ranks[r] = (struct rank){.run = run, .bootstrap = qd_thread_bootstrap_rank(bootstrap, r)};
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, rank_main, &ranks[r]), 0);
    }
    for (int r = 0; r < run->world; r++) assert_int_equal(pthread_join(ranks[r].thread, NULL), 0);
    qd_thread_bootstrap_destroy(bootstrap);
    for (int r = 0; r < run->world; r++) assert_int_equal(ranks[r].status, QD_OK);
}

/* Rows of every kind: ties across shards, NaN, all -inf, one far above; greedy and sampled in turn. */
static struct qd_step *fill(float *logits)
{
    struct qd_sampling sampling[N_ROWS];
    random_f32(logits, (size_t)N_ROWS * N_VOCAB, 5, 4);
    for (int32_t r = 0; r < N_ROWS; r++) {
        float *row = logits + r * N_VOCAB;
        for (int32_t i = 0; i < N_VOCAB; i++) {
            if (r % 6 == 1) row[i] = roundf(row[i]);
            if (r % 6 == 2 && i % 3 > 0) row[i] = NAN;
            if (r % 6 == 3) row[i] = -INFINITY;
        }
        if (r % 6 == 4) row[N_VOCAB - 1] = 90;
        sampling[r] = (struct qd_sampling){.temperature = (float)(r / 6) * 0.5f,
                                           .top_p = r / 6 == 2 ? 0.8f : 1,
                                           .top_k = r / 6 == 3 ? 40 : 0,
                                           .slot = r,
                                           .seed = 11,
                                           .output_index = (uint64_t)r};
    }
    return new_sampling_step(sampling, N_ROWS);
}

static void shards_do_not_matter(void **state)
{
    static const struct run cuts[] = {{.world = 2, .cuts = {0, 576, N_VOCAB}},
                                      {.world = 2, .cuts = {0, 1, N_VOCAB}},
                                      {.world = 3, .cuts = {0, 1024, N_VOCAB, N_VOCAB}},
                                      {.world = 4, .cuts = {0, 320, 640, 960, N_VOCAB}}};
    need_isa(*state);
    float *logits = malloc((size_t)N_ROWS * N_VOCAB * sizeof *logits);
    assert_non_null(logits);
    struct run alone = {*state, 1, {0, N_VOCAB}, logits, fill(logits)};
    struct rank want, got[MAX_WORLD];
    run_ranks(&alone, &want);
    assert_memory_equal(want.ids, want.kept, sizeof want.ids);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct run run = cuts[i];
        run.isa = *state;
        run.logits = logits;
        run.step = alone.step;
        run_ranks(&run, got);
        for (int r = 0; r < run.world; r++) {
            for (int32_t row = 0; row < N_ROWS; row++) {
                if (got[r].ids[row] != want.ids[row] || got[r].kept[row] != want.ids[row])
                    fail_msg("cut %zu, rank %d, row %d: got %d, kept %d, want %d", i, r, row, got[r].ids[row],
                             got[r].kept[row], want.ids[row]);
            }
        }
    }
    free(alone.step);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {EVERY_ISA(shards_do_not_matter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
