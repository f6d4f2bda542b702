/* Merges the parts of a token whose keys were split: log-sum-exp in base 2, parts in index order.
 *
 *     M = max_i m_i,  out = sum_i 2^(m_i - M) sums_i / sum_i 2^(m_i - M) l_i
 *
 * A part without keys (l_i = 0) is left out.
 *
 * A block is one sequence and one KV head: its query heads' rows, four columns a thread. The result depends
 * on the parts alone, never on the order in which they were made.
 *
 *   parts        [n_parts][group][hd + 4] fp32: sums, m, l, two unused
 *   constraints  head_dim a multiple of 4
 *   registers    40 (32 on sm_90), no shared memory, no spills (nvcc 13.0 for sm_80 and sm_90)
 *   traffic      every part once, out once
 *   emulated only
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/launch.cuh"

namespace attention_merge {

using namespace attention;

constexpr int N_THREADS = 128;

__global__ void __launch_bounds__(N_THREADS) attention_bf16_merge_kernel(const params p)
{
    if (static_cast<int>(blockIdx.x) >= p.plan->n_merge) return;
    const qd_cuda_merge_item item = item_at<qd_cuda_merge_item>(p.plan, p.plan->merge, blockIdx.x);
    const int head_dim = p.head_dim, group = p.n_heads / p.n_kv_heads;
    const int64_t first_row =
        static_cast<int64_t>(p.cu_seqlens_q[item.seq]) * p.n_heads + item.kv_head * group;
    const int row_floats = head_dim + QD_CUDA_PART_STATS;
    const float *parts = p.parts + static_cast<int64_t>(item.part_begin) * group * row_floats;
    for (int i = threadIdx.x; i < group * head_dim / 4; i += N_THREADS) {
        const int row = i / (head_dim / 4), column = i % (head_dim / 4) * 4;
        const merged m = merge_parts(parts + row * row_floats, static_cast<int64_t>(group) * row_floats,
                                     item.n_parts, head_dim, column);
        store_merged(p.out + (first_row + row) * head_dim + column, m);
    }
}

} // namespace attention_merge

qd_status attention::launch_merge(const params &p, int32_t max_items, cudaStream_t stream, char *err,
                                  size_t errlen)
{
    using namespace attention_merge;
    const launch_shape shape = {dim3(static_cast<unsigned>(max_items)), dim3(N_THREADS), 0, stream};
    return launch("attention_merge", attention_bf16_merge_kernel, shape, err, errlen, p);
}
