#include "harness/ops/operands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/ops/step.h"
#include "kernels/base/random.h"
#include "kernels/base/size.h"

enum { POISON = 0xff /* NaN in bf16 and fp32, -1 in integers */, ALIGNMENT = 256 };

/* ---- random values ---- */

static void put_bf16(qd_bf16 *out, size_t n, const uint32_t word[4], float base, float scale)
{
    for (size_t i = 0; i < n; i++) {
        int16_t bits = (int16_t)(uint16_t)(word[i / 2] >> (i % 2 * 16));
        out[i] = qd_bf16_from_f32(base + scale * (float)bits * 0x1p-15f);
    }
}

void qd_op_random_bf16(qd_bf16 *out, size_t n, float base, float scale, uint64_t seed, uint64_t stream)
{
    enum { A_BLOCK = 8 };
    for (size_t i = 0; i < n; i += A_BLOCK) {
        struct qd_philox_block block = qd_philox(seed, stream, i / A_BLOCK);
        put_bf16(out + i, n - i < A_BLOCK ? n - i : A_BLOCK, block.word, base, scale);
    }
}

void qd_op_random_f32(float *out, size_t n, float scale, uint64_t seed, uint64_t stream)
{
    enum { A_BLOCK = 4 };
    for (size_t i = 0; i < n; i += A_BLOCK) {
        struct qd_philox_block block = qd_philox(seed, stream, i / A_BLOCK);
        for (size_t j = 0; j < A_BLOCK && i + j < n; j++)
            out[i + j] = scale * (2 * qd_uniform_open(block.word[j]) - 1);
    }
}

/* ---- sizes ---- */

/* Elements of the activations that come in: rows [0] of so many elements [1] of so many bytes [2]. */
struct extent {
    int64_t rows, row;
    size_t element;
};

static struct extent activations_in(const struct qd_op_case *c)
{
    const struct qd_model_shape *s = &c->shape;
    int64_t t = c->n_tokens, hd = s->head_dim;
    if (qd_op_is_gemm(c->op)) return (struct extent){t, qd_op_gemm(c).lda, sizeof(qd_bf16)};
    int64_t qkv = (s->n_heads + 2 * (int64_t)s->n_kv_heads) * hd;
    if (qd_op_is_attention(c->op)) return (struct extent){t, s->n_heads * hd, sizeof(qd_bf16)};
    switch (c->op) {
    case QD_OP_RMSNORM: return (struct extent){t, s->hidden_dim, sizeof(qd_bf16)};
    case QD_OP_QK_NORM_ROPE_KV: return (struct extent){t, qkv, sizeof(qd_bf16)};
    case QD_OP_REDUCE_ADD_RMSNORM:
    case QD_OP_FINAL_NORM:
        if (c->n_slices > 0) return (struct extent){c->n_slices * t, s->hidden_dim, sizeof(float)};
        return (struct extent){t, s->hidden_dim, sizeof(qd_bf16)};
    case QD_OP_SILU_MUL: return (struct extent){t, 2 * s->ffn_dim, sizeof(qd_bf16)};
    case QD_OP_SAMPLE:
    case QD_OP_ALL_GATHER: return (struct extent){t, qd_op_vocab_rows(c), sizeof(float)};
    default: return (struct extent){0};
    }
}

static struct extent written(const struct qd_op_case *c)
{
    const struct qd_model_shape *s = &c->shape;
    int64_t t = c->n_tokens, rows = qd_op_rows(c), q_dim = s->n_heads * (int64_t)s->head_dim;
    struct qd_op_gemm gemm = qd_op_gemm(c);
    if (qd_op_is_gemm(c->op))
        return (struct extent){t, gemm.ldo,
                               gemm.epilogue == QD_EPILOGUE_STORE_F32 ? sizeof(float) : sizeof(qd_bf16)};
    switch (c->op) {
    case QD_OP_EMBED:
    case QD_OP_RMSNORM:
    case QD_OP_REDUCE_ADD_RMSNORM:
    case QD_OP_FINAL_NORM: return (struct extent){rows, s->hidden_dim, sizeof(qd_bf16)};
    case QD_OP_SILU_MUL: return (struct extent){t, s->ffn_dim, sizeof(qd_bf16)};
    case QD_OP_ALL_GATHER: return (struct extent){c->tp * t, qd_op_vocab_rows(c), sizeof(float)};
    case QD_OP_SAMPLE:
    case QD_OP_ALL_REDUCE: return (struct extent){0};
    default: return (struct extent){t, q_dim, sizeof(qd_bf16)};
    }
}

