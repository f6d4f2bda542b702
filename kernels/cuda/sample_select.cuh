/* Finding, in a row dealt over a block, the key at which top-k or top-p cuts. The order of ids is by falling
 * key.
 *
 * A first histogram has bins of equal width in the exponent x, 0 first: rows of logits spread over them, so
 * threads rarely add to the same bin. The bin of a key never rises with the key, so (bin, key) is the order
 * of the keys. The keys of the one bin that holds the cut are collected and cut by radix select on their
 * bits, exactly. Counts and sums of weights are integers: neither the schedule nor the way ids are dealt
 * changes a cut.
 */
#ifndef QD_KERNELS_CUDA_SAMPLE_SELECT_CUH
#define QD_KERNELS_CUDA_SAMPLE_SELECT_CUH

#include "kernels/cuda/sample_weight.cuh"

namespace sample {

constexpr int THREADS = 512;
constexpr int WARPS = THREADS / 32;
constexpr int N_BINS = 2048;  /* of the first histogram */
constexpr int DIGIT_BITS = 8; /* of a step of the radix select */
constexpr int N_DIGITS = 1 << DIGIT_BITS;
constexpr int LIST_KEYS =
    2048; /* of one bin that are kept in shared memory; a fuller bin is read from the row */
/* Logits below max - this share the last bin unless they weigh too little to matter. */
constexpr float BIN_LOGITS = 32.0f;
constexpr uint64_t NO_TARGET = ~0ull;

/* Some of the ids of a row: how many, and what they weigh together. */
struct tally {
    uint64_t weight;
    uint32_t count;
};

/* 64-bit sums as two words: shared memory adds 32 bits natively, and every overflow of the low word is one
 * carry, whoever sees it. */
template <int n> struct histogram {
    uint32_t count[n], low[n], high[n];
};

/* Where a walk over falling keys reaches a target. */
struct crossing {
    int bin;             /* -1: not at all */
    struct tally before; /* of the bins before; of all when none reaches it */
    struct tally inside; /* of the bin */
};

/* Shared memory of a block. */
struct workspace {
    struct histogram<N_BINS> bins;
    struct histogram<N_DIGITS> digits;
    uint32_t list[LIST_KEYS]; /* keys */
    uint32_t n_list;
    struct crossing found;
    struct tally warp[WARPS];
    uint64_t best[WARPS]; /* of the warps, then of the row in [0] */
    bool last;            /* this block completes the row */
};

template <int n> __device__ __forceinline__ void clear(struct histogram<n> &h)
{
    for (int i = static_cast<int>(threadIdx.x); i < n; i += THREADS) h.count[i] = h.low[i] = h.high[i] = 0;
}

template <int n> __device__ __forceinline__ void add(struct histogram<n> &h, int bin, uint64_t weight)
{
    const uint32_t low = static_cast<uint32_t>(weight);
    atomicAdd(&h.count[bin], 1u);
    const uint32_t before = atomicAdd(&h.low[bin], low);
    const uint32_t high = static_cast<uint32_t>(weight >> 32) + (before + low < low ? 1 : 0);
    if (high != 0) atomicAdd(&h.high[bin], high);
}

template <int n> __device__ __forceinline__ struct tally tally_of(const struct histogram<n> &h, int bin)
{
    return {static_cast<uint64_t>(h.high[bin]) << 32 | h.low[bin], h.count[bin]};
}

__device__ __forceinline__ struct tally operator+(const struct tally &a, const struct tally &b)
{
    return {a.weight + b.weight, a.count + b.count};
}
__device__ __forceinline__ struct tally operator-(const struct tally &a, const struct tally &b)
{
    return {a.weight - b.weight, a.count - b.count};
}

/* The sum over the lanes up to this one. */
__device__ __forceinline__ struct tally warp_inclusive_scan(struct tally sum)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const uint64_t weight = __shfl_up_sync(0xffffffffu, sum.weight, distance);
        const uint32_t count = __shfl_up_sync(0xffffffffu, sum.count, distance);
        if (lane >= distance) sum = sum + tally{weight, count};
    }
    return sum;
}

/* The sum over the threads before this one. Whole block; one barrier inside. */
__device__ __forceinline__ struct tally block_exclusive_scan(struct workspace &ws, const struct tally &mine)
{
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const struct tally inclusive = warp_inclusive_scan(mine);
    if (threadIdx.x % 32 == 31) ws.warp[warp] = inclusive;
    __syncthreads();
    struct tally sum = inclusive - mine;
    for (int i = 0; i < warp; i++) sum = sum + ws.warp[i];
    return sum;
}

