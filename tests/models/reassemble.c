/* The arranged weights of all ranks, put together again, are the model's tensors bit for bit. The inverse is
 * written from the layout's definition (models/shard.h) and shares no code with the arranger. */
#include "tests/support/test.h"

#include "models/weights.h"
#include "tests/support/files.h"
#include "tests/support/random_model.h"

/* A model under test and which of its elements some rank was seen to hold. */
struct check {
    const struct qd_model_config *config;
    const qd_model_t *model;
    int *tensor_of;     /* [layer + 1][role] */
    qd_bf16 **expected; /* [n_tensors][rows * cols] */
    unsigned char **seen;
};

/* tensor[row][col] must be `got`. */
static void expect(struct check *c, enum qd_tensor_role role, int32_t layer, int64_t row, int64_t col,
                   qd_bf16 got)
{
    int tensor = c->tensor_of[(layer + 1) * QD_N_TENSOR_ROLES + (int)role];
    int64_t i = row * qd_model_tensor(c->config, tensor).cols + col;
    if (c->expected[tensor][i] != got)
        fail_msg("role %d, layer %d, [%d][%d]: %04x, not %04x", (int)role, layer, (int)row, (int)col, got,
                 c->expected[tensor][i]);
    c->seen[tensor][i] = 1;
}

static void check_qkv(struct check *c, int rank, int32_t layer)
{
    const struct qd_weight *w = &qd_model_rank_weights(c->model, rank)->layers[layer].qkv;
    int tp = qd_model_get_tp(c->model), hd = c->config->head_dim, n_kv = c->config->n_kv_heads;
    int64_t q_dim = c->config->n_heads / tp * hd, kv_dim = (tp > n_kv ? 1 : n_kv / tp) * hd;
    int64_t kv_begin = (int64_t)rank * n_kv / tp * hd;
    assert_int_equal(w->n_rows, q_dim + 2 * kv_dim);
    for (int64_t row = 0; row < w->n_rows; row++) {
        for (int64_t col = 0; col < w->n_cols; col++) {
            qd_bf16 got = weight_at(w, row, col);
            if (row < q_dim)
                expect(c, QD_TENSOR_Q, layer, rank * q_dim + row, col, got);
            else if (row < q_dim + kv_dim)
                expect(c, QD_TENSOR_K, layer, kv_begin + row - q_dim, col, got);
            else
                expect(c, QD_TENSOR_V, layer, kv_begin + row - q_dim - kv_dim, col, got);
        }
    }
}

/* Rows run 8 gate, 8 up, 8 gate, ..., at the end n gate, n up. */
static void check_gate_up(struct check *c, int rank, int32_t layer)
{
    const struct qd_weight *w = &qd_model_rank_weights(c->model, rank)->layers[layer].gate_up;
    int64_t ffn = c->config->ffn_dim / qd_model_get_tp(c->model), row = 0;
    assert_int_equal(w->n_rows, 2 * ffn);
    for (int64_t done = 0; done < ffn; done += 8) {
        int64_t n = ffn - done < 8 ? ffn - done : 8;
        for (int part = 0; part < 2; part++)
            for (int64_t i = 0; i < n; i++, row++)
                for (int64_t col = 0; col < w->n_cols; col++)
                    expect(c, part == 0 ? QD_TENSOR_GATE : QD_TENSOR_UP, layer, rank * ffn + done + i, col,
                           weight_at(w, row, col));
    }
    assert_int_equal(row, w->n_rows);
}

static void check_columns(struct check *c, const struct qd_weight *w, enum qd_tensor_role role, int rank,
                          int32_t layer)
{
    assert_int_equal(w->n_rows, c->config->hidden_dim);
    for (int64_t row = 0; row < w->n_rows; row++)
        for (int64_t col = 0; col < w->n_cols; col++)
            expect(c, role, layer, row, rank * w->n_cols + col, weight_at(w, row, col));
}

static void check_norm(struct check *c, enum qd_tensor_role role, int32_t layer, const qd_bf16 *norm,
                       int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        expect(c, role, layer, 0, i, norm[i]);
}

static void check_padding(const struct qd_weight *w)
{
    if (w->data == NULL || w->layout == QD_LAYOUT_ROWS) return;
    for (int64_t row = w->n_rows; row % 16 != 0; row++)
        for (int64_t col = 0; col < w->n_cols; col++)
            assert_int_equal(weight_at(w, row, col), 0);
}

