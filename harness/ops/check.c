#include "harness/ops/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/ops/check_attention.h"
#include "harness/ops/check_sample.h"
#include "kernels/base/size.h"
#include "kernels/ref/ref.h"

/* Multiply-adds of the specification for one case: a second or two. */
static const double MAX_COST = 1.5e9;

static const struct qd_op_tolerance exact = {.moved = 1};

/* ---- reading back ---- */

static qd_status copy_back(struct qd_op_rank *r, const void *data, size_t bytes, void **host, char *err,
                           size_t errlen)
{
    *host = malloc(bytes);
    if (*host == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no %zu bytes for an output", bytes);
    const struct qd_copy_to_host_args args = {
        .host = *host, .data = data, .n_rows = 1, .row_bytes = bytes, .host_stride = bytes, .stride = bytes};
    qd_status st = qd_device_copy_to_host(r->device, &args);
    return st == QD_OK ? st
                       : qd_fail(st, err, errlen, "copy to the host: %s", qd_device_error_text(r->device));
}

qd_status qd_op_read_back(struct qd_op_rank *r, struct qd_op_outputs *out, char *err, size_t errlen)
{
    static const enum qd_op_operand_name written[] = {QD_OP_IO, QD_OP_OUT};
    void *host;
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        const struct qd_op_operand *operand = &r->operands.of[written[i]];
        if (operand->bytes == 0) continue;
        qd_status st = copy_back(r, operand->device - QD_OP_GUARD_BYTES,
                                 operand->bytes + 2 * QD_OP_GUARD_BYTES, &host, err, errlen);
        out->guarded[written[i]] = host;
        QD_TRY(st);
    }
    bool sliced = qd_op_is_gemm(r->c.op) && qd_op_gemm(&r->c).epilogue == QD_EPILOGUE_PARTIAL &&
                  r->partial.dtype == QD_PARTIAL_F32;
    if (!sliced) return QD_OK;
    qd_status st =
        copy_back(r, r->partial.data, (size_t)r->partial.stride * (size_t)r->partial.n_slices * sizeof(float),
                  &host, err, errlen);
    out->slices = host;
    return st;
}

void qd_op_outputs_free(struct qd_op_outputs *out)
{
    for (int i = 0; i < QD_OP_N_OPERANDS; i++) free(out->guarded[i]);
    free(out->slices);
    *out = (struct qd_op_outputs){0};
}

/* ---- one comparison ---- */

struct check {
    const struct qd_op_rank *r;
    const struct qd_op_case *c;
    const struct qd_step *step;
    uint64_t seed;
    const struct qd_op_outputs *outputs;
    struct qd_op_error *error;
    void *want;                /* [a row of the output] */
    unsigned char *of_rank[8]; /* inputs (A, or IO of an all-reduce) of every rank, by rank */
};

static const void *host(const struct check *k, enum qd_op_operand_name name)
{
    return k->r->operands.of[name].host;
}

static const void *got(const struct check *k, enum qd_op_operand_name name)
{
    return k->outputs->guarded[name] + QD_OP_GUARD_BYTES;
}

/* Row i of n that are checked of `rows`, the first and the last among them. */
static int64_t pick(int64_t i, int64_t n, int64_t rows)
{
    return n > 1 ? i * (rows - 1) / (n - 1) : 0;
}

/* Rows to check when one costs so many multiply-adds. */
static int64_t n_picked(int64_t rows, double cost)
{
    enum { AT_LEAST = 2 };
    double most = fmax(MAX_COST / fmax(cost, 1), AT_LEAST);
    return (double)rows < most ? rows : (int64_t)most;
}

/* RMSNorm: the sum in another order moves 1 / rms by some 2^-22, and so a rounding now and then by one step;
 * hf rounds twice. */
static struct qd_op_tolerance norm_tolerance(const struct qd_op_case *c)
{
    return (struct qd_op_tolerance){.rtol = c->numerics == QD_NUMERICS_HF ? 0x1p-6 : 0x1p-7, .moved = 0.01};
}

/* Each of K additions rounds a partial sum to 2^-24 of it; partial sums of products of values uniform in [-1,
 * 1) and
 * [-2, 2) / sqrt(K) stay within 4 standard deviations of 2/3. Rounded sums may be neighbours, 2^-7 of the
 * smaller. */
