#include "harness/ops/case.h"

#include <stdio.h>

#include "harness/ops/step.h"
#include "kernels/base/size.h"
#include "models/shard.h"

static const struct {
    const char *name, *member;
} names[QD_N_OPS] = {
    [QD_OP_EMBED] = {"embed", "embed"},
    [QD_OP_RMSNORM] = {"rmsnorm", "rmsnorm"},
    [QD_OP_QKV] = {"qkv", "gemm_nt"},
    [QD_OP_QK_NORM_ROPE_KV] = {"qk_norm_rope_kv", "qk_norm_rope_kv"},
    [QD_OP_ATTENTION_PREFILL] = {"attention_prefill", "attention"},
    [QD_OP_ATTENTION_DECODE] = {"attention_decode", "attention"},
    [QD_OP_ATTENTION_MIXED] = {"attention_mixed", "attention"},
    [QD_OP_O] = {"o", "gemm_nt"},
    [QD_OP_REDUCE_ADD_RMSNORM] = {"reduce_add_rmsnorm", "reduce_add_rmsnorm"},
    [QD_OP_FINAL_NORM] = {"final_norm", "reduce_add_rmsnorm"},
    [QD_OP_GATE_UP] = {"gate_up", "gemm_nt"},
    [QD_OP_SILU_MUL] = {"silu_mul", "silu_mul"},
    [QD_OP_DOWN] = {"down", "gemm_nt"},
    [QD_OP_LM_HEAD] = {"lm_head", "gemm_nt"},
    [QD_OP_SAMPLE] = {"sample", "sample"},
    [QD_OP_ALL_REDUCE] = {"all_reduce", "all_reduce"},
    [QD_OP_ALL_GATHER] = {"all_gather", "all_gather"},
};

const char *qd_op_name(enum qd_op op)
{
    return names[op].name;
}

const char *qd_op_member(enum qd_op op)
{
    return names[op].member;
}

bool qd_op_is_attention(enum qd_op op)
{
    return op == QD_OP_ATTENTION_PREFILL || op == QD_OP_ATTENTION_DECODE || op == QD_OP_ATTENTION_MIXED;
}

bool qd_op_is_gemm(enum qd_op op)
{
    return op == QD_OP_QKV || op == QD_OP_O || op == QD_OP_GATE_UP || op == QD_OP_DOWN || op == QD_OP_LM_HEAD;
}

int qd_op_ranks(const struct qd_op_case *c)
{
    switch (c->op) {
    case QD_OP_REDUCE_ADD_RMSNORM:
    case QD_OP_FINAL_NORM:
    case QD_OP_SAMPLE:
    case QD_OP_ALL_REDUCE:
    case QD_OP_ALL_GATHER: return c->tp;
    default: return 1;
    }
}

static int64_t qkv_dim(const struct qd_op_case *c)
{
    return ((int64_t)c->shape.n_heads + 2 * c->shape.n_kv_heads) * c->shape.head_dim;
}

int64_t qd_op_vocab_rows(const struct qd_op_case *c)
{
    return qd_shard_vocab_rows(c->shape.vocab_size, c->tp);
}

int64_t qd_op_vocab_count(const struct qd_op_case *c, int rank)
{
    int64_t rows = qd_op_vocab_rows(c), left = c->shape.vocab_size - rank * rows;
    return left < 0 ? 0 : left < rows ? left : rows;
}

int64_t qd_op_rows(const struct qd_op_case *c)
{
    return c->op == QD_OP_FINAL_NORM ? qd_div_up(c->n_tokens, 2) : c->n_tokens;
}

struct qd_op_gemm qd_op_gemm(const struct qd_op_case *c)
{
    const struct qd_model_shape *s = &c->shape;
    int64_t hidden = s->hidden_dim, q_dim = (int64_t)s->n_heads * s->head_dim;
    int64_t activated = qd_shard_activated_dim(&(struct qd_shard){.ffn_dim = s->ffn_dim});
    switch (c->op) {
    case QD_OP_QKV: return (struct qd_op_gemm){qkv_dim(c), hidden, hidden, qkv_dim(c), QD_EPILOGUE_PARTIAL};
    case QD_OP_O: return (struct qd_op_gemm){hidden, q_dim, q_dim, hidden, QD_EPILOGUE_PARTIAL};
    case QD_OP_GATE_UP:
        return (struct qd_op_gemm){2 * s->ffn_dim, hidden, hidden, activated, QD_EPILOGUE_SILU_MUL};
    case QD_OP_DOWN: return (struct qd_op_gemm){hidden, s->ffn_dim, activated, hidden, QD_EPILOGUE_PARTIAL};
    case QD_OP_LM_HEAD:
        return (struct qd_op_gemm){qd_op_vocab_count(c, 0), hidden, hidden, qd_op_vocab_rows(c),
                                   QD_EPILOGUE_STORE_F32};
    default: return (struct qd_op_gemm){0};
    }
}

