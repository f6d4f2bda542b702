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

/* Four shuffles of the lane's number: out[4 * thread + i]. */
__global__ void shuffles(struct emu_args a)
{
    uint32_t lane = threadIdx.x;
    int width = static_cast<int>(a.n);
    a.out[4 * lane] = __shfl_sync(~0u, lane, 5, width);
    a.out[4 * lane + 1] = __shfl_up_sync(~0u, lane, 3, width);
    a.out[4 * lane + 2] = __shfl_down_sync(~0u, lane, 3, width);
    a.out[4 * lane + 3] = __shfl_xor_sync(~0u, lane, 6, width);
}

/* Lanes 0..15 read lane 20, which is not in their mask. */
__global__ void shuffle_from_outside(struct emu_args a)
{
    if (threadIdx.x < 16) a.out[threadIdx.x] = __shfl_sync(0xffffu, threadIdx.x, 20);
}

/* Both halves of the warp vote among themselves at the same time. */
__global__ void votes(struct emu_args a)
{
    uint32_t lane = threadIdx.x, mask = lane < 16 ? 0xffffu : 0xffff0000u;
    uint32_t ballot = __ballot_sync(mask, lane % 3 == 0);
    int any = __any_sync(mask, lane == 17), all = __all_sync(mask, lane < 16);
    a.out[lane] = ballot | static_cast<uint32_t>(any) << 14 | static_cast<uint32_t>(all) << 17;
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

__global__ void not_in_its_mask(struct emu_args a)
{
    __syncwarp(0xffffu);
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
    KERNEL(shuffle_from_outside),
    KERNEL(votes),
    KERNEL(divergent_shuffle),
    KERNEL(not_in_its_mask),
    KERNEL(lane_exits_early),
    KERNEL(exchange),
    KERNEL(named_pair),
    KERNEL(barrier_counts_differ),
    KERNEL(barrier_of_part_of_a_warp),
    KERNEL(barrier_after_exit),
    KERNEL(two_barriers_cross),
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
    launch.grid[0] = blocks, launch.grid[1] = launch.grid[2] = 1;
    launch.block[0] = threads, launch.block[1] = launch.block[2] = 1;
    launch.shared_bytes = shared_bytes;
    return qd_emu_run_grid(&launch, err, errlen);
}
