/* What the attention kernels share: their parameters, the arrangement of tiles in shared memory, the online
 * softmax and the merge of partial results. Not for callers: they include attention.h.
 */
#ifndef QD_KERNELS_CUDA_ATTENTION_CUH
#define QD_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/attention.h"
#include "kernels/cuda/ptx.cuh"

namespace attention {

constexpr int PAGE = QD_KV_BLOCK_SIZE; /* rows of a KV page */
constexpr int MAX_GROUP = 16;          /* query heads of a KV head: the rows of one MMA */
constexpr int CHUNK = 8;               /* elements of a 16-byte chunk */
constexpr uint32_t ALL_LANES = 0xffffffffu;

/* What every kernel gets by value. */
struct params {
    const struct qd_cuda_attention_plan *plan;
    const int32_t *cu_seqlens_q, *kv_len, *block_offset, *block_table;
    const qd_bf16 *q;               /* [T][Hq][hd] */
    const qd_bf16 *k_pool, *v_pool; /* [n_blocks][Hkv][PAGE][hd] */
    int32_t n_heads, n_kv_heads, head_dim;
    float score_scale; /* hf: multiplies the rounded score before it is rounded again */
    float log2_scale;  /* takes a score to base 2: log2(e), and in fused hd^-0.5 with it */
    float *parts;      /* [parts][group][hd + QD_CUDA_PART_STATS]: sums, then statistics */
    qd_bf16 *out;      /* [T][Hq][hd] */
};

/* Launchers of the kernels' files; the grid is the number of items a step may have. */
qd_status launch_prefill(const params &p, enum qd_numerics numerics, int32_t max_items, cudaStream_t stream,
                         char *err, size_t errlen);
qd_status launch_decode(const params &p, enum qd_numerics numerics, int32_t max_items, cudaStream_t stream,
                        char *err, size_t errlen);
qd_status launch_merge(const params &p, int32_t max_items, cudaStream_t stream, char *err, size_t errlen);

template <class item>
__device__ __forceinline__ const item &item_at(const struct qd_cuda_attention_plan *plan, uint64_t offset,
                                               unsigned index)
{
    return reinterpret_cast<const item *>(reinterpret_cast<const unsigned char *>(plan) + offset)[index];
}

/* Byte offset of a 16-byte chunk in a tile of rows of head_dim elements. The low three bits of the chunk are
 * XORed with the row, so that 8 rows of one column of chunks lie in 8 different groups of banks:
 *
 *     row 0 | 0 1 2 3 4 5 6 7 | 8 9 ..
 *     row 1 | 1 0 3 2 5 4 7 6 | 9 8 ..
 *     row 2 | 2 3 0 1 6 7 4 5 | ..
 */
template <int head_dim> __device__ __forceinline__ uint32_t tile_offset(int row, int chunk)
{
    return static_cast<uint32_t>(row * head_dim * 2 + ((chunk ^ (row & 7)) * 16));
}

/* Element 0 of a page's row in a pool: pools exceed 2^31 elements. */
template <int head_dim>
__device__ __forceinline__ const qd_bf16 *pool_row(const qd_bf16 *pool, int32_t page, int n_kv_heads,
                                                   int kv_head, int row)
{
    return pool + ((static_cast<int64_t>(page) * n_kv_heads + kv_head) * PAGE + row) * head_dim;
}

/* Scores of 16 rows and 16 keys: s (two blocks of 8 keys) += q (16 x 16, A fragment) * k^T, where k's rows
 * are keys of the tile from first_row on and column_chunk is the chunk of q's first column. */
template <int head_dim>
__device__ __forceinline__ void add_scores(float (&s0)[4], float (&s1)[4], const uint32_t (&q)[4],
                                           uint32_t k_tile, int first_row, int column_chunk, int lane)
{
    uint32_t k[4]; /* b0, b1 of keys 0 .. 7, then of keys 8 .. 15 */
    const int row = first_row + (lane >> 4) * 8 + (lane & 7);
    ptx::ldmatrix_x4(k, k_tile + tile_offset<head_dim>(row, column_chunk + ((lane >> 3) & 1)));
    ptx::mma_m16n8k16_bf16(s0, q, {k[0], k[1]});
    ptx::mma_m16n8k16_bf16(s1, q, {k[2], k[3]});
}

/* o (16 rows x head_dim) += p (16 rows x 16 keys, the fp32 results of two score blocks) * v (those 16 rows of
 * the tile from first_row on). Two blocks of results are, packed, one A fragment. */
template <int head_dim>
__device__ __forceinline__ void add_values(float (&o)[head_dim / 8][4], const float (&p0)[4],
                                           const float (&p1)[4], uint32_t v_tile, int first_row, int lane)
{
    const uint32_t p[4] = {ptx::pack_bf16(p0[0], p0[1]), ptx::pack_bf16(p0[2], p0[3]),
                           ptx::pack_bf16(p1[0], p1[1]), ptx::pack_bf16(p1[2], p1[3])};
    const int row = first_row + (lane & 15);
#pragma unroll
    for (int d = 0; d < head_dim / 16; d++) {
        uint32_t v[4]; /* b0, b1 of dims 0 .. 7, then of dims 8 .. 15 */
        ptx::ldmatrix_x4_trans(v, v_tile + tile_offset<head_dim>(row, 2 * d + (lane >> 4)));
        ptx::mma_m16n8k16_bf16(o[2 * d], p, {v[0], v[1]});
        ptx::mma_m16n8k16_bf16(o[2 * d + 1], p, {v[2], v[3]});
    }
}

/* Softmax of a lane's two rows (g and g + 8) so far. */
struct softmax_state {
    float max[2]; /* base 2; -inf: no key yet */
    float sum[2]; /* over this lane's columns */
};

/* What is subtracted: a row without any key must not make -inf - -inf. */
__device__ __forceinline__ float guarded(float max)
{
    return max == -INFINITY ? 0.0f : max;
}

/* Takes in one tile: scores become exponentials relative to the new maximum, sum and o are rescaled to it.
 * The maximum is kept in base 2 and rounded once, and every exponent is relative to that same number. A row
 * whose scores are all -inf and that has seen no key keeps its state exactly: the factor is 0, and so are o
 * and sum. */
template <int n_blocks, int n_out>
__device__ __forceinline__ void softmax_step(float (&s)[n_blocks][4], float (&o)[n_out][4],
                                             softmax_state &state, float log2_scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float max = -INFINITY;
#pragma unroll
        for (int j = 0; j < n_blocks; j++) max = fmaxf(max, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
        max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, 1)); /* a row's columns lie in 4 lanes */
        max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, 2));
        max = fmaxf(state.max[half], __fmul_rn(max, log2_scale));
        const float base = guarded(max), factor = ptx::exp2_approx(state.max[half] - base);
        state.max[half] = max;
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < n_blocks; j++) {
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                s[j][e] = ptx::exp2_approx(__fmaf_rn(s[j][e], log2_scale, -base));
                sum = __fadd_rn(sum, s[j][e]);
            }
        }
        state.sum[half] = __fmaf_rn(state.sum[half], factor, sum);
