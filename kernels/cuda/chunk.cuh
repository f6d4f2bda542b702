/* Eight neighbouring elements of a row, held by one thread in fp32: what the elementwise kernels load, sum
 * and store at once (16 bytes of bf16, two of 16 bytes of fp32). Columns are multiples of 8, so every access
 * is aligned.
 */
#ifndef QD_KERNELS_CUDA_CHUNK_CUH
#define QD_KERNELS_CUDA_CHUNK_CUH

#include "kernels/cuda/ptx.cuh"
#include "kernels/ops.h"

constexpr int CHUNK = 8, WARP = 32;

__device__ __forceinline__ void widen_chunk(const uint4 &bits, float (&v)[CHUNK])
{
    v[0] = bf16_low(bits.x), v[1] = bf16_high(bits.x);
    v[2] = bf16_low(bits.y), v[3] = bf16_high(bits.y);
    v[4] = bf16_low(bits.z), v[5] = bf16_high(bits.z);
    v[6] = bf16_low(bits.w), v[7] = bf16_high(bits.w);
}

__device__ __forceinline__ void load_chunk(const uint16_t *from, float (&v)[CHUNK])
{
    widen_chunk(*reinterpret_cast<const uint4 *>(from), v);
}

__device__ __forceinline__ void load_chunk(const float *from, float (&v)[CHUNK])
{
    const float4 first = reinterpret_cast<const float4 *>(from)[0];
    const float4 second = reinterpret_cast<const float4 *>(from)[1];
    v[0] = first.x, v[1] = first.y, v[2] = first.z, v[3] = first.w;
    v[4] = second.x, v[5] = second.y, v[6] = second.z, v[7] = second.w;
}

/* Rounded to bf16. */
__device__ __forceinline__ void store_chunk(uint16_t *to, const float (&v)[CHUNK])
{
    *reinterpret_cast<uint4 *>(to) = make_uint4(ptx::pack_bf16(v[0], v[1]), ptx::pack_bf16(v[2], v[3]),
                                                ptx::pack_bf16(v[4], v[5]), ptx::pack_bf16(v[6], v[7]));
}

/* Elements at .. at+7 of every slice of a projection's output, summed in index order in fp32, not yet
 * rounded. data: [n_slices] of `stride` elements; one bf16 slice is widened only. */
__device__ __forceinline__ void sum_slices(const void *data, enum qd_partial_dtype dtype, int n_slices,
                                           int64_t stride, int64_t at, float (&v)[CHUNK])
{
    if (dtype == QD_PARTIAL_BF16) {
        load_chunk(static_cast<const uint16_t *>(data) + at, v);
        return;
    }
    const float *slice = static_cast<const float *>(data) + at;
#pragma unroll
    for (int i = 0; i < CHUNK; i++) v[i] = 0.0f;
#pragma unroll 4 /* so many slices' loads are on their way together */
    for (int s = 0; s < n_slices; s++, slice += stride) {
        float part[CHUNK];
        load_chunk(slice, part);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) v[i] = __fadd_rn(v[i], part[i]);
    }
}

/* What a launcher requires of a qd_partial that it hands to sum_slices, `row` elements a row:
 * QD_ERR_UNSUPPORTED with the reason. */
inline qd_status check_slices(const char *name, enum qd_partial_dtype dtype, int n_slices, int64_t stride,
                              char *err, size_t errlen)
{
    if (n_slices < 1 || (dtype == QD_PARTIAL_BF16 && n_slices != 1))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: %d %s slices", name, n_slices,
                       dtype == QD_PARTIAL_BF16 ? "bf16" : "fp32");
    if (n_slices > 1 && stride % CHUNK != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen,
                       "%s: a slice stride of %lld elements is no multiple of %d", name,
                       static_cast<long long>(stride), CHUNK);
    return QD_OK;
}

#endif
