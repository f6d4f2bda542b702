#include "tests/support/random_model.h"

#include "kernels/base/random.h"
#include "kernels/base/size.h"
#include "tests/support/files.h"
#include "tests/support/test.h"

enum { PANEL = 16 };

struct qd_model_config small_config(bool tied)
{
    return (struct qd_model_config){
        .name = "small",
        .hidden_dim = 40,
        .ffn_dim = 72,
        .vocab_size = 131,
        .n_layers = 2,
        .n_heads = 8,
        .n_kv_heads = 2,
        .head_dim = 6,
        .rms_norm_eps = 1e-6,
        .rope_theta = 1e6,
        .tie_word_embeddings = tied,
        .max_position_embeddings = 64,
        .max_context = 64,
    };
}

float random_weight(int tensor, int64_t i)
{
    uint32_t word = qd_philox(99, (uint64_t)tensor, (uint64_t)i).word[0];
    return ((float)(word % 255) - 127.0f) * 0x1p-6f;
}

void write_config(const char *dir, const struct qd_model_config *config)
{
    char path[512], text[1024];
    snprintf(path, sizeof path, "%s/config.json", dir);
    snprintf(text, sizeof text,
             "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"hidden_size\":%lld,"
             "\"intermediate_size\":%lld,\"vocab_size\":%lld,\"num_hidden_layers\":%d,"
             "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,\"rms_norm_eps\":%g,"
             "\"rope_theta\":%g,\"tie_word_embeddings\":%s,\"max_position_embeddings\":%lld}",
             (long long)config->hidden_dim, (long long)config->ffn_dim, (long long)config->vocab_size,
             config->n_layers, config->n_heads, config->n_kv_heads, config->head_dim, config->rms_norm_eps,
             config->rope_theta, config->tie_word_embeddings ? "true" : "false",
             (long long)config->max_position_embeddings);
    write_text(path, text);
}

/* A value that is a multiple of 1/64 below 2 is a normal or zero half. */
static uint16_t half_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) == 0) return (uint16_t)(bits >> 16);
    return (uint16_t)((bits >> 16 & 0x8000u) | (((bits >> 23 & 0xffu) - 112) << 10) | (bits >> 13 & 0x3ffu));
}

static size_t encode(const char *dtype, float value, unsigned char *out)
{
    uint16_t half = strcmp(dtype, "F16") == 0 ? half_from_f32(value) : qd_bf16_from_f32(value);
    if (strcmp(dtype, "F32") != 0) {
        memcpy(out, &half, sizeof half);
        return sizeof half;
    }
    memcpy(out, &value, sizeof value);
    return sizeof value;
}

static void add_tensor(struct tensor_file *file, const char *name, const struct qd_tensor_spec *spec,
                       int tensor, const char *dtype)
{
    int64_t dims[2] = {spec->rows, spec->cols}, n = spec->rows * spec->cols;
    unsigned char *data = malloc((size_t)n * 4);
    size_t used = 0;
    assert_non_null(data);
    for (int64_t i = 0; i < n; i++)
        used += encode(dtype, random_weight(tensor, i), data + used);
    bool is_norm = qd_tensor_is_norm(spec->role);
    tensor_file_add(file, name, dtype, is_norm ? 1 : 2, is_norm ? dims + 1 : dims, data, used);
    free(data);
}

/* The name under which the file holds it. */
static void stored_name(const struct qd_tensor_spec *spec, const struct model_files *files,
                        char name[QD_TENSOR_NAME_LEN])
{
    qd_tensor_name(spec, name);
    if (files->rename != NULL && strcmp(name, files->rename) == 0)
        snprintf(name, QD_TENSOR_NAME_LEN, "%s", files->renamed);
    if (files->drop_prefix && strncmp(name, "model.", 6) == 0) memmove(name, name + 6, strlen(name) - 5);
}

/* A growing text. */
struct text {
    char *data;
    size_t n;
};

