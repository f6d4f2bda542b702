/* Loading as a whole: options, statistics, progress, dummy weights, failures that leave nothing behind. */
#include "tests/support/test.h"

#include "models/dummy.h"
#include "models/weights.h"
#include "tests/support/files.h"
#include "tests/support/random_model.h"

static qd_model_t *load(const struct qd_model_options *options)
{
    qd_model_t *model;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_model_load(options, &model, err, sizeof err), err);
    return model;
}

static void refuse(const struct qd_model_options *options, qd_status expected, const char *why)
{
    qd_model_t *model = (qd_model_t *)(uintptr_t)1;
    char err[QD_ERR_LEN] = "";
    qd_status status = qd_model_load(options, &model, err, sizeof err);
    if (status != expected) fail_msg("%s: %s", qd_status_name(status), err);
    assert_null(model);
    ASSERT_CONTAINS(err, why);
}

/* What the progress callback saw. */
struct progress {
    int n_calls;
    uint64_t done, total;
};

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct progress *p = arg;
    assert_true(done >= p->done && done <= total);
    *p = (struct progress){p->n_calls + 1, done, total};
}

static void test_statistics_and_progress(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct temp_dir dir = temp_dir_create();
    struct progress progress = {0};
    write_model(dir.path, &config,
                &(struct model_files){.dtype = "F32", .n_shards = 2, .store_tied_head = true});
    struct qd_model_options options = {.dir = dir.path,
                                       .ops = &panel_ops,
                                       .tp = 2,
                                       .n_threads = 2,
                                       .progress = on_progress,
                                       .progress_arg = &progress};
    qd_model_t *model = load(&options);
    struct qd_load_stats stats = qd_model_load_stats(model);
    assert_int_equal(stats.file_bytes, 4 * qd_model_n_params(&config));
    assert_true(stats.duration_ns > 0);
    assert_true(progress.n_calls >= 1);
    assert_int_equal(progress.done, stats.file_bytes);
    assert_int_equal(progress.total, stats.file_bytes);
    assert_int_equal(qd_model_get_tp(model), 2);
    assert_int_equal(qd_model_get_config(model)->n_layers, 2);
    struct qd_rope rope = qd_model_get_rope(model);
    assert_true(rope.inv_freq[0] == 1.0f && rope.attention_scaling == 1.0f);
    qd_model_free(model);
    temp_dir_remove(&dir);
}

static void test_overflow_is_counted(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct temp_dir dir = temp_dir_create();
    struct tensor_file file = {0};
    for (int i = 0; i < qd_model_n_tensors(&config); i++) {
        struct qd_tensor_spec spec = qd_model_tensor(&config, i);
        char name[QD_TENSOR_NAME_LEN];
        int64_t dims[2] = {spec.rows, spec.cols}, n = spec.rows * spec.cols;
        float *data = calloc((size_t)n, sizeof *data);
        assert_non_null(data);
        data[n - 1] = i < 3 ? 3.4e38f : 3.3e38f; /* the largest bf16 is 3.39e38 */
        qd_tensor_name(&spec, name);
        bool norm = qd_tensor_is_norm(spec.role);
        tensor_file_add(&file, name, "F32", norm ? 1 : 2, norm ? dims + 1 : dims, data, (size_t)n * 4);
        free(data);
    }
    tensor_file_write(&file, in_dir(&dir, "model.safetensors"));
    write_config(dir.path, &config);
    for (int tp = 1; tp <= 8; tp *= 8) {
        struct qd_model_options options = {.dir = dir.path, .ops = &panel_ops, .tp = tp, .n_threads = 2};
        qd_model_t *model = load(&options);
        assert_int_equal(qd_model_load_stats(model).n_overflowed, 3);
        qd_model_free(model);
    }
    temp_dir_remove(&dir);
}

