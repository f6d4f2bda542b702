/* The table of one instruction set. */
#include "kernels/cpu/kernels.h"

static size_t scratch_bytes(const struct qd_device_config *config)
{
    size_t most = QD_CPU_FN(qd_cpu_gemm_nt_scratch)(config);
    size_t attention = QD_CPU_FN(qd_cpu_attention_scratch)(config);
    size_t sample = QD_CPU_FN(qd_cpu_sample_scratch)(config);
    if (most < attention) most = attention;
    if (most < sample) most = sample;
    return most;
}

#define NAME_(isa) #isa
#define NAME(isa) NAME_(isa)

const struct qd_cpu_kernels QD_CPU_FN(qd_cpu_kernels) = {
    .isa = NAME(QD_CPU_ISA),
    .embed = QD_CPU_FN(qd_cpu_embed),
    .rmsnorm = QD_CPU_FN(qd_cpu_rmsnorm),
    .gemm_nt = QD_CPU_FN(qd_cpu_gemm_nt),
    .silu_mul = QD_CPU_FN(qd_cpu_silu_mul),
    .qk_norm_rope_kv = QD_CPU_FN(qd_cpu_qk_norm_rope_kv),
    .attention = QD_CPU_FN(qd_cpu_attention),
    .reduce_add_rmsnorm = QD_CPU_FN(qd_cpu_reduce_add_rmsnorm),
    .sample = QD_CPU_FN(qd_cpu_sample),
    .scratch_bytes = scratch_bytes,
    .probe_read = QD_CPU_FN(qd_cpu_probe_read),
    .probe_fma = QD_CPU_FN(qd_cpu_probe_fma),
};
