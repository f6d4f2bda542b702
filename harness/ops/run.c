#include "harness/ops/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

enum { STREAM_OF_KEYS = 1 << 20 }; /* apart from those of operands */

static const double ROPE_THETA = 1e6; /* Qwen3's */

static int64_t qkv_heads(const struct qd_op_case *c)
{
    return c->shape.n_heads + 2 * (int64_t)c->shape.n_kv_heads;
}

/* Room for the steps that fill the pool. */
static qd_status init_filling(struct qd_op_rank *r, char *err, size_t errlen)
{
    struct qd_step_limits limits = qd_op_limits(&r->c);
    size_t tokens = (size_t)limits.max_tokens, hd = (size_t)r->c.shape.head_dim;
    size_t qkv_bytes, q_bytes;
    if (!qd_size_mul(tokens * hd, (size_t)qkv_heads(&r->c) * sizeof(qd_bf16), &qkv_bytes) ||
        !qd_size_mul(tokens * hd, (size_t)r->c.shape.n_heads * sizeof(qd_bf16), &q_bytes))
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "keys of %zu tokens", tokens);
    r->fill_host = calloc(1, qkv_bytes); /* q stays zero: nobody reads what becomes of it */
    r->fill_step = calloc(1, qd_step_capacity(&limits));
    if (r->fill_host == NULL || r->fill_step == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for the keys of %zu tokens", tokens);
    QD_TRY(qd_device_alloc(r->device, qkv_bytes, &r->fill_rows, err, errlen));
    return qd_device_alloc(r->device, q_bytes, &r->fill_q, err, errlen);
}

qd_status qd_op_rank_init(const struct qd_op_case *c, int rank, struct qd_device device, int n_copies,
                          struct qd_op_rank *out, char *err, size_t errlen)
{
    *out = (struct qd_op_rank){.c = *c, .rank = rank, .device = device};
    int32_t half = c->shape.head_dim / 2;
    qd_status st = qd_op_operands_init(c, device, n_copies, &out->operands, err, errlen);
    out->inv_freq = st == QD_OK ? malloc((size_t)half * sizeof *out->inv_freq) : NULL;
    if (st == QD_OK && out->inv_freq == NULL)
        st = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for frequencies");
    for (int32_t i = 0; i < half && st == QD_OK; i++)
        out->inv_freq[i] = (float)pow(ROPE_THETA, -(double)i / half);
    if (st == QD_OK && qd_op_is_attention(c->op)) st = init_filling(out, err, errlen);
    if (st != QD_OK) qd_op_rank_free(out);
    return st;
}

void qd_op_rank_free(struct qd_op_rank *r)
{
    qd_op_operands_free(&r->operands);
    free(r->inv_freq);
    free(r->fill_step);
    free(r->fill_host);
    *r = (struct qd_op_rank){.c = r->c};
}

struct qd_rope qd_op_rope(const struct qd_op_rank *r)
{
    return (struct qd_rope){.inv_freq = r->inv_freq, .attention_scaling = 1};
}

void qd_op_kv_row(const struct qd_op_case *c, uint64_t seed, int32_t seq, int32_t position, qd_bf16 *row)
{
    uint64_t stream = STREAM_OF_KEYS + ((uint64_t)seq << 32) + (uint64_t)position;
    qd_op_random_bf16(row, 2 * (size_t)c->shape.n_kv_heads * (size_t)c->shape.head_dim, 0, 1, seed, stream);
}

struct qd_kv_layer qd_op_kv_layer(const struct qd_op_rank *r, int copy)
{
    return (struct qd_kv_layer){
        .data = qd_op_at(&r->operands, QD_OP_POOL, copy),
        .n_blocks = qd_op_pages(&r->c).n_blocks,
        .n_kv_heads = r->c.shape.n_kv_heads,
        .head_dim = r->c.shape.head_dim,
    };
}

static struct qd_qk_norm_rope_kv_args rope_args(const struct qd_op_rank *r, const struct qd_step *step,
                                                const void *qkv, void *q_out, int copy)
{
    return (struct qd_qk_norm_rope_kv_args){
        .step = step,
        .qkv = qd_partial_stored(qkv),
        .q_norm_weight = qd_op_at(&r->operands, QD_OP_W, copy),
        .k_norm_weight = qd_op_at(&r->operands, QD_OP_W2, copy),
        .eps = QD_OP_EPS,
        .n_heads = r->c.shape.n_heads,
        .n_kv_heads = r->c.shape.n_kv_heads,
        .head_dim = r->c.shape.head_dim,
        .kv = qd_op_kv_layer(r, copy),
        .q_out = q_out,
    };
}

