/* Per head RMSNorm of q and k, rotary embedding, and the store of k and v into the paged pool, with the
 * rounding that kernels/ops.h gives.
 *
 * qkv: [n_slices][T][(Hq + 2*Hkv)*hd] bf16 (one slice) or fp32, summed in index order and rounded to bf16
 * first; position: [T] int32; slot_mapping: [T] int64, below 0: this token's K and V are stored nowhere; cos,
 * sin: [max_position][hd/2] fp32; q_out: [T][Hq*hd] bf16; pool: [2][n_blocks][Hkv][16][hd] bf16. hd/16 lanes
 * hold a head:
 *
 *     lane j: elements 8j .. 8j+7 and hd/2+8j .. hd/2+8j+7: both ends of each pair to rotate
 *
 *     constraint                       otherwise
 *     head_dim 64 or 128               QD_ERR_UNSUPPORTED
 *     kv shaped as the heads           QD_ERR_UNSUPPORTED
 *     bf16: one slice                  QD_ERR_UNSUPPORTED
 *     stride % 8 == 0                  QD_ERR_UNSUPPORTED (with several slices)
 *     T * heads / 16 < 2^31            QD_ERR_UNSUPPORTED
 *
 * Traffic: qd_traffic_qk_norm_rope_kv (kernels/ref/qk_norm_rope_kv.c). Source: Qwen3Attention and
 * apply_rotary_pos_emb of Hugging Face transformers. nvcc 13.0, sm_80 / sm_90: 44 / 46 registers, no shared
 * memory, no spills. Emulated only.
 */
#include "kernels/cuda/row_norm.cuh"

namespace qk_norm_rope_kv {

constexpr int THREADS = 128;

/* The two chunks of a head that a lane holds. */
struct lane_part {
    float a[CHUNK], b[CHUNK]; /* elements i and i + hd/2 */
};

__device__ __forceinline__ void round_part(struct lane_part &x)
{
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
        x.a[i] = bf16_round(x.a[i]);
        x.b[i] = bf16_round(x.b[i]);
    }
}

/* weight, cos and sin at the lane's first element. */
template <bool hf>
__device__ __forceinline__ void norm_rotate(struct lane_part &x, float rstd, const uint16_t *weight, int half,
                                            const float *cos, const float *sin)
{
    float wa[CHUNK], wb[CHUNK], c[CHUNK], s[CHUNK];
    load_chunk(weight, wa);
    load_chunk(weight + half, wb);
    load_chunk(cos, c);
    load_chunk(sin, s);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
        const float a = norm_one<hf>(x.a[i], rstd, wa[i]), b = norm_one<hf>(x.b[i], rstd, wb[i]);
        if (hf) {
            x.a[i] = __fadd_rn(bf16_round(__fmul_rn(a, c[i])), bf16_round(__fmul_rn(-b, s[i])));
            x.b[i] = __fadd_rn(bf16_round(__fmul_rn(b, c[i])), bf16_round(__fmul_rn(a, s[i])));
        } else {
            x.a[i] = __fmaf_rn(a, c[i], __fmul_rn(-b, s[i]));
            x.b[i] = __fmaf_rn(b, c[i], __fmul_rn(a, s[i]));
        }
    }
}

/* Where head `head` of K (0) or V (1) of a slot begins. */
__device__ __forceinline__ uint16_t *kv_row(const struct qd_kv_layer &kv, int which, int64_t slot, int head)
{
    const int64_t page = slot / QD_KV_BLOCK_SIZE, offset = slot % QD_KV_BLOCK_SIZE;
    const int64_t tile = (which * kv.n_blocks + page) * kv.n_kv_heads + head;
    return kv.data + (tile * QD_KV_BLOCK_SIZE + offset) * kv.head_dim;
}

/* Where a head's result goes; NULL: nowhere. Heads count q, k, v. */
__device__ __forceinline__ uint16_t *destination(const struct qd_cuda_qk_norm_rope_kv_args &args,
                                                 int64_t token, int head)
{
    if (head < args.n_heads) return args.q_out + (token * args.n_heads + head) * args.head_dim;
    const int64_t slot = args.slot_mapping[token];
    const int kv_head = head - args.n_heads, which = kv_head >= args.n_kv_heads;
    return slot < 0 ? nullptr : kv_row(args.kv, which, slot, kv_head - which * args.n_kv_heads);
}

