/* sample: one id per logit row, as kernels/ref/sample.c: the largest logit (temperature 0), or a draw after
 * temperature, top-k, softmax and top-p, by one uniform of Philox(seed, 0, output_index): the smallest id at
 * which the running sum of the kept weights over rising ids exceeds the uniform's share of their total.
 *
 *     vocab_size   1 .. 2^20
 *     ld           a multiple of 4, at least the ids of a shard
 *     n_ranks      1 .. 8; shard_rows a multiple of 4 when more than 1; a shard may be short or empty
 *     n_rows       any; NaN counts as -inf, equal logits go by rising id
 *
 * One rank: up to 16 blocks a row find the best of their chunk, the last to arrive finishes the row. It reads
 * the row once more for a draw, once for the histogram of top-k and top-p and once for each of their cuts,
 * from L2. Several ranks: peers.n_blocks blocks, which meet, so a row is one block's; greedy rows
 * exchange 8 bytes a rank, the others read the peers' logits in place. Weights are fixed-point integers and
 * all atomics are on integers: ids depend neither on the schedule nor on the number of ranks.
 *
 * Source: own (radix select and fixed-point sums: sample_select.cuh). 64 registers (sm_80 and sm_90) with one
 * rank, 94 (96 on sm_90) with several; 36280 bytes of static shared memory. Emulated only. Bytes: n_rows *
 * (4 * vocab_size + 4), as qd_traffic_sample.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peers.cuh"
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/sample_select.cuh"

namespace sample {

constexpr int MAX_CHUNKS = 16;  /* of a row, found by blocks of their own */
constexpr int CHUNK_IDS = 4096; /* at least, so that a small row takes no more blocks than it feeds */
constexpr int VECTOR = 4;       /* logits of 16 bytes */
constexpr int BATCH = 4;        /* vectors a thread has on their way */
constexpr int WALK_IDS = 128;   /* that one warp walks through in the end */
constexpr uint32_t ALL_LANES = 0xffffffffu;

/* A row's entry in a rank's scratch. best: a key << 32 | ~id each, so that the largest is the first of the
 * largest logits; 0 for no ids. With several ranks the peers read best[0]. */
struct row_scratch {
    uint64_t best[MAX_CHUNKS];
    uint32_t arrived; /* blocks of this launch that are done with their chunk; 0 between launches */
    uint32_t unused;
};

/* Calls visit(id, logit) for the ids [begin, end) of a row, dealt to n_lanes threads in fours; begin a
 * multiple of 4. */
template <class Visit>
__device__ __forceinline__ void visit_ids(const struct qd_cuda_sample_args &args, int64_t row, int begin,
                                          int end, int lane, int n_lanes, const Visit &visit)
{
    for (int rank = 0; rank < args.peers.n_ranks; rank++) {
        const int shard_rows = static_cast<int>(args.shard_rows), shard = rank * shard_rows;
        const int to = min(end - shard, shard_rows);
        const float *logits = args.logits[rank] + row * args.ld;
        for (int base = max(begin - shard, 0) + VECTOR * lane; base < to; base += BATCH * VECTOR * n_lanes) {
            float4 v[BATCH];
#pragma unroll
            for (int j = 0; j < BATCH; j++)
                if (base + j * VECTOR * n_lanes < to)
                    v[j] = *reinterpret_cast<const float4 *>(logits + base + j * VECTOR * n_lanes);
#pragma unroll
            for (int j = 0; j < BATCH; j++) {
                const int i = base + j * VECTOR * n_lanes; /* the load may pass the last id, within ld */
                if (i < to) visit(shard + i, v[j].x);
                if (i + 1 < to) visit(shard + i + 1, v[j].y);
                if (i + 2 < to) visit(shard + i + 2, v[j].z);
                if (i + 3 < to) visit(shard + i + 3, v[j].w);
            }
        }
    }
}

/* The best of ids [begin, end) of a row, for all threads. Whole block. */
__device__ __forceinline__ uint64_t best_of(const struct qd_cuda_sample_args &args, int64_t row, int begin,
                                            int end, struct workspace &ws)
{
    uint32_t best_key = 0, best_id = 0;
    visit_ids(args, row, begin, end, static_cast<int>(threadIdx.x), THREADS, [&](int id, float logit) {
        const uint32_t key = sort_key(logit);
        if (key > best_key) { /* a thread's ids rise: the first of equals stays */
            best_key = key;
            best_id = static_cast<uint32_t>(id);
        }
    });
    uint64_t best =
        best_key == 0 ? 0 : static_cast<uint64_t>(best_key) << 32 | static_cast<uint32_t>(~best_id);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const uint64_t other = __shfl_xor_sync(ALL_LANES, best, distance);
        best = best > other ? best : other;
    }
    __syncthreads(); /* the row before has been read */
    if (threadIdx.x % 32 == 0) ws.best[threadIdx.x / 32] = best;
    __syncthreads();
    for (int i = 0; i < WARPS; i++) best = best > ws.best[i] ? best : ws.best[i];
    return best;
}

