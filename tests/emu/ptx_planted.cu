#include "tests/emu/ptx_planted.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace ptx_planted {

#ifdef QD_EMU
using ptx::mma_m16n8k16_bf16;
#else
/* ptx::mma_m16n8k16_bf16 with the second and third register of a exchanged in the string. */
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%6,%5,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

__device__ __forceinline__ uint32_t pair(uint16_t low, uint16_t high)
{
    return low | static_cast<uint32_t>(high) << 16;
}

template <bool is_swapped> __global__ void product_kernel(const struct ptx_planted_product args)
{
    const int g = static_cast<int>(threadIdx.x) / 4, q = static_cast<int>(threadIdx.x) % 4;
    uint32_t a[4], b[2];
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < 4; i++) {
        const uint16_t *row = args.a + (g + i % 2 * 8) * PLANTED_K + 2 * q + i / 2 * 8;
        a[i] = pair(row[0], row[1]);
    }
    for (int i = 0; i < 2; i++) {
        const uint16_t *column = args.b + (2 * q + i * 8) * PLANTED_N + g;
        b[i] = pair(column[0], column[PLANTED_N]);
    }
    if (is_swapped)
        mma_m16n8k16_bf16(d, a, b);
    else
        ptx::mma_m16n8k16_bf16(d, a, b);
    for (int i = 0; i < 4; i++) args.d[(g + i / 2 * 8) * PLANTED_N + 2 * q + i % 2] = d[i];
}

} // namespace ptx_planted

qd_status ptx_planted_product(const struct ptx_planted_product *args, bool is_swapped,
                              struct CUstream_st *stream, char *err, size_t errlen)
{
    const struct launch_shape shape = {dim3(1), dim3(32), 0, stream};
    return launch("product",
                  is_swapped ? ptx_planted::product_kernel<true> : ptx_planted::product_kernel<false>, shape,
                  err, errlen, *args);
}
