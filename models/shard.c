#include "models/shard.h"

#include "kernels/base/size.h"

enum { VOCAB_GRAIN = 64, INTERLEAVE_GROUP = 8 };

int64_t qd_shard_vocab_rows(int64_t vocab_size, int tp)
{
    return VOCAB_GRAIN * qd_div_up(vocab_size, (int64_t)VOCAB_GRAIN * tp);
}

qd_status qd_shard_make(const struct qd_model_config *config, int tp, int rank, struct qd_shard *out,
                        char *err, size_t errlen)
{
    int32_t n_heads = config->n_heads, n_kv_heads = config->n_kv_heads;
    if (tp < 1 || tp > QD_MAX_TP || rank < 0 || rank >= tp)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "rank %d of tensor parallel size %d: outside 1 .. %d",
                       rank, tp, QD_MAX_TP);
    if (n_heads % tp != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: %d attention heads do not divide by TP %d",
                       config->name, n_heads, tp);
    if (config->ffn_dim % tp != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: intermediate_size %lld does not divide by TP %d",
                       config->name, (long long)config->ffn_dim, tp);
    if (n_kv_heads % tp != 0 && tp % n_kv_heads != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                       "%s: %d KV heads and TP %d: neither divides the other", config->name, n_kv_heads, tp);

    bool replicated = tp > n_kv_heads;
    *out = (struct qd_shard){
        .tp = tp,
        .rank = rank,
        .n_heads = n_heads / tp,
        .head_begin = rank * (n_heads / tp),
        .n_kv_heads = replicated ? 1 : n_kv_heads / tp,
        .kv_head_begin = replicated ? rank / (tp / n_kv_heads) : rank * (n_kv_heads / tp),
        .ffn_dim = config->ffn_dim / tp,
        .ffn_begin = rank * (config->ffn_dim / tp),
        .vocab_rows = qd_shard_vocab_rows(config->vocab_size, tp),
    };
    int64_t begin = rank * out->vocab_rows, end = begin + out->vocab_rows;
    if (begin > config->vocab_size) begin = config->vocab_size;
    if (end > config->vocab_size) end = config->vocab_size;
    out->vocab_begin = begin;
    out->vocab_count = end - begin;
    return QD_OK;
}

struct qd_model_shape qd_shard_shape(const struct qd_model_config *config, const struct qd_shard *shard)
{
    return (struct qd_model_shape){
        .hidden_dim = config->hidden_dim,
        .ffn_dim = shard->ffn_dim,
        .vocab_size = config->vocab_size,
        .n_layers = config->n_layers,
        .n_heads = shard->n_heads,
        .n_kv_heads = shard->n_kv_heads,
        .head_dim = config->head_dim,
    };
}

struct qd_slice qd_shard_slice(const struct qd_model_config *config, const struct qd_shard *shard,
                               const struct qd_tensor_spec *spec)
{
    int64_t hd = config->head_dim;
    int64_t q_rows = shard->n_heads * hd, kv_rows = shard->n_kv_heads * hd;
    struct qd_slice slice = {.n_rows = spec->rows, .n_cols = spec->cols};
    switch (spec->role) {
    case QD_TENSOR_Q:
        slice.row_begin = shard->head_begin * hd;
        slice.n_rows = q_rows;
        break;
    case QD_TENSOR_K:
    case QD_TENSOR_V:
        slice.row_begin = shard->kv_head_begin * hd;
        slice.n_rows = kv_rows;
        slice.dst_row = q_rows + (spec->role == QD_TENSOR_V ? kv_rows : 0);
        break;
    case QD_TENSOR_O:
        slice.col_begin = shard->head_begin * hd;
        slice.n_cols = q_rows;
        break;
    case QD_TENSOR_GATE:
    case QD_TENSOR_UP:
        slice.row_begin = shard->ffn_begin;
        slice.n_rows = shard->ffn_dim;
        slice.interleave = spec->role == QD_TENSOR_GATE ? QD_INTERLEAVE_GATE : QD_INTERLEAVE_UP;
        break;
    case QD_TENSOR_DOWN:
        slice.col_begin = shard->ffn_begin;
        slice.n_cols = shard->ffn_dim;
        break;
    case QD_TENSOR_LM_HEAD:
        slice.row_begin = shard->vocab_begin;
        slice.n_rows = shard->vocab_count;
        break;
    case QD_TENSOR_EMBEDDING:
    case QD_TENSOR_FINAL_NORM:
    case QD_TENSOR_INPUT_NORM:
    case QD_TENSOR_Q_NORM:
    case QD_TENSOR_K_NORM:
    case QD_TENSOR_POST_NORM:
    case QD_N_TENSOR_ROLES: break;
    }
    return slice;
}

int64_t qd_slice_dst_row(const struct qd_slice *slice, int64_t i)
{
    if (slice->interleave == QD_INTERLEAVE_NONE) return slice->dst_row + i;
    int64_t group = i / INTERLEAVE_GROUP, left = slice->n_rows - group * INTERLEAVE_GROUP;
    int64_t group_size = left < INTERLEAVE_GROUP ? left : INTERLEAVE_GROUP;
    int64_t half = slice->interleave == QD_INTERLEAVE_UP ? group_size : 0;
    return group * 2 * INTERLEAVE_GROUP + half + i % INTERLEAVE_GROUP;
}
