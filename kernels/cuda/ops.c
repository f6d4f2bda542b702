#include <string.h>

#include "kernels/base/size.h"
#include "kernels/cuda/host.h"

enum {
    K_STEP = 64,   /* the GEMM kernels take K in multiples of this */
    ROW_STEP = 64, /* rows of a packed weight are padded to whole vocabulary tiles */
    N_STEP = 8,    /* and N in multiples of this */
};

/* ---- weights ---- */

/* A packed weight's row length: columns up to a multiple of K_STEP are zeros, and so are those of the input.
 */
static int64_t padded_columns(int64_t n_cols)
{
    return (int64_t)qd_round_up((size_t)n_cols, K_STEP);
}

size_t qd_cuda_weight_bytes(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout)
{
    const int64_t most = INT64_MAX - K_STEP;
    size_t rows = (size_t)n_rows, cols = (size_t)n_cols, bytes;
    if (n_rows < 0 || n_cols < 0 || n_rows > most || n_cols > most) return SIZE_MAX;
    if (layout == QD_LAYOUT_PACKED) {
        rows = qd_round_up(rows, ROW_STEP);
        cols = (size_t)padded_columns(n_cols);
    }
    if (!qd_size_mul(rows, cols, &bytes) || !qd_size_mul(bytes, sizeof(qd_bf16), &bytes)) return SIZE_MAX;
    return bytes;
}

int64_t qd_cuda_row_stride(int64_t n_cols, enum qd_weight_layout layout)
{
    return layout == QD_LAYOUT_PACKED ? padded_columns(n_cols) : n_cols;
}

/* ---- ops ---- */

qd_status qd_cuda_op_embed(void *ctx, const struct qd_embed_args *args)
{
    struct qd_cuda *cuda = ctx;
    const struct qd_cuda_embed_args embed = {
        .table = args->table.data,
        .n_ids = args->table.n_rows,
        .hidden_dim = args->table.n_cols,
        .token_source = qd_cuda_step_array(cuda, args->token_source),
        .sampled = cuda->step.sampled,
        .n_tokens = args->n_tokens,
        .out = args->out,
    };
    return qd_cuda_embed(&embed, qd_cuda_launch_stream(cuda), cuda->text, sizeof cuda->text);
}

qd_status qd_cuda_op_rmsnorm(void *ctx, const struct qd_rmsnorm_args *args)
{
    struct qd_cuda *cuda = ctx;
    const struct qd_cuda_rmsnorm_args norm = {
        .x = args->x,
        .weight = args->weight,
        .rows = qd_cuda_step_array(cuda, args->rows),
        .n_rows = args->n_rows,
        .dim = args->dim,
        .eps = args->eps,
        .numerics = cuda->config.numerics,
        .out = args->out,
    };
    return qd_cuda_rmsnorm(&norm, qd_cuda_launch_stream(cuda), cuda->text, sizeof cuda->text);
}

/* Where a projection for a reader of partials goes: to `out`, or in slices to the next buffer in turn. */
static void choose_partial(struct qd_cuda *cuda, const struct qd_gemm_nt_args *args,
                           struct qd_cuda_gemm_args *gemm)
{
    gemm->epilogue = QD_EPILOGUE_STORE;
    *args->partial = qd_partial_stored(args->out);
    int turn = cuda->n_partials++ % QD_CUDA_N_SLICE_BUFFERS;
    if (gemm->plan.n_slices == 1) return;
    gemm->out = cuda->slices[turn];
    gemm->ldo = gemm->n;
    gemm->slice_stride = gemm->m * gemm->n;
    *args->partial = (struct qd_partial){.data = gemm->out,
                                         .dtype = QD_PARTIAL_F32,
                                         .n_slices = gemm->plan.n_slices,
                                         .stride = gemm->slice_stride};
}