/* Where top-k and then top-p cut a row. Whole block. */
__device__ __forceinline__ struct cut find_cut(const struct qd_cuda_sample_args &args, int64_t row,
                                               const struct qd_sampling &sampling, const struct scale &scale,
                                               struct workspace &ws)
{
    const auto visit_row = [&](const auto &visit) {
        visit_ids(args, row, 0, static_cast<int>(args.vocab_size), static_cast<int>(threadIdx.x), THREADS,
                  [&](int, float logit) { visit(sort_key(logit)); });
    };
    struct cut cut = {0, {0, 0}, {0, 0}};
    if (sampling.top_k <= 0 && sampling.top_p >= 1.0f) return cut;

    clear(ws.bins);
    __syncthreads();
    visit_row([&](uint32_t key) {
        const float x = exponent_of(scale, key);
        if (can_be_drawn(x)) add(ws.bins, bin_of(scale, x), weight_of(x));
    });

    /* Top-k; its crossing is none when there are fewer ids than k. All that equal the k-th stay. */
    const uint64_t k = sampling.top_k > 0 ? static_cast<uint64_t>(sampling.top_k) : NO_TARGET;
    struct crossing at = find_crossing(ws, ws.bins, {0, 0}, false, k);
    struct tally kept = at.before;
    if (at.bin >= 0) {
        cut = find_key(ws, scale, visit_row, at, 0, false, k);
        kept = cut.above + cut.equal;
    }
    if (sampling.top_p >= 1.0f) return cut;

    /* Top-p among them: its target is within what is kept, so no lower bin is reached. */
    const uint64_t target = top_p_target(sampling.top_p, kept.weight);
    at = find_crossing(ws, ws.bins, {0, 0}, true, target);
    cut = find_key(ws, scale, visit_row, at, cut.key, true, target);
    const uint64_t each = weight_of(exponent_of(scale, cut.key));
    cut.equal.count = static_cast<uint32_t>((target - cut.above.weight + each - 1) / each);
    return cut;
}

/* The ids of a draw, by rising id. */
struct kept_ids {
    struct scale scale;
    struct cut cut;
    uint64_t equal_weight; /* of an id with the cut's key */
};

/* An id's part in the draw: its weight when its key is above the cut, a count of 1 when it is equal. */
__device__ __forceinline__ struct tally part_of(const struct kept_ids &kept, uint32_t key)
{
    const float x = exponent_of(kept.scale, key);
    if (key == kept.cut.key) return {0, 1};
    return {key > kept.cut.key && can_be_drawn(x) ? weight_of(x) : 0, 0};
}

/* What ids weigh together when `before` ids with the cut's key came before them. */
__device__ __forceinline__ uint64_t kept_weight(const struct kept_ids &kept, const struct tally &ids,
                                                uint32_t before)
{
    const uint32_t stay = kept.cut.equal.count - min(before, kept.cut.equal.count);
    return ids.weight + min(ids.count, stay) * kept.equal_weight;
}

/* The first of ids [begin, end) at which the running sum, `sum` before, exceeds `threshold`; `equal` ids with
 * the cut's key came before. Whole warp; every lane gets it. */
__device__ __forceinline__ int warp_walk(const struct qd_cuda_sample_args &args, int64_t row,
                                         const struct kept_ids &kept, int begin, int end, uint64_t sum,
                                         uint32_t equal, uint64_t threshold)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, shard_rows = static_cast<int>(args.shard_rows);
    for (int base = begin; base < end; base += 32) {
        const int id = base + lane, rank = id / shard_rows;
        struct tally mine = {0, 0};
        if (id < end)
            mine = part_of(kept, sort_key(args.logits[rank][row * args.ld + id - rank * shard_rows]));
        const struct tally upto = warp_inclusive_scan(mine);
        const uint64_t running = sum + kept_weight(kept, upto, equal);
        const uint32_t beyond = __ballot_sync(ALL_LANES, running > threshold);
        if (beyond != 0) return base + __ffs(static_cast<int>(beyond)) - 1;
        sum = __shfl_sync(ALL_LANES, running, 31);
        equal += __shfl_sync(ALL_LANES, upto.count, 31);
    }
    return end - 1; /* not reached: the threshold is below the sum of all */
}

