/* GEMM for few tokens: out[M][N] = a[M][K] * w[N][K]^T and an epilogue, bound by reading w once. Operands are
 * swapped (out^T = w * a^T): 16 rows of w are the rows of mma.sync m16n8k16 (sm_80), 8 tokens its columns.
 *
 *   direct    1 .. 16 tokens; a block has 64 rows of w
 *   ring      1 .. 64 tokens; a block has 128 rows of w
 *   grid      x: rows of w; y: slices of K
 *
 * Direct: a warp has 16 rows and every other 32 columns of K, so that two warps share rows and add their sums
 * at the end. w goes from global memory to registers, 16 bytes a lane, 4 steps ahead: 32 KiB of each block
 * are on their way. No barrier in the loop.
 *
 * Ring: a warp has 16 rows, through a ring of 4 stages of 64 columns that only the warp knows: 48 KiB of each
 * block are on their way. Tokens lie in shared memory for the whole block, 128 columns at a time in 3
 * buffers, with one barrier for each.
 *
 * An output element is one chain of m16n8k16 over rising k (direct: two, added) within its slice: its bits
 * depend on the kernel, K and the number of slices, not on M nor on the token's place.
 *
 *   M         up to 16 (direct) or 64 (ring)
 *   N         a multiple of 8 (silu_mul: 16); K of 64 in every slice; lda of 8
 *   output    BF16 and SILU_MUL with one slice, F32 with any number
 *
 * Tokens past M and rows past N repeat the last one (direct) or are zeros (ring), and are never stored.
 * Shared memory: direct 2 and 4 KiB; ring 70, 76, 88 and 112 KiB for up to 8, 16, 32 and 64 tokens, of which
 * GPUs with 99 KiB a block (sm_86, sm_89) can launch all but the last. Registers (nvcc 13.0, sm_90): direct
 * 76 and 102, ring 56, 64, 100 and 128, no spills; two blocks an SM where shared memory allows. Bytes: w
 * once; a once a block of rows (ring) or once every 16 rows (direct), from caches. Emulated only.
 */
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/launch.cuh"

namespace gemm_skinny {

using gemm::problem;

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    WARP_ROWS = 16, /* rows of w in a fragment */
    BLOCKS_PER_SM = 2,
};

/* Stores the sums of a fragment: rows of w `row` + g and `row` + g + 8, tokens `token` + 2q and + 2q + 1. */
__device__ __forceinline__ void store_fragment(const problem &p, int row, int token, const float (&sums)[4])
{
    const int upper = row + threadIdx.x % 32 / 4, lower = upper + 8;
    token += threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++, token++) {
        if (token >= p.m) continue;
        if (p.kind == gemm::output::SILU_MUL) {
            /* 16 rows are 8 gates and their 8 ups. */
            uint16_t *out = gemm::slice_out<uint16_t>(p) + token * p.ldo + row / 2 + (upper - row);
            if (lower < p.n) *out = bf16_from_f32(gemm::silu_mul(sums[i], sums[2 + i], p.hf));
        } else if (p.kind == gemm::output::BF16) {
            uint16_t *out = gemm::slice_out<uint16_t>(p) + token * p.ldo;
            if (upper < p.n) out[upper] = bf16_from_f32(sums[i]);
            if (lower < p.n) out[lower] = bf16_from_f32(sums[2 + i]);
        } else {
            float *out = gemm::slice_out<float>(p) + token * p.ldo;
            if (upper < p.n) out[upper] = gemm::f32_result(sums[i], p.hf);
            if (lower < p.n) out[lower] = gemm::f32_result(sums[2 + i], p.hf);
        }
    }
}

/* ---- direct ---- */

enum {
    K_PARTS = 2, /* warps that share rows, each with half of every 64 columns */
    DIRECT_ROWS = WARPS / K_PARTS * WARP_ROWS,
    PART_COLUMNS = gemm::K_STEP / K_PARTS,
    AHEAD = 4, /* steps whose operands are on their way */
};

/* What a lane holds of 32 columns: columns 8q .. 8q+7 of rows g and g+8 of w, and of token g of each 8. Both
 * sides permute K alike, so words 0 and 1 serve as columns {2q, 2q+1} and {2q+8, 2q+9} of one k16 and words 2
 * and 3 of the next: the products are those of the unpermuted order, summed in another. */
template <int TOKEN_BLOCKS> struct operands {
    uint4 w[2], tokens[TOKEN_BLOCKS];
};

/* Where a lane reads them at step 0. */
template <int TOKEN_BLOCKS> struct direct_sources {
    const uint16_t *w[2], *tokens[TOKEN_BLOCKS];
};