static void check_layer(struct check *c, int rank, int32_t layer)
{
    const struct qd_layer_weights *w = &qd_model_rank_weights(c->model, rank)->layers[layer];
    check_qkv(c, rank, layer);
    check_gate_up(c, rank, layer);
    check_columns(c, &w->o, QD_TENSOR_O, rank, layer);
    check_columns(c, &w->down, QD_TENSOR_DOWN, rank, layer);
    check_norm(c, QD_TENSOR_INPUT_NORM, layer, w->input_norm, c->config->hidden_dim);
    check_norm(c, QD_TENSOR_POST_NORM, layer, w->post_norm, c->config->hidden_dim);
    check_norm(c, QD_TENSOR_Q_NORM, layer, w->q_norm, c->config->head_dim);
    check_norm(c, QD_TENSOR_K_NORM, layer, w->k_norm, c->config->head_dim);
    check_padding(&w->qkv);
    check_padding(&w->o);
    check_padding(&w->gate_up);
    check_padding(&w->down);
}

static void check_vocabulary(struct check *c, int rank)
{
    const struct qd_rank_weights *w = qd_model_rank_weights(c->model, rank);
    const struct qd_shard *shard = qd_model_shard(c->model, rank);
    bool tied = c->config->tie_word_embeddings;
    assert_int_equal(w->embedding.layout, tied ? QD_LAYOUT_PACKED : QD_LAYOUT_ROWS);
    assert_int_equal(w->embedding.n_rows, c->config->vocab_size);
    assert_ptr_equal(w->embedding.data, qd_model_rank_weights(c->model, 0)->embedding.data);
    for (int64_t row = 0; row < w->embedding.n_rows; row++)
        for (int64_t col = 0; col < w->embedding.n_cols; col++)
            expect(c, QD_TENSOR_EMBEDDING, -1, row, col, weight_at(&w->embedding, row, col));
    assert_int_equal(w->lm_head.n_rows, shard->vocab_count);
    assert_int_equal(w->lm_head.layout, QD_LAYOUT_PACKED);
    if (shard->vocab_count == 0) assert_null(w->lm_head.data);
    for (int64_t row = 0; row < w->lm_head.n_rows; row++)
        for (int64_t col = 0; col < w->lm_head.n_cols; col++)
            expect(c, tied ? QD_TENSOR_EMBEDDING : QD_TENSOR_LM_HEAD, -1, rank * shard->vocab_rows + row, col,
                   weight_at(&w->lm_head, row, col));
    check_padding(&w->embedding);
    if (shard->vocab_begin + shard->vocab_count == c->config->vocab_size) check_padding(&w->lm_head);
}

/* Every rank holds what it should, and the ranks together hold everything. */
static void check_model(struct check *c)
{
    for (int rank = 0; rank < qd_model_get_tp(c->model); rank++) {
        check_vocabulary(c, rank);
        check_norm(c, QD_TENSOR_FINAL_NORM, -1, qd_model_rank_weights(c->model, rank)->final_norm,
                   c->config->hidden_dim);
        for (int32_t layer = 0; layer < c->config->n_layers; layer++)
            check_layer(c, rank, layer);
    }
    for (int i = 0; i < qd_model_n_tensors(c->config); i++) {
        struct qd_tensor_spec spec = qd_model_tensor(c->config, i);
        assert_null(memchr(c->seen[i], 0, (size_t)(spec.rows * spec.cols)));
    }
}

static struct check check_begin(const struct qd_model_config *config)
{
    int n = qd_model_n_tensors(config);
    struct check c = {.config = config};
    c.expected = calloc((size_t)n, sizeof *c.expected);
    c.seen = calloc((size_t)n, sizeof *c.seen);
    c.tensor_of = calloc((size_t)(config->n_layers + 1) * QD_N_TENSOR_ROLES, sizeof *c.tensor_of);
    assert_true(c.expected != NULL && c.seen != NULL && c.tensor_of != NULL);
    for (int i = 0; i < n; i++) {
        struct qd_tensor_spec spec = qd_model_tensor(config, i);
        int64_t size = spec.rows * spec.cols;
        c.tensor_of[(spec.layer + 1) * QD_N_TENSOR_ROLES + (int)spec.role] = i;
        c.expected[i] = calloc((size_t)size, sizeof **c.expected);
        c.seen[i] = calloc((size_t)size, 1);
        assert_true(c.expected[i] != NULL && c.seen[i] != NULL);
        for (int64_t k = 0; k < size; k++)
            c.expected[i][k] = qd_bf16_from_f32(random_weight(i, k));
    }
    return c;
}

