/* The state of one rank of the CPU device, shared by its host part (host/) and its per-instruction-set ops.
 *
 * Weights are packed in panels of 16 rows of the [N][K] matrix: panel p holds, for every k in order, the 16
 * values W[16p .. 16p+15][k] (the last panel is filled up with zero rows), rows 0-7 and 8-15 interleaved:
 *
 *     panel p:  k=0: w[16p][0] w[16p+8][0] w[16p+1][0] w[16p+9][0] ... w[16p+7][0] w[16p+15][0]
 *               k=1: w[16p][1] w[16p+8][1] ...
 *
 * One load, a shift and a mask widen both halves to fp32, which leaves the FMA units to the FMAs. A lane is
 * an output column, so every output element is one chain over rising k, whatever the number of rows. K pages
 * of the KV pool are kept transposed for the same reason: [Hkv][hd][16], a lane is a key, keys 0-7 and 8-15
 * interleaved like panel rows. V pages are [Hkv][16][hd], with columns 0-7 and 8-15 of every 16 interleaved.
 */
#ifndef QD_KERNELS_CPU_CPU_H
#define QD_KERNELS_CPU_CPU_H

#include "kernels/base/arena.h"
#include "kernels/base/team.h"
#include "kernels/device.h"

enum {
    QD_CPU_PANEL = 16,
    QD_CPU_MAX_RANKS = 64, /* of one replica */
};

/* Place of matrix row `row` among the 16 values of one k of its panel; of a key among the 16 of its K page;
 * of a column among its 16 of a V page. */
static inline int64_t qd_cpu_panel_lane(int64_t row)
{
    return row % 8 * 2 + row % QD_CPU_PANEL / 8;
}

struct qd_cpu;

/* The ops of one instruction set; each splits its work over the rank's team. */
struct qd_cpu_kernels {
    const char *isa; /* as in --cpu-isa */
    qd_status (*embed)(struct qd_cpu *cpu, const struct qd_embed_args *args);
    qd_status (*rmsnorm)(struct qd_cpu *cpu, const struct qd_rmsnorm_args *args);
    qd_status (*gemm_nt)(struct qd_cpu *cpu, const struct qd_gemm_nt_args *args);
    qd_status (*silu_mul)(struct qd_cpu *cpu, const struct qd_silu_mul_args *args);
    qd_status (*qk_norm_rope_kv)(struct qd_cpu *cpu, const struct qd_qk_norm_rope_kv_args *args);
    qd_status (*attention)(struct qd_cpu *cpu, const struct qd_attention_args *args);
    /* partials[p] of every rank p, already visible to this rank; n_ranks >= 1 */
    qd_status (*reduce_add_rmsnorm)(struct qd_cpu *cpu, const struct qd_reduce_add_rmsnorm_args *args,
                                    const void *const *partials, int n_ranks);
    qd_status (*sample)(struct qd_cpu *cpu, const struct qd_sample_args *args);
    /* scratch bytes that any of the ops needs per team member for this configuration */
    size_t (*scratch_bytes)(const struct qd_device_config *config);
    /* the limits of one thread, for host/probe.h: reads n_floats in several streams and returns their sum,
     * each line asked for `ahead_bytes` early; does n_rounds of independent FMAs and returns how many
     * operations that were. Sum and result exist so that no compiler drops the work. */
    float (*probe_read)(const float *data, size_t n_floats, size_t ahead_bytes);
    int64_t (*probe_fma)(int64_t n_rounds, float *result);
};

extern const struct qd_cpu_kernels qd_cpu_kernels_portable;
extern const struct qd_cpu_kernels qd_cpu_kernels_avx2;

/* What plan() fixes for the step. */
struct qd_cpu_plan {
    const struct qd_step *step;
    float *cos, *sin; /* [T][hd/2] fp32, attention scaling included; rounded to bf16 in hf numerics */
};

struct qd_cpu {
    struct qd_device_config config;
    const struct qd_cpu_kernels *kernels;
    qd_team_t *team;
    struct qd_arena memory;    /* of the device itself: scratch, cos and sin, sampled */
    struct qd_cpu_block *blocks; /* everything that alloc() handed out */
    unsigned char **scratch;   /* [team size] scratch_bytes each, 64-byte aligned */
    size_t scratch_bytes;
    struct qd_cpu_plan plan;
    int32_t *sampled;          /* [max_seqs] the id each slot sampled last */
    struct qd_device_stats stats;  /* of the timed steps; zeros without device_timing */
    int64_t stamp_ns;              /* end of the last segment (host/device.c) */
    struct qd_bootstrap bootstrap; /* world 1: no collectives */
    struct qd_cpu_comm *comm;      /* shared memory of the replica's ranks; NULL with one rank */
};

/* Collectives among the rank threads of one replica (host/comm.c). Each returns QD_ERR_RANK when a rank has
 * failed. `publish` makes this rank's pointer visible and writes those of all ranks into all[world]; what it
 * points to may change again only when the next publish (for whatever purpose) has returned, so a caller
 * alternates between two buffers or ends with a barrier. */
qd_status qd_cpu_comm_publish(struct qd_cpu *cpu, const void *mine, const void **all);
qd_status qd_cpu_comm_barrier(struct qd_cpu *cpu);

#endif