template <int TOKEN_BLOCKS>
__device__ __forceinline__ direct_sources<TOKEN_BLOCKS> locate_operands(const problem &p, int row, int k)
{
    const int g = threadIdx.x % 32 / 4;
    const int64_t column = k + threadIdx.x % 4 * gemm::CHUNK;
    direct_sources<TOKEN_BLOCKS> from;
#pragma unroll
    for (int i = 0; i < 2; i++)
        from.w[i] = p.w + min(row + g + 8 * i, p.n - 1) * static_cast<int64_t>(p.k) + column;
#pragma unroll
    for (int j = 0; j < TOKEN_BLOCKS; j++) from.tokens[j] = p.a + min(8 * j + g, p.m - 1) * p.lda + column;
    return from;
}

template <int TOKEN_BLOCKS>
__device__ __forceinline__ void load_operands(operands<TOKEN_BLOCKS> &to,
                                              const direct_sources<TOKEN_BLOCKS> &from, int step)
{
    const int columns = step * gemm::K_STEP;
#pragma unroll
    for (int i = 0; i < 2; i++) to.w[i] = ptx::load_weight_16(from.w[i] + columns);
#pragma unroll
    for (int j = 0; j < TOKEN_BLOCKS; j++)
        to.tokens[j] = *reinterpret_cast<const uint4 *>(from.tokens[j] + columns);
}

template <int TOKEN_BLOCKS>
__device__ __forceinline__ void multiply(float (&sums)[TOKEN_BLOCKS][4], const operands<TOKEN_BLOCKS> &x)
{
    const uint32_t first[4] = {x.w[0].x, x.w[1].x, x.w[0].y, x.w[1].y};
    const uint32_t second[4] = {x.w[0].z, x.w[1].z, x.w[0].w, x.w[1].w};
#pragma unroll
    for (int j = 0; j < TOKEN_BLOCKS; j++) {
        const uint32_t first_b[2] = {x.tokens[j].x, x.tokens[j].y};
        const uint32_t second_b[2] = {x.tokens[j].z, x.tokens[j].w};
        ptx::mma_m16n8k16_bf16(sums[j], first, first_b);
        ptx::mma_m16n8k16_bf16(sums[j], second, second_b);
    }
}

/* Adds the sums of the warps that share rows, in order of their columns; the result is with part 0. */
template <int TOKEN_BLOCKS>
__device__ __forceinline__ void add_parts(float (&sums)[TOKEN_BLOCKS][4], int row_group, int part)
{
    QD_SHARED(float, second, [WARPS / K_PARTS][TOKEN_BLOCKS * 4][32]);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4 * TOKEN_BLOCKS; i++)
        if (part == 1) second[row_group][i][lane] = sums[i / 4][i % 4];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4 * TOKEN_BLOCKS; i++)
        if (part == 0) sums[i / 4][i % 4] += second[row_group][i][lane];
}

template <int TOKEN_BLOCKS>
__global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) gemm_bf16_skinny_direct_kernel(const problem p)
{
    const int warp = static_cast<int>(threadIdx.x) / 32, part = warp % K_PARTS, row_group = warp / K_PARTS;
    const int row = static_cast<int>(blockIdx.x) * DIRECT_ROWS + row_group * WARP_ROWS;
    const int n_steps = p.k_slice / gemm::K_STEP;
    const direct_sources<TOKEN_BLOCKS> from =
        locate_operands<TOKEN_BLOCKS>(p, row, static_cast<int>(blockIdx.y) * p.k_slice + part * PART_COLUMNS);

    operands<TOKEN_BLOCKS> ring[AHEAD] = {};
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        if (i < n_steps) load_operands(ring[i], from, i);

    float sums[TOKEN_BLOCKS][4] = {};
#pragma unroll 1 /* unrolled further, operands of later rounds spill */
    for (int round = 0; round < n_steps; round += AHEAD) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (round + i < n_steps) multiply(sums, ring[i]);
            if (round + i + AHEAD < n_steps) load_operands(ring[i], from, round + i + AHEAD);
        }
    }

    add_parts<TOKEN_BLOCKS>(sums, row_group, part);
    if (part != 0) return;
#pragma unroll
    for (int j = 0; j < TOKEN_BLOCKS; j++) store_fragment(p, row, 8 * j, sums[j]);
}

/* ---- ring ---- */

enum {
    RING_ROWS = WARPS * WARP_ROWS,
    STAGES = 4,      /* of a warp's ring of weights, a step each */
    TOKEN_STEPS = 2, /* steps whose tokens travel together */
    /* Tokens are loaded STAGES - 1 steps ahead with their first step's weights, while those of two groups
     * before may still be read. */
    TOKEN_BUFFERS = 3,
};
constexpr uint32_t WEIGHT_STAGE_BYTES = WARP_ROWS * gemm::ROW_BYTES;
constexpr uint32_t WEIGHT_BYTES = WARPS * STAGES * WEIGHT_STAGE_BYTES;
template <int TOKEN_BLOCKS>
constexpr uint32_t TOKEN_TILE_BYTES = 8 * TOKEN_BLOCKS *gemm::ROW_BYTES; /* a step */
template <int TOKEN_BLOCKS>
constexpr size_t RING_SHARED_BYTES =
    WEIGHT_BYTES + TOKEN_BUFFERS *TOKEN_STEPS *TOKEN_TILE_BYTES<TOKEN_BLOCKS>;
