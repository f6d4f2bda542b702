/* Paged attention over chunks of prompts: online softmax over KV tiles (Dao 2023, "FlashAttention-2").
 *
 *     out[t][h] = sum_j p_j v_j / sum_j p_j,  p_j = 2^(c q.k_j - m),  j = 0 .. position(t)
 *
 * A block is 128 query rows of one sequence and one query head: 8 warps of 16 rows. Tiles of 64 keys are
 * walked from the diagonal down to position 0, where they are aligned, so a row meets the same tiles whatever
 * chunk it is in: tiles above its own change nothing (softmax_step), and its arithmetic depends on its
 * position alone. Scores are fp32, p rounded to bf16 un-normalised (relative error 2^-8 of each term), sums
 * fp32.
 *
 *   shared memory  Q [128][hd], K [2][64][hd], V [2][64][hd] bf16, swizzled rows (attention.cuh):
 *                  96 KiB at head_dim 128, 48 KiB at 64
 *   registers      194 at head_dim 128, 142 at 64, no spills (nvcc 13.0 for sm_80 and sm_90)
 *   constraints    head_dim 64 or 128; n_heads a multiple of n_kv_heads
 *   traffic        q and out once; K and V of the visible tiles once for each item
 *   emulated only
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/launch.cuh"

namespace attention_prefill {

using namespace attention;

constexpr int N_WARPS = 8, N_THREADS = 32 * N_WARPS;
constexpr int WARP_ROWS = 16, Q_ROWS = N_WARPS * WARP_ROWS;
constexpr int KV_ROWS = 64, TILE_PAGES = KV_ROWS / PAGE;
constexpr int KV_STAGES = 2;
static_assert(Q_ROWS == QD_CUDA_PREFILL_ROWS, "the planner cuts chunks into these");

/* Bytes of the parts of shared memory, in this order. */
template <int head_dim> struct shared_layout {
    static constexpr uint32_t q_bytes = Q_ROWS * head_dim * 2, tile_bytes = KV_ROWS * head_dim * 2;
    static constexpr uint32_t k = q_bytes, v = k + KV_STAGES * tile_bytes, bytes = v + KV_STAGES * tile_bytes;
};
static_assert(shared_layout<128>::bytes <= SHARED_OF_EVERY_GPU, "the larger head_dim fits everywhere");

/* The item of this block. Positions and rows are of the sequence; a "row" is one of the item's 128. */
struct work {
    int head, kv_head;
    int first_token; /* of the step: row 0 */
    int n_rows;      /* that exist */
    int position;    /* of row 0 */
    int kv_len;
    const int32_t *table; /* pages of the sequence */
};

__device__ __forceinline__ work find_work(const params &p)
{
    const qd_cuda_prefill_item item = item_at<qd_cuda_prefill_item>(p.plan, p.plan->prefill, blockIdx.x);
    const int begin = p.cu_seqlens_q[item.seq], q_len = p.cu_seqlens_q[item.seq + 1] - begin;
    work w;
    w.head = item.head;
    w.kv_head = item.head / (p.n_heads / p.n_kv_heads);
    w.first_token = begin + item.q_begin;
    w.n_rows = min(q_len - item.q_begin, Q_ROWS);
    w.kv_len = p.kv_len[item.seq];
    w.position = w.kv_len - q_len + item.q_begin;
    w.table = p.block_table + p.block_offset[item.seq];
    return w;
}

/* Starts the copy of the item's queries; rows that do not exist become zeros. */
template <int head_dim>
__device__ __forceinline__ void copy_queries(const params &p, const work &w, uint32_t q_tile)
{
    constexpr int row_chunks = head_dim / CHUNK;
    for (int i = threadIdx.x; i < Q_ROWS * row_chunks; i += N_THREADS) {
        const int row = i / row_chunks, chunk = i % row_chunks;
        const bool exists = row < w.n_rows;
        const int64_t token = w.first_token + (exists ? row : 0);
        ptx::cp_async_16(q_tile + tile_offset<head_dim>(row, chunk),
                         p.q + (token * p.n_heads + w.head) * head_dim + chunk * CHUNK, exists ? 16 : 0);
    }
}

/* A thread copies one chunk of a row in every pass over a tile. A pass is one page at head_dim 128, two
 * at 64. */