/* What a device says of a failed call. */
static qd_status explained(const struct qd_op_rank *r, qd_status st, char *err, size_t errlen)
{
    return st == QD_OK ? st : qd_fail(st, err, errlen, "%s", qd_device_error_text(r->device));
}

qd_status qd_op_begin(struct qd_op_rank *r, const struct qd_step *step, const struct qd_step **launched,
                      char *err, size_t errlen)
{
    const struct qd_plan_args plan = {
        .step = step,
        .rope = qd_op_rope(r),
        .n_heads = r->c.shape.n_heads,
        .n_kv_heads = r->c.shape.n_kv_heads,
        .head_dim = r->c.shape.head_dim,
    };
    *launched = step;
    qd_status st = qd_device_plan(r->device, &plan);
    if (st == QD_OK) st = qd_device_begin_step(r->device, launched);
    return explained(r, st, err, errlen);
}

/* Keys and values of `chunk`'s own tokens into every copy of the pool. */
static qd_status fill_chunk(struct qd_op_rank *r, uint64_t seed, struct qd_op_chunk chunk, char *err,
                            size_t errlen)
{
    const struct qd_step *launched;
    int32_t nobody; /* samples */
    int64_t row = qkv_heads(&r->c) * r->c.shape.head_dim,
            q_dim = (int64_t)r->c.shape.n_heads * r->c.shape.head_dim;
    for (int32_t t = 0; t < chunk.q_len; t++)
        qd_op_kv_row(&r->c, seed, chunk.seq, chunk.prior + t, r->fill_host + t * row + q_dim);
    QD_TRY(qd_op_put(r->device, r->fill_rows, r->fill_host, (size_t)(chunk.q_len * row) * sizeof(qd_bf16),
                     err, errlen));
    qd_op_step_write(&r->c, &chunk, 1, seed, true, r->fill_step);
    QD_TRY(qd_op_begin(r, r->fill_step, &launched, err, errlen));
    qd_status st = QD_OK;
    for (int copy = 0; copy < r->operands.n_copies && st == QD_OK; copy++) {
        const struct qd_qk_norm_rope_kv_args args = rope_args(r, launched, r->fill_rows, r->fill_q, copy);
        st = qd_device_qk_norm_rope_kv(r->device, &args);
    }
    if (st == QD_OK) st = qd_op_end(r, &nobody);
    return explained(r, st, err, errlen);
}

qd_status qd_op_fill_pool(struct qd_op_rank *r, uint64_t seed, char *err, size_t errlen)
{
    int32_t most = qd_op_limits(&r->c).max_tokens;
    for (int32_t i = 0; i < qd_op_n_chunks(&r->c); i++) {
        struct qd_op_chunk whole = qd_op_chunk(&r->c, i);
        int32_t kv_len = whole.prior + whole.q_len;
        for (int32_t at = 0; at < kv_len; at += most)
            QD_TRY(fill_chunk(r, seed,
                              (struct qd_op_chunk){whole.seq, at, kv_len - at < most ? kv_len - at : most},
                              err, errlen));
    }
    return QD_OK;
}

/* ---- the op itself ---- */

static qd_status call_gemm(struct qd_op_rank *r, int copy)
{
    struct qd_op_gemm gemm = qd_op_gemm(&r->c);
    const struct qd_gemm_nt_args args = {
        .a = qd_op_at(&r->operands, QD_OP_A, copy),
        .m = r->c.n_tokens,
        .lda = gemm.lda,
        .w = {qd_op_at(&r->operands, QD_OP_W, copy), gemm.n, gemm.k, QD_LAYOUT_PACKED},
        .epilogue = gemm.epilogue,
        .out = qd_op_at(&r->operands, QD_OP_OUT, copy),
        .ldo = gemm.ldo,
        .partial = &r->partial,
    };
    return qd_device_gemm_nt(r->device, &args);
}

static qd_status call_reduce(struct qd_op_rank *r, const struct qd_step *launched, int copy)
{
    bool all_rows = r->c.op == QD_OP_REDUCE_ADD_RMSNORM;
    struct qd_partial partial = qd_partial_stored(qd_op_at(&r->operands, QD_OP_A, copy));
    partial.cross_rank = r->c.tp > 1;
    if (r->c.n_slices > 0) {
        partial.dtype = QD_PARTIAL_F32;
        partial.n_slices = r->c.n_slices;
        partial.stride = r->c.n_tokens * r->c.shape.hidden_dim;
    }
    const struct qd_reduce_add_rmsnorm_args args = {
        .residual = qd_op_at(&r->operands, QD_OP_IO, copy),
        .partial = partial,
        .weight = qd_op_at(&r->operands, QD_OP_W, copy),
        .rows = all_rows ? NULL : qd_step_logit_row(launched),
        .n_rows = all_rows ? launched->n_tokens : launched->n_logit_rows,
        .dim = r->c.shape.hidden_dim,
        .eps = QD_OP_EPS,
        .out = qd_op_at(&r->operands, QD_OP_OUT, copy),
    };
    return qd_device_reduce_add_rmsnorm(r->device, &args);
}

