#include "tests/emu/kernels.h"

#include <string.h>

#include "kernels/base/status.h"
#include "kernels/cuda/ptx.cuh"

/* ---- warps ---- */

/* out[thread] = sum over the warp of in. */
__global__ void warp_sum(struct emu_args a)
{
    uint32_t sum = a.in[threadIdx.x];
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(~0u, sum, by);
    a.out[threadIdx.x] = sum;
}

/* Three shuffles of the lane's number: out[3 * thread + i]. */
__global__ void shuffles(struct emu_args a)
{
    uint32_t lane = threadIdx.x;
    a.out[3 * lane] = __shfl_sync(~0u, lane, 5);
    a.out[3 * lane + 1] = __shfl_up_sync(~0u, lane, 3);
    a.out[3 * lane + 2] = __shfl_xor_sync(~0u, lane, 6);
}

__global__ void shuffle_by_32(struct emu_args a)
{
    a.out[threadIdx.x] = __shfl_up_sync(~0u, threadIdx.x, 32);
}

__global__ void votes(struct emu_args a)
{
    a.out[threadIdx.x] = __ballot_sync(~0u, threadIdx.x % 3 == 0);
}

__global__ void divergent_shuffle(struct emu_args a)
{
    uint32_t v = threadIdx.x;
    if (v < 16)
        v = __shfl_xor_sync(~0u, v, 1);
    else
        v = __shfl_xor_sync(~0u, v, 2);
    a.out[threadIdx.x] = v;
}

__global__ void half_a_warp(struct emu_args a)
{
    if (threadIdx.x < 16) __syncwarp(0xffffu);
    a.out[threadIdx.x] = 0;
}

__global__ void lane_exits_early(struct emu_args a)
{
    if (threadIdx.x == 7) return;
    a.out[threadIdx.x] = __ballot_sync(~0u, 1);
}

/* ---- barriers ---- */

/* Every thread writes, then reads its opposite, n times over: out[thread] counts right reads. */
__global__ void exchange(struct emu_args a)
{
    QD_SHARED(uint32_t, cells, [1024]);
    uint32_t right = 0, me = threadIdx.x, opposite = blockDim.x - 1 - me;
    for (uint32_t i = 0; i < a.n; i++) {
        cells[me] = me * 1000 + i;
        __syncthreads();
        right += cells[opposite] == opposite * 1000 + i;
        __syncthreads();
    }
    a.out[blockIdx.x * blockDim.x + me] = right;
}

/* Warp 0 produces through two named barriers, warp 1 consumes. */
__global__ void named_pair(struct emu_args a)
{
    enum { FULL = 1, EMPTY = 2 };
    QD_SHARED(uint32_t, cells, [32]);
    uint32_t lane = threadIdx.x % 32, sum = 0;
    for (uint32_t i = 0; i < a.n; i++) {
        if (threadIdx.x < 32) {
            ptx::bar_sync(EMPTY, 64);
            cells[lane] = a.in[i] + lane;
            ptx::bar_arrive(FULL, 64);
        } else {
            ptx::bar_arrive(EMPTY, 64);
            ptx::bar_sync(FULL, 64);
            sum += cells[31 - lane];
        }
    }
    if (threadIdx.x >= 32) a.out[lane] = sum;
}

__global__ void barrier_counts_differ(struct emu_args)
{
    ptx::bar_sync(3, threadIdx.x < 32 ? 64 : 96);
}

__global__ void barrier_of_part_of_a_warp(struct emu_args)
{
    if (threadIdx.x % 32 < 16) ptx::bar_sync(3, 32);
}

__global__ void barrier_after_exit(struct emu_args)
{
    if (threadIdx.x >= 32) return;
    __syncthreads();
}

__global__ void two_barriers_cross(struct emu_args)
{
    ptx::bar_sync(threadIdx.x < 32 ? 1 : 2, 64);
}

/* ---- shared memory ---- */

/* out[block]: how many of the words of both kinds of shared memory hold 0xffffffff at first; then they are
 * spoilt. */
