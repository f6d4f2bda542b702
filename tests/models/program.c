/* The forward pass as a program: what it refuses, and that it takes the memory that doctor announces. */
#include "tests/support/test.h"

#include "kernels/cpu/host/device.h"
#include "kernels/null/device.h"
#include "kernels/ref/ref.h"
#include "tests/support/model_run.h"

#define MODEL "tests/data/goldens/models/tied-gqa2-hd64"

enum { N_BLOCKS = 5 };

static bool no_logits; /* of the programs that are opened */
static const struct qd_step_limits limits = {
    .max_tokens = 48, .max_seqs = 4, .max_blocks = 8, .max_logit_rows = 7};

static void options_are_checked(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_program program;
    qd_model_t *model = load_model(MODEL, &qd_cpu_ops, 1);
    struct qd_program_options options = {.n_kv_blocks = 0, .limits = limits};
    assert_int_equal(qd_model_program(model, &options, &program, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "0 pages");
    options.n_kv_blocks = 1;
    options.limits.max_tokens = 0;
    assert_int_equal(qd_model_program(model, &options, &program, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "0 tokens");
    assert_null(program.user);
    qd_model_program_free(&program);
    qd_model_free(model);

    model = load_model(MODEL, &qd_null_ops, 1);
    options.limits = limits;
    assert_int_equal(qd_model_program(model, &options, &program, err, sizeof err), QD_ERR_ARGUMENT);
    ASSERT_CONTAINS(err, "without weights");
    qd_model_free(model);
}

static size_t n_allocated; /* a table's alloc has no other way to report */

static qd_status counting_alloc(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    n_allocated += bytes;
    return qd_cpu_ops.alloc(ctx, bytes, out, err, errlen);
}

/* Opens and closes a group of tp ranks over the model. */
static qd_status open_group(qd_model_t *model, const struct qd_device_ops *ops, int tp, int32_t n_blocks,
                            char *err, size_t errlen)
{
    const struct qd_model_config *config = qd_model_get_config(model);
    struct qd_program program;
    struct qd_program_options options = {.n_kv_blocks = n_blocks, .limits = limits, .no_logits = no_logits};
    struct qd_shard shard;
    ASSERT_OK(qd_shard_make(config, tp, 0, &shard, err, errlen), err);
    ASSERT_OK(qd_model_program(model, &options, &program, err, errlen), err);
    struct qd_group_config group_config = {
        .ops = ops,
        .tp = tp,
        .device = {.n_ranks = tp,
                   .shape = qd_shard_shape(config, &shard),
                   .limits = limits,
                   .max_model_len = n_blocks * QD_KV_BLOCK_SIZE},
        .vocab_size = (int32_t)config->vocab_size,
        .program = program,
    };
    qd_group_t *group;
    qd_status st = qd_group_open(&group_config, &group, err, errlen);
    qd_group_close(group);
    qd_model_program_free(&program);
    return st;
}

static void memory_is_what_was_announced(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_device_ops ops = qd_cpu_ops;
    ops.alloc = counting_alloc;
    qd_model_t *model = load_model(MODEL, &ops, 1);
    struct qd_memory_need need;
    ASSERT_OK(qd_memory_need(qd_model_get_config(model), 1, &ops, &limits, &need, err, sizeof err), err);
    for (int32_t n_blocks = 1; n_blocks <= N_BLOCKS; n_blocks += 4) {
        n_allocated = 0;
        ASSERT_OK(open_group(model, &ops, 1, n_blocks, err, sizeof err), err);
        size_t pool = need.kv_bytes_per_token * QD_KV_BLOCK_SIZE * (size_t)n_blocks;
        assert_int_equal(n_allocated, pool + need.activation_bytes + need.logit_bytes);
        no_logits = true;
        n_allocated = 0;
        ASSERT_OK(open_group(model, &ops, 1, n_blocks, err, sizeof err), err);
        assert_int_equal(n_allocated, pool + need.activation_bytes);
        no_logits = false;
    }
    qd_model_free(model);
}

static void logits_are_not_had_of_a_program_without(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    const struct run_options options = {
        .max_tokens = 8, .max_logit_rows = 8, .max_model_len = 32, .no_logits = true};
    const int32_t tokens[] = {1, 2, 3};
    const struct qd_forward forward = {.tokens = tokens, .n_tokens = 3, .chunk = 3};
    struct model_run run;
    qd_model_t *model = load_model(MODEL, &qd_ref_ops, 1);
    model_run_open(&run, model, &qd_ref_ops, &options);
    assert_int_equal(qd_forward_once(run.group, &run.limits, &forward, err, sizeof err), QD_ERR_RANK);
    ASSERT_CONTAINS(err, "step 0: logits are wanted, and the program was opened without");
    model_run_close(&run);
    qd_model_free(model);
}

static void a_rank_too_many_is_refused(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    qd_model_t *model = load_model(MODEL, &qd_cpu_ops, 1);
    assert_int_equal(open_group(model, &qd_cpu_ops, 2, 1, err, sizeof err), QD_ERR_ARGUMENT);
    assert_string_equal(err, "replica 0 rank 1: open model: the model was loaded for 1 ranks");
    qd_model_free(model);
}

static qd_status refusing_alloc(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    (void)ctx, (void)out;
    return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "cannot map %zu bytes", bytes);
}

static void a_refused_pool_is_reported(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_device_ops ops = qd_cpu_ops;
    ops.alloc = refusing_alloc;
    qd_model_t *model = load_model(MODEL, &ops, 1);
    assert_int_equal(open_group(model, &ops, 1, N_BLOCKS, err, sizeof err), QD_ERR_NO_MEMORY);
    /* 2 layers of K and V, 2 KV heads of 64 */
    assert_string_equal(err, "replica 0 rank 0: open model: KV pages: cannot map 81920 bytes");
    qd_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(memory_is_what_was_announced),
        cmocka_unit_test(logits_are_not_had_of_a_program_without),
        cmocka_unit_test(a_rank_too_many_is_refused),
        cmocka_unit_test(a_refused_pool_is_reported),
    };
    return cmocka_run_group_tests_name("program", tests, NULL, NULL);
}
