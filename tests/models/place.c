/* Weights in a device's own memory: whatever way they come, they are those that the host arranges, rank by
 * rank; files are read once, staging stays small, and a failure leaves nothing. */
#include "kernels/ref/ref.h"
#include "models/weights.h"
#include "tests/support/fake_store.h"
#include "tests/support/files.h"
#include "tests/support/random_model.h"
#include "tests/support/test.h"

enum { N_READERS = 3, MAX_CHUNK_BYTES = 4 << 20 };

/* TP 1 to 8; gate and up are larger than one chunk of 4 MiB as F32, and no multiple of it. */
static struct qd_model_config wide_config(bool tied)
{
    struct qd_model_config config = small_config(tied);
    config.hidden_dim = 264;
    config.n_heads = config.n_kv_heads = 8;
    config.head_dim = 16;
    config.ffn_dim = 8 * 1048;
    config.n_layers = 2;
    return config;
}

static qd_model_t *load(const struct qd_model_options *options)
{
    qd_model_t *model;
    char err[QD_ERR_LEN] = "";
    ASSERT_OK(qd_model_load(options, &model, err, sizeof err), err);
    return model;
}

static void same_weight(const char *what, const struct qd_weight *got, const struct qd_weight *want)
{
    assert_int_equal(got->n_rows, want->n_rows);
    assert_int_equal(got->n_cols, want->n_cols);
    assert_int_equal(got->data == NULL, want->data == NULL);
    size_t n_bytes = (size_t)(want->n_rows * want->n_cols) * sizeof(qd_bf16);
    if (want->data != NULL && memcmp(got->data, want->data, n_bytes) != 0) fail_msg("%s differs", what);
}

static void same_rank(const struct qd_model_config *config, const struct qd_rank_weights *got,
                      const struct qd_rank_weights *want)
{
    size_t hidden = (size_t)config->hidden_dim * sizeof(qd_bf16),
           hd = (size_t)config->head_dim * sizeof(qd_bf16);
    same_weight("embedding", &got->embedding, &want->embedding);
    same_weight("lm_head", &got->lm_head, &want->lm_head);
    assert_memory_equal(got->final_norm, want->final_norm, hidden);
    for (int32_t layer = 0; layer < config->n_layers; layer++) {
        const struct qd_layer_weights *a = &got->layers[layer], *b = &want->layers[layer];
        assert_memory_equal(a->input_norm, b->input_norm, hidden);
        assert_memory_equal(a->post_norm, b->post_norm, hidden);
        assert_memory_equal(a->q_norm, b->q_norm, hd);
        assert_memory_equal(a->k_norm, b->k_norm, hd);
        same_weight("qkv", &a->qkv, &b->qkv);
        same_weight("o", &a->o, &b->o);
        same_weight("gate_up", &a->gate_up, &b->gate_up);
        same_weight("down", &a->down, &b->down);
    }
}

/* Every rank of every replica against the arena that the host arranges from the same options. */
static void same_as_on_the_host(struct qd_model_options options)
{
    options.ops = &qd_ref_ops;
    qd_model_t *host = load(&options);
    options.ops = &fake_store_ops;
    qd_model_t *model = load(&options);
    int n_ranks = options.tp * (options.dp > 0 ? options.dp : 1);
    for (int rank = 0; rank < n_ranks; rank++)
        same_rank(qd_model_get_config(model), qd_model_rank_weights(model, rank),
                  qd_model_rank_weights(host, rank % options.tp));
    assert_int_equal(fake_stores.staging_bytes, 0);
    assert_true(fake_stores.max_staging_bytes <= (size_t)2 * N_READERS * MAX_CHUNK_BYTES);
    qd_model_free(model);
    qd_model_free(host);
    assert_int_equal(fake_stores.n_open, 0);
}

