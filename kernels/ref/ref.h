/* The readable specification of every op: plain loops, double accumulation, no SIMD. Tests compare devices
 * with it; nothing here is fast. Arguments as in kernels/ops.h, weights in QD_LAYOUT_ROWS; K and V pages as
 * qd_kv_layer says ([Hkv][16][hd]). Also a device table of its own (qd_ref_ops, one rank, no threads), so
 * that the whole forward pass can run on the specification.
 */
#ifndef QD_KERNELS_REF_REF_H
#define QD_KERNELS_REF_REF_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

void qd_ref_embed(const struct qd_embed_args *args, const int32_t *sampled);
void qd_ref_rmsnorm(const struct qd_rmsnorm_args *args, enum qd_numerics numerics);
void qd_ref_gemm_nt(const struct qd_gemm_nt_args *args, enum qd_numerics numerics);
void qd_ref_silu_mul(const struct qd_silu_mul_args *args, enum qd_numerics numerics);
/* cos and sin of one position into [hd/2] each, attention scaling included; hf rounds both to bf16. */
void qd_ref_rope(const struct qd_rope *rope, int32_t head_dim, int32_t position, enum qd_numerics numerics,
                 float *cos_out, float *sin_out);
void qd_ref_qk_norm_rope_kv(const struct qd_qk_norm_rope_kv_args *args, const struct qd_rope *rope,
                            enum qd_numerics numerics);
void qd_ref_attention(const struct qd_attention_args *args, enum qd_numerics numerics);
/* partials[p]: rank p's data, n_ranks of them */
void qd_ref_reduce_add_rmsnorm(const struct qd_reduce_add_rmsnorm_args *args, const void *const *partials,
                               int n_ranks, enum qd_numerics numerics);
/* As struct qd_store_fill says (kernels/store.h), of any width. */
void qd_ref_fill_uniform(const struct qd_store_fill *args);
/* One row of logits[n], n >= 1 (whole vocabulary), to the sampled id: the smallest id at which the running
 * sum of the kept probabilities, over rising ids, exceeds the uniform of word 0 of qd_philox(seed, 0,
 * output_index). -1 when out of memory. */
int32_t qd_ref_sample_row(const float *logits, int64_t n, const struct qd_sampling *sampling);
/* The kept tokens' probabilities of one row, 0 for the others: probs[n], in double. Returns how many stay, or
 * -1 when out of memory. Equal logits at the top-p cut stay by rising id. */
int64_t qd_ref_sample_probabilities(const float *logits, int64_t n, const struct qd_sampling *sampling,
                                    double *probs);

extern const struct qd_device_ops qd_ref_ops;

#ifdef __cplusplus
}
#endif

#endif