/* The same weights whatever the ranks and threads: compares rows of gate, wherever they lie. */
static void test_dummy_is_the_same_for_every_tp(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(false);
    struct qd_tensor_spec spec;
    for (int i = 0; (spec = qd_model_tensor(&config, i)).role != QD_TENSOR_GATE || spec.layer != 1; i++)
        continue;
    qd_bf16 *gate = malloc((size_t)(spec.rows * spec.cols) * sizeof *gate);
    assert_non_null(gate);
    qd_dummy_fill(&config, &spec, 42, 0, spec.rows * spec.cols, gate);
    for (int tp = 1; tp <= 8; tp *= 2) {
        struct qd_model_options options = {.config = &config,
                                           .load_format = QD_LOAD_DUMMY,
                                           .dummy_seed = 42,
                                           .ops = &panel_ops,
                                           .tp = tp,
                                           .n_threads = tp};
        qd_model_t *model = load(&options);
        assert_int_equal(qd_model_load_stats(model).file_bytes, 0);
        int64_t ffn = config.ffn_dim / tp;
        for (int64_t row = 0; row < config.ffn_dim; row++) {
            const struct qd_weight *w = &qd_model_rank_weights(model, (int)(row / ffn))->layers[1].gate_up;
            int64_t in_rank = row % ffn, at = in_rank / 8 * 16 + in_rank % 8;
            for (int64_t col = 0; col < spec.cols; col++)
                assert_int_equal(weight_at(w, at, col), gate[row * spec.cols + col]);
        }
        qd_model_free(model);
    }
    free(gate);
}

static void test_directory_with_dummy_weights(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct temp_dir dir = temp_dir_create();
    write_config(dir.path, &config); /* and no weights */
    struct qd_model_options options = {
        .dir = dir.path, .load_format = QD_LOAD_DUMMY, .ops = &panel_ops, .tp = 1};
    qd_model_t *model = load(&options);
    assert_non_null(qd_model_rank_weights(model, 0)->lm_head.data);
    qd_model_free(model);
    options.load_format = QD_LOAD_AUTO;
    refuse(&options, QD_ERR_NOT_FOUND, dir.path);
    temp_dir_remove(&dir);
}

static void test_device_that_does_not_execute(void **state)
{
    (void)state;
    struct qd_model_config config;
    char err[QD_ERR_LEN];
    struct qd_device_ops null_ops = {.name = "null", .executes = false};
    ASSERT_OK(qd_model_config_preset("32B", &config, err, sizeof err), err);
    struct qd_model_options options = {.config = &config, .ops = &null_ops, .tp = 8};
    qd_model_t *model = load(&options);
    assert_int_equal(qd_model_shard(model, 7)->n_heads, 8);
    assert_null(qd_model_rank_weights(model, 0));
    qd_model_free(model);
}

static void test_refusals(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct qd_model_options options = {.ops = &panel_ops, .tp = 1};
    refuse(&options, QD_ERR_ARGUMENT, "neither a model directory nor a configuration");
    options.config = &config;
    refuse(&options, QD_ERR_ARGUMENT, "only dummy weights");
    options.load_format = QD_LOAD_DUMMY;
    options.tp = 3;
    refuse(&options, QD_ERR_UNSUPPORTED, "do not divide by TP 3");
    options.tp = 9;
    refuse(&options, QD_ERR_ARGUMENT, "1 .. 8");
    options.tp = 1;
    config.hidden_dim = 1 << 20;
    config.ffn_dim = 1 << 22;
    config.n_layers = 64;
    refuse(&options, QD_ERR_DOES_NOT_FIT, "do not fit in this machine's");
    qd_model_free(NULL);
}

static qd_status failing_pack(void *data, int64_t n_rows, int64_t n_cols, char *err, size_t errlen)
{
    (void)data, (void)n_rows;
    return n_cols == 72 ? qd_fail(QD_ERR_NO_MEMORY, err, errlen, "pack says no") : QD_OK;
}

static void test_failures_in_threads_are_reported(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    struct qd_device_ops ops = panel_ops;
    ops.pack_weight = failing_pack;
    struct qd_model_options options = {
        .config = &config, .load_format = QD_LOAD_DUMMY, .ops = &ops, .tp = 1, .n_threads = 3};
    refuse(&options, QD_ERR_NO_MEMORY, "pack says no");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics_and_progress),
        cmocka_unit_test(test_overflow_is_counted),
        cmocka_unit_test(test_dummy_is_the_same_for_every_tp),
        cmocka_unit_test(test_directory_with_dummy_weights),
        cmocka_unit_test(test_device_that_does_not_execute),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_failures_in_threads_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
