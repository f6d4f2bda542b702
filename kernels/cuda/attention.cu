/* The launcher of paged attention: checks, pointers, and the kernels that a step may need, in order.
 *
 *   head_dim               64 or 128
 *   n_heads / n_kv_heads   whole, 1 .. 16
 *   kv                     of the same heads and head_dim
 *   limits                 none negative; parts without a merge are refused, since nobody would read them
 */
#include "kernels/cuda/attention.cuh"

#include <math.h>

static const double LOG2_E = 1.4426950408889634;

static qd_status check(const struct qd_cuda_attention_args *args, char *err, size_t errlen)
{
    const struct qd_cuda_attention_limits *limits = &args->limits;
    if (args->head_dim != 64 && args->head_dim != 128)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "attention: head_dim %d, not 64 or 128",
                       args->head_dim);
    if (args->n_kv_heads < 1 || args->n_heads < args->n_kv_heads || args->n_heads % args->n_kv_heads != 0 ||
        args->n_heads / args->n_kv_heads > attention::MAX_GROUP)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                       "attention: %d heads on %d KV heads, not 1 to %d on each", args->n_heads,
                       args->n_kv_heads, attention::MAX_GROUP);
    if (args->kv.n_kv_heads != args->n_kv_heads || args->kv.head_dim != args->head_dim)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                       "attention: a pool of %d KV heads of %d, not %d of %d", args->kv.n_kv_heads,
                       args->kv.head_dim, args->n_kv_heads, args->head_dim);
    if (limits->max_prefill_items < 0 || limits->max_decode_items < 0 || limits->max_merge_items < 0 ||
        limits->max_parts < 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "attention: a limit below 0");
    if ((limits->max_parts > 0) != (limits->max_merge_items > 0))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "attention: %d parts with %d merges",
                       limits->max_parts, limits->max_merge_items);
    return QD_OK;
}

static attention::params parameters(const struct qd_cuda_attention_args *args)
{
    const double scale = 1.0 / sqrt(args->head_dim);
    attention::params p = {};
    p.plan = args->plan;
    p.cu_seqlens_q = args->cu_seqlens_q;
    p.kv_len = args->kv_len;
    p.block_offset = args->block_offset;
    p.block_table = args->block_table;
    p.q = args->q;
    p.k_pool = args->kv.data;
    p.v_pool = args->kv.data + args->kv.n_blocks * args->n_kv_heads * QD_KV_BLOCK_SIZE * args->head_dim;
    p.n_heads = args->n_heads;
    p.n_kv_heads = args->n_kv_heads;
    p.head_dim = args->head_dim;
    p.score_scale = static_cast<float>(scale);
    p.log2_scale = static_cast<float>(args->numerics == QD_NUMERICS_HF ? LOG2_E : LOG2_E * scale);
    p.parts = static_cast<float *>(args->parts);
    p.out = args->out;
    return p;
}

extern "C" qd_status qd_cuda_attention(const struct qd_cuda_attention_args *args, struct CUstream_st *stream,
                                       char *err, size_t errlen)
{
    QD_TRY(check(args, err, errlen));
    const attention::params p = parameters(args);
    const struct qd_cuda_attention_limits *limits = &args->limits;
    if (limits->max_prefill_items > 0)
        QD_TRY(attention::launch_prefill(p, args->numerics, limits->max_prefill_items, stream, err, errlen));
    if (limits->max_decode_items > 0)
        QD_TRY(attention::launch_decode(p, args->numerics, limits->max_decode_items, stream, err, errlen));
    if (limits->max_merge_items > 0)
        QD_TRY(attention::launch_merge(p, limits->max_merge_items, stream, err, errlen));
    return QD_OK;
}