static void files_go_to_stores(void **state)
{
    (void)state;
    static const char *const dtypes[] = {"F32", "BF16"};
    for (int tied = 0; tied < 2; tied++) {
        struct qd_model_config config = wide_config(tied);
        struct temp_dir dir = temp_dir_create();
        write_model(dir.path, &config, &(struct model_files){.dtype = dtypes[tied], .n_shards = 2});
        for (int tp = 1; tp <= 8; tp *= 2) {
            fake_stores_reset(8);
            same_as_on_the_host((struct qd_model_options){.dir = dir.path, .tp = tp, .n_threads = N_READERS});
        }
        temp_dir_remove(&dir);
    }
}

static void devices_draw_the_hosts_dummy_weights(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        struct qd_model_config config = wide_config(tied);
        for (int tp = 1; tp <= 8; tp *= 8) {
            fake_stores_reset(8);
            same_as_on_the_host((struct qd_model_options){.config = &config,
                                                          .load_format = QD_LOAD_DUMMY,
                                                          .dummy_seed = 7,
                                                          .tp = tp,
                                                          .n_threads = N_READERS});
            assert_true(fake_stores.n_copies <=
                        tp * qd_model_n_tensors(&config) / 2); /* norms alone travel */
        }
    }
}

/* Replicas on one device share its store; a file is read once whoever wants it. */
static void replicas_share_what_is_on_their_device(void **state)
{
    (void)state;
    struct qd_model_config config = wide_config(true);
    struct temp_dir dir = temp_dir_create();
    write_model(dir.path, &config, &(struct model_files){.dtype = "BF16"});
    static const struct {
        int n_devices, ranks_per_gpu, tp, dp, n_stores;
    } cases[] = {{1, 3, 1, 3, 1}, {2, 2, 1, 3, 2}, {4, 0, 2, 2, 4}, {2, 3, 2, 3, 4}, {8, 1, 2, 2, 4}, {1, 2, 2, 1, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_stores_reset(cases[i].n_devices);
        struct qd_model_options options = {.dir = dir.path,
                                           .ops = &fake_store_ops,
                                           .tp = cases[i].tp,
                                           .dp = cases[i].dp,
                                           .ranks_per_gpu = cases[i].ranks_per_gpu,
                                           .n_threads = N_READERS};
        qd_model_t *model = load(&options);
        struct qd_load_stats stats = qd_model_load_stats(model);
        assert_int_equal(fake_stores.n_open, cases[i].n_stores);
        assert_int_equal(stats.file_bytes, 2 * qd_model_n_params(&config));
        int n_ranks = cases[i].tp * cases[i].dp;
        assert_int_equal(stats.n_devices, cases[i].n_devices < n_ranks ? cases[i].n_devices : n_ranks);
        /* Each store has its part of every tensor and all of what ranks share. */
        assert_true(stats.copied_bytes >=
                    stats.file_bytes * (uint64_t)cases[i].n_stores / (uint64_t)cases[i].tp);
        assert_true(stats.copied_bytes <= fake_stores.opened_bytes);
        assert_true(stats.copy_ns > 0 && stats.read_ns > 0 && stats.read_ns <= stats.duration_ns);
        qd_model_free(model);
        same_as_on_the_host(options);
    }
    temp_dir_remove(&dir);
}

static void a_broken_link_ends_the_load(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "";
    struct qd_model_config config = wide_config(true);
    struct temp_dir dir = temp_dir_create();
    write_model(dir.path, &config, &(struct model_files){.dtype = "BF16"});
    for (int fail_copy = 1; fail_copy <= 5; fail_copy += 4) {
        fake_stores_reset(2);
        fake_stores.fail_copy = fail_copy;
        struct qd_model_options options = {
            .dir = dir.path, .ops = &fake_store_ops, .tp = 2, .n_threads = N_READERS};
        qd_model_t *model;
        assert_int_equal(qd_model_load(&options, &model, err, sizeof err), QD_ERR_ENVIRONMENT);
        ASSERT_CONTAINS(err, "the fake link broke");
        assert_null(model);
        assert_int_equal(fake_stores.n_open + (int)fake_stores.staging_bytes, 0);
    }
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_go_to_stores),
        cmocka_unit_test(devices_draw_the_hosts_dummy_weights),
        cmocka_unit_test(replicas_share_what_is_on_their_device),
        cmocka_unit_test(a_broken_link_ends_the_load),
    };
    return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