static void add_mapping(struct text *index, const char *tensor, const char *shard)
{
    index->data = realloc(index->data, index->n + strlen(tensor) + strlen(shard) + 64);
    assert_non_null(index->data);
    index->n += (size_t)sprintf(index->data + index->n, "%s\"%s\":\"%s\"",
                                index->n > 0 ? "," : "{\"weight_map\":{", tensor, shard);
}

static void write_tensors(const char *dir, const struct qd_model_config *config,
                          const struct model_files *files)
{
    struct tensor_file shards[8] = {0};
    struct text index = {0};
    int n_shards = files->n_shards > 0 ? files->n_shards : 1, n_tensors = qd_model_n_tensors(config);
    char path[512], shard_name[64], name[QD_TENSOR_NAME_LEN];
    for (int i = 0; i < n_tensors; i++) {
        struct qd_tensor_spec spec = qd_model_tensor(config, i);
        qd_tensor_name(&spec, name);
        if (files->skip != NULL && strcmp(name, files->skip) == 0) continue;
        stored_name(&spec, files, name);
        add_tensor(&shards[i % n_shards], name, &spec, i, files->dtype);
        snprintf(shard_name, sizeof shard_name, "model-%d.safetensors", i % n_shards);
        add_mapping(&index, name, shard_name);
    }
    struct qd_tensor_spec embedding = qd_model_tensor(config, 0), three = {QD_TENSOR_FINAL_NORM, -1, 1, 3};
    if (files->store_tied_head) add_tensor(&shards[0], "lm_head.weight", &embedding, n_tensors, files->dtype);
    if (files->store_tied_head) add_mapping(&index, "lm_head.weight", "model-0.safetensors");
    if (files->extra != NULL) add_tensor(&shards[0], files->extra, &three, n_tensors + 1, files->dtype);
    if (files->extra != NULL) add_mapping(&index, files->extra, "model-0.safetensors");
    for (int i = 0; i < n_shards; i++) {
        snprintf(shard_name, sizeof shard_name, "model-%d.safetensors", i);
        snprintf(path, sizeof path, "%s/%s", dir, files->n_shards > 0 ? shard_name : "model.safetensors");
        tensor_file_write(&shards[i], path);
    }
    if (files->n_shards > 0) {
        snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
        memcpy(index.data + index.n, "}}", 3);
        write_text(path, index.data);
    }
    free(index.data);
}

void write_model(const char *dir, const struct qd_model_config *config, const struct model_files *files)
{
    write_config(dir, config);
    write_tensors(dir, config, files);
}

static size_t panel_weight_bytes(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout)
{
    size_t rows = (size_t)n_rows;
    if (layout == QD_LAYOUT_PACKED) rows = qd_round_up(rows, PANEL);
    return rows * (size_t)n_cols * sizeof(qd_bf16);
}

static qd_status panel_pack_weight(void *data, int64_t n_rows, int64_t n_cols, char *err, size_t errlen)
{
    (void)err, (void)errlen;
    int64_t padded = (int64_t)qd_round_up((size_t)n_rows, PANEL);
    qd_bf16 *values = data, *rows = malloc((size_t)(padded * n_cols) * sizeof *rows);
    assert_non_null(rows);
    memcpy(rows, values, (size_t)(padded * n_cols) * sizeof *rows);
    for (int64_t row = 0; row < padded; row++)
        for (int64_t k = 0; k < n_cols; k++)
            values[(row / PANEL * n_cols + k) * PANEL + row % PANEL] = rows[row * n_cols + k];
    free(rows);
    return QD_OK;
}

const struct qd_device_ops panel_ops = {
    .abi_version = QD_DEVICE_ABI_VERSION,
    .name = "panels",
    .executes = true,
    .weight_bytes = panel_weight_bytes,
    .pack_weight = panel_pack_weight,
};

qd_bf16 weight_at(const struct qd_weight *weight, int64_t row, int64_t col)
{
    const qd_bf16 *data = weight->data;
    if (weight->layout == QD_LAYOUT_ROWS) return data[row * weight->n_cols + col];
    return data[(row / PANEL * weight->n_cols + col) * PANEL + row % PANEL];
}