static void check_end(struct check *c)
{
    for (int i = 0; i < qd_model_n_tensors(c->config); i++) {
        free(c->expected[i]);
        free(c->seen[i]);
    }
    free(c->expected);
    free(c->seen);
    free(c->tensor_of);
}

/* Loads what is in `dir` for `tp` ranks with `n_threads` readers and checks every element. */
static void load_and_check(const char *dir, const struct qd_model_config *config, int tp, int n_threads)
{
    struct qd_model_options options = {.dir = dir, .ops = &panel_ops, .tp = tp, .n_threads = n_threads};
    qd_model_t *model;
    char err[QD_ERR_LEN];
    ASSERT_OK(qd_model_load(&options, &model, err, sizeof err), err);
    struct check c = check_begin(config);
    c.model = model;
    check_model(&c);
    check_end(&c);
    assert_int_equal(qd_model_load_stats(model).n_overflowed, 0);
    qd_model_free(model);
}

static void write_and_check(const struct qd_model_config *config, const struct model_files *files, int max_tp)
{
    struct temp_dir dir = temp_dir_create();
    write_model(dir.path, config, files);
    for (int tp = 1; tp <= max_tp; tp *= 2)
        load_and_check(dir.path, config, tp, 1 + tp % 3);
    temp_dir_remove(&dir);
}

/* Heads as in the preset, everything else 1/64 or small. */
static void test_preset_ratios(void **state)
{
    (void)state;
    for (int i = 0; qd_model_preset_name(i) != NULL; i++) {
        struct qd_model_config config;
        char err[QD_ERR_LEN];
        ASSERT_OK(qd_model_config_preset(qd_model_preset_name(i), &config, err, sizeof err), err);
        if (i < 6) config.ffn_dim /= 64;
        config.hidden_dim /= 128;
        config.vocab_size = config.vocab_size / 256 + 1;
        config.head_dim = 2;
        config.n_layers = 1;
        write_and_check(&config, &(struct model_files){.dtype = "BF16", .n_shards = i % 3}, 8);
    }
}

static void test_odd_shapes(void **state)
{
    (void)state;
    struct qd_model_config tied = small_config(true), untied = small_config(false);
    /* ffn 72: 9 rows a rank at TP 8; vocabulary 131: at TP 4 and 8 the last shards are empty */
    write_and_check(&tied, &(struct model_files){.dtype = "BF16", .n_shards = 3}, 8);
    write_and_check(&untied, &(struct model_files){.dtype = "BF16"}, 8);
    tied.ffn_dim = 8;
    tied.vocab_size = 1;
    tied.hidden_dim = 3;
    write_and_check(&tied, &(struct model_files){.dtype = "BF16"}, 8);
    untied.vocab_size = 64;
    untied.n_heads = untied.n_kv_heads = 8;
    write_and_check(&untied, &(struct model_files){.dtype = "BF16", .n_shards = 2}, 8);
}

static void test_other_dtypes(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(false);
    write_and_check(&config, &(struct model_files){.dtype = "F16", .n_shards = 2}, 2);
    write_and_check(&config, &(struct model_files){.dtype = "F32"}, 2);
}

/* Rows of more bytes than a chunk, and tensors of several chunks. */
static void test_chunks(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    config.hidden_dim = 300000;
    config.ffn_dim = 2;
    config.vocab_size = 5;
    config.n_heads = config.n_kv_heads = 1;
    config.head_dim = 2;
    config.n_layers = 1;
    write_and_check(&config, &(struct model_files){.dtype = "F32"}, 1);
    config.hidden_dim = 2;
    config.vocab_size = 700001;
    write_and_check(&config, &(struct model_files){.dtype = "BF16"}, 1);
}

static void test_stored_head_of_a_tied_model(void **state)
{
    (void)state;
    struct qd_model_config config = small_config(true);
    write_and_check(&config, &(struct model_files){.dtype = "BF16", .store_tied_head = true}, 1);
    write_and_check(&config, &(struct model_files){.dtype = "BF16", .n_shards = 2, .store_tied_head = true},
                    1);
    write_and_check(
        &config,
        &(struct model_files){.dtype = "F32", .extra = "model.layers.0.self_attn.rotary_emb.inv_freq"}, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preset_ratios),
        cmocka_unit_test(test_odd_shapes),
        cmocka_unit_test(test_other_dtypes),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_stored_head_of_a_tied_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
