/* Every PTX instruction the kernels use, one function each, and no inline asm anywhere else.
 *
 * Under nvcc a function is its instruction; in the emulator it calls the instruction's model
 * (kernels/emu/instructions.h) with the call site for error reports. Semantics: PTX ISA manual; fragment layouts
 * are proved one element at a time by tests/gpu/fragments.cu in both front ends and on hardware.
 * Lane l: g = l / 4 ("group"), q = l % 4; in a packed register the lower half is the element of lower index.
 */
#ifndef QD_KERNELS_CUDA_PTX_CUH
#define QD_KERNELS_CUDA_PTX_CUH

#include "kernels/cuda/gpu.cuh"

#ifdef QD_EMU
#include "kernels/emu/instructions.h" /* the same functions over the models of the instructions */
#else

namespace ptx {

/* 32-bit shared-memory address of a pointer into shared memory. */
__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/* d[16x8] += a[16x16] * b[16x8], bf16 in, fp32 sums. a: {[g][2q..], [g+8][2q..], [g][2q+8..], [g+8][2q+8..]};
 * b: {[k=2q..][n=g], [k=2q+8..][n=g]}; d: {[g][2q], [g][2q+1], [g+8][2q], [g+8][2q+1]}. Whole warp. */
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* 8x8 matrices of 16-bit elements: lane 8i + r names row r of matrix i (16-byte aligned, 8 elements); register i
 * of lane l = matrix i, row g, columns 2q and 2q+1; with _trans rows 2q and 2q+1 of column g. Whole warp. */
__device__ __forceinline__ void ldmatrix_x1(uint32_t (&r)[1], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(row) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

/* Copies 16 bytes from global to shared memory in the background: the first src_bytes from src, zeros after. Both
 * addresses 16-byte aligned. Visible to the issuing thread after its wait, to others after a barrier behind it. */
__device__ __forceinline__ void cp_async_16(uint32_t dst, const void *src, uint32_t src_bytes = 16)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(src_bytes)
                 : "memory");
}
/* The thread's copies since the last commit become one group, possibly an empty one. */
__device__ __forceinline__ void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Waits until at most `pending` of this thread's latest groups are on their way. */
template <int pending> __device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/* Barrier `id` (1 .. 15) of `n_threads` (a multiple of 32): waiting, and announcing only. */
__device__ __forceinline__ void bar_sync(uint32_t id, uint32_t n_threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}
__device__ __forceinline__ void bar_arrive(uint32_t id, uint32_t n_threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}

/* 2^x, subnormal results flushed to zero, 2^-inf = 0. */
__device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Two fp32 rounded to bf16 (nearest even), `low` in the lower half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/* 16 bytes that nobody writes while the kernel lives (weights only), not kept in L1. */
__device__ __forceinline__ uint4 load_weight_16(const void *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

/* Flags between GPUs: a release makes the thread's earlier writes visible to who acquires the value. */
__device__ __forceinline__ void store_release_sys(uint32_t *p, uint32_t value)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}
__device__ __forceinline__ uint32_t load_acquire_sys(const uint32_t *p)
{
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
    return value;
}

} // namespace ptx

#endif /* QD_EMU */

/* x rounded to bf16 (nearest even) as its bit pattern, and widened again. */
__device__ __forceinline__ uint16_t bf16_from_f32(float x)
{
    return static_cast<uint16_t>(ptx::pack_bf16(x, 0.0f));
}
__device__ __forceinline__ float bf16_round(float x)
{
    return bf16_low(ptx::pack_bf16(x, 0.0f));
}

#endif