static_assert(RING_SHARED_BYTES<4> <= SHARED_OF_EVERY_GPU, "up to 32 tokens the ring fits everywhere");
static_assert(STAGES - 1 + TOKEN_STEPS - 1 <= TOKEN_STEPS * (TOKEN_BUFFERS - 1),
              "a buffer of tokens is refilled only after the barrier behind its last step");

/* The block's part of the problem, and the shared memory of this warp and of the block. */
struct ring_place {
    int row; /* the warp's first row of w */
    int k_begin, n_steps;
    uint32_t weights, tokens; /* the warp's stages; the block's buffers */
};

/* Starts the copy of the warp's 16 rows of w. */
__device__ __forceinline__ void load_weights(const problem &p, const ring_place &at, int step)
{
    const int lane = threadIdx.x % 32, chunk = lane % gemm::ROW_CHUNKS;
    const uint32_t stage = at.weights + step % STAGES * WEIGHT_STAGE_BYTES;
    const uint16_t *src = p.w + at.k_begin + step * gemm::K_STEP + chunk * gemm::CHUNK;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = lane / gemm::ROW_CHUNKS + 4 * i;
        ptx::cp_async_16(stage + gemm::swizzled(row, chunk), src + (at.row + row) * static_cast<int64_t>(p.k),
                         at.row + row < p.n ? 16 : 0);
    }
}

/* Starts the copy of all tokens' columns of TOKEN_STEPS steps, a tile each; absent tokens and steps become
 * zeros. */
template <int TOKEN_BLOCKS>
__device__ __forceinline__ void load_tokens(const problem &p, const ring_place &at, int step)
{
    constexpr int ROW_COPIES = TOKEN_STEPS * gemm::ROW_CHUNKS, COPIES = 8 * TOKEN_BLOCKS * ROW_COPIES;
    const uint32_t buffer =
        at.tokens + step / TOKEN_STEPS % TOKEN_BUFFERS * (TOKEN_STEPS * TOKEN_TILE_BYTES<TOKEN_BLOCKS>);
    const uint16_t *src = p.a + at.k_begin + step * gemm::K_STEP;
#pragma unroll
    for (int pass = 0; pass < (COPIES + THREADS - 1) / THREADS; pass++) {
        const int i = pass * THREADS + static_cast<int>(threadIdx.x);
        if (i >= COPIES) continue; /* 8 tokens are less than a pass */
        const int token = i / ROW_COPIES, column = i % ROW_COPIES;
        const int tile = column / gemm::ROW_CHUNKS, chunk = column % gemm::ROW_CHUNKS;
        const bool present = token < p.m && step + tile < at.n_steps;
        ptx::cp_async_16(buffer + tile * TOKEN_TILE_BYTES<TOKEN_BLOCKS> + gemm::swizzled(token, chunk),
                         src + token * p.lda + column * gemm::CHUNK, present ? 16 : 0);
    }
}

template <int TOKEN_BLOCKS>
__device__ __forceinline__ void load_step(const problem &p, const ring_place &at, int step)
{
    if (step < at.n_steps) {
        load_weights(p, at, step);
        if (step % TOKEN_STEPS == 0) load_tokens<TOKEN_BLOCKS>(p, at, step);
    }
    ptx::cp_async_commit(); /* of every step, if only an empty group: the wait counts them */
}

/* sums += 64 columns of the warp's rows and of all tokens. One ldmatrix x4 fetches 32 columns of 8 tokens. */
template <int TOKEN_BLOCKS>
__device__ __forceinline__ void multiply_step(float (&sums)[TOKEN_BLOCKS][4], const ring_place &at, int step)
{
    const int lane = threadIdx.x % 32;
    const uint32_t weights = at.weights + step % STAGES * WEIGHT_STAGE_BYTES;
    const uint32_t tokens = at.tokens + step % (TOKEN_STEPS * TOKEN_BUFFERS) * TOKEN_TILE_BYTES<TOKEN_BLOCKS>;
#pragma unroll
    for (int k32 = 0; k32 < gemm::K_STEP / 32; k32++) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++)
            ptx::ldmatrix_x4(a[i], weights + gemm::swizzled(lane % 16, 4 * k32 + 2 * i + lane / 16));