/* Walks the bins of `h` from 0, starting at `before`: where the count (by_weight: the weight) first reaches
 * `target`, which is above `before`. Whole block, behind a barrier of its own. */
template <int n>
__device__ __forceinline__ struct crossing find_crossing(struct workspace &ws, const struct histogram<n> &h,
                                                         const struct tally &before, bool by_weight,
                                                         uint64_t target)
{
    constexpr int PER_THREAD = n > THREADS ? n / THREADS : 1;
    const int first = static_cast<int>(threadIdx.x) * PER_THREAD;
    __syncthreads(); /* all adds are done, and the last crossing has been read */
    struct tally mine = {0, 0};
    if (first < n)
        for (int j = 0; j < PER_THREAD; j++) mine = mine + tally_of(h, first + j);
    struct tally sum = before + block_exclusive_scan(ws, mine);
    bool reached = (by_weight ? sum.weight : sum.count) >= target;
    if (first < n) {
        for (int j = 0; j < PER_THREAD && !reached; j++) {
            const struct tally inside = tally_of(h, first + j), next = sum + inside;
            reached = (by_weight ? next.weight : next.count) >= target;
            if (reached) ws.found = {first + j, sum, inside};
            sum = next;
        }
    }
    if (threadIdx.x == THREADS - 1 && !reached) ws.found = {-1, sum, {0, 0}};
    __syncthreads();
    return ws.found;
}

/* The first histogram's bin of an exponent that can be drawn. */
__device__ __forceinline__ int bin_of(const struct scale &scale, float x)
{
    return static_cast<int>(fminf(__fmul_rn(-x, scale.bins_per_octave), static_cast<float>(N_BINS - 1)));
}

__device__ __forceinline__ struct scale scale_of(float temperature, uint32_t max_key)
{
    const float exponent = __fdiv_rn(LOG2_E, temperature);
    const float octaves = fminf(-LEAST_EXPONENT, __fmul_rn(BIN_LOGITS, exponent));
    return {max_key, from_sort_key(max_key), exponent, __fdiv_rn(static_cast<float>(N_BINS), octaves)};
}

/* Calls visit(key) for the keys not below `floor` of one bin: from the list when they fit, else from the row,
 * whose keys `row` visits. */
template <class Row, class Visit>
__device__ __forceinline__ void visit_bin(const struct workspace &ws, const struct scale &scale,
                                          const Row &row, int bin, uint32_t floor, bool listed,
                                          const Visit &visit)
{
    if (listed) {
        for (uint32_t i = threadIdx.x; i < ws.n_list; i += THREADS) visit(ws.list[i]);
        return;
    }
    row([&](uint32_t key) {
        const float x = exponent_of(scale, key);
        if (can_be_drawn(x) && key >= floor && bin_of(scale, x) == bin) visit(key);
    });
}

/* A key at which ids are cut: those above it stay, and of those equal to it some. */
struct cut {
    uint32_t key;       /* 0: no cut, all stay */
    struct tally above; /* ids with a larger key */
    struct tally equal; /* ids with this key */
};

/* The key inside the bin of `at` at which the walk reaches the target. Whole block. */
template <class Row>
__device__ __forceinline__ struct cut find_key(struct workspace &ws, const struct scale &scale,
                                               const Row &row, const struct crossing &at, uint32_t floor,
                                               bool by_weight, uint64_t target)
{
    const bool listed = at.inside.count <= LIST_KEYS;
    if (threadIdx.x == 0) ws.n_list = 0;
    __syncthreads();
    if (listed)
        visit_bin(ws, scale, row, at.bin, floor, false,
                  [&](uint32_t key) { ws.list[atomicAdd(&ws.n_list, 1u)] = key; });

    struct cut cut = {0, at.before, at.inside};
    uint32_t known = 0; /* bits of the key */
    for (int shift = 32 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        clear(ws.digits);
        __syncthreads();
        visit_bin(ws, scale, row, at.bin, floor, listed, [&](uint32_t key) {
            const int digit = static_cast<int>(key >> shift) & (N_DIGITS - 1);
            if ((key & known) == cut.key)
                add(ws.digits, N_DIGITS - 1 - digit, weight_of(exponent_of(scale, key)));
        });
        const struct crossing found = find_crossing(ws, ws.digits, cut.above, by_weight, target);
        cut = {cut.key | static_cast<uint32_t>(N_DIGITS - 1 - found.bin) << shift, found.before,
               found.inside};
        known |= static_cast<uint32_t>(N_DIGITS - 1) << shift;
    }
    return cut;
}

} // namespace sample

#endif