static bool set_extent(struct qd_op_operand *operand, struct extent extent)
{
    bool fits = qd_size_mul((size_t)extent.rows, (size_t)extent.row, &operand->bytes) &&
                qd_size_mul(operand->bytes, extent.element, &operand->bytes) && operand->bytes < SIZE_MAX / 4;
    operand->host_bytes = operand->bytes;
    return fits;
}

static bool set_matrix(struct qd_op_operand *operand, const struct qd_device_ops *ops, int64_t n, int64_t k)
{
    operand->n_rows = n;
    operand->n_cols = k;
    bool fits = set_extent(operand, (struct extent){n, k, sizeof(qd_bf16)});
    operand->bytes = ops->weight_bytes(n, k, QD_LAYOUT_PACKED);
    return fits && operand->bytes < SIZE_MAX / 4;
}

static bool set_weights(const struct qd_op_case *c, const struct qd_device_ops *ops, struct qd_op_operand *of)
{
    const struct qd_model_shape *s = &c->shape;
    struct extent norm = {1, s->hidden_dim, sizeof(qd_bf16)}, head_norm = {1, s->head_dim, sizeof(qd_bf16)};
    struct qd_op_gemm gemm = qd_op_gemm(c);
    if (qd_op_is_gemm(c->op)) return set_matrix(&of[QD_OP_W], ops, gemm.n, gemm.k);
    if (c->op == QD_OP_EMBED)
        return set_extent(&of[QD_OP_W], (struct extent){s->vocab_size, s->hidden_dim, sizeof(qd_bf16)});
    if (c->op == QD_OP_QK_NORM_ROPE_KV || qd_op_is_attention(c->op))
        return set_extent(&of[QD_OP_W], head_norm) && set_extent(&of[QD_OP_W2], head_norm);
    if (c->op == QD_OP_RMSNORM || c->op == QD_OP_REDUCE_ADD_RMSNORM || c->op == QD_OP_FINAL_NORM)
        return set_extent(&of[QD_OP_W], norm);
    return true;
}

static qd_status set_sizes(const struct qd_op_case *c, const struct qd_device_ops *ops,
                           struct qd_op_operand *of, char *err, size_t errlen)
{
    const struct qd_model_shape *s = &c->shape;
    bool reduces =
        c->op == QD_OP_REDUCE_ADD_RMSNORM || c->op == QD_OP_FINAL_NORM || c->op == QD_OP_ALL_REDUCE;
    bool fits = set_extent(&of[QD_OP_A], activations_in(c)) && set_extent(&of[QD_OP_OUT], written(c)) &&
                set_weights(c, ops, of);
    if (fits && reduces)
        fits = set_extent(&of[QD_OP_IO], (struct extent){c->n_tokens, s->hidden_dim, sizeof(qd_bf16)});
    if (fits && qd_op_is_gemm(c->op) && ops->rival != NULL) {
        fits = set_extent(&of[QD_OP_RIVAL], (struct extent){c->n_tokens, qd_op_gemm(c).n, sizeof(qd_bf16)});
        of[QD_OP_RIVAL].host_bytes = 0;
    }
    if (fits && (c->op == QD_OP_QK_NORM_ROPE_KV || qd_op_is_attention(c->op))) {
        struct extent pool = {2 * (int64_t)qd_op_pages(c).n_blocks,
                              s->n_kv_heads * (int64_t)QD_KV_BLOCK_SIZE * s->head_dim, sizeof(qd_bf16)};
        fits = set_extent(&of[QD_OP_POOL], pool);
        of[QD_OP_POOL].host_bytes = 0;
    }
    return fits ? QD_OK
                : qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: its operands cannot be counted",
                          qd_op_name(c->op));
}

qd_status qd_op_operand_bytes(const struct qd_op_case *c, const struct qd_device_ops *ops, size_t *bytes,
                              char *err, size_t errlen)
{
    struct qd_op_operand of[QD_OP_N_OPERANDS] = {{0}};
    QD_TRY(set_sizes(c, ops, of, err, errlen));
    *bytes = 0;
    for (int i = 0; i < QD_OP_N_OPERANDS; i++) *bytes += of[i].bytes;
    return QD_OK;
}