#pragma unroll
        for (int j = 0; j < n_out; j++) {
            o[j][2 * half] = __fmul_rn(o[j][2 * half], factor);
            o[j][2 * half + 1] = __fmul_rn(o[j][2 * half + 1], factor);
        }
    }
}

/* The sum of a row over its four lanes; all of them get it. */
__device__ __forceinline__ float row_sum(float sum)
{
    sum = __fadd_rn(sum, __shfl_xor_sync(ALL_LANES, sum, 1));
    return __fadd_rn(sum, __shfl_xor_sync(ALL_LANES, sum, 2));
}

/* hf: the roundings of r(r(q.k) * scale). */
template <int n_blocks> __device__ __forceinline__ void round_scores(float (&s)[n_blocks][4], float scale)
{
#pragma unroll
    for (int j = 0; j < n_blocks; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[j][e] = bf16_round(__fmul_rn(bf16_round(s[j][e]), scale));
}

/* Statistics of a part's row follow its head_dim sums: maximum (base 2) and sum of the exponentials. */
constexpr int PART_MAX = 0, PART_TOTAL = 1;

/* Four columns of a row, summed over parts. */
struct merged {
    float4 sum;
    float max, total;
};

/* Merges columns column .. column + 3 of n parts in index order, whatever order they were made in. `row`: the
 * row in part 0; stride: floats between parts. A part without keys (total 0) is left out; one of which no
 * score is a number has the same maximum, -inf, but a total that is none either, and stays. */
__device__ __forceinline__ merged merge_parts(const float *row, int64_t stride, int n, int head_dim,
                                              int column)
{
    merged m = {make_float4(0.0f, 0.0f, 0.0f, 0.0f), -INFINITY, 0.0f};
    for (int i = 0; i < n; i++) m.max = fmaxf(m.max, row[i * stride + head_dim + PART_MAX]);
    for (int i = 0; i < n; i++) {
        const float *part = row + i * stride;
        const float part_total = part[head_dim + PART_TOTAL];
        if (part_total == 0.0f) continue;
        const float weight = ptx::exp2_approx(part[head_dim + PART_MAX] - m.max);
        const float4 x = *reinterpret_cast<const float4 *>(part + column);
        m.total = __fmaf_rn(part_total, weight, m.total);
        m.sum.x = __fmaf_rn(x.x, weight, m.sum.x);
        m.sum.y = __fmaf_rn(x.y, weight, m.sum.y);
        m.sum.z = __fmaf_rn(x.z, weight, m.sum.z);
        m.sum.w = __fmaf_rn(x.w, weight, m.sum.w);
    }
    return m;
}

/* 1 / total, and 0 for a row without keys. */
__device__ __forceinline__ float normaliser(float total)
{
    return total > 0.0f ? 1.0f / total : 0.0f;
}

/* out[0 .. 3] = r(sum / total) */
__device__ __forceinline__ void store_merged(qd_bf16 *out, const merged &m)
{
    const float scale = normaliser(m.total);
    *reinterpret_cast<uint2 *>(out) = make_uint2(ptx::pack_bf16(m.sum.x * scale, m.sum.y * scale),
                                                 ptx::pack_bf16(m.sum.z * scale, m.sum.w * scale));
}

} // namespace attention

#endif