qd_status qd_cuda_op_gemm_nt(void *ctx, const struct qd_gemm_nt_args *args)
{
    struct qd_cuda *cuda = ctx;
    if (args->w.layout != QD_LAYOUT_PACKED)
        return qd_fail(QD_ERR_UNSUPPORTED, cuda->text, sizeof cuda->text,
                       "gemm: a weight that is not packed");
    bool is_partial = args->epilogue == QD_EPILOGUE_PARTIAL;
    if (args->m == 0 || args->w.n_rows == 0) {
        if (is_partial) *args->partial = qd_partial_stored(args->out);
        return QD_OK;
    }
    struct qd_cuda_gemm_args gemm = {
        .a = args->a,
        .m = args->m,
        .n = (int64_t)qd_round_up((size_t)args->w.n_rows, N_STEP),
        .k = padded_columns(args->w.n_cols),
        .lda = args->lda,
        .w = args->w.data,
        .epilogue = args->epilogue,
        .numerics = cuda->config.numerics,
        .out = args->out,
        .ldo = args->ldo,
    };
    /* NCCL sums bf16 of one slice. */
    bool may_slice = is_partial && cuda->config.collectives != QD_COLLECTIVES_NCCL;
    gemm.plan =
        qd_cuda_gemm_choose(gemm.m, gemm.n, gemm.k, may_slice, cuda->size, cuda->config.batch_invariant);
    if (gemm.lda < gemm.k)
        return qd_fail(QD_ERR_UNSUPPORTED, cuda->text, sizeof cuda->text, "gemm: rows of %lld for K %lld",
                       (long long)gemm.lda, (long long)gemm.k);
    if (is_partial) choose_partial(cuda, args, &gemm);
    return qd_cuda_gemm(&gemm, qd_cuda_launch_stream(cuda), cuda->text, sizeof cuda->text);
}

qd_status qd_cuda_op_silu_mul(void *ctx, const struct qd_silu_mul_args *args)
{
    struct qd_cuda *cuda = ctx;
    const struct qd_cuda_silu_mul_args silu = {
        .gate_up = qd_partial_stored(args->gate_up),
        .m = args->m,
        .n = args->n,
        .numerics = cuda->config.numerics,
        .out = args->out,
    };
    return qd_cuda_silu_mul(&silu, qd_cuda_launch_stream(cuda), cuda->text, sizeof cuda->text);
}

qd_status qd_cuda_op_qk_norm_rope_kv(void *ctx, const struct qd_qk_norm_rope_kv_args *args)
{
    struct qd_cuda *cuda = ctx;
    const struct qd_cuda_qk_norm_rope_kv_args rope = {
        .qkv = args->qkv,
        .n_tokens = args->step->n_tokens,
        .position = cuda->step.at.position,
        .slot_mapping = cuda->step.at.slot_mapping,
        .cos = cuda->step.cos,
        .sin = cuda->step.sin,
        .q_norm_weight = args->q_norm_weight,
        .k_norm_weight = args->k_norm_weight,
        .eps = args->eps,
        .n_heads = args->n_heads,
        .n_kv_heads = args->n_kv_heads,
        .head_dim = args->head_dim,
        .numerics = cuda->config.numerics,
        .kv = args->kv,
        .q_out = args->q_out,
    };
    return qd_cuda_qk_norm_rope_kv(&rope, qd_cuda_launch_stream(cuda), cuda->text, sizeof cuda->text);
}

qd_status qd_cuda_op_attention(void *ctx, const struct qd_attention_args *args)
{
    struct qd_cuda *cuda = ctx;
    const struct qd_cuda_step_arrays *at = &cuda->step.at;
    const struct qd_cuda_attention_args attention = {
        .plan = at->plan,
        .limits = cuda->step.limits,
        .cu_seqlens_q = at->cu_seqlens_q,
        .kv_len = at->kv_len,
        .block_offset = at->block_offset,
        .block_table = at->block_table,
        .q = args->q,
        .n_heads = args->n_heads,
        .n_kv_heads = args->n_kv_heads,
        .head_dim = args->head_dim,
        .kv = args->kv,
        .numerics = cuda->config.numerics,
        .parts = cuda->attention_parts,
        .out = args->out,
    };
    return qd_cuda_attention(&attention, qd_cuda_launch_stream(cuda), cuda->text, sizeof cuda->text);
}