/* ---- memory ---- */

static qd_status init_operand(struct qd_op_operand *operand, struct qd_device device, size_t n_copies,
                              char *err, size_t errlen)
{
    size_t bytes;
    void *memory;
    if (operand->bytes == 0) return QD_OK;
    operand->stride = qd_round_up(operand->bytes, ALIGNMENT) + QD_OP_GUARD_BYTES;
    if (!qd_size_mul(operand->stride, n_copies, &bytes) || !qd_size_add(bytes, QD_OP_GUARD_BYTES, &bytes))
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%zu copies of %zu bytes", n_copies, operand->stride);
    QD_TRY(qd_device_alloc(device, bytes, &memory, err, errlen));
    operand->device = (unsigned char *)memory + QD_OP_GUARD_BYTES;
    if (operand->host_bytes == 0) return QD_OK;
    operand->host = malloc(operand->host_bytes);
    return operand->host != NULL
               ? QD_OK
               : qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no %zu bytes for an operand", operand->host_bytes);
}

qd_status qd_op_operands_init(const struct qd_op_case *c, struct qd_device device, int n_copies,
                              struct qd_op_operands *out, char *err, size_t errlen)
{
    *out = (struct qd_op_operands){.n_copies = n_copies};
    QD_TRY(set_sizes(c, device.ops, out->of, err, errlen));
    qd_status st = QD_OK;
    for (int i = 0; i < QD_OP_N_OPERANDS && st == QD_OK; i++) {
        st = init_operand(&out->of[i], device, (size_t)n_copies, err, errlen);
        size_t guarded = out->of[i].bytes + 2 * QD_OP_GUARD_BYTES;
        if (guarded > out->staging_bytes) out->staging_bytes = guarded;
    }
    if (st == QD_OK) out->staging = malloc(out->staging_bytes);
    if (st == QD_OK && out->staging == NULL)
        st = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no %zu bytes for copies", out->staging_bytes);
    if (st != QD_OK) qd_op_operands_free(out);
    return st;
}

void qd_op_operands_free(struct qd_op_operands *operands)
{
    for (int i = 0; i < QD_OP_N_OPERANDS; i++) free(operands->of[i].host);
    free(operands->staging);
    *operands = (struct qd_op_operands){0};
}

/* ---- contents ---- */

/* Zeros where a reader of whole 64s looks beyond the row's end: `down` reads them, `gate_up` leaves them
 * alone. */
static void clear_row_ends(struct qd_op_operand *operand, int64_t n_rows, int64_t row, int64_t used)
{
    qd_bf16 *values = (qd_bf16 *)(void *)operand->host;
    for (int64_t r = 0; r < n_rows; r++)
        memset(values + r * row + used, 0, (size_t)(row - used) * sizeof *values);
}

/* Sums of K products of values below 1 and 2 / sqrt(K) are about 1 in size. */
static float weight_scale(const struct qd_op_operand *weight)
{
    return weight->n_cols > 0 ? 2 / sqrtf((float)weight->n_cols) : 0.5f;
}

static void fill_bf16(struct qd_op_operand *operand, float base, float scale, uint64_t seed, uint64_t stream)
{
    if (operand->host_bytes > 0)
        qd_op_random_bf16((qd_bf16 *)(void *)operand->host, operand->host_bytes / sizeof(qd_bf16), base,
                          scale, seed, stream);
}

/* The rank's shard of rows of logits, flat enough that top-k and top-p cut off much of the mass; what lies
 * behind it is NaN and may not be read. */
static void fill_logits(const struct qd_op_case *c, int rank, uint64_t seed, struct qd_op_operand *operand)
{
    int64_t ld = qd_op_vocab_rows(c), n = qd_op_vocab_count(c, rank);
    memset(operand->host, POISON, operand->host_bytes);
    for (int64_t r = 0; r < c->n_tokens; r++)
        qd_op_random_f32((float *)(void *)operand->host + r * ld, (size_t)n, 2, seed,
                         (uint64_t)r * QD_OP_N_OPERANDS * (uint64_t)c->tp + (uint64_t)rank);
}