__global__ void poisoned_at_first(struct emu_args a)
{
    QD_SHARED(uint32_t, words, [8]);
    QD_DYN_SHARED(uint32_t, dynamic);
    uint32_t n = 0;
    for (uint32_t i = 0; i < 8; i++) n += words[i] == ~0u, words[i] = i;
    for (uint32_t i = 0; i < a.n; i++) n += dynamic[i] == ~0u, dynamic[i] = i;
    a.out[blockIdx.x] = n;
}

/* out = where dynamic memory starts, modulo 1024, as an address and as a pointer. */
__global__ void dynamic_base(struct emu_args a)
{
    QD_DYN_SHARED(unsigned char, dynamic);
    a.out[0] = ptx::shared_address(dynamic) % 1024;
    a.out[1] = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(dynamic) % 1024);
}

/* Reads rows from n bytes on after the start of 16 x 16 dynamic bytes. */
__global__ void ldmatrix_at(struct emu_args a)
{
    QD_DYN_SHARED(unsigned char, dynamic);
    uint32_t r[2], row = ptx::shared_address(dynamic) + threadIdx.x % 16 * 16 + a.n;
    ptx::ldmatrix_x2(r, row);
    a.out[threadIdx.x] = r[0] + r[1];
}

__global__ void write_past_the_end(struct emu_args a)
{
    QD_SHARED(uint32_t, words, [8]);
    uint32_t *p = words;
    p[a.n] = 1;
}

__global__ void too_much_static(struct emu_args a)
{
    QD_SHARED(uint32_t, first, [8 * 1024]);
    QD_SHARED(uint32_t, second, [4 * 1024 + 1]);
    first[0] = second[0] = a.n;
}

/* ---- asynchronous copies: in has 16 words a thread, out takes 16 ---- */

__global__ void copy_sizes(struct emu_args a)
{
    QD_SHARED(uint4, cells, [4 * 32]);
    const uint4 *in = reinterpret_cast<const uint4 *>(a.in) + threadIdx.x * 4;
    uint4 *mine = &cells[threadIdx.x * 4], *out = reinterpret_cast<uint4 *>(a.out) + threadIdx.x * 4;
    for (uint32_t i = 0; i < 4; i++) ptx::cp_async_16(ptx::shared_address(&mine[i]), &in[i], i * 5);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    for (int i = 0; i < 4; i++) out[i] = mine[i];
}

/* out[0..3]: what is there before the wait, out[4..7] after; between, the source changes. One thread. */
__global__ void copy_timing(struct emu_args a)
{
    QD_SHARED(uint32_t, cells, [4]);
    uint32_t *source = const_cast<uint32_t *>(a.in);
    ptx::cp_async_16(ptx::shared_address(cells), source);
    ptx::cp_async_commit();
    for (int i = 0; i < 4; i++) a.out[i] = cells[i], source[i] += 100;
    ptx::cp_async_wait<0>();
    for (int i = 0; i < 4; i++) a.out[4 + i] = cells[i];
}

/* Two groups; waits for all but the latest n (0 or 1) and gives the first word of each: out[0], out[1]. */
__global__ void copy_groups(struct emu_args a)
{
    QD_SHARED(uint4, cells, [2]);
    const uint4 *in = reinterpret_cast<const uint4 *>(a.in);
    for (int i = 0; i < 2; i++) {
        ptx::cp_async_16(ptx::shared_address(&cells[i]), &in[i]);
        ptx::cp_async_commit();
    }
    if (a.n == 0)
        ptx::cp_async_wait<0>();
    else
        ptx::cp_async_wait<1>();
    for (int i = 0; i < 2; i++) a.out[i] = cells[i].x;
    ptx::cp_async_wait<0>();
}

__global__ void copy_without_wait(struct emu_args a)
{
    QD_SHARED(uint4, cells, [1]);
    ptx::cp_async_16(ptx::shared_address(cells), a.in);
    ptx::cp_async_commit();
}