static struct qd_traffic gemm_traffic(const struct qd_op_case *c)
{
    struct qd_op_gemm gemm = qd_op_gemm(c);
    return qd_traffic_gemm_nt(c->n_tokens, gemm.n, gemm.k, gemm.epilogue);
}

struct qd_traffic qd_op_traffic(const struct qd_op_case *c)
{
    const struct qd_model_shape *s = &c->shape;
    int64_t t = c->n_tokens, hidden = s->hidden_dim;
    struct qd_attention_load load = qd_op_attention_load(c);
    switch (c->op) {
    case QD_OP_EMBED: return qd_traffic_embed(t, hidden);
    case QD_OP_RMSNORM: return qd_traffic_rmsnorm(t, hidden);
    case QD_OP_QK_NORM_ROPE_KV: return qd_traffic_qk_norm_rope_kv(t, s->n_heads, s->n_kv_heads, s->head_dim);
    case QD_OP_ATTENTION_PREFILL:
    case QD_OP_ATTENTION_DECODE:
    case QD_OP_ATTENTION_MIXED: return qd_traffic_attention(&load, s->n_heads, s->n_kv_heads, s->head_dim);
    case QD_OP_REDUCE_ADD_RMSNORM:
    case QD_OP_FINAL_NORM:
        return c->n_slices > 0
                   ? qd_traffic_reduce_add_rmsnorm(qd_op_rows(c), hidden, c->n_slices, QD_PARTIAL_F32)
                   : qd_traffic_reduce_add_rmsnorm(qd_op_rows(c), hidden, c->tp, QD_PARTIAL_BF16);
    case QD_OP_SILU_MUL: return qd_traffic_silu_mul(t, s->ffn_dim);
    case QD_OP_SAMPLE: return qd_traffic_sample(t, qd_op_vocab_count(c, 0));
    case QD_OP_ALL_REDUCE: return qd_traffic_all_reduce(t * hidden, c->tp);
    case QD_OP_ALL_GATHER:
        return qd_traffic_all_gather(t * qd_op_vocab_rows(c) * (int64_t)sizeof(float), c->tp);
    default: return gemm_traffic(c);
    }
}

void qd_op_describe(const struct qd_op_case *c, char *out, size_t len)
{
    const struct qd_model_shape *s = &c->shape;
    struct qd_op_gemm gemm = qd_op_gemm(c);
    if (qd_op_is_gemm(c->op))
        snprintf(out, len, "M %d N %lld K %lld", c->n_tokens, (long long)gemm.n, (long long)gemm.k);
    else if (qd_op_is_attention(c->op))
        snprintf(out, len, "T %d behind %d, heads %d/%d x %d", c->n_tokens, c->context, s->n_heads,
                 s->n_kv_heads, s->head_dim);
    else if (c->op == QD_OP_QK_NORM_ROPE_KV)
        snprintf(out, len, "T %d, heads %d/%d x %d", c->n_tokens, s->n_heads, s->n_kv_heads, s->head_dim);
    else if (c->op == QD_OP_SILU_MUL)
        snprintf(out, len, "T %d I %lld", c->n_tokens, (long long)s->ffn_dim);
    else if (c->op == QD_OP_SAMPLE || c->op == QD_OP_ALL_GATHER)
        snprintf(out, len, "R %d V %lld", c->n_tokens, (long long)s->vocab_size);
    else if (c->n_slices > 0)
        snprintf(out, len, "T %d H %lld, %d slices", c->n_tokens, (long long)s->hidden_dim, c->n_slices);
    else
        snprintf(out, len, "T %d H %lld", c->n_tokens, (long long)s->hidden_dim);
}
