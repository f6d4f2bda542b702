/* GEMM for many tokens: out[M][N] = a[M][K] * w[N][K]^T and an epilogue, on tensor cores (mma.sync, sm_80).
 *
 *   block     128 rows of a, 256 or 128 rows of w; 8 warps in 2 x 4 with 64x64 or 64x32 of the output each
 *   loop      K in steps of 64: a ring of 3 (256) or 4 (128) stages, filled by cp.async, read by ldmatrix;
 *             3 (128) where a block may have no more than 99 KiB of shared memory (sm_86, sm_89)
 *   stage     rows of a, then rows of w, 128 bytes each, swizzled (gemm_common.cuh)
 *   epilogue  sums -> rounded, through the ring's memory -> 16-byte stores
 *   grid      x: tiles, 8 row blocks at a time so that they share rows of w in L2; y: slices of K
 *
 * An output element is one chain of m16n8k16 over rising k within its slice: its bits depend on K and the
 * number of slices, not on M nor on the row's place, nor on the tile's width or the number of stages.
 *
 *   M         any; rows past it are zeros in shared memory and never stored
 *   N         a multiple of 8 (silu_mul: 16); K of 64 in every slice; lda, ldo, slice_stride of 8
 *   output    BF16 and SILU_MUL with one slice, F32 with any number
 *
 * Shared memory 144 KiB (256), 128 KiB (128) and 96 KiB (128, 3 stages): one block an SM. Registers 222 and
 * 146 (nvcc 13.0, sm_90; 220 and 140 on sm_80), no spills. A step of the 256 tile moves 48 KiB for 4.2 MFLOP.
 * The scheme is that of CUTLASS 2.x's multistage kernels. Emulated only.
 */
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_common.cuh"
#include "kernels/cuda/launch.cuh"

