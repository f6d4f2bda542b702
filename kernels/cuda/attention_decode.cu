/* Paged attention of single tokens, split over keys ("split-KV", Flash-Decoding).
 *
 *     out[t][h] = sum_j p_j v_j / sum_j p_j,  p_j = 2^(c q.k_j - m),  j = 0 .. kv_len - 1
 *
 * A block is keys [kv_begin, kv_end) of one sequence for the query heads of one KV head, padded to the 16
 * rows of an MMA. Warp w of 4 owns pages w, w + 4, ... of them: it copies them through a ring of its own and
 * keeps a softmax of its own, so the loop has no block barrier. The four results are merged in warp order; a
 * part of a longer sequence is left as sums and statistics for the merge kernel. Scores are fp32, p rounded
 * to bf16 un-normalised (relative error 2^-8 of each term), sums fp32.
 *
 *   shared memory  [4 warps][3 stages][K, V][16][hd] bf16, swizzled rows (attention.cuh): 96 KiB at
 *                  head_dim 128, 48 KiB at 64; at the end a warp's ring takes its fp32 sums
 *   registers      156 at head_dim 128, 96 at 64, no spills (nvcc 13.0 for sm_80 and sm_90)
 *   constraints    head_dim 64 or 128; n_heads / n_kv_heads at most 16; kv_begin a multiple of 16
 *   traffic        K and V of the sequence once; q and out; fp32 sums of parts, out and in
 *   emulated only
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/launch.cuh"

namespace attention_decode {

using namespace attention;

constexpr int N_WARPS = 4, N_THREADS = 32 * N_WARPS;
constexpr int ROWS = MAX_GROUP, STAGES = 3;
constexpr int KEY_BLOCKS = PAGE / 8;

template <int head_dim> struct shared_layout {
    static constexpr uint32_t page_bytes = PAGE * head_dim * 2, stage_bytes = 2 * page_bytes; /* K, then V */
    static constexpr uint32_t ring_bytes = STAGES * stage_bytes, bytes = N_WARPS * ring_bytes;
    static constexpr int row_floats =
        head_dim + 8; /* of a warp's result: 8 rows of a column lie in different banks */
    static_assert(ROWS * row_floats * 4 <= ring_bytes, "a warp's result takes the place of its ring");
};
static_assert(shared_layout<128>::bytes <= SHARED_OF_EVERY_GPU, "the larger head_dim fits everywhere");

/* The part of the keys that one warp owns. */
struct warp_keys {
    const int32_t *table; /* pages of the sequence */
    int kv_head, kv_end;
    int first_page, n_pages; /* pages first_page, first_page + N_WARPS, ... of the sequence */

    __device__ __forceinline__ int page_index(int i) const { return first_page + i * N_WARPS; }
    /* Number of the warp's page i; that of page 0 when there is no page i. */
    __device__ __forceinline__ int32_t find_page(int i) const
    {
        return i < n_pages ? table[page_index(i)] : 0;
    }
};

__device__ __forceinline__ warp_keys find_keys(const params &p, const qd_cuda_decode_item &item, int warp)
{
    const int n_pages = (item.kv_end - item.kv_begin + PAGE - 1) / PAGE;
    warp_keys keys;
    keys.table = p.block_table + p.block_offset[item.seq];
    keys.kv_head = item.kv_head;
    keys.kv_end = item.kv_end;
    keys.first_page = item.kv_begin / PAGE + warp;
    keys.n_pages = (n_pages - warp + N_WARPS - 1) / N_WARPS; /* 0 when there are fewer pages than warps */
    return keys;
}

/* Starts the copy of the warp's page i, whose number is `page`. Rows from kv_end on become zeros: never
 * written memory may hold NaN, and 0 * NaN is not 0. */
