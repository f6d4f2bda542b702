/* What each op costs at least: bytes moved and floating-point operations, as functions of its shape.
 *
 * Bytes count every input once and every output once (weights, activations, keys and values; no credit for
 * caches); operations count what the formula needs, not what a kernel spends. The step ledger, the roofline
 * columns and the simulator all use these, so that they cannot disagree. Definitions stand beside the
 * specification of each op in kernels/ref/. Shapes are those of one rank. With no rows (n_rows, m or
 * n_tokens 0) what remains is the weight.
 */
#ifndef QD_KERNELS_TRAFFIC_H
#define QD_KERNELS_TRAFFIC_H

#include <stdint.h>

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qd_traffic {
    uint64_t bytes; /* read and written */
    uint64_t flops; /* an exponential, a division or a comparison of logits counts as one */
};

/* The least time it can take, ns: the larger of bytes / bandwidth (GB/s, 1e9) and operations / peak (GFLOP/s,
 * 1e9). *compute_bound: which it is. Both limits above 0. */
static inline double qd_traffic_floor_ns(struct qd_traffic traffic, double gbps, double gflops,
                                         bool *compute_bound)
{
    double memory_ns = (double)traffic.bytes / gbps, compute_ns = (double)traffic.flops / gflops;
    *compute_bound = compute_ns > memory_ns;
    return *compute_bound ? compute_ns : memory_ns;
}

/* What attention's cost depends on: sums over a step. */
struct qd_attention_load {
    int64_t n_tokens;  /* T */
    int64_t n_visible; /* over the tokens: keys each sees, itself included */
    int64_t n_kv;      /* over the sequences: kv_len */
};
struct qd_attention_load qd_attention_load(const struct qd_step *step);

struct qd_traffic qd_traffic_embed(int64_t n_tokens, int64_t hidden_dim);
struct qd_traffic qd_traffic_rmsnorm(int64_t n_rows, int64_t dim);
struct qd_traffic qd_traffic_gemm_nt(int64_t m, int64_t n, int64_t k, enum qd_epilogue epilogue);
struct qd_traffic qd_traffic_silu_mul(int64_t m, int64_t n);
struct qd_traffic qd_traffic_qk_norm_rope_kv(int64_t n_tokens, int64_t n_heads, int64_t n_kv_heads,
                                             int64_t head_dim);
struct qd_traffic qd_traffic_attention(const struct qd_attention_load *load, int64_t n_heads,
                                       int64_t n_kv_heads, int64_t head_dim);
struct qd_traffic qd_traffic_reduce_add_rmsnorm(int64_t n_rows, int64_t dim, int n_slices,
                                                enum qd_partial_dtype dtype);
struct qd_traffic qd_traffic_sample(int64_t n_rows, int64_t n_vocab);
struct qd_traffic qd_traffic_all_gather(int64_t bytes, int world);
struct qd_traffic qd_traffic_all_reduce(int64_t n, int world);

#ifdef __cplusplus
}
#endif

#endif