#pragma unroll
        for (int j = 0; j < TOKEN_BLOCKS; j++) {
            uint32_t b[4];
            ptx::ldmatrix_x4(b, tokens + gemm::swizzled(8 * j + lane % 8, 4 * k32 + lane / 8));
            const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
            ptx::mma_m16n8k16_bf16(sums[j], a[0], first);
            ptx::mma_m16n8k16_bf16(sums[j], a[1], second);
        }
    }
}

template <int TOKEN_BLOCKS>
__global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) gemm_bf16_skinny_ring_kernel(const problem p)
{
    QD_DYN_SHARED(unsigned char, shared);
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const uint32_t base = ptx::shared_address(shared);
    const ring_place at = {static_cast<int>(blockIdx.x) * RING_ROWS + warp * WARP_ROWS,
                           static_cast<int>(blockIdx.y) * p.k_slice, p.k_slice / gemm::K_STEP,
                           base + warp * (STAGES * WEIGHT_STAGE_BYTES), base + WEIGHT_BYTES};

    for (int step = 0; step < STAGES - 1; step++) load_step<TOKEN_BLOCKS>(p, at, step);

    float sums[TOKEN_BLOCKS][4] = {};
#pragma unroll 1
    for (int step = 0; step < at.n_steps; step++) {
        ptx::cp_async_wait<STAGES - 2>();
        /* Before the first step of a buffer of tokens the block meets: everybody's copies of it have arrived,
         * and nobody reads the buffer before it any more. In between the warp's own copies are all that is
         * new. */
        if (step % TOKEN_STEPS == 0)
            __syncthreads();
        else
            __syncwarp();
        load_step<TOKEN_BLOCKS>(p, at, step + STAGES - 1);
        multiply_step<TOKEN_BLOCKS>(sums, at, step);
    }
#pragma unroll
    for (int j = 0; j < TOKEN_BLOCKS; j++) store_fragment(p, at.row, 8 * j, sums[j]);
}

/* ---- launch ---- */

template <int TOKEN_BLOCKS>
qd_status launch_direct(const problem &p, int32_t n_slices, cudaStream_t stream, char *err, size_t errlen)
{
    const unsigned blocks = (static_cast<unsigned>(p.n) + DIRECT_ROWS - 1) / DIRECT_ROWS;
    const launch_shape shape = {dim3(blocks, static_cast<unsigned>(n_slices)), dim3(THREADS), 0, stream};
    return launch("gemm_skinny_direct", gemm_bf16_skinny_direct_kernel<TOKEN_BLOCKS>, shape, err, errlen, p);
}

template <int TOKEN_BLOCKS>
qd_status launch_ring(const problem &p, int32_t n_slices, cudaStream_t stream, char *err, size_t errlen)
{
    const unsigned blocks = (static_cast<unsigned>(p.n) + RING_ROWS - 1) / RING_ROWS;
    const launch_shape shape = {dim3(blocks, static_cast<unsigned>(n_slices)), dim3(THREADS),
                                RING_SHARED_BYTES<TOKEN_BLOCKS>, stream};
    return launch("gemm_skinny_ring", gemm_bf16_skinny_ring_kernel<TOKEN_BLOCKS>, shape, err, errlen, p);
}

/* How many blocks of 8 tokens the ring has for m of them: 1, 2, 4 or 8. */
int ring_token_blocks(int64_t m)
{
    return m <= 8 ? 1 : m <= 16 ? 2 : m <= 32 ? 4 : 8;
}

} // namespace gemm_skinny

size_t qd_cuda_gemm_skinny_shared_bytes(enum qd_cuda_gemm_kernel kernel, int64_t m)
{
    using namespace gemm_skinny;
    if (kernel == QD_CUDA_GEMM_SKINNY_DIRECT) return 0;
    switch (ring_token_blocks(m)) {
    case 1: return RING_SHARED_BYTES<1>;
    case 2: return RING_SHARED_BYTES<2>;
    case 4: return RING_SHARED_BYTES<4>;
    default: return RING_SHARED_BYTES<8>;
    }
}

qd_status qd_cuda_gemm_skinny(const struct qd_cuda_gemm_args *args, struct CUstream_st *stream, char *err,
                              size_t errlen)
{
    using namespace gemm_skinny;
    const gemm::problem p = gemm::problem_of(*args);
    const int32_t n_slices = args->plan.n_slices;
    if (args->plan.kernel == QD_CUDA_GEMM_SKINNY_DIRECT)
        return p.m <= 8 ? launch_direct<1>(p, n_slices, stream, err, errlen)
                        : launch_direct<2>(p, n_slices, stream, err, errlen);
    switch (ring_token_blocks(p.m)) {
    case 1: return launch_ring<1>(p, n_slices, stream, err, errlen);
    case 2: return launch_ring<2>(p, n_slices, stream, err, errlen);
    case 4: return launch_ring<4>(p, n_slices, stream, err, errlen);
    default: return launch_ring<8>(p, n_slices, stream, err, errlen);
    }
}
