/* Embedding: out[t] = table[id(t)]; id(t) = token_source[t], or what slot -(token_source[t]+1) sampled last.
 *
 * table: [n_ids][H] bf16; token_source: [T] int32; sampled: [max_seqs] int32; out: [T][H] bf16. An id outside
 * the table gives a row of zeros. One block a token: a decode step is a few rows, and then what counts is
 * that all of a row's loads are on their way at once.
 *
 *     constraint           otherwise
 *     H % 8 == 0, H > 0    QD_ERR_UNSUPPORTED
 *     0 <= T < 2^31        QD_ERR_UNSUPPORTED
 *
 * Traffic: qd_traffic_embed (kernels/ref/embed.c). nvcc 13.0, sm_80 and sm_90: 20 registers, no shared
 * memory, no spills. Emulated only.
 */
#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/launch.cuh"

namespace embed {

constexpr unsigned MAX_THREADS = 256;

__global__ void __launch_bounds__(MAX_THREADS)
    embed_bf16_block_per_row_kernel(const struct qd_cuda_embed_args args)
{
    const int64_t token = blockIdx.x;
    const int32_t source = args.token_source[token];
    const int64_t id = source >= 0 ? source : args.sampled[-(source + 1)];
    const bool known = id >= 0 && id < args.n_ids;
    const uint4 *from = reinterpret_cast<const uint4 *>(args.table + (known ? id : 0) * args.hidden_dim);
    uint4 *to = reinterpret_cast<uint4 *>(args.out + token * args.hidden_dim);

    for (int64_t i = threadIdx.x; i < args.hidden_dim / CHUNK; i += blockDim.x)
        to[i] = known ? from[i] : make_uint4(0, 0, 0, 0);
}

} // namespace embed

extern "C" qd_status qd_cuda_embed(const struct qd_cuda_embed_args *args, struct CUstream_st *stream,
                                   char *err, size_t errlen)
{
    using namespace embed;
    if (args->hidden_dim <= 0 || args->hidden_dim % CHUNK != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "embed: hidden_dim %lld is no multiple of %d",
                       static_cast<long long>(args->hidden_dim), CHUNK);
    if (args->n_tokens < 0 || args->n_tokens > INT32_MAX)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "embed: %lld tokens",
                       static_cast<long long>(args->n_tokens));
    if (args->n_tokens == 0) return QD_OK;

    const unsigned chunks = static_cast<unsigned>(args->hidden_dim / CHUNK);
    const unsigned threads = chunks < MAX_THREADS ? (chunks + WARP - 1) / WARP * WARP : MAX_THREADS;
    const struct launch_shape shape = {dim3(static_cast<unsigned>(args->n_tokens)), dim3(threads), 0, stream};
    return launch("embed", embed_bf16_block_per_row_kernel, shape, err, errlen, *args);
}