namespace gemm_tile {

using gemm::problem;

enum {
    THREADS = 256,
    TILE_M = 128,
    WARPS_N = 4, /* of 8: the other 2 go down the rows */
    WARP_M = 64,
    ROWS_PER_PASS = THREADS / gemm::ROW_CHUNKS, /* rows of a stage that the block copies at once */
    GROUP_M = 8,                                /* row blocks of one raster group */
};

template <int TILE_N> constexpr uint32_t STAGE_BYTES = (TILE_M + TILE_N) * gemm::ROW_BYTES;

/* A kernel's columns of output and stages, and the dynamic shared memory that they take. */
template <int COLUMNS, int RING> struct tile {
    static constexpr int TILE_N = COLUMNS, STAGES = RING;
    static constexpr size_t SHARED_BYTES = RING * STAGE_BYTES<COLUMNS>;
};
using tile_128x256 = tile<256, 3>;
using tile_128x128 = tile<128, 4>;
using tile_128x128_3_stages = tile<128, 3>;
static_assert(tile_128x128_3_stages::SHARED_BYTES <= SHARED_OF_EVERY_GPU, "this one fits everywhere");

/* First row of a and of w of this block's tile. */
struct origin {
    int m, n;
};

/* Tiles are numbered down GROUP_M row blocks first, then across; the last group may have fewer row blocks. */
template <int TILE_N> __device__ __forceinline__ origin tile_origin(const problem &p)
{
    const int blocks_m = (p.m + TILE_M - 1) / TILE_M, blocks_n = (p.n + TILE_N - 1) / TILE_N;
    const int tile = static_cast<int>(blockIdx.x), per_group = GROUP_M * blocks_n;
    const int first_m = tile / per_group * GROUP_M, rows = min(blocks_m - first_m, static_cast<int>(GROUP_M));
    const int place = tile % per_group;
    return {(first_m + place % rows) * TILE_M, place / rows * TILE_N};
}

/* Starts the copy of 64 columns of ROWS rows; rows from n_rows on become zeros and nothing of them is read.
 */
template <int ROWS>
__device__ __forceinline__ void load_rows(uint32_t tile, const uint16_t *src, int64_t stride, int n_rows)
{
    const int row = static_cast<int>(threadIdx.x) / gemm::ROW_CHUNKS, chunk = threadIdx.x % gemm::ROW_CHUNKS;
    /* ROWS_PER_PASS is a multiple of 8, so each pass has the swizzle of the first. */
    const uint32_t dst = tile + gemm::swizzled(row, chunk);
    src += row * stride + chunk * gemm::CHUNK;
#pragma unroll
    for (int pass = 0; pass < ROWS / ROWS_PER_PASS; pass++) {
        const int down = pass * ROWS_PER_PASS;
        ptx::cp_async_16(dst + down * gemm::ROW_BYTES, src + down * stride, row + down < n_rows ? 16 : 0);
    }
}

/* Starts the copy of a stage: columns k .. k+63 of the tile's rows of a and w. */
template <int TILE_N>
__device__ __forceinline__ void load_stage(uint32_t stage, const problem &p, const origin &at, int k)
{
    load_rows<TILE_M>(stage, p.a + at.m * p.lda + k, p.lda, p.m - at.m);
    load_rows<TILE_N>(stage + TILE_M * gemm::ROW_BYTES, p.w + static_cast<int64_t>(at.n) * p.k + k, p.k,
                      p.n - at.n);
}

/* The warp's sums += 64 columns of its rows of a and w. Blocks of n are taken in pairs: one ldmatrix x4
 * fetches {k 0-7, k 8-15} of 8 rows of w and the same of the next 8. */
template <int N_BLOCKS>
__device__ __forceinline__ void multiply_stage(float (&sums)[4][N_BLOCKS][4], uint32_t warp_a,
                                               uint32_t warp_w)
{
    const int lane = threadIdx.x % 32;
    const int a_row = lane % 16, a_chunk = lane / 16;
    const int w_row = lane / 16 * 8 + lane % 8, w_chunk = lane / 8 % 2;
#pragma unroll
    for (int k16 = 0; k16 < gemm::K_STEP / 16; k16++) {
        uint32_t a[4][4], w[N_BLOCKS / 2][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            ptx::ldmatrix_x4(a[i],
                             warp_a + i * 16 * gemm::ROW_BYTES + gemm::swizzled(a_row, 2 * k16 + a_chunk));
#pragma unroll
        for (int j = 0; j < N_BLOCKS / 2; j++)
            ptx::ldmatrix_x4(w[j],
                             warp_w + j * 16 * gemm::ROW_BYTES + gemm::swizzled(w_row, 2 * k16 + w_chunk));
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < N_BLOCKS; j++) {
                const uint32_t b[2] = {w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]};
                ptx::mma_m16n8k16_bf16(sums[i][j], a[i], b);
            }
        }
    }
}

__device__ __forceinline__ void put_pair(uint16_t *dst, float low, float high)
{
    *reinterpret_cast<uint32_t *>(dst) = ptx::pack_bf16(low, high);
}
__device__ __forceinline__ void put_pair(float *dst, float low, float high)
{
    *reinterpret_cast<float2 *>(dst) = make_float2(low, high);
}

/* A warp's part of the output on its way: 64 rows padded by 8 elements, so that the pairs which a warp puts
 * at once (8 rows of bf16, 4 of fp32 in each half) lie in different banks. */
template <int COLUMNS> constexpr int STAGED_STRIDE = COLUMNS + gemm::CHUNK;

/* Puts the sums of the warp's fragments into its staged rows: Out is bf16 or fp32. */
template <class Out, int N_BLOCKS>
__device__ __forceinline__ void stage_sums(Out *staged, const float (&sums)[4][N_BLOCKS][4], bool hf)
{
    const int row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    Out *first = staged + row * STAGED_STRIDE<8 * N_BLOCKS> + column;
#pragma unroll
    for (int i = 0; i < 8; i++) { /* 8 rows each */
        Out *dst = first + i * 8 * STAGED_STRIDE<8 * N_BLOCKS>;
#pragma unroll
        for (int j = 0; j < N_BLOCKS; j++) {
            const float *pair = &sums[i / 2][j][i % 2 * 2];
            put_pair(dst + j * 8, gemm::f32_result(pair[0], hf), gemm::f32_result(pair[1], hf));
        }
    }
}