template <bool hf, int head_dim>
__global__ void __launch_bounds__(THREADS)
    qk_norm_rope_kv_bf16_lanes_per_head_kernel(const struct qd_cuda_qk_norm_rope_kv_args args)
{
    constexpr int lanes = head_dim / (2 * CHUNK), half = head_dim / 2, heads_per_block = THREADS / lanes;
    const int n_heads = args.n_heads + 2 * args.n_kv_heads;
    const int64_t n_items = args.n_tokens * n_heads; /* heads of all tokens */
    const int64_t item = static_cast<int64_t>(blockIdx.x) * heads_per_block + threadIdx.x / lanes;
    const bool inside = item < n_items; /* the others keep their warp whole for the shuffles */
    const int64_t token = inside ? item / n_heads : 0;
    const int head = static_cast<int>(item - token * n_heads), first = threadIdx.x % lanes * CHUNK;
    struct lane_part x = {};

    if (inside) {
        const struct qd_partial &in = args.qkv;
        sum_slices(in.data, in.dtype, in.n_slices, in.stride, item * head_dim + first, x.a);
        sum_slices(in.data, in.dtype, in.n_slices, in.stride, item * head_dim + first + half, x.b);
        round_part(x);
    }
    const float sum = lanes_all_reduce_sum<lanes>(__fadd_rn(sum_of_squares(x.a), sum_of_squares(x.b)));
    uint16_t *to = inside ? destination(args, token, head) : nullptr;
    if (to == nullptr) return;

    if (head < args.n_heads + args.n_kv_heads) {
        const uint16_t *weight = head < args.n_heads ? args.q_norm_weight : args.k_norm_weight;
        const int64_t angle = static_cast<int64_t>(args.position[token]) * half + first;
        const float rstd = reciprocal_rms(sum, 1.0f / head_dim, args.eps);
        norm_rotate<hf>(x, rstd, weight + first, half, args.cos + angle, args.sin + angle);
    }
    store_chunk(to + first, x.a);
    store_chunk(to + first + half, x.b);
}

qd_status check(const struct qd_cuda_qk_norm_rope_kv_args *args, char *err, size_t errlen)
{
    if (args->head_dim != 64 && args->head_dim != 128)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "qk_norm_rope_kv: head_dim %d is neither 64 nor 128",
                       args->head_dim);
    if (args->n_heads < 1 || args->n_kv_heads < 1 || args->kv.n_kv_heads != args->n_kv_heads ||
        args->kv.head_dim != args->head_dim)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "qk_norm_rope_kv: %d + %d heads, a pool of %d x %d",
                       args->n_heads, args->n_kv_heads, args->kv.n_kv_heads, args->kv.head_dim);
    return check_slices("qk_norm_rope_kv", args->qkv.dtype, args->qkv.n_slices, args->qkv.stride, err,
                        errlen);
}

} // namespace qk_norm_rope_kv

extern "C" qd_status qd_cuda_qk_norm_rope_kv(const struct qd_cuda_qk_norm_rope_kv_args *args,
                                             struct CUstream_st *stream, char *err, size_t errlen)
{
    using namespace qk_norm_rope_kv;
    QD_TRY(check(args, err, errlen));
    const bool hf = args->numerics == QD_NUMERICS_HF;
    const int heads_per_block = THREADS / (args->head_dim / (2 * CHUNK));
    const int64_t n_items = args->n_tokens * (args->n_heads + 2 * static_cast<int64_t>(args->n_kv_heads));
    const int64_t n_blocks = (n_items + heads_per_block - 1) / heads_per_block;
    if (args->n_tokens < 0 || n_blocks > INT32_MAX)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "qk_norm_rope_kv: %lld tokens",
                       static_cast<long long>(args->n_tokens));
    if (args->n_tokens == 0) return QD_OK;

    const struct launch_shape shape = {dim3(static_cast<unsigned>(n_blocks)), dim3(THREADS), 0, stream};
    const auto kernel = args->head_dim == 64 ? (hf ? qk_norm_rope_kv_bf16_lanes_per_head_kernel<true, 64>
                                                   : qk_norm_rope_kv_bf16_lanes_per_head_kernel<false, 64>)
                                             : (hf ? qk_norm_rope_kv_bf16_lanes_per_head_kernel<true, 128>
                                                   : qk_norm_rope_kv_bf16_lanes_per_head_kernel<false, 128>);
    return launch("qk_norm_rope_kv", kernel, shape, err, errlen, *args);
}
