#include "tests/support/model_run.h"

#include "kernels/base/size.h"
#include "tests/support/test.h"

qd_model_t *load_model(const char *dir, const struct qd_device_ops *ops, int tp)
{
    char err[QD_ERR_LEN] = "";
    struct qd_model_options options = {.dir = dir, .ops = ops, .tp = tp, .n_threads = 2};
    qd_model_t *model;
    ASSERT_OK(qd_model_load(&options, &model, err, sizeof err), err);
    return model;
}

qd_model_t *make_model(const char *preset, const struct qd_device_ops *ops, int tp)
{
    return make_model_on(preset, ops, tp, 1);
}

qd_model_t *make_model_on(const char *preset, const struct qd_device_ops *ops, int tp, int ranks_per_gpu)
{
    char err[QD_ERR_LEN] = "";
    struct qd_model_config config;
    ASSERT_OK(qd_model_config_preset(preset, &config, err, sizeof err), err);
    struct qd_model_options options = {
        .config = &config, .load_format = QD_LOAD_DUMMY, .ops = ops, .tp = tp, .ranks_per_gpu = ranks_per_gpu, .n_threads = 2};
    qd_model_t *model;
    ASSERT_OK(qd_model_load(&options, &model, err, sizeof err), err);
    return model;
}

void model_run_configure(struct model_run *run, qd_model_t *model, const struct qd_device_ops *ops,
                         const struct run_options *options, struct qd_group_config *group)
{
    char err[QD_ERR_LEN] = "";
    const struct qd_model_config *config = qd_model_get_config(model);
    int32_t n_blocks = (int32_t)qd_div_up(options->max_model_len, QD_KV_BLOCK_SIZE);
    struct qd_shard shard;
    *run = (struct model_run){
        .limits = {.max_tokens = options->max_tokens,
                   .max_seqs = 8,
                   .max_blocks = n_blocks,
                   .max_logit_rows = options->max_logit_rows},
    };
    struct qd_program_options program = {.n_kv_blocks = n_blocks,
                                         .limits = run->limits,
                                         .numerics = options->numerics,
                                         .no_logits = options->no_logits};
    ASSERT_OK(qd_model_program(model, &program, &run->program, err, sizeof err), err);
    int tp = qd_model_get_tp(model);
    ASSERT_OK(qd_shard_make(config, tp, 0, &shard, err, sizeof err), err);
    *group = (struct qd_group_config){
        .ops = ops,
        .tp = tp,
        .device = {.n_ranks = tp,
                   .n_threads = options->n_threads,
                   .cpu_isa = options->isa,
                   .numerics = options->numerics,
                   .shape = qd_shard_shape(config, &shard),
                   .limits = run->limits,
                   .max_model_len = options->max_model_len,
                   .enforce_eager = options->enforce_eager,
                   .batch_invariant = options->batch_invariant,
                   .device_timing = options->device_timing,
                   .collectives = options->collectives,
                   .ranks_per_gpu = options->ranks_per_gpu},
        .vocab_size = (int32_t)config->vocab_size,
        .program = run->program,
    };
}

void model_run_open(struct model_run *run, qd_model_t *model, const struct qd_device_ops *ops,
                    const struct run_options *options)
{
    char err[QD_ERR_LEN] = "";
    struct qd_group_config group;
    model_run_configure(run, model, ops, options, &group);
    ASSERT_OK(qd_group_open(&group, &run->group, err, sizeof err), err);
}

void model_run_close(struct model_run *run)
{
    qd_group_close(run->group);
    qd_model_program_free(&run->program);
}

void model_run_forward(struct model_run *run, const struct qd_forward *forward)
{
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_forward_once(run->group, &run->limits, forward, err, sizeof err), err);
}

struct copy {
    float *to;
    size_t vocab_size;
};

static void copy_row(void *arg, int32_t position, int32_t id, const float *logits)
{
    (void)id;
    struct copy *copy = arg;
    memcpy(copy->to + (size_t)position * copy->vocab_size, logits, copy->vocab_size * sizeof(float));
}

float *model_run_logits(struct model_run *run, const int32_t *tokens, int32_t n_tokens, int32_t chunk,
                        int32_t vocab_size)
{
    struct copy copy = {.vocab_size = (size_t)vocab_size};
    copy.to = calloc((size_t)n_tokens * copy.vocab_size, sizeof(float));
    assert_non_null(copy.to);
    struct qd_forward forward = {
        .tokens = tokens, .n_tokens = n_tokens, .chunk = chunk, .row = copy_row, .arg = &copy};
    model_run_forward(run, &forward);
    return copy.to;
}

float *micro_logits(const struct qd_device_ops *ops, int tp, const struct run_options *options,
                    const char *collectives, const char *note)
{
    int32_t tokens[MICRO_TOKENS];
    for (int32_t i = 0; i < MICRO_TOKENS; i++) tokens[i] = (101 * i + 7) % MICRO_VOCAB;
    struct model_run run;
    qd_model_t *model = make_model("micro", ops, tp);
    model_run_open(&run, model, ops, options);
    if (collectives != NULL) assert_string_equal(qd_group_collectives(run.group), collectives);
    if (note != NULL) ASSERT_CONTAINS(qd_group_note(run.group), note);
    float *logits = model_run_logits(&run, tokens, MICRO_TOKENS, 18, MICRO_VOCAB);
    model_run_close(&run);
    qd_model_free(model);
    return logits;
}
