/* The one header a kernel file includes for the machine: CUDA's runtime under nvcc, the emulator's look-alike of
 * it otherwise (found as <cuda_runtime.h> by include path). Shared memory is declared by the macros below only,
 * so that the emulator can place, poison and check it.
 *
 *     QD_SHARED(float, sums, [32]);      static shared memory `float sums[32]`
 *     QD_DYN_SHARED(unsigned char, ring); the launch's dynamic shared memory, 16-byte aligned and no more
 */
#ifndef QD_KERNELS_CUDA_GPU_CUH
#define QD_KERNELS_CUDA_GPU_CUH

#include <cuda_runtime.h>
#include <stdint.h>

#ifndef QD_EMU
#define QD_SHARED(type, name, dims) __shared__ type name dims
#define QD_DYN_SHARED(type, name)                                                                            \
    extern __shared__ __align__(16) unsigned char qd_dyn_shared_[];                                          \
    type *name = reinterpret_cast<type *>(qd_dyn_shared_)
#endif

/* bf16 travels as its bit pattern (kernels/base/bf16.h). */
__device__ __forceinline__ float bf16_to_f32(uint16_t x)
{
    return __uint_as_float(static_cast<uint32_t>(x) << 16);
}
/* The two elements of a packed register: the lower half holds the lower index. */
__device__ __forceinline__ float bf16_low(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float bf16_high(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

#endif