void qd_op_operands_fill(const struct qd_op_case *c, int rank, uint64_t seed, struct qd_op_operands *operands)
{
    struct qd_op_operand *of = operands->of;
    uint64_t stream = 16 * (uint64_t)(rank + 1); /* weights and the residual are those of all ranks */
    bool is_norm_weight = of[QD_OP_W].n_cols == 0 && c->op != QD_OP_EMBED;
    fill_bf16(&of[QD_OP_W], is_norm_weight ? 1.0f : 0, weight_scale(&of[QD_OP_W]), seed, QD_OP_W);
    fill_bf16(&of[QD_OP_W2], 1.0f, weight_scale(&of[QD_OP_W2]), seed, QD_OP_W2);
    fill_bf16(&of[QD_OP_IO], 0, 1, seed, c->op == QD_OP_ALL_REDUCE ? stream + QD_OP_IO : QD_OP_IO);
    if (of[QD_OP_OUT].host_bytes > 0) memset(of[QD_OP_OUT].host, POISON, of[QD_OP_OUT].host_bytes);
    struct qd_op_gemm gemm = qd_op_gemm(c);
    if (c->op == QD_OP_GATE_UP) clear_row_ends(&of[QD_OP_OUT], c->n_tokens, gemm.ldo, c->shape.ffn_dim);
    if (of[QD_OP_A].host_bytes == 0) return;
    if (c->op == QD_OP_SAMPLE || c->op == QD_OP_ALL_GATHER)
        fill_logits(c, rank, seed, &of[QD_OP_A]);
    else if (c->n_slices > 0)
        qd_op_random_f32((float *)(void *)of[QD_OP_A].host, of[QD_OP_A].host_bytes / sizeof(float), 1, seed,
                         stream);
    else
        fill_bf16(&of[QD_OP_A], 0, qd_op_is_attention(c->op) ? 2 : 1, seed, stream);
    if (c->op == QD_OP_DOWN) clear_row_ends(&of[QD_OP_A], c->n_tokens, gemm.lda, gemm.k);
}

qd_status qd_op_put(struct qd_device device, void *data, const void *host, size_t bytes, char *err,
                    size_t errlen)
{
    if (qd_device_has_copies(device.ops)) return qd_device_upload(device, data, host, bytes, err, errlen);
    memcpy(data, host, bytes);
    return QD_OK;
}

/* A matrix as the device takes it: rows apart where it has stores, else packed in place. What only the
 * arrangement has is zero. */
static qd_status arrange(struct qd_device device, const struct qd_op_operand *matrix, unsigned char *values,
                         char *err, size_t errlen)
{
    memset(values, 0, matrix->bytes);
    if (!qd_device_has_copies(device.ops)) {
        memcpy(values, matrix->host, matrix->host_bytes);
        return device.ops->pack_weight(values, matrix->n_rows, matrix->n_cols, err, errlen);
    }
    size_t row = (size_t)matrix->n_cols * sizeof(qd_bf16);
    size_t stride = (size_t)device.ops->store->row_stride(matrix->n_cols, QD_LAYOUT_PACKED) * sizeof(qd_bf16);
    for (int64_t r = 0; r < matrix->n_rows; r++)
        memcpy(values + (size_t)r * stride, matrix->host + (size_t)r * row, row);
    return QD_OK;
}

static qd_status upload_copies(struct qd_device device, struct qd_op_operands *operands,
                               struct qd_op_operand *operand, char *err, size_t errlen)
{
    unsigned char *values = operands->staging + QD_OP_GUARD_BYTES;
    memset(operands->staging, POISON, operand->bytes + 2 * QD_OP_GUARD_BYTES);
    if (operand->n_cols > 0)
        QD_TRY(arrange(device, operand, values, err, errlen));
    else if (operand->host_bytes > 0)
        memcpy(values, operand->host, operand->host_bytes);
    for (int i = 0; i < operands->n_copies; i++)
        QD_TRY(qd_op_put(device, operand->device + (size_t)i * operand->stride - QD_OP_GUARD_BYTES,
                         operands->staging, operand->bytes + 2 * QD_OP_GUARD_BYTES, err, errlen));
    return QD_OK;
}

qd_status qd_op_operands_upload(struct qd_device device, struct qd_op_operands *operands, char *err,
                                size_t errlen)
{
    for (int i = 0; i < QD_OP_N_OPERANDS; i++)
        if (operands->of[i].bytes > 0) QD_TRY(upload_copies(device, operands, &operands->of[i], err, errlen));
    return QD_OK;
}
