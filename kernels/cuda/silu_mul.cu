/* SiLU gate: out[m][i] = silu(gate) * up over columns that are interleaved in groups of 8 (8 gates, 8 ups,
 * ...), rounded as kernels/ops.h says. What a GEMM's epilogue does, on its own: the consumer of fp32 split-K
 * slices.
 *
 * gate_up: [n_slices][M][2*I] bf16 (one slice) or fp32, summed in index order in fp32; out: [M][I] bf16. One
 * thread for a group of 8: its gates, its ups, its 8 results.
 *
 *     constraint              otherwise
 *     I % 8 == 0, I > 0       QD_ERR_UNSUPPORTED
 *     bf16: one slice         QD_ERR_UNSUPPORTED
 *     stride % 8 == 0         QD_ERR_UNSUPPORTED (with several slices)
 *     M * I / 2048 < 2^31     QD_ERR_UNSUPPORTED
 *
 * Traffic: qd_traffic_silu_mul (kernels/ref/silu_mul.c), 4 bytes more an element for each fp32 slice.
 * nvcc 13.0, sm_80 and sm_90: 42 registers, no shared memory, no spills. Emulated only.
 */
#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/silu.cuh"

namespace silu_mul {

constexpr int THREADS = 256;

template <bool hf>
__global__ void __launch_bounds__(THREADS)
    silu_mul_bf16_thread_per_group_kernel(const struct qd_cuda_silu_mul_args args, int64_t n_groups)
{
    const int64_t group = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; /* over all rows */
    if (group >= n_groups) return;
    const struct qd_partial &in = args.gate_up;
    const int64_t at = group * 2 * CHUNK; /* rows hold whole groups, so no division is needed */
    float gate[CHUNK], up[CHUNK], y[CHUNK];

    sum_slices(in.data, in.dtype, in.n_slices, in.stride, at, gate);
    sum_slices(in.data, in.dtype, in.n_slices, in.stride, at + CHUNK, up);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) y[i] = silu_mul_one<hf>(gate[i], up[i]);
    store_chunk(args.out + group * CHUNK, y);
}

} // namespace silu_mul

extern "C" qd_status qd_cuda_silu_mul(const struct qd_cuda_silu_mul_args *args, struct CUstream_st *stream,
                                      char *err, size_t errlen)
{
    using namespace silu_mul;
    if (args->m < 0 || args->n <= 0 || args->n % CHUNK != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "silu_mul: %lld x %lld: columns are multiples of %d",
                       static_cast<long long>(args->m), static_cast<long long>(args->n), CHUNK);
    QD_TRY(check_slices("silu_mul", args->gate_up.dtype, args->gate_up.n_slices, args->gate_up.stride, err,
                        errlen));
    const int64_t n_groups = args->m * (args->n / CHUNK), n_blocks = (n_groups + THREADS - 1) / THREADS;
    if (n_blocks > INT32_MAX)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "silu_mul: %lld rows",
                       static_cast<long long>(args->m));
    if (n_groups == 0) return QD_OK;

    const struct launch_shape shape = {dim3(static_cast<unsigned>(n_blocks)), dim3(THREADS), 0, stream};
    const auto kernel = args->numerics == QD_NUMERICS_HF ? silu_mul_bf16_thread_per_group_kernel<true>
                                                         : silu_mul_bf16_thread_per_group_kernel<false>;
    return launch("silu_mul", kernel, shape, err, errlen, *args, n_groups);
}
