/* The ops of one instruction set, as the files of kernels/cpu/ define them, and the scratch memory each
 * needs. Included only by files that are compiled once per set: QD_CPU_FN adds the set's name. Contracts are
 * in kernels/ops.h. */
#ifndef QD_KERNELS_CPU_KERNELS_H
#define QD_KERNELS_CPU_KERNELS_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

qd_status QD_CPU_FN(qd_cpu_embed)(struct qd_cpu *cpu, const struct qd_embed_args *args);
qd_status QD_CPU_FN(qd_cpu_rmsnorm)(struct qd_cpu *cpu, const struct qd_rmsnorm_args *args);
qd_status QD_CPU_FN(qd_cpu_gemm_nt)(struct qd_cpu *cpu, const struct qd_gemm_nt_args *args);
qd_status QD_CPU_FN(qd_cpu_silu_mul)(struct qd_cpu *cpu, const struct qd_silu_mul_args *args);
qd_status QD_CPU_FN(qd_cpu_qk_norm_rope_kv)(struct qd_cpu *cpu, const struct qd_qk_norm_rope_kv_args *args);
qd_status QD_CPU_FN(qd_cpu_attention)(struct qd_cpu *cpu, const struct qd_attention_args *args);
qd_status QD_CPU_FN(qd_cpu_reduce_add_rmsnorm)(struct qd_cpu *cpu,
                                               const struct qd_reduce_add_rmsnorm_args *args,
                                               const void *const *partials, int n_ranks);
qd_status QD_CPU_FN(qd_cpu_sample)(struct qd_cpu *cpu, const struct qd_sample_args *args);

float QD_CPU_FN(qd_cpu_probe_read)(const float *data, size_t n_floats, size_t ahead_bytes);
int64_t QD_CPU_FN(qd_cpu_probe_fma)(int64_t n_rounds, float *result);

/* Bytes of cpu->scratch[member] that an op uses; ops without one use none. */
size_t QD_CPU_FN(qd_cpu_gemm_nt_scratch)(const struct qd_device_config *config);
size_t QD_CPU_FN(qd_cpu_attention_scratch)(const struct qd_device_config *config);
size_t QD_CPU_FN(qd_cpu_sample_scratch)(const struct qd_device_config *config);

#endif