template <int head_dim> struct tile_pages {
    static constexpr int row_chunks = head_dim / CHUNK, pass_rows = N_THREADS / row_chunks;
    static constexpr int passes = KV_ROWS / pass_rows;
    int32_t page[passes];

    /* Looks up the pages of a tile; beyond the last key stands the last page, and nothing of it is read. */
    __device__ __forceinline__ void find(const work &w, int tile)
    {
        const int last = (w.kv_len - 1) / PAGE;
#pragma unroll
        for (int i = 0; i < passes; i++) {
            const int row = i * pass_rows + threadIdx.x / row_chunks;
            page[i] = w.table[min(tile * TILE_PAGES + row / PAGE, last)];
        }
    }

    /* Starts the copy of a tile's keys and values. Rows from kv_len on become zeros: never written memory may
     * hold NaN, and 0 * NaN is not 0. */
    __device__ __forceinline__ void copy(const params &p, const work &w, int tile, uint32_t k_tile,
                                         uint32_t v_tile) const
    {
        const int chunk = threadIdx.x % row_chunks;
#pragma unroll
        for (int i = 0; i < passes; i++) {
            const int row = i * pass_rows + threadIdx.x / row_chunks;
            const uint32_t bytes = tile * KV_ROWS + row < w.kv_len ? 16 : 0;
            const uint32_t offset = tile_offset<head_dim>(row, chunk);
            const auto source = [&](const qd_bf16 *pool) {
                return pool_row<head_dim>(pool, page[i], p.n_kv_heads, w.kv_head, row % PAGE) + chunk * CHUNK;
            };
            ptx::cp_async_16(k_tile + offset, source(p.k_pool), bytes);
            ptx::cp_async_16(v_tile + offset, source(p.v_pool), bytes);
        }
    }
};

/* Keys that a row must not see get -inf, after the MMA, whatever was there. last_key: what the lane's two
 * rows see last. */
__device__ __forceinline__ void mask_scores(float (&s)[KV_ROWS / 8][4], int first_key,
                                            const int (&last_key)[2], int lane)
{
#pragma unroll
    for (int j = 0; j < KV_ROWS / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (first_key + 8 * j + 2 * (lane % 4) + e % 2 > last_key[e / 2]) s[j][e] = -INFINITY;
}

/* One tile for the 16 rows of a warp. */
template <int head_dim, bool hf>
__device__ __forceinline__ void attend(const params &p, float (&o)[head_dim / 8][4], softmax_state &state,
                                       uint32_t q_rows, uint32_t k_tile, uint32_t v_tile, int first_key,
                                       const int (&last_key)[2], bool masked, int lane)
{
    float s[KV_ROWS / 8][4] = {};
#pragma unroll
    for (int k = 0; k < head_dim / 16; k++) {
        uint32_t q[4];
        ptx::ldmatrix_x4(q, q_rows + tile_offset<head_dim>(lane & 15, 2 * k + (lane >> 4)));
#pragma unroll
        for (int j = 0; j < KV_ROWS / 16; j++)
            add_scores<head_dim>(s[2 * j], s[2 * j + 1], q, k_tile, 16 * j, 2 * k, lane);
    }
    if (hf) round_scores(s, p.score_scale);
    if (masked) mask_scores(s, first_key, last_key, lane);
    softmax_step(s, o, state, p.log2_scale);
#pragma unroll
    for (int j = 0; j < KV_ROWS / 16; j++)
        add_values<head_dim>(o, s[2 * j], s[2 * j + 1], v_tile, 16 * j, lane);
}

/* Writes a warp's rows. They go through its own rows of the Q tile, which nobody else reads, so that every
 * lane stores 16 bytes; rows that do not exist belong to the next sequence and are not written. */
template <int head_dim>
__device__ __forceinline__ void store_rows(const params &p, const work &w, const float (&o)[head_dim / 8][4],
                                           const softmax_state &state, unsigned char *q_rows, int first_row,
                                           int lane)
{
    constexpr int row_chunks = head_dim / CHUNK;
    __syncwarp(); /* all lanes have read their queries */
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float scale = normaliser(row_sum(state.sum[half]));
        const int row = lane / 4 + 8 * half;
#pragma unroll
        for (int j = 0; j < row_chunks; j++)
            *reinterpret_cast<uint32_t *>(q_rows + tile_offset<head_dim>(row, j) + lane % 4 * 4) =
                ptx::pack_bf16(o[j][2 * half] * scale, o[j][2 * half + 1] * scale);
    }
    __syncwarp();
    for (int i = lane; i < WARP_ROWS * row_chunks; i += 32) {
        const int row = i / row_chunks, chunk = i % row_chunks;
        if (first_row + row >= w.n_rows) break;
        const int64_t token = w.first_token + first_row + row;
        *reinterpret_cast<uint4 *>(p.out + (token * p.n_heads + w.head) * head_dim + chunk * CHUNK) =
            *reinterpret_cast<const uint4 *>(q_rows + tile_offset<head_dim>(row, chunk));
    }
}