/* The same for silu_mul: block 2j holds gates, block 2j+1 their ups. */
template <int N_BLOCKS>
__device__ __forceinline__ void stage_silu_mul(uint16_t *staged, const float (&sums)[4][N_BLOCKS][4], bool hf)
{
    const int row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    uint16_t *first = staged + row * STAGED_STRIDE<4 * N_BLOCKS> + column;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        uint16_t *dst = first + i * 8 * STAGED_STRIDE<4 * N_BLOCKS>;
#pragma unroll
        for (int j = 0; j < N_BLOCKS / 2; j++) {
            const float *gate = &sums[i / 2][2 * j][i % 2 * 2], *up = &sums[i / 2][2 * j + 1][i % 2 * 2];
            put_pair(dst + j * 8, gemm::silu_mul(gate[0], up[0], hf), gemm::silu_mul(gate[1], up[1], hf));
        }
    }
}

/* Stores the warp's staged rows, 16 bytes a lane, as far as the output goes. Eight lanes read at once: where
 * those are parts of several rows, rows that lie so far apart among 8 that their banks differ. */
template <class Out, int COLUMNS>
__device__ __forceinline__ void copy_out(Out *out, int64_t ldo, const Out *staged, int n_rows, int n_columns)
{
    constexpr int PER_CHUNK = 16 / sizeof(Out), CHUNKS = COLUMNS / PER_CHUNK;
    constexpr int ROWS_AT_ONCE = CHUNKS < 8 ? 8 / CHUNKS : 1;
    __syncwarp(); /* lanes read what others staged */
#pragma unroll 4
    for (int i = threadIdx.x % 32; i < WARP_M * CHUNKS; i += 32) {
        const int turn = i / CHUNKS, column = i % CHUNKS * PER_CHUNK;
        const int row = turn / 8 * 8 + turn % ROWS_AT_ONCE * (8 / ROWS_AT_ONCE) + turn % 8 / ROWS_AT_ONCE;
        if (row < n_rows && column < n_columns)
            *reinterpret_cast<uint4 *>(out + row * ldo + column) =
                *reinterpret_cast<const uint4 *>(staged + row * STAGED_STRIDE<COLUMNS> + column);
    }
}

/* Rounds and stores the warp's 64 rows; (row, column) is the place of its first sum in a * w^T. */
template <int N_BLOCKS>
__device__ __forceinline__ void store_warp(const problem &p, const float (&sums)[4][N_BLOCKS][4],
                                           unsigned char *shared, int row, int column)
{
    constexpr int COLUMNS = 8 * N_BLOCKS;
    const int warp = threadIdx.x / 32, n_rows = p.m - row;
    if (p.kind == gemm::output::BF16) {
        uint16_t *staged = reinterpret_cast<uint16_t *>(shared) + warp * WARP_M * STAGED_STRIDE<COLUMNS>;
        stage_sums<uint16_t, N_BLOCKS>(staged, sums, false);
        copy_out<uint16_t, COLUMNS>(gemm::slice_out<uint16_t>(p) + row * p.ldo + column, p.ldo, staged,
                                    n_rows, p.n - column);
    } else if (p.kind == gemm::output::F32) {
        float *staged = reinterpret_cast<float *>(shared) + warp * WARP_M * STAGED_STRIDE<COLUMNS>;
        stage_sums<float, N_BLOCKS>(staged, sums, p.hf);
        copy_out<float, COLUMNS>(gemm::slice_out<float>(p) + row * p.ldo + column, p.ldo, staged, n_rows,
                                 p.n - column);
    } else {
        uint16_t *staged = reinterpret_cast<uint16_t *>(shared) + warp * WARP_M * STAGED_STRIDE<COLUMNS / 2>;
        stage_silu_mul<N_BLOCKS>(staged, sums, p.hf);
        copy_out<uint16_t, COLUMNS / 2>(gemm::slice_out<uint16_t>(p) + row * p.ldo + column / 2, p.ldo,
                                        staged, n_rows, (p.n - column) / 2);
    }
}