/* What the parts in ws.warp weigh together. */
__device__ __forceinline__ uint64_t total_weight(const struct kept_ids &kept, const struct workspace &ws)
{
    uint64_t total = 0;
    uint32_t equal = 0;
    for (int i = 0; i < WARPS; i++) {
        total += kept_weight(kept, ws.warp[i], equal);
        equal += ws.warp[i].count;
    }
    return total;
}

/* Draws the id of a row and hands it to `store` in one thread. Whole block. */
template <class Store>
__device__ __forceinline__ void draw(const struct qd_cuda_sample_args &args, int64_t row,
                                     const struct kept_ids &kept, uint32_t word, struct workspace &ws,
                                     const Store &store)
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    int begin = 0, end = static_cast<int>(args.vocab_size);
    uint64_t sum = 0, threshold = 0; /* the weight of the ids before begin; the one to exceed */
    uint32_t equal = 0;              /* ids before begin with the cut's key */
    bool has_threshold = false;
    /* Every warp weighs a part of the ids; the part that reaches the threshold is divided again, until it is
     * short enough for one warp. */
    while (!has_threshold || end - begin > WALK_IDS) {
        const int range = (end - begin + WARPS * VECTOR - 1) / (WARPS * VECTOR) * VECTOR;
        const int part = min(begin + warp * range, end);
        struct tally mine = {0, 0};
        visit_ids(args, row, part, min(part + range, end), lane, 32,
                  [&](int, float logit) { mine = mine + part_of(kept, sort_key(logit)); });
        mine = warp_inclusive_scan(mine);
        __syncthreads(); /* the sums before have been read */
        if (lane == 31) ws.warp[warp] = mine;
        __syncthreads();
        /* The uniform is (2 * (word >> 9) + 1) / 2^24 as qd_uniform_open's. */
        if (!has_threshold) threshold = share_of(total_weight(kept, ws), 2 * (word >> 9) + 1, 24);
        has_threshold = true;
        int i = 0;
        for (; i < WARPS - 1; i++) {
            const uint64_t next = sum + kept_weight(kept, ws.warp[i], equal);
            if (next > threshold) break;
            sum = next;
            equal += ws.warp[i].count;
        }
        begin = min(begin + i * range, end);
        end = min(begin + range, end);
    }
    if (warp == 0) {
        const int id = warp_walk(args, row, kept, begin, end, sum, equal, threshold);
        if (lane == 0) store(id);
    }
}

/* A row whose best is known, to its id. Whole block. */
__device__ __forceinline__ void finish_row(const struct qd_cuda_sample_args &args, int64_t row, uint64_t best,
                                           struct workspace &ws)
{
    const struct qd_sampling sampling = args.sampling[row];
    const auto store = [&](int id) {
        args.ids[row] = id;
        if (sampling.slot >= 0) args.sampled[sampling.slot] = id;
    };
    if (sampling.temperature == 0.0f) {
        if (threadIdx.x == 0) store(static_cast<int>(~static_cast<uint32_t>(best)));
        return;
    }
    struct kept_ids kept;
    kept.scale = scale_of(sampling.temperature, static_cast<uint32_t>(best >> 32));
    kept.cut = find_cut(args, row, sampling, kept.scale, ws);
    kept.equal_weight = kept.cut.key == 0 ? 0 : weight_of(exponent_of(kept.scale, kept.cut.key));
    draw(args, row, kept, philox(sampling.seed, 0, sampling.output_index).word[0], ws, store);
}

/* One rank: block (row, chunk); the last of a row's blocks finishes it. */
__global__ void __launch_bounds__(THREADS)
    sample_f32_last_arriver_kernel(const __grid_constant__ struct qd_cuda_sample_args args, int n_chunks)
{
    QD_SHARED(struct workspace, shared, [1]);
    struct workspace &ws = shared[0];
    const int row = static_cast<int>(blockIdx.x) / n_chunks, chunk = static_cast<int>(blockIdx.x) % n_chunks;
    const int n = static_cast<int>(args.vocab_size);
    const int range = (n + n_chunks * VECTOR - 1) / (n_chunks * VECTOR) * VECTOR;
    const int begin = min(chunk * range, n);
    uint64_t best = best_of(args, row, begin, min(begin + range, n), ws);

    struct row_scratch *scratch = static_cast<struct row_scratch *>(args.scratch[0]) + row;
    if (threadIdx.x == 0) {
        scratch->best[chunk] = best;
        __threadfence(); /* before the arrival, which announces it */
        ws.last = atomicAdd(&scratch->arrived, 1u) == static_cast<uint32_t>(n_chunks - 1);
    }
    __syncthreads();
    if (!ws.last) return;
    __threadfence(); /* the other blocks' bests are read after their arrivals */
    if (threadIdx.x == 0) scratch->arrived = 0;
    const volatile uint64_t *bests = scratch->best;
    for (int i = 0; i < n_chunks; i++) {
        const uint64_t other = bests[i];
        best = best > other ? best : other;
    }
    finish_row(args, row, best, ws);
}

