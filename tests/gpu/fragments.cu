#include "tests/gpu/fragments.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace fragments {

__global__ void mma_kernel(const struct fragment_mma args)
{
    const int at = static_cast<int>(blockIdx.x) * FRAGMENT_LANES + static_cast<int>(threadIdx.x);
    uint32_t a[4], b[2];
    float d[4];
    for (int i = 0; i < 4; i++) a[i] = args.a[4 * at + i];
    for (int i = 0; i < 2; i++) b[i] = args.b[2 * at + i];
    for (int i = 0; i < 4; i++) d[i] = args.d[4 * at + i];
    ptx::mma_m16n8k16_bf16(d, a, b);
    for (int i = 0; i < 4; i++) args.d[4 * at + i] = d[i];
}

template <int n> __device__ __forceinline__ void store_registers(uint32_t *out, const uint32_t (&r)[n])
{
    for (int i = 0; i < n; i++) out[4 * threadIdx.x + i] = r[i];
}

__global__ void ldmatrix_kernel(const struct fragment_ldmatrix args)
{
    QD_SHARED(uint4, tile, [FRAGMENT_LANES]); /* a row is 16 bytes */
    tile[threadIdx.x] = reinterpret_cast<const uint4 *>(args.tile)[threadIdx.x];
    __syncthreads();
    const uint32_t row = ptx::shared_address(&tile[args.row_of[threadIdx.x]]);
    if (args.load == FRAGMENT_X1) {
        uint32_t r[1];
        ptx::ldmatrix_x1(r, row);
        store_registers(args.registers, r);
    } else if (args.load == FRAGMENT_X2) {
        uint32_t r[2];
        ptx::ldmatrix_x2(r, row);
        store_registers(args.registers, r);
    } else {
        uint32_t r[4];
        if (args.load == FRAGMENT_X4)
            ptx::ldmatrix_x4(r, row);
        else
            ptx::ldmatrix_x4_trans(r, row);
        store_registers(args.registers, r);
    }
}

__global__ void pack_kernel(const struct fragment_pack args)
{
    const int i = static_cast<int>(threadIdx.x);
    if (i < args.n) args.packed[i] = ptx::pack_bf16(args.low[i], args.high[i]);
}

__global__ void copy_kernel(const struct fragment_copy args)
{
    QD_SHARED(uint4, arrived, [FRAGMENT_LANES]);
    const unsigned lane = threadIdx.x;
    arrived[lane] = make_uint4(0xeeeeeeeeu, 0xeeeeeeeeu, 0xeeeeeeeeu, 0xeeeeeeeeu);
    __syncthreads();
    ptx::cp_async_16(ptx::shared_address(&arrived[lane]), args.from + 16 * lane, args.src_bytes[lane]);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();
    const unsigned other = FRAGMENT_LANES - 1 - lane; /* what another lane copied */
    reinterpret_cast<uint4 *>(args.arrived)[other] = arrived[other];
}

/* A launch of whole warps, one a block. */
struct launch_shape warps(int n, struct CUstream_st *stream)
{
    return {dim3(static_cast<unsigned>(n)), dim3(FRAGMENT_LANES), 0, stream};
}

} // namespace fragments

extern "C" qd_status fragment_mma(const struct fragment_mma *args, struct CUstream_st *stream, char *err,
                                  size_t errlen)
{
    return launch("fragment_mma", fragments::mma_kernel, fragments::warps(args->n_cases, stream), err, errlen,
                  *args);
}

extern "C" qd_status fragment_ldmatrix(const struct fragment_ldmatrix *args, struct CUstream_st *stream,
                                       char *err, size_t errlen)
{
    return launch("fragment_ldmatrix", fragments::ldmatrix_kernel, fragments::warps(1, stream), err, errlen,
                  *args);
}

extern "C" qd_status fragment_pack(const struct fragment_pack *args, struct CUstream_st *stream, char *err,
                                   size_t errlen)
{
    return launch("fragment_pack", fragments::pack_kernel, fragments::warps(1, stream), err, errlen, *args);
}

extern "C" qd_status fragment_copy(const struct fragment_copy *args, struct CUstream_st *stream, char *err,
                                   size_t errlen)
{
    return launch("fragment_copy", fragments::copy_kernel, fragments::warps(1, stream), err, errlen, *args);
}