template <int TILE_N, int STAGES>
__global__ void __launch_bounds__(THREADS, 1) gemm_bf16_tile_kernel(const problem p)
{
    constexpr int WARP_N = TILE_N / WARPS_N, N_BLOCKS = WARP_N / 8;
    QD_DYN_SHARED(unsigned char, shared);
    const uint32_t ring = ptx::shared_address(shared);
    const origin at = tile_origin<TILE_N>(p);
    const int k_begin = static_cast<int>(blockIdx.y) * p.k_slice, n_steps = p.k_slice / gemm::K_STEP;
    const int warp_m = static_cast<int>(threadIdx.x) / 32 / WARPS_N * WARP_M;
    const int warp_n = static_cast<int>(threadIdx.x) / 32 % WARPS_N * WARP_N;

    /* Every step commits one group, an empty one where nothing is left to load: the wait counts groups. */
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < n_steps)
            load_stage<TILE_N>(ring + step * STAGE_BYTES<TILE_N>, p, at, k_begin + step * gemm::K_STEP);
        ptx::cp_async_commit();
    }

    float sums[4][N_BLOCKS][4] = {};
#pragma unroll 1
    for (int step = 0; step < n_steps; step++) {
        ptx::cp_async_wait<STAGES - 2>();
        /* Shows every thread's copies of this step to all, and lets nobody refill a stage that is still read:
         * the one refilled below was read in the step before. */
        __syncthreads();
        const int next = step + STAGES - 1;
        if (next < n_steps)
            load_stage<TILE_N>(ring + next % STAGES * STAGE_BYTES<TILE_N>, p, at,
                               k_begin + next * gemm::K_STEP);
        ptx::cp_async_commit();

        const uint32_t stage = ring + step % STAGES * STAGE_BYTES<TILE_N>;
        multiply_stage<N_BLOCKS>(sums, stage + warp_m * gemm::ROW_BYTES,
                                 stage + (TILE_M + warp_n) * gemm::ROW_BYTES);
    }

    __syncthreads(); /* the last stage has been read: its memory now carries the output */
    store_warp<N_BLOCKS>(p, sums, shared, at.m + warp_m, at.n + warp_n);
}

template <class Tile>
qd_status launch_tile(const char *name, const problem &p, int32_t n_slices, cudaStream_t stream, char *err,
                      size_t errlen)
{
    constexpr int TILE_N = Tile::TILE_N;
    static_assert(THREADS / 32 * WARP_M * STAGED_STRIDE<TILE_N / WARPS_N> * sizeof(float) <=
                      Tile::SHARED_BYTES,
                  "the output is staged in the ring's memory");
    const int64_t blocks_m = (static_cast<int64_t>(p.m) + TILE_M - 1) / TILE_M;
    const int64_t tiles = blocks_m * ((static_cast<int64_t>(p.n) + TILE_N - 1) / TILE_N);
    if (tiles > INT32_MAX)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: more than 2^31 - 1 tiles", name);
    const launch_shape shape = {dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(n_slices)),
                                dim3(THREADS), Tile::SHARED_BYTES, stream};
    return launch(name, gemm_bf16_tile_kernel<TILE_N, Tile::STAGES>, shape, err, errlen, p);
}

} // namespace gemm_tile

size_t qd_cuda_gemm_tile_shared_bytes(enum qd_cuda_gemm_kernel kernel)
{
    if (kernel == QD_CUDA_GEMM_TILE_128X256) return gemm_tile::tile_128x256::SHARED_BYTES;
    if (kernel == QD_CUDA_GEMM_TILE_128X128) return gemm_tile::tile_128x128::SHARED_BYTES;
    return gemm_tile::tile_128x128_3_stages::SHARED_BYTES;
}

qd_status qd_cuda_gemm_tile(const struct qd_cuda_gemm_args *args, struct CUstream_st *stream, char *err,
                            size_t errlen)
{
    using namespace gemm_tile;
    const gemm::problem p = gemm::problem_of(*args);
    const int32_t n_slices = args->plan.n_slices;
    if (args->plan.kernel == QD_CUDA_GEMM_TILE_128X256)
        return launch_tile<tile_128x256>("gemm_tile_128x256", p, n_slices, stream, err, errlen);
    if (args->plan.kernel == QD_CUDA_GEMM_TILE_128X128)
        return launch_tile<tile_128x128>("gemm_tile_128x128", p, n_slices, stream, err, errlen);
    return launch_tile<tile_128x128_3_stages>("gemm_tile_128x128_3_stages", p, n_slices, stream, err, errlen);
}
