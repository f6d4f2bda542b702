/* silu(gate) * up of one element, the same bits wherever it is fused: silu_mul.cu and the epilogues of the
 * GEMMs. */
#ifndef QD_KERNELS_CUDA_SILU_CUH
#define QD_KERNELS_CUDA_SILU_CUH

#include "kernels/cuda/ptx.cuh"

/* x / (1 + exp(-x)): relative error below 2^-19 where the result is a normal number; -0 where exp(-x)
 * overflows. exp(-x) is 2^(-x log2 e) by ex2.approx (2 ulp), whose argument carries an error of 2^-24 |x log2
 * e|. */
__device__ __forceinline__ float silu(float x)
{
    const float minus_log2_e = -1.44269504f;
    return __fdiv_rn(x, __fadd_rn(1.0f, ptx::exp2_approx(__fmul_rn(x, minus_log2_e))));
}

/* fused: silu(gate) * up, not yet rounded   hf: r(silu(r(gate))) * r(up), not yet rounded */
template <bool hf> __device__ __forceinline__ float silu_mul_one(float gate, float up)
{
    return hf ? __fmul_rn(bf16_round(silu(bf16_round(gate))), bf16_round(up)) : __fmul_rn(silu(gate), up);
}

#endif