static struct qd_op_tolerance gemm_tolerance(const struct qd_op_case *c, const struct qd_op_gemm *gemm)
{
    bool hf = c->numerics == QD_NUMERICS_HF;
    struct qd_op_tolerance t = {.rtol = 0x1p-7, .atol = (double)gemm->k * 0x1p-24 * 8 / 3, .moved = 1};
    if (gemm->epilogue == QD_EPILOGUE_STORE_F32 && !hf) t.rtol = 0;
    if (gemm->epilogue == QD_EPILOGUE_SILU_MUL && hf) t.rtol = 0x1p-6; /* three roundings in a row */
    if (gemm->epilogue == QD_EPILOGUE_SILU_MUL) t.moved = 0.02;
    return t;
}

/* The stored sum of a projection's slices, as the next op reads them. */
static const void *projected_row(const struct check *k, const struct qd_op_gemm *gemm, int64_t row,
                                 qd_bf16 *sums)
{
    const struct qd_partial *partial = &k->r->partial;
    if (gemm->epilogue == QD_EPILOGUE_STORE_F32) return (const float *)got(k, QD_OP_OUT) + row * gemm->ldo;
    if (k->outputs->slices == NULL) return (const qd_bf16 *)got(k, QD_OP_OUT) + row * gemm->ldo;
    for (int64_t i = 0; i < gemm->n; i++) {
        float sum = 0;
        for (int32_t s = 0; s < partial->n_slices; s++)
            sum += k->outputs->slices[s * partial->stride + row * gemm->n + i];
        sums[i] = qd_bf16_from_f32(sum);
    }
    return sums;
}