/* Sums over ranks beforehand, by NCCL and in place, or tells the kernel where all of them have theirs. */
static qd_status add_ranks(struct qd_cuda *cuda, const struct qd_reduce_add_rmsnorm_args *args,
                           struct qd_cuda_reduce_add_rmsnorm_args *reduce)
{
    const struct qd_partial *partial = &args->partial;
    int64_t n = (args->rows == NULL ? args->n_rows : cuda->step.slot->launched->n_tokens) * args->dim;
    if (partial->dtype == QD_PARTIAL_BF16 && qd_cuda_sums_by_nccl(cuda, (size_t)n * sizeof(qd_bf16))) {
        qd_bf16 *sum = (qd_bf16 *)(uintptr_t)partial->data;
        return qd_nccl_all_reduce(&cuda->nccl, sum, sum, n, cuda->stream, cuda->text, sizeof cuda->text);
    }
    reduce->peers = cuda->peers;
    int64_t element_bytes = partial->dtype == QD_PARTIAL_F32 ? (int64_t)sizeof(float) * partial->n_slices
                                                             : (int64_t)sizeof(qd_bf16);
    QD_TRY(qd_cuda_comm_choose_pieces(cuda, args->n_rows * args->dim * element_bytes, &reduce->pieces));
    return qd_cuda_memory_of_ranks(cuda, partial->data, reduce->partials, cuda->text, sizeof cuda->text);
}

qd_status qd_cuda_op_reduce_add_rmsnorm(void *ctx, const struct qd_reduce_add_rmsnorm_args *args)
{
    struct qd_cuda *cuda = ctx;
    const struct qd_partial *partial = &args->partial;
    /* No row, no launch; but others may still read what the next step writes. */
    if (args->n_rows == 0) return partial->cross_rank ? qd_cuda_comm_meet(cuda) : QD_OK;
    struct qd_cuda_reduce_add_rmsnorm_args reduce = {
        .residual = args->residual,
        .partials = {partial->data},
        .dtype = partial->dtype,
        .n_slices = partial->n_slices,
        .slice_stride = partial->stride,
        .peers = {.n_ranks = 1},
        .weight = args->weight,
        .rows = qd_cuda_step_array(cuda, args->rows),
        .n_rows = args->n_rows,
        .dim = args->dim,
        .eps = args->eps,
        .numerics = cuda->config.numerics,
        .out = args->out,
    };
    if (partial->cross_rank) QD_TRY(add_ranks(cuda, args, &reduce));
    return qd_cuda_reduce_add_rmsnorm(&reduce, qd_cuda_launch_stream(cuda), cuda->text, sizeof cuda->text);
}

/* NCCL brings the logits of all ranks here, and this rank samples as if it were alone. */
static qd_status sample_gathered(struct qd_cuda *cuda, const struct qd_sample_args *args,
                                 struct qd_cuda_sample_args *sample)
{
    size_t row_bytes = (size_t)args->ld * sizeof *args->logits;
    QD_TRY(qd_cuda_gather_rows(cuda, args->logits, sample->n_rows, row_bytes, cuda->gathered));
    sample->logits[0] = cuda->gathered;
    sample->ld = sample->shard_rows = args->ld * cuda->bootstrap.world;
    sample->peers = (struct qd_cuda_peers){.n_ranks = 1};
    sample->scratch[0] = cuda->sample_scratch[cuda->bootstrap.rank];
    return qd_cuda_sample(sample, qd_cuda_launch_stream(cuda), cuda->text, sizeof cuda->text);
}

qd_status qd_cuda_op_sample(void *ctx, const struct qd_sample_args *args)
{
    struct qd_cuda *cuda = ctx;
    const void *logits[QD_CUDA_MAX_RANKS];
    struct qd_cuda_sample_args sample = {
        .ld = args->ld,
        .shard_rows = args->ld,
        .vocab_size = args->vocab_size,
        .n_rows = args->step->n_logit_rows,
        .sampling = cuda->step.at.sampling,
        .peers = cuda->peers,
        .sampled = cuda->step.sampled,
        .ids = cuda->step.ids,
    };
    if (cuda->config.collectives == QD_COLLECTIVES_NCCL) return sample_gathered(cuda, args, &sample);
    QD_TRY(qd_cuda_memory_of_ranks(cuda, args->logits, logits, cuda->text, sizeof cuda->text));
    for (int rank = 0; rank < cuda->bootstrap.world; rank++) {
        sample.logits[rank] = logits[rank];
        sample.scratch[rank] = cuda->sample_scratch[rank];
    }
    return qd_cuda_sample(&sample, qd_cuda_launch_stream(cuda), cuda->text, sizeof cuda->text);
}