__global__ void copy_misaligned(struct emu_args a)
{
    QD_SHARED(uint4, cells, [2]);
    ptx::cp_async_16(ptx::shared_address(cells) + (a.n & 15), a.in + (a.n >> 4));
    ptx::cp_async_wait<0>();
}

/* ---- instructions ---- */

/* d += a * b with a[16][16], b[16][8] as bf16 pairs along k: in = a as [16][8], then b as [n=8][8] words,
 * then d as [16][8] fp32 words; out = d. */
__global__ void product(struct emu_args a)
{
    uint32_t g = threadIdx.x / 4, q = threadIdx.x % 4;
    const uint32_t *left = a.in, *right = a.in + 16 * 8, *sums = right + 8 * 8;
    uint32_t ra[4] = {left[g * 8 + q], left[(g + 8) * 8 + q], left[g * 8 + q + 4], left[(g + 8) * 8 + q + 4]};
    uint32_t rb[2] = {right[g * 8 + q], right[g * 8 + q + 4]};
    float d[4];
    for (uint32_t i = 0; i < 4; i++) d[i] = __uint_as_float(sums[(g + i / 2 * 8) * 8 + 2 * q + i % 2]);
    ptx::mma_m16n8k16_bf16(d, ra, rb);
    for (uint32_t i = 0; i < 4; i++) a.out[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = __float_as_uint(d[i]);
}

/* in = four 8x8 matrices of 16-bit elements, row by row; out = 11 registers a lane: of x1, x2, x4, x4
 * transposed. */
__global__ void matrices(struct emu_args a)
{
    QD_SHARED(uint32_t, rows, [4 * 8 * 4]);
    uint32_t lane = threadIdx.x, r1[1], r2[2], r4[4], rt[4];
    for (uint32_t i = 0; i < 4; i++) rows[lane * 4 + i] = a.in[lane * 4 + i];
    __syncwarp();
    uint32_t row = ptx::shared_address(&rows[lane * 4]);
    ptx::ldmatrix_x1(r1, row);
    ptx::ldmatrix_x2(r2, row);
    ptx::ldmatrix_x4(r4, row);
    ptx::ldmatrix_x4_trans(rt, row);
    uint32_t *out = a.out + lane * 11;
    out[0] = r1[0], out[1] = r2[0], out[2] = r2[1];
    for (uint32_t i = 0; i < 4; i++) out[3 + i] = r4[i], out[7 + i] = rt[i];
}

/* out[i] = 2^in[i], then the pair (in[i], in[i + 1]) packed: n of each. One thread. */
__global__ void conversions(struct emu_args a)
{
    for (uint32_t i = 0; i < a.n; i++) {
        float x = __uint_as_float(a.in[i]), y = __uint_as_float(a.in[(i + 1) % a.n]);
        a.out[i] = __float_as_uint(ptx::exp2_approx(x));
        a.out[a.n + i] = ptx::pack_bf16(x, y);
    }
}

__global__ void load_weights(struct emu_args a)
{
    uint4 v = ptx::load_weight_16(a.in + a.n + threadIdx.x * 4);
    a.out[threadIdx.x] = v.x + v.w;
}

/* ---- blocks and devices ---- */

/* out[block] = how many blocks began before; the counter is out[gridDim]. */
__global__ void tickets(struct emu_args a)
{
    if (threadIdx.x == 0) a.out[blockIdx.x] = atomicAdd(&a.out[gridDim.x], 1u);
}

/* All blocks meet through the counter out[0]: only if all of them are resident. */
__global__ void meet(struct emu_args a)
{
    if (threadIdx.x == 0) {
        atomicAdd(&a.out[0], 1u);
        while (ptx::load_acquire_sys(&a.out[0]) != gridDim.x) {
        }
    }
    __syncthreads();
}

/* Waits for a flag that nobody raises: by an atomic that changes nothing, and by a vote of the warp. */
__global__ void poll_in_vain(struct emu_args a)
{
    if (a.n == 0) {
        while (atomicAdd(&a.out[0], 0u) != 1) {
        }
    } else {
        while (__ballot_sync(~0u, ptx::load_acquire_sys(&a.out[0]) == 1) != ~0u) {
        }
    }
}

/* Device n & 1 of two: n / 2 times over, both write their cell, tell the other by a flag, and read its cell.
 * out = {flag of 0, flag of 1, cell of 0, cell of 1, right reads of 0, right reads of 1}. */
__global__ void two_devices(struct emu_args a)
{
    uint32_t me = a.n & 1, other = 1 - me, right = 0;
    for (uint32_t i = 1; i <= a.n / 2; i++) {
        a.out[2 + me] = i;
        ptx::store_release_sys(&a.out[other], 2 * i - 1);
        while (ptx::load_acquire_sys(&a.out[me]) < 2 * i - 1) {
        }
        right += a.out[2 + other] == i;
        ptx::store_release_sys(&a.out[other], 2 * i);
        while (ptx::load_acquire_sys(&a.out[me]) < 2 * i) {
        }
    }
    a.out[4 + me] = right;
}

/* Thread n of block 1 writes to `in`. */
__global__ void write_far_away(struct emu_args a)
{
    if (blockIdx.x == 1 && threadIdx.x == a.n) *const_cast<volatile uint32_t *>(a.in) = 1;
    a.out[threadIdx.x] = 0;
}

/* A stack frame larger than a thread's stack. */
__global__ void deep_stack(struct emu_args a)
{
    volatile char big[192 * 1024];
    big[a.n] = 1;
    a.out[0] = static_cast<uint32_t>(big[a.n]);
}

/* ---- by name ---- */

template <void (*kernel)(struct emu_args)> static void call(void *const *args, const void *)
{
    kernel(*static_cast<const struct emu_args *>(args[0]));
}

#define KERNEL(name)                                                                                         \
    {                                                                                                        \
#name, call < name>                                                                                  \
    }
static const struct emu_kernel kernels[] = {
    KERNEL(warp_sum),
    KERNEL(shuffles),
    KERNEL(shuffle_by_32),
    KERNEL(votes),
    KERNEL(divergent_shuffle),
    KERNEL(half_a_warp),
    KERNEL(lane_exits_early),
    KERNEL(exchange),
    KERNEL(named_pair),
    KERNEL(barrier_counts_differ),
    KERNEL(barrier_of_part_of_a_warp),
    KERNEL(barrier_after_exit),
    KERNEL(two_barriers_cross),
    KERNEL(poisoned_at_first),
    KERNEL(dynamic_base),
    KERNEL(ldmatrix_at),
    KERNEL(write_past_the_end),
    KERNEL(too_much_static),
    KERNEL(copy_sizes),
    KERNEL(copy_timing),
    KERNEL(copy_groups),
    KERNEL(copy_without_wait),
    KERNEL(copy_misaligned),
    KERNEL(product),
    KERNEL(matrices),
    KERNEL(conversions),
    KERNEL(load_weights),
    KERNEL(tickets),
    KERNEL(meet),
    KERNEL(poll_in_vain),
    KERNEL(two_devices),
    KERNEL(write_far_away),
    KERNEL(deep_stack),
};

int emu_run(const char *kernel, unsigned blocks, unsigned threads, size_t shared_bytes,
            const struct emu_args *args, char *err, size_t errlen)
{
    const struct emu_kernel *k = kernels;
    while (strcmp(k->name, kernel) != 0) QD_ASSERT(++k < kernels + sizeof kernels / sizeof *kernels);
    void *pointers[] = {const_cast<struct emu_args *>(args)};
    struct qd_emu_launch launch = {};
    launch.name = kernel;
    launch.call = k->call;
    launch.args = pointers;
    launch.grid = {blocks, 1, 1};
    launch.block = {threads, 1, 1};
    launch.shared_bytes = shared_bytes;
    launch.shared_limit = QD_EMU_MAX_SHARED_BYTES;
    return qd_emu_run_grid(&launch, err, errlen);
}