static qd_status call_sample(struct qd_op_rank *r, const struct qd_step *launched, int copy, int32_t *ids)
{
    const struct qd_sample_args args = {
        .step = launched,
        .logits = qd_op_at(&r->operands, QD_OP_A, copy),
        .ld = qd_op_vocab_rows(&r->c),
        .vocab_begin = r->rank * qd_op_vocab_rows(&r->c),
        .n_vocab = qd_op_vocab_count(&r->c, r->rank),
        .vocab_size = r->c.shape.vocab_size,
        .ids = ids,
    };
    return qd_device_sample(r->device, &args);
}

static qd_status call_attention(struct qd_op_rank *r, const struct qd_step *launched, int copy)
{
    const struct qd_attention_args args = {
        .step = launched,
        .q = qd_op_at(&r->operands, QD_OP_A, copy),
        .n_heads = r->c.shape.n_heads,
        .n_kv_heads = r->c.shape.n_kv_heads,
        .head_dim = r->c.shape.head_dim,
        .kv = qd_op_kv_layer(r, copy),
        .out = qd_op_at(&r->operands, QD_OP_OUT, copy),
    };
    return qd_device_attention(r->device, &args);
}

/* Ops of one input and one output. */
static qd_status call_simple(struct qd_op_rank *r, const struct qd_step *launched, int copy)
{
    const struct qd_model_shape *s = &r->c.shape;
    void *a = qd_op_at(&r->operands, QD_OP_A, copy), *w = qd_op_at(&r->operands, QD_OP_W, copy);
    void *out = qd_op_at(&r->operands, QD_OP_OUT, copy);
    if (r->c.op == QD_OP_EMBED) {
        const struct qd_embed_args args = {{w, s->vocab_size, s->hidden_dim, QD_LAYOUT_ROWS},
                                           qd_step_token_source(launched),
                                           launched->n_tokens,
                                           out};
        return qd_device_embed(r->device, &args);
    }
    if (r->c.op == QD_OP_RMSNORM) {
        const struct qd_rmsnorm_args args = {a, w, NULL, launched->n_tokens, s->hidden_dim, QD_OP_EPS, out};
        return qd_device_rmsnorm(r->device, &args);
    }
    const struct qd_silu_mul_args args = {a, r->c.n_tokens, s->ffn_dim, out};
    return r->device.ops->silu_mul(r->device.ctx, &args);
}

static qd_status call_collective(struct qd_op_rank *r, int copy)
{
    if (r->c.op == QD_OP_ALL_REDUCE) {
        const struct qd_all_reduce_args args = {qd_op_at(&r->operands, QD_OP_IO, copy),
                                                r->c.n_tokens * r->c.shape.hidden_dim};
        return r->device.ops->all_reduce(r->device.ctx, &args);
    }
    const struct qd_all_gather_args args = {qd_op_at(&r->operands, QD_OP_A, copy),
                                            r->operands.of[QD_OP_A].bytes,
                                            qd_op_at(&r->operands, QD_OP_OUT, copy)};
    return qd_device_all_gather(r->device, &args);
}

qd_status qd_op_call(struct qd_op_rank *r, const struct qd_step *launched, int copy, int32_t *ids)
{
    if (qd_op_is_gemm(r->c.op)) return call_gemm(r, copy);
    if (qd_op_is_attention(r->c.op)) return call_attention(r, launched, copy);
    switch (r->c.op) {
    case QD_OP_QK_NORM_ROPE_KV: {
        const struct qd_qk_norm_rope_kv_args args =
            rope_args(r, launched, qd_op_at(&r->operands, QD_OP_A, copy),
                      qd_op_at(&r->operands, QD_OP_OUT, copy), copy);
        return qd_device_qk_norm_rope_kv(r->device, &args);
    }
    case QD_OP_REDUCE_ADD_RMSNORM:
    case QD_OP_FINAL_NORM: return call_reduce(r, launched, copy);
    case QD_OP_SAMPLE: return call_sample(r, launched, copy, ids);
    case QD_OP_ALL_REDUCE:
    case QD_OP_ALL_GATHER: return call_collective(r, copy);
    default: return call_simple(r, launched, copy);
    }
}
