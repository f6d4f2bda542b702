/* RMSNorm of one row that a block holds in registers, CHUNK elements a thread: what rmsnorm.cu and
 * reduce_add_rmsnorm.cu have in common, and the arithmetic of one element, which qk_norm_rope_kv.cu uses too.
 *
 * The number of threads follows from the row's length alone and sums are made in a fixed order, so a row's
 * bits depend on nothing but the row.
 */
#ifndef QD_KERNELS_CUDA_ROW_NORM_CUH
#define QD_KERNELS_CUDA_ROW_NORM_CUH

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/launch.cuh"

constexpr int ROW_NORM_MAX_DIM = 8192;
constexpr int ROW_NORM_MAX_THREADS = ROW_NORM_MAX_DIM / CHUNK;
constexpr int ROW_NORM_MAX_WARPS = ROW_NORM_MAX_THREADS / WARP;
static_assert(ROW_NORM_MAX_WARPS == WARP, "one lane for each warp's sum");

/* The sum over `width` neighbouring lanes (a power of 2), the same bits in all of them. Whole warp. */
template <int width> __device__ __forceinline__ float lanes_all_reduce_sum(float x)
{
#pragma unroll
    for (int offset = width / 2; offset > 0; offset /= 2)
        x = __fadd_rn(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

/* The sum over the block in every thread; one barrier. Whole block. `sums` is not the one of the call before:
 * slow warps may still read that. */
__device__ __forceinline__ float block_all_reduce_sum(float x, float (&sums)[ROW_NORM_MAX_WARPS])
{
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
    x = lanes_all_reduce_sum<WARP>(x);
    if (lane == 0) sums[warp] = x;
    __syncthreads();
    return lanes_all_reduce_sum<WARP>(lane < n_warps ? sums[lane] : 0.0f);
}

template <int n> __device__ __forceinline__ float sum_of_squares(const float (&x)[n])
{
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < n; i++) sum = __fmaf_rn(x[i], x[i], sum);
    return sum;
}

/* 1 / sqrt(sum_squares / dim + eps); rsqrtf is within 2 ulp. */
__device__ __forceinline__ float reciprocal_rms(float sum_squares, float inverse_dim, float eps)
{
    return rsqrtf(__fmaf_rn(sum_squares, inverse_dim, eps));
}

/* hf: r(w * r(x * rstd))   fused: w * x * rstd, not yet rounded */
template <bool hf> __device__ __forceinline__ float norm_one(float x, float rstd, float weight)
{
    const float normed = __fmul_rn(x, rstd);
    return hf ? bf16_round(__fmul_rn(weight, bf16_round(normed))) : __fmul_rn(weight, normed);
}

/* out[0 .. 7] = norm of x; weight and out at the thread's column. */
template <bool hf>
__device__ __forceinline__ void store_norm(const float (&x)[CHUNK], float rstd, const uint16_t *weight,
                                           uint16_t *out)
{
    float w[CHUNK], y[CHUNK];
    load_chunk(weight, w);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) y[i] = norm_one<hf>(x[i], rstd, w[i]);
    store_chunk(out, y);
}

/* QD_ERR_UNSUPPORTED with the reason, or QD_OK. */
inline qd_status row_norm_check(const char *name, int64_t n_rows, int64_t dim, char *err, size_t errlen)
{
    if (dim < CHUNK || dim > ROW_NORM_MAX_DIM || dim % CHUNK != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: dim %lld is no multiple of %d up to %d", name,
                       static_cast<long long>(dim), CHUNK, ROW_NORM_MAX_DIM);
    if (n_rows < 0 || n_rows > INT32_MAX)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: %lld rows", name,
                       static_cast<long long>(n_rows));
    return QD_OK;
}

/* Threads of a block for rows of `dim`: whole warps. */
inline unsigned row_norm_threads(int64_t dim)
{
    return static_cast<unsigned>((dim / CHUNK + WARP - 1) / WARP * WARP);
}

#endif
