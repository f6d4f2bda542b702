/* Two small kernels with bugs to be planted: PLANTED_NONE is right. For the source front end and for nvcc. */
#ifndef QD_TESTS_EMU_PLANTED_CUH
#define QD_TESTS_EMU_PLANTED_CUH

#include "kernels/cuda/ptx.cuh"

#include "tests/emu/planted.h"

namespace planted {

/* out[t] = sum over the n tiles in[n][128] (uint4) of the first word of chunk 127 - t, through a ring of two
 * stages. One block of 128 threads. */
template <int bug> __global__ void pipeline(struct planted_args a)
{
    constexpr uint32_t THREADS = PLANTED_PIPELINE_THREADS;
    QD_SHARED(uint4, ring, [2][THREADS]);
    const uint4 *in = reinterpret_cast<const uint4 *>(a.in);
    uint32_t t = threadIdx.x, sum = 0;
    ptx::cp_async_16(ptx::shared_address(&ring[0][t]), &in[t]);
    ptx::cp_async_commit();
    for (uint32_t i = 0; i < a.n; i++) {
        if (i + 1 < a.n)
            ptx::cp_async_16(ptx::shared_address(&ring[(i + 1) % 2][t]), &in[(i + 1) * THREADS + t]);
        ptx::cp_async_commit();
        ptx::cp_async_wait<bug == PLANTED_LAX_WAIT ? 2 : 1>();
        if (bug != PLANTED_NO_BARRIER_AFTER_WAIT) __syncthreads();
        sum += ring[i % 2][THREADS - 1 - t].x;
        if (bug != PLANTED_LATE_REFILL) __syncthreads();
    }
    ptx::cp_async_wait<0>();
    a.out[t] = sum;
}

/* The sum of a warp; the bug: half of it calls the same shuffle elsewhere. */
template <int bug> __device__ __forceinline__ uint32_t warp_all_reduce_sum(uint32_t v)
{
    if (bug == PLANTED_DIVERGENT_SHUFFLE && threadIdx.x % 32 < 16)
        v += __shfl_xor_sync(~0u, v, 16);
    else
        v += __shfl_xor_sync(~0u, v, 16);
    for (int by = 8; by > 0; by /= 2) v += __shfl_xor_sync(~0u, v, by);
    return v;
}

/* The sum of pair i of in; the bugs: one pair is read across the end, one across its alignment. */
template <int bug> __device__ __forceinline__ uint32_t pair_sum(const uint32_t *in, uint32_t i, uint32_t n)
{
    if (bug == PLANTED_GLOBAL_PAST_END && i == n - 1)
        return in[2 * i] + in[2 * i + 1] + (static_cast<const volatile uint32_t *>(in)[2 * i + 2] & 0);
    if (bug == PLANTED_MISALIGNED && i == 5) { /* both halves matter: nvcc would load only one */
        const uint2 across = *reinterpret_cast<const uint2 *>(in + 2 * i - 1);
        return across.x - static_cast<const volatile uint32_t *>(in)[2 * i - 1] + across.y + in[2 * i + 1];
    }
    uint2 pair = reinterpret_cast<const uint2 *>(in)[i];
    return pair.x + pair.y;
}

/* n = blocks * 64 pairs: out[1 + i] = sum of pair i, out[0] = sum of all, added up by the block that ends
 * last. scratch[blocks + 1], its last word 0. */
template <int bug> __global__ void total(struct planted_args a)
{
    constexpr uint32_t WARPS = PLANTED_TOTAL_THREADS / 32, PAST = bug == PLANTED_SHARED_PAST_END;
    QD_SHARED(uint32_t, sums, [WARPS]);
    QD_SHARED(uint32_t, is_last, [1]);
    uint32_t t = threadIdx.x, i = blockIdx.x * PLANTED_TOTAL_THREADS + t;
    uint32_t sum = pair_sum<bug>(a.in, i, a.n);
    if (!(bug == PLANTED_UNWRITTEN && i == a.n - 1)) a.out[1 + i] = sum;
    if (bug == PLANTED_SECOND_WRITE && i == 7) /* nvcc would leave a plain one out */
        static_cast<volatile uint32_t *>(a.out)[1 + i] = sum;
    if (bug == PLANTED_DOUBLE_WRITE && i == PLANTED_TOTAL_THREADS) a.out[1] = a.in[0] + a.in[1];
    sum = warp_all_reduce_sum<bug>(sum);
    uint32_t *slots = sums + PAST;
    if (t % 32 == 0) slots[t / 32] = sum;
    if (bug != PLANTED_NO_BARRIER) __syncthreads();
    if (t == 0) {
        a.scratch[blockIdx.x] = slots[0] + slots[1];
        if (bug != PLANTED_NO_FENCE) __threadfence();
        is_last[0] = atomicAdd(&a.scratch[gridDim.x], 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last[0] || t != 0) return;
    if (bug != PLANTED_NO_FENCE) __threadfence();
    uint32_t all = 0;
    for (uint32_t b = 0; b < gridDim.x; b++) all += a.scratch[b];
    a.out[0] = all;
}

} // namespace planted

#endif