template <int head_dim>
__device__ __forceinline__ void copy_page(const params &p, const warp_keys &keys, int i, int32_t page,
                                          uint32_t stage, int lane)
{
    constexpr int row_chunks = head_dim / CHUNK;
    const int n_rows = keys.kv_end - keys.page_index(i) * PAGE;
#pragma unroll
    for (int pass = 0; pass < PAGE * row_chunks / 32; pass++) {
        const int c = pass * 32 + lane, row = c / row_chunks, chunk = c % row_chunks;
        const uint32_t bytes = row < n_rows ? 16 : 0, to = stage + tile_offset<head_dim>(row, chunk);
        const auto source = [&](const qd_bf16 *pool) {
            return pool_row<head_dim>(pool, page, p.n_kv_heads, keys.kv_head, row) + chunk * CHUNK;
        };
        ptx::cp_async_16(to, source(p.k_pool), bytes);
        ptx::cp_async_16(to + shared_layout<head_dim>::page_bytes, source(p.v_pool), bytes);
    }
}

/* The group's queries as A fragments; rows from `group` on are zeros. */
template <int head_dim>
__device__ __forceinline__ void load_queries(uint32_t (&q)[head_dim / 16][4], const qd_bf16 *queries,
                                             int group, int lane)
{
#pragma unroll
    for (int k = 0; k < head_dim / 16; k++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int row = lane / 4 + 8 * (r % 2), column = 16 * k + 2 * (lane % 4) + 8 * (r / 2);
            q[k][r] =
                row < group ? *reinterpret_cast<const uint32_t *>(queries + row * head_dim + column) : 0;
        }
}

/* One page for the 16 rows. n_keys: rows of the page that are keys; others get -inf after the MMA. */
template <int head_dim, bool hf>
__device__ __forceinline__ void attend(const params &p, float (&o)[head_dim / 8][4], softmax_state &state,
                                       const uint32_t (&q)[head_dim / 16][4], uint32_t stage, int n_keys,
                                       int lane)
{
    float s[KEY_BLOCKS][4] = {};
#pragma unroll
    for (int k = 0; k < head_dim / 16; k++) add_scores<head_dim>(s[0], s[1], q[k], stage, 0, 2 * k, lane);
    if (hf) round_scores(s, p.score_scale);
    if (n_keys < PAGE) {
#pragma unroll
        for (int j = 0; j < KEY_BLOCKS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (8 * j + 2 * (lane % 4) + e % 2 >= n_keys) s[j][e] = -INFINITY;
    }
    softmax_step(s, o, state, p.log2_scale);
    add_values<head_dim>(o, s[0], s[1], stage + shared_layout<head_dim>::page_bytes, 0, lane);
}

/* Walks the warp's pages through its ring: STAGES - 1 pages are on their way while one is computed on. */
template <int head_dim, bool hf>
__device__ __forceinline__ void attend_pages(const params &p, const warp_keys &keys,
                                             float (&o)[head_dim / 8][4], softmax_state &state,
                                             const uint32_t (&q)[head_dim / 16][4], uint32_t ring, int lane)
{
    constexpr uint32_t stage_bytes = shared_layout<head_dim>::stage_bytes;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < keys.n_pages)
            copy_page<head_dim>(p, keys, i, keys.find_page(i), ring + i * stage_bytes, lane);
        ptx::cp_async_commit();
    }
    int32_t ahead =
        keys.find_page(STAGES - 1); /* looked up a page early: its latency passes under arithmetic */
    for (int i = 0, stage = 0; i < keys.n_pages; i++) {
        ptx::cp_async_wait<STAGES - 2>();
        __syncwarp(); /* page i is there for all lanes, and all are done with the stage that is refilled now
                       */
        if (i + STAGES - 1 < keys.n_pages) {
            const int refilled = stage == 0 ? STAGES - 1 : stage - 1;
            copy_page<head_dim>(p, keys, i + STAGES - 1, ahead, ring + refilled * stage_bytes, lane);
            ahead = keys.find_page(i + STAGES);
        }
        ptx::cp_async_commit(); /* also an empty group: the wait counts groups */
        attend<head_dim, hf>(p, o, state, q, ring + stage * stage_bytes,
                             keys.kv_end - keys.page_index(i) * PAGE, lane);
        stage = stage == STAGES - 1 ? 0 : stage + 1;
    }
}