/* Several ranks: every block has whole rows, and the same on every rank. One block an SM is enough, there are
 * few. */
__global__ void __launch_bounds__(THREADS, 1)
    sample_f32_peers_kernel(const __grid_constant__ struct qd_cuda_sample_args args)
{
    QD_SHARED(struct workspace, shared, [1]);
    struct workspace &ws = shared[0];
    const int block = static_cast<int>(blockIdx.x), n_blocks = static_cast<int>(gridDim.x);
    const int n_rows = static_cast<int>(args.n_rows), n_ranks = args.peers.n_ranks;
    const int shard_rows = static_cast<int>(args.shard_rows), n = static_cast<int>(args.vocab_size);
    const int begin = min(args.peers.rank * shard_rows, n);
    struct row_scratch *own = static_cast<struct row_scratch *>(args.scratch[args.peers.rank]);
    for (int row = block; row < n_rows; row += n_blocks) {
        const uint64_t best = best_of(args, row, begin, min(begin + shard_rows, n), ws);
        if (threadIdx.x == 0) own[row].best[0] = best;
    }
    if (!peers_meet(args.peers, block)) return;
    for (int row = block; row < n_rows; row += n_blocks) {
        uint64_t best = 0;
        for (int rank = 0; rank < n_ranks; rank++) {
            const uint64_t other = static_cast<const struct row_scratch *>(args.scratch[rank])[row].best[0];
            best = best > other ? best : other;
        }
        finish_row(args, row, best, ws);
    }
    peers_meet(args.peers, block); /* behind it the logits and the bests may change */
}

} // namespace sample

extern "C" size_t qd_cuda_sample_scratch_bytes(int64_t max_rows)
{
    return static_cast<size_t>(max_rows) * sizeof(struct sample::row_scratch);
}

static qd_status check_sample(const struct qd_cuda_sample_args *args, char *err, size_t errlen)
{
    const struct qd_cuda_peers *peers = &args->peers;
    const long long n = args->vocab_size, ld = args->ld, shard_rows = args->shard_rows;
    QD_TRY(peers_check("sample", *peers, err, errlen));
    if (n < 1 || n > sample::MAX_VOCAB)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "sample: %lld ids, not 1 .. %d", n,
                       sample::MAX_VOCAB);
    if (shard_rows < 1 || shard_rows > sample::MAX_VOCAB || shard_rows * peers->n_ranks < n ||
        (peers->n_ranks > 1 && shard_rows % sample::VECTOR != 0))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "sample: %d shards of %lld ids for %lld ids",
                       peers->n_ranks, shard_rows, n);
    if (ld % sample::VECTOR != 0 || ld < (shard_rows < n ? shard_rows : n))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "sample: rows of %lld logits, %lld apart",
                       shard_rows < n ? shard_rows : n, ld);
    if (args->n_rows < 0 || args->n_rows > INT32_MAX / sample::MAX_CHUNKS)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "sample: %lld rows",
                       static_cast<long long>(args->n_rows));
    return QD_OK;
}

extern "C" qd_status qd_cuda_sample(const struct qd_cuda_sample_args *args, struct CUstream_st *stream,
                                    char *err, size_t errlen)
{
    QD_TRY(check_sample(args, err, errlen));
    if (args->n_rows == 0) return QD_OK;
    if (args->peers.n_ranks > 1) {
        const struct launch_shape shape = {peers_grid(args->peers, args->n_rows), dim3(sample::THREADS), 0,
                                           stream};
        return launch("sample", sample::sample_f32_peers_kernel, shape, err, errlen, *args);
    }
    const int64_t wanted = (args->vocab_size + sample::CHUNK_IDS - 1) / sample::CHUNK_IDS;
    const int n_chunks = static_cast<int>(wanted < sample::MAX_CHUNKS ? wanted : sample::MAX_CHUNKS);
    const struct launch_shape shape = {dim3(static_cast<unsigned>(args->n_rows * n_chunks)),
                                       dim3(sample::THREADS), 0, stream};
    return launch("sample", sample::sample_f32_last_arriver_kernel, shape, err, errlen, *args, n_chunks);
}