template <int head_dim, bool hf>
__global__ void __launch_bounds__(N_THREADS, 1) attention_bf16_prefill_kernel(const params p)
{
    using layout = shared_layout<head_dim>;
    QD_DYN_SHARED(unsigned char, shared);
    if (static_cast<int>(blockIdx.x) >= p.plan->n_prefill) return;
    const work w = find_work(p);
    const uint32_t q_tile = ptx::shared_address(shared), k_tiles = q_tile + layout::k,
                   v_tiles = q_tile + layout::v;
    const int lane = threadIdx.x % 32, first_row = threadIdx.x / 32 * WARP_ROWS;
    const int last_tile = (w.position + w.n_rows - 1) / KV_ROWS;

    tile_pages<head_dim> pages;
    pages.find(w, last_tile);
    copy_queries<head_dim>(p, w, q_tile);
    pages.copy(p, w, last_tile, k_tiles, v_tiles);
    ptx::cp_async_commit();
    pages.find(w, max(last_tile - 1, 0));

    /* Last visible keys of this lane's rows, and of the warp's first and last row. */
    const auto last_key_of = [&](int row) { return min(w.position + row, w.kv_len - 1); };
    const int last_key[2] = {last_key_of(first_row + lane / 4), last_key_of(first_row + lane / 4 + 8)};
    const int first_row_sees = last_key_of(first_row), last_row_sees = last_key_of(first_row + WARP_ROWS - 1);

    float o[head_dim / 8][4] = {};
    softmax_state state = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
    for (int tile = last_tile, stage = 0; tile >= 0; tile--, stage ^= 1) {
        ptx::cp_async_wait<0>();
        __syncthreads(); /* the tile is there for all, and all are done with the stage that is refilled now */
        const uint32_t k_tile = k_tiles + stage * layout::tile_bytes,
                       v_tile = v_tiles + stage * layout::tile_bytes;
        if (tile > 0) {
            const uint32_t other = (stage ^ 1) * layout::tile_bytes;
            pages.copy(p, w, tile - 1, k_tiles + other, v_tiles + other);
            ptx::cp_async_commit();
            pages.find(w, max(tile - 2, 0)); /* the look-up's latency passes under this tile's arithmetic */
        }
        const int first_key = tile * KV_ROWS;
        if (first_row >= w.n_rows || first_key > last_row_sees)
            continue; /* nothing to see for the whole warp */
        attend<head_dim, hf>(p, o, state, q_tile + first_row * head_dim * 2, k_tile, v_tile, first_key,
                             last_key, first_key + KV_ROWS - 1 > first_row_sees, lane);
    }
    if (first_row < w.n_rows)
        store_rows<head_dim>(p, w, o, state, shared + first_row * head_dim * 2, first_row, lane);
}

template <int head_dim, bool hf>
static qd_status launch_instance(const params &p, int32_t max_items, cudaStream_t stream, char *err,
                                 size_t errlen)
{
    const launch_shape shape = {dim3(static_cast<unsigned>(max_items)), dim3(N_THREADS),
                                shared_layout<head_dim>::bytes, stream};
    return launch("attention_prefill", attention_bf16_prefill_kernel<head_dim, hf>, shape, err, errlen, p);
}

} // namespace attention_prefill

qd_status attention::launch_prefill(const params &p, enum qd_numerics numerics, int32_t max_items,
                                    cudaStream_t stream, char *err, size_t errlen)
{
    using namespace attention_prefill;
    const bool hf = numerics == QD_NUMERICS_HF;
    if (p.head_dim == 64 && !hf) return launch_instance<64, false>(p, max_items, stream, err, errlen);
    if (p.head_dim == 64) return launch_instance<64, true>(p, max_items, stream, err, errlen);
    if (!hf) return launch_instance<128, false>(p, max_items, stream, err, errlen);
    return launch_instance<128, true>(p, max_items, stream, err, errlen);
}
