/* What the GEMM kernels have in common: their argument, where bytes of a tile lie in shared memory, and what
 * becomes of a finished sum.
 */
#ifndef QD_KERNELS_CUDA_GEMM_COMMON_CUH
#define QD_KERNELS_CUDA_GEMM_COMMON_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/silu.cuh"

namespace gemm {

enum class output {
    BF16,     /* r(sum) */
    F32,      /* sum, hf: r(sum) widened */
    SILU_MUL, /* gate and up in groups of 8 columns */
};

/* out = a * w^T over one slice of K for each grid.y. */
struct problem {
    const uint16_t *a, *w;          /* [m][k] row stride lda, [n][k] */
    void *out;                      /* [slices][m][n] (silu_mul: n/2) */
    int64_t lda, ldo, slice_stride; /* elements */
    int m, n, k;
    int k_slice; /* K of one slice, a multiple of K_STEP */
    output kind;
    int hf; /* 1: round where Hugging Face does; not bool, for which nvcc loads bytes */
};

enum {
    K_STEP = 64,                /* columns of a and w that travel together */
    ROW_BYTES = 2 * K_STEP,     /* of a tile in shared memory */
    CHUNK = 8,                  /* elements of a 16-byte copy */
    ROW_CHUNKS = K_STEP / CHUNK /* 8 */
};

/* Byte offset of a 16-byte chunk in a tile of 128-byte rows: chunk c of row r lies at place c ^ (r % 8), so
 * that the same chunk of 8 neighbouring rows, which is what ldmatrix reads at once, covers all 32 banks:
 *
 *     row 0: 0 1 2 3 4 5 6 7     row 1: 1 0 3 2 5 4 7 6     row 2: 2 3 0 1 6 7 4 5     ...
 *
 * Rows are counted from the tile's start, which needs no more than 16 bytes of alignment. */
__device__ __forceinline__ uint32_t swizzled(int row, int chunk)
{
    return static_cast<uint32_t>(row * ROW_BYTES + ((chunk ^ (row % ROW_CHUNKS)) * 16));
}

/* What output::SILU_MUL stores, not yet rounded to bf16. */
__device__ __forceinline__ float silu_mul(float gate, float up, bool hf)
{
    return hf ? silu_mul_one<true>(gate, up) : silu_mul_one<false>(gate, up);
}

/* What output::F32 stores. */
__device__ __forceinline__ float f32_result(float sum, bool hf)
{
    return hf ? bf16_round(sum) : sum;
}

/* The kernels' view of the launcher's arguments. */
inline problem problem_of(const qd_cuda_gemm_args &args)
{
    const bool sliced = args.plan.n_slices > 1;
    const output kind = args.epilogue == QD_EPILOGUE_SILU_MUL              ? output::SILU_MUL
                        : args.epilogue == QD_EPILOGUE_STORE_F32 || sliced ? output::F32
                                                                           : output::BF16;
    return {args.a,
            args.w,
            args.out,
            args.lda,
            args.ldo,
            args.slice_stride,
            static_cast<int>(args.m),
            static_cast<int>(args.n),
            static_cast<int>(args.k),
            static_cast<int>(args.k / args.plan.n_slices),
            kind,
            args.numerics == QD_NUMERICS_HF && !sliced};
}

/* First element of this block's slice of the output. */
template <class Out> __device__ __forceinline__ Out *slice_out(const problem &p)
{
    return static_cast<Out *>(p.out) + blockIdx.y * p.slice_stride;
}

} // namespace gemm

#endif
