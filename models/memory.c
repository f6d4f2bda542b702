/* What one rank needs, without loading anything. */
#include "kernels/base/size.h"
#include "models/shard.h"

/* A sum of products that remembers overflow. */
struct sum {
    size_t total;
    bool overflow;
};

static void add(struct sum *sum, int64_t a, int64_t b, size_t element_bytes)
{
    size_t product;
    if (!qd_size_mul((size_t)a, (size_t)b, &product) || !qd_size_mul(product, element_bytes, &product) ||
        !qd_size_add(sum->total, product, &sum->total))
        sum->overflow = true;
}

static void add_weight(struct sum *sum, const struct qd_device_ops *ops, int64_t n_rows, int64_t n_cols,
                       enum qd_weight_layout layout, int32_t times)
{
    size_t n_bytes = ops->weight_bytes(n_rows, n_cols, layout);
    if (n_bytes == SIZE_MAX) sum->overflow = true;
    add(sum, (int64_t)n_bytes, times, 1);
}

static struct sum weights_of_rank(const struct qd_model_config *config, const struct qd_shard *shard,
                                  const struct qd_device_ops *ops)
{
    struct sum sum = {0};
    int64_t hidden = config->hidden_dim, hd = config->head_dim, q_dim = shard->n_heads * hd;
    int32_t n = config->n_layers;
    add_weight(&sum, ops, q_dim + 2 * shard->n_kv_heads * hd, hidden, QD_LAYOUT_PACKED, n);
    add_weight(&sum, ops, hidden, q_dim, QD_LAYOUT_PACKED, n);
    add_weight(&sum, ops, 2 * shard->ffn_dim, hidden, QD_LAYOUT_PACKED, n);
    add_weight(&sum, ops, hidden, shard->ffn_dim, QD_LAYOUT_PACKED, n);
    add(&sum, n, 2 * (hidden + hd), sizeof(qd_bf16)); /* norms of the layers */
    add(&sum, 1, hidden, sizeof(qd_bf16));            /* the final one */
    if (!config->tie_word_embeddings) add_weight(&sum, ops, shard->vocab_count, hidden, QD_LAYOUT_PACKED, 1);
    return sum;
}

/* The buffers of the forward pass (models/qwen3.c) on rank 0. */
static struct sum activations(const struct qd_model_config *config, const struct qd_shard *shard,
                              const struct qd_step_limits *limits)
{
    struct sum sum = {0};
    int64_t q_dim = shard->n_heads * config->head_dim, kv_dim = shard->n_kv_heads * config->head_dim;
    /* residual, normed, the outputs of o and down; qkv, q, attention; silu(gate) * up */
    int64_t row = 4 * config->hidden_dim + (q_dim + 2 * kv_dim) + 2 * q_dim + qd_shard_activated_dim(shard);
    add(&sum, limits->max_tokens, row, sizeof(qd_bf16));
    add(&sum, limits->max_logit_rows, shard->vocab_rows, sizeof(float));
    return sum;
}

/* Logits for whoever wants them: gathered from the ranks, and twice those handed out where that is the same
 * memory. */
static struct sum wanted_logits(const struct qd_model_config *config, const struct qd_shard *shard,
                                const struct qd_device_ops *ops, const struct qd_step_limits *limits)
{
    struct sum sum = {0};
    int64_t row = (shard->tp > 1 ? shard->tp * shard->vocab_rows : 0) +
                  (ops->alloc_host == NULL ? 2 * config->vocab_size : 0);
    add(&sum, limits->max_logit_rows, row, sizeof(float));
    return sum;
}

qd_status qd_memory_need(const struct qd_model_config *config, int tp, const struct qd_device_ops *ops,
                         const struct qd_step_limits *limits, struct qd_memory_need *out, char *err,
                         size_t errlen)
{
    struct qd_shard shard;
    *out = (struct qd_memory_need){0};
    QD_TRY(qd_shard_make(config, tp, 0, &shard, err, errlen));
    struct sum weights = {0}, embedding = {0}, kv = {0}, activation = {0}, logits = {0};
    add(&kv, config->n_layers, 2 * shard.n_kv_heads * config->head_dim, sizeof(qd_bf16));
    if (ops->executes) {
        weights = weights_of_rank(config, &shard, ops);
        activation = activations(config, &shard, limits);
        logits = wanted_logits(config, &shard, ops, limits);
        add_weight(&embedding, ops, config->vocab_size, config->hidden_dim,
                   config->tie_word_embeddings ? QD_LAYOUT_PACKED : QD_LAYOUT_ROWS, 1);
    }
    if (weights.overflow || embedding.overflow || kv.overflow || activation.overflow || logits.overflow)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: the model's size overflows", config->name);
    *out = (struct qd_memory_need){weights.total, embedding.total, kv.total, activation.total, logits.total};
    return QD_OK;
}
