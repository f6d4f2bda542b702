#include "harness/ops/check_attention.h"

#include <stdlib.h>

#include "kernels/base/size.h"
#include "kernels/ref/ref.h"

qd_status qd_op_sequence_init(const struct qd_op_rank *r, int32_t max_len, struct qd_op_sequence *out,
                              char *err, size_t errlen)
{
    const struct qd_model_shape *shape = &r->c.shape;
    *out = (struct qd_op_sequence){.r = r, .rope = qd_op_rope(r), .seq = -1};
    out->n_pages = (int32_t)qd_div_up(max_len, QD_KV_BLOCK_SIZE);
    const struct qd_step_limits limits = {.max_tokens = 1, .max_seqs = 1, .max_blocks = out->n_pages};
    size_t kv_dim = (size_t)shape->n_kv_heads * (size_t)shape->head_dim;
    out->step = calloc(1, qd_step_capacity(&limits));
    out->pool = calloc(2 * (size_t)out->n_pages * QD_KV_BLOCK_SIZE, kv_dim * sizeof *out->pool);
    out->row = calloc(2, kv_dim * sizeof *out->row);
    if (out->step == NULL || out->pool == NULL || out->row == NULL) {
        qd_op_sequence_free(out);
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for the keys of %d tokens", max_len);
    }
    qd_status st = qd_step_begin(out->step, &limits, 1, 1, out->n_pages, 0);
    QD_ASSERT(st == QD_OK);
    qd_step_cu_seqlens_q(out->step)[1] = 1;
    qd_step_block_offset(out->step)[0] = 0;
    qd_step_block_offset(out->step)[1] = out->n_pages;
    for (int32_t p = 0; p < out->n_pages; p++) qd_step_block_table(out->step)[p] = p;
    return QD_OK;
}

void qd_op_sequence_free(struct qd_op_sequence *s)
{
    free(s->step);
    free(s->pool);
    free(s->row);
    *s = (struct qd_op_sequence){.seq = -1};
}

static struct qd_kv_layer kv_layer(const struct qd_op_sequence *s)
{
    return (struct qd_kv_layer){s->pool, s->n_pages, s->r->c.shape.n_kv_heads, s->r->c.shape.head_dim};
}

void qd_op_sequence_rope(struct qd_op_sequence *s, const qd_bf16 *qkv, int32_t n_heads, int32_t position,
                         int64_t slot, qd_bf16 *q_out)
{
    const struct qd_op_operands *operands = &s->r->operands;
    qd_step_position(s->step)[0] = position;
    qd_step_slot_mapping(s->step)[0] = slot;
    const struct qd_qk_norm_rope_kv_args args = {
        .step = s->step,
        .qkv = qd_partial_stored(qkv),
        .q_norm_weight = (const qd_bf16 *)(const void *)operands->of[QD_OP_W].host,
        .k_norm_weight = (const qd_bf16 *)(const void *)operands->of[QD_OP_W2].host,
        .eps = QD_OP_EPS,
        .n_heads = n_heads,
        .n_kv_heads = s->r->c.shape.n_kv_heads,
        .head_dim = s->r->c.shape.head_dim,
        .kv = kv_layer(s),
        .q_out = q_out,
    };
    qd_ref_qk_norm_rope_kv(&args, &s->rope, s->r->c.numerics);
}

void qd_op_sequence_attend(struct qd_op_sequence *s, uint64_t seed, int32_t seq, int32_t position,
                           const qd_bf16 *q, qd_bf16 *out)
{
    if (s->seq != seq) s->n_keys = 0;
    s->seq = seq;
    for (; s->n_keys <= position; s->n_keys++) {
        qd_op_kv_row(&s->r->c, seed, seq, s->n_keys, s->row);
        qd_op_sequence_rope(s, s->row, 0, s->n_keys, s->n_keys, NULL);
    }
    qd_step_position(s->step)[0] = position;
    qd_step_kv_len(s->step)[0] = position + 1;
    const struct qd_attention_args args = {
        .step = s->step,
        .q = q,
        .n_heads = s->r->c.shape.n_heads,
        .n_kv_heads = s->r->c.shape.n_kv_heads,
        .head_dim = s->r->c.shape.head_dim,
        .kv = kv_layer(s),
        .out = out,
    };
    qd_ref_attention(&args, s->r->c.numerics);
}
