/* out = silu(gate) * up where the GEMM did not fuse it; columns come as 8 gate, 8 up, ... and the last group
 * as n gate, n up. Rows are split over the team. */
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/split.h"

struct job {
    const struct qd_silu_mul_args *args;
    enum qd_numerics numerics;
};

static inline vf silu_mul(vf gate, vf up, enum qd_numerics numerics)
{
    vf silu = vf_silu(gate);
    if (numerics == QD_NUMERICS_HF) silu = vf_round_bf16(silu);
    return vf_mul(silu, up);
}

static void run_member(void *arg, int member, int n_members)
{
    const struct job *job = arg;
    const struct qd_silu_mul_args *args = job->args;
    int64_t begin, end;
    qd_team_split(args->m, 1, member, n_members, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const qd_bf16 *in = args->gate_up + row * 2 * args->n;
        qd_bf16 *out = args->out + row * args->n;
        int64_t i = 0;
        for (; i + VF_LANES <= args->n; i += VF_LANES)
            vf_store_bf16(out + i, silu_mul(vf_load_bf16(in + 2 * i), vf_load_bf16(in + 2 * i + VF_LANES),
                                            job->numerics));
        int64_t left = args->n - i;
        if (left > 0)
            vf_store_bf16_part(out + i,
                               silu_mul(vf_load_bf16_part(in + 2 * i, left),
                                        vf_load_bf16_part(in + 2 * i + left, left), job->numerics),
                               left);
    }
}

qd_status QD_CPU_FN(qd_cpu_silu_mul)(struct qd_cpu *cpu, const struct qd_silu_mul_args *args)
{
    struct job job = {args, cpu->config.numerics};
    qd_cpu_run_rows(cpu, run_member, &job, args->m, args->n);
    return QD_OK;
}