static qd_status check_gemm(struct check *k, char *err, size_t errlen)
{
    struct qd_op_gemm gemm = qd_op_gemm(k->c);
    struct qd_op_tolerance tolerance = gemm_tolerance(k->c, &gemm);
    bool is_silu = gemm.epilogue == QD_EPILOGUE_SILU_MUL, is_f32 = gemm.epilogue == QD_EPILOGUE_STORE_F32;
    int64_t n_out = is_silu ? gemm.n / 2 : gemm.n;
    int64_t n = n_picked(k->c->n_tokens, (double)gemm.n * (double)gemm.k);
    qd_bf16 *sums = malloc((size_t)gemm.n * sizeof *sums);
    if (sums == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a row of sums");
    for (int64_t i = 0; i < n; i++) {
        int64_t row = pick(i, n, k->c->n_tokens);
        const struct qd_gemm_nt_args args = {
            .a = (const qd_bf16 *)host(k, QD_OP_A) + row * gemm.lda,
            .m = 1,
            .lda = gemm.lda,
            .w = {host(k, QD_OP_W), gemm.n, gemm.k, QD_LAYOUT_ROWS},
            .epilogue = is_silu || is_f32 ? gemm.epilogue : QD_EPILOGUE_STORE,
            .out = k->want,
            .ldo = n_out,
        };
        qd_ref_gemm_nt(&args, k->c->numerics);
        const void *out = projected_row(k, &gemm, row, sums);
        if (is_f32)
            qd_op_compare_f32(k->error, "out", tolerance, row, out, k->want, n_out);
        else
            qd_op_compare_bf16(k->error, "out", tolerance, row, out, k->want, n_out);
        if (!is_silu) continue;
        /* The next projection reads whole 64s: zeros behind the row must still be zeros. */
        const qd_bf16 zeros[64] = {0};
        qd_op_compare_bf16(k->error, "out behind the row", exact, row, (const qd_bf16 *)out + n_out, zeros,
                           gemm.ldo - n_out);
    }
    free(sums);
    return QD_OK;
}

qd_status qd_op_check_product(const struct qd_op_rank *r, const qd_bf16 *product, struct qd_op_error *error,
                              char *err, size_t errlen)
{
    struct qd_op_gemm gemm = qd_op_gemm(&r->c);
    gemm.epilogue = QD_EPILOGUE_STORE;
    int64_t n = n_picked(r->c.n_tokens, (double)gemm.n * (double)gemm.k);
    qd_bf16 *want = malloc((size_t)gemm.n * sizeof *want);
    if (want == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a row");
    for (int64_t i = 0; i < n; i++) {
        int64_t row = pick(i, n, r->c.n_tokens);
        const struct qd_gemm_nt_args args = {
            .a = (const qd_bf16 *)(const void *)r->operands.of[QD_OP_A].host + row * gemm.lda,
            .m = 1,
            .lda = gemm.lda,
            .w = {r->operands.of[QD_OP_W].host, gemm.n, gemm.k, QD_LAYOUT_ROWS},
            .epilogue = gemm.epilogue,
            .out = want,
            .ldo = gemm.n,
        };
        qd_ref_gemm_nt(&args, QD_NUMERICS_FUSED);
        qd_op_compare_bf16(error, "product", gemm_tolerance(&r->c, &gemm), row, product + row * gemm.n, want,
                           gemm.n);
    }
    free(want);
    return QD_OK;
}

static void check_norm(struct check *k)
{
    int64_t dim = k->c->shape.hidden_dim;
    for (int64_t row = 0; row < k->c->n_tokens; row++) {
        const struct qd_rmsnorm_args args = {.x = (const qd_bf16 *)host(k, QD_OP_A) + row * dim,
                                             .weight = host(k, QD_OP_W),
                                             .n_rows = 1,
                                             .dim = dim,
                                             .eps = QD_OP_EPS,
                                             .out = k->want};
        qd_ref_rmsnorm(&args, k->c->numerics);
        qd_op_compare_bf16(k->error, "out", norm_tolerance(k->c), row,
                           (const qd_bf16 *)got(k, QD_OP_OUT) + row * dim, k->want, dim);
    }
}

static void check_embed(struct check *k)
{
    const int32_t nothing_sampled = 0;
    int64_t dim = k->c->shape.hidden_dim;
    for (int64_t row = 0; row < k->c->n_tokens; row++) {
        const struct qd_embed_args args = {
            .table = {host(k, QD_OP_W), k->c->shape.vocab_size, dim, QD_LAYOUT_ROWS},
            .token_source = qd_step_token_source(k->step) + row,
            .n_tokens = 1,
            .out = k->want};
        qd_ref_embed(&args, &nothing_sampled);
        qd_op_compare_bf16(k->error, "out", exact, row, (const qd_bf16 *)got(k, QD_OP_OUT) + row * dim,
                           k->want, dim);
    }
}

/* The exponential's error of 2^-22 seldom reaches over a rounding boundary; hf rounds twice behind it. */
static void check_silu_mul(struct check *k)
{
    const struct qd_op_tolerance tolerance = {.rtol = k->c->numerics == QD_NUMERICS_HF ? 0x1p-6 : 0x1p-7,
                                              .moved = 0.002};
    int64_t dim = k->c->shape.ffn_dim;
    for (int64_t row = 0; row < k->c->n_tokens; row++) {
        const struct qd_silu_mul_args args = {
            .gate_up = (const qd_bf16 *)host(k, QD_OP_A) + row * 2 * dim, .m = 1, .n = dim, .out = k->want};
        qd_ref_silu_mul(&args, k->c->numerics);
        qd_op_compare_bf16(k->error, "out", tolerance, row, (const qd_bf16 *)got(k, QD_OP_OUT) + row * dim,
                           k->want, dim);
    }
}

/* ---- collectives ---- */

/* What every rank put in, made again from the seed. */
static qd_status make_inputs(struct check *k, enum qd_op_operand_name name, char *err, size_t errlen)
{
    size_t bytes = k->r->operands.of[name].host_bytes;
    for (int rank = 0; rank < qd_op_ranks(k->c); rank++) {
        k->of_rank[rank] = malloc(bytes);
        if (k->of_rank[rank] == NULL)
            return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no %zu bytes for the inputs of a rank", bytes);
        struct qd_op_operands inputs = {.n_copies = 1};
        inputs.of[name] = k->r->operands.of[name];
        inputs.of[name].host = k->of_rank[rank];
        qd_op_operands_fill(k->c, rank, k->seed, &inputs);
    }
    return QD_OK;
}

/* One token's row of a rank's partial. */
static const void *partial_row(const struct check *k, int rank, int64_t token)
{
    size_t element = k->c->n_slices > 0 ? sizeof(float) : sizeof(qd_bf16);
    return k->of_rank[rank] + (size_t)(token * k->c->shape.hidden_dim) * element;
}

/* NCCL rounds its sum at every hop: that of h terms, each below 1, to half a unit in the last place, 2^-8 of
 * h at most; and the sum that is wanted is rounded as well. */
static double hop_error(const struct qd_op_case *c)
{
    double n = c->tp;
    return c->way == QD_OP_WAY_NCCL ? 0x1p-8 * (n * (n + 1) / 2 - 1 + n) : 0;
}

/* Of own sums: in fp32 and rank order, rounded once, no other bits are right. */
static struct qd_op_tolerance sum_tolerance(const struct qd_op_case *c)
{
    if (c->way != QD_OP_WAY_NCCL) return exact;
    return (struct qd_op_tolerance){.rtol = 0x1p-7, .atol = hop_error(c), .moved = 1};
}

/* Rows whose root mean square is above 0.75, as that of three and more uniform terms is, times weights below
 * 1.5. */
static struct qd_op_tolerance reduced_norm_tolerance(const struct qd_op_case *c)
{
    struct qd_op_tolerance tolerance = norm_tolerance(c);
    if (c->way != QD_OP_WAY_NCCL) return tolerance;
    return (struct qd_op_tolerance){.rtol = tolerance.rtol + 0x1p-7, .atol = 2 * hop_error(c), .moved = 1};
}

static qd_status check_reduce(struct check *k, char *err, size_t errlen)
{
    int64_t dim = k->c->shape.hidden_dim;
    int stride = k->c->op == QD_OP_FINAL_NORM ? 2 : 1;
    QD_TRY(make_inputs(k, QD_OP_A, err, errlen));
    qd_bf16 *residual = malloc((size_t)dim * sizeof *residual);
    if (residual == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a row");
    for (int64_t token = 0; token < k->c->n_tokens; token++) {
        const void *partials[8];
        for (int rank = 0; rank < k->c->tp; rank++) partials[rank] = partial_row(k, rank, token);
        memcpy(residual, (const qd_bf16 *)host(k, QD_OP_IO) + token * dim, (size_t)dim * sizeof *residual);
        struct qd_reduce_add_rmsnorm_args args = {.residual = residual,
                                                  .partial = qd_partial_stored(partials[0]),
                                                  .weight = host(k, QD_OP_W),
                                                  .n_rows = 1,
                                                  .dim = dim,
                                                  .eps = QD_OP_EPS,
                                                  .out = k->want};
        if (k->c->n_slices > 0) {
            args.partial.dtype = QD_PARTIAL_F32;
            args.partial.n_slices = k->c->n_slices;
            args.partial.stride = k->c->n_tokens * dim;
        }
        bool selected = token % stride == 0;
        if (selected) {
            qd_ref_reduce_add_rmsnorm(&args, partials, k->c->tp, k->c->numerics);
            qd_op_compare_bf16(k->error, "out", reduced_norm_tolerance(k->c), token / stride,
                               (const qd_bf16 *)got(k, QD_OP_OUT) + token / stride * dim, k->want, dim);
        }
        qd_op_compare_bf16(k->error, "residual", sum_tolerance(k->c), token,
                           (const qd_bf16 *)got(k, QD_OP_IO) + token * dim, residual, dim);
    }
    free(residual);
    return QD_OK;
}

static qd_status check_all_reduce(struct check *k, char *err, size_t errlen)
{
    int64_t dim = k->c->shape.hidden_dim;
    QD_TRY(make_inputs(k, QD_OP_IO, err, errlen));
    for (int64_t row = 0; row < k->c->n_tokens; row++) {
        for (int64_t i = 0; i < dim; i++) {
            float sum = 0;
            for (int rank = 0; rank < k->c->tp; rank++)
                sum += qd_bf16_to_f32(((const qd_bf16 *)(const void *)k->of_rank[rank])[row * dim + i]);
            ((qd_bf16 *)k->want)[i] = qd_bf16_from_f32(sum);
        }
        qd_op_compare_bf16(k->error, "data", sum_tolerance(k->c), row,
                           (const qd_bf16 *)got(k, QD_OP_IO) + row * dim, k->want, dim);
    }
    return QD_OK;
}

static qd_status check_all_gather(struct check *k, char *err, size_t errlen)
{
    int64_t row_length = qd_op_vocab_rows(k->c), rows = k->c->n_tokens;
    QD_TRY(make_inputs(k, QD_OP_A, err, errlen));
    for (int64_t row = 0; row < rows * k->c->tp; row++)
        qd_op_compare_f32(k->error, "out", exact, row, (const float *)got(k, QD_OP_OUT) + row * row_length,
                          (const float *)(const void *)k->of_rank[row / rows] + row % rows * row_length,
                          row_length);
    return QD_OK;
}

static qd_status check_sample(struct check *k, char *err, size_t errlen)
{
    enum { COST_PER_ID = 64 }; /* sorting, exponentials */
    int64_t ld = qd_op_vocab_rows(k->c),
            n = n_picked(k->c->n_tokens, (double)k->c->shape.vocab_size * COST_PER_ID);
    QD_TRY(make_inputs(k, QD_OP_A, err, errlen));
    for (int64_t i = 0; i < n; i++) {
        int64_t row = pick(i, n, k->c->n_tokens), at = 0;
        float *logits = k->want;
        for (int rank = 0; rank < k->c->tp; rank++) {
            int64_t count = qd_op_vocab_count(k->c, rank);
            memcpy(logits + at, (const float *)(const void *)k->of_rank[rank] + row * ld,
                   (size_t)count * sizeof *logits);
            at += count;
        }
        QD_TRY(qd_op_check_id(k->error, row, logits, at, &qd_step_sampling(k->step)[row],
                              k->outputs->ids[row], err, errlen));
    }
    return QD_OK;
}

/* ---- rotation, attention ---- */

/* a*c - b*s with |a|, |b| < 4 (weights below 1.5, a norm of uniform values below 2): fp32 errors of some
 * 2^-20 of 4 in fused; hf moves a, b and each product by a rounding now and then. */
static struct qd_op_tolerance rope_tolerance(const struct qd_op_case *c)
{
    return (struct qd_op_tolerance){
        .rtol = 0x1p-7, .atol = 4 * (c->numerics == QD_NUMERICS_HF ? 0x1p-6 : 0x1p-20), .moved = 0.005};
}

/* For |values| <= 1. Un-normalised probabilities may be rounded to bf16 before they are summed up: half a
 * unit in the last place, 2^-8 of each term and so of max |v|; fp32 sums stay under 2 % of that. hf: the
 * specification rounds its own as well, and a score of up to 4 that is rounded to its neighbour moves its
 * probability by 2^-6. */
static struct qd_op_tolerance attention_tolerance(const struct qd_op_case *c)
{
    return (struct qd_op_tolerance){
        .rtol = 0x1p-7, .atol = c->numerics == QD_NUMERICS_HF ? 1.02 * 0x1p-6 : 1.02 * 0x1p-8, .moved = 1};
}

static qd_status check_rope(struct check *k, char *err, size_t errlen)
{
    struct qd_op_sequence sequence;
    int64_t q_dim = (int64_t)k->c->shape.n_heads * k->c->shape.head_dim;
    int64_t n = n_picked(k->c->n_tokens, (double)q_dim * 64);
    QD_TRY(qd_op_sequence_init(k->r, 1, &sequence, err, errlen));
    int64_t row_length = q_dim + 2 * (int64_t)k->c->shape.n_kv_heads * k->c->shape.head_dim;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = pick(i, n, k->c->n_tokens);
        qd_op_sequence_rope(&sequence, (const qd_bf16 *)host(k, QD_OP_A) + row * row_length,
                            k->c->shape.n_heads, qd_step_position(k->step)[row], 0, k->want);
        qd_op_compare_bf16(k->error, "q", rope_tolerance(k->c), row,
                           (const qd_bf16 *)got(k, QD_OP_OUT) + row * q_dim, k->want, q_dim);
    }
    qd_op_sequence_free(&sequence);
    return QD_OK;
}

static qd_status check_attention(struct check *k, char *err, size_t errlen)
{
    struct qd_op_sequence sequence;
    const struct qd_model_shape *s = &k->c->shape;
    struct qd_attention_load load = qd_op_attention_load(k->c);
    int64_t q_dim = (int64_t)s->n_heads * s->head_dim;
    double visible = (double)load.n_visible / (double)load.n_tokens;
    double cost = visible * (double)q_dim * 4; /* scores thrice, sums once */
    if (k->c->op != QD_OP_ATTENTION_PREFILL)
        cost += visible * s->n_kv_heads * s->head_dim * 32; /* new keys each */
    int64_t n = n_picked(k->c->n_tokens, cost);
    QD_TRY(qd_op_sequence_init(k->r, k->c->context + k->c->n_tokens, &sequence, err, errlen));
    for (int64_t i = 0; i < n; i++) {
        int32_t token = (int32_t)pick(i, n, k->c->n_tokens), chunk = 0;
        while (qd_step_cu_seqlens_q(k->step)[chunk + 1] <= token) chunk++;
        qd_op_sequence_attend(&sequence, k->seed, chunk, qd_step_position(k->step)[token],
                              (const qd_bf16 *)host(k, QD_OP_A) + token * q_dim, k->want);
        qd_op_compare_bf16(k->error, "out", attention_tolerance(k->c), token,
                           (const qd_bf16 *)got(k, QD_OP_OUT) + token * q_dim, k->want, q_dim);
    }
    qd_op_sequence_free(&sequence);
    return QD_OK;
}

/* ---- all of a case ---- */

static qd_status check_guards(const struct check *k, char *err, size_t errlen)
{
    for (int i = 0; i < QD_OP_N_OPERANDS; i++) {
        const unsigned char *guarded = k->outputs->guarded[i];
        size_t bytes = k->r->operands.of[i].bytes;
        for (size_t b = 0; guarded != NULL && b < QD_OP_GUARD_BYTES; b++)
            if (guarded[b] != 0xff || guarded[QD_OP_GUARD_BYTES + bytes + b] != 0xff)
                return qd_fail(QD_ERR_INTERNAL, err, errlen, "bytes %s an output of %zu were written",
                               guarded[b] != 0xff ? "before" : "behind", bytes);
    }
    return QD_OK;
}

/* Elements of the longest row that is compared. */
static size_t longest_row(const struct qd_op_case *c)
{
    const struct qd_model_shape *s = &c->shape;
    const int64_t lengths[] = {s->hidden_dim, s->ffn_dim, qd_op_gemm(c).n, (int64_t)s->n_heads * s->head_dim,
                               c->op == QD_OP_SAMPLE ? s->vocab_size : 0};
    int64_t longest = 1;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        longest = lengths[i] > longest ? lengths[i] : longest;
    return (size_t)longest;
}

static qd_status check_outputs(struct check *k, char *err, size_t errlen)
{
    if (qd_op_is_gemm(k->c->op)) return check_gemm(k, err, errlen);
    if (qd_op_is_attention(k->c->op)) return check_attention(k, err, errlen);
    switch (k->c->op) {
    case QD_OP_EMBED: check_embed(k); return QD_OK;
    case QD_OP_RMSNORM: check_norm(k); return QD_OK;
    case QD_OP_SILU_MUL: check_silu_mul(k); return QD_OK;
    case QD_OP_QK_NORM_ROPE_KV: return check_rope(k, err, errlen);
    case QD_OP_REDUCE_ADD_RMSNORM:
    case QD_OP_FINAL_NORM: return check_reduce(k, err, errlen);
    case QD_OP_SAMPLE: return check_sample(k, err, errlen);
    case QD_OP_ALL_REDUCE: return check_all_reduce(k, err, errlen);
    default: return check_all_gather(k, err, errlen);
    }
}

qd_status qd_op_check(const struct qd_op_rank *r, const struct qd_step *step, uint64_t seed,
                      const struct qd_op_outputs *outputs, struct qd_op_error *error, char *err,
                      size_t errlen)
{
    struct check k = {.r = r, .c = &r->c, .step = step, .seed = seed, .outputs = outputs, .error = error};
    QD_TRY(check_guards(&k, err, errlen));
    k.want = malloc(longest_row(k.c) * sizeof(float));
    if (k.want == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a row");
    qd_status st = check_outputs(&k, err, errlen);
    free(k.want);
    for (size_t i = 0; i < sizeof k.of_rank / sizeof *k.of_rank; i++) free(k.of_rank[i]);
    return st;
}