/* Leaves the warp's rows, sums and statistics, in place of its ring. */
template <int head_dim>
__device__ __forceinline__ void leave_rows(const float (&o)[head_dim / 8][4], const softmax_state &state,
                                           float *rows, int lane)
{
    __syncwarp(); /* all lanes have read their last page */
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float *row = rows + (lane / 4 + 8 * half) * shared_layout<head_dim>::row_floats;
#pragma unroll
        for (int j = 0; j < head_dim / 8; j++)
            *reinterpret_cast<float2 *>(row + 8 * j + 2 * (lane % 4)) =
                make_float2(o[j][2 * half], o[j][2 * half + 1]);
        const float total = row_sum(state.sum[half]);
        if (lane % 4 == 0) {
            row[head_dim + PART_MAX] = state.max[half];
            row[head_dim + PART_TOTAL] = total;
        }
    }
}

template <int head_dim, bool hf>
__global__ void __launch_bounds__(N_THREADS) attention_bf16_decode_kernel(const params p)
{
    using layout = shared_layout<head_dim>;
    QD_DYN_SHARED(unsigned char, shared);
    if (static_cast<int>(blockIdx.x) >= p.plan->n_decode) return;
    const qd_cuda_decode_item item = item_at<qd_cuda_decode_item>(p.plan, p.plan->decode, blockIdx.x);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = p.n_heads / p.n_kv_heads;
    const int64_t first_row =
        static_cast<int64_t>(p.cu_seqlens_q[item.seq]) * p.n_heads + item.kv_head * group; /* of q and out */

    uint32_t q[head_dim / 16][4];
    load_queries<head_dim>(q, p.q + first_row * head_dim, group, lane);
    float o[head_dim / 8][4] = {};
    softmax_state state = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
    unsigned char *ring = shared + warp * layout::ring_bytes;
    attend_pages<head_dim, hf>(p, find_keys(p, item, warp), o, state, q, ptx::shared_address(ring), lane);

    leave_rows<head_dim>(o, state, reinterpret_cast<float *>(ring), lane);
    __syncthreads();
    for (int i = threadIdx.x; i < group * head_dim / 4; i += N_THREADS) {
        const int row = i / (head_dim / 4), column = i % (head_dim / 4) * 4;
        const merged m = merge_parts(reinterpret_cast<const float *>(shared) + row * layout::row_floats,
                                     layout::ring_bytes / 4, N_WARPS, head_dim, column);
        if (item.part < 0) {
            store_merged(p.out + (first_row + row) * head_dim + column, m);
            continue;
        }
        float *part =
            p.parts + (static_cast<int64_t>(item.part) * group + row) * (head_dim + QD_CUDA_PART_STATS);
        *reinterpret_cast<float4 *>(part + column) = m.sum;
        if (column == 0) {
            part[head_dim + PART_MAX] = m.max;
            part[head_dim + PART_TOTAL] = m.total;
        }
    }
}

template <int head_dim, bool hf>
static qd_status launch_instance(const params &p, int32_t max_items, cudaStream_t stream, char *err,
                                 size_t errlen)
{
    const launch_shape shape = {dim3(static_cast<unsigned>(max_items)), dim3(N_THREADS),
                                shared_layout<head_dim>::bytes, stream};
    return launch("attention_decode", attention_bf16_decode_kernel<head_dim, hf>, shape, err, errlen, p);
}

} // namespace attention_decode

qd_status attention::launch_decode(const params &p, enum qd_numerics numerics, int32_t max_items,
                                   cudaStream_t stream, char *err, size_t errlen)
{
    using namespace attention_decode;
    const bool hf = numerics == QD_NUMERICS_HF;
    if (p.head_dim == 64 && !hf) return launch_instance<64, false>(p, max_items, stream, err, errlen);
    if (p.head_dim == 64) return launch_instance<64, true>(p, max_items, stream, err, errlen);
    if (!hf) return launch_instance<128, false>(p, max_items, stream, err, errlen);
    return launch_instance<128, true>(p, max_items, stream, err, errlen);
}
