/* RMSNorm (Zhang and Sennrich 2019) of selected rows; rows are split over the team. */
#include "kernels/cpu/norm.h"
#include "kernels/cpu/split.h"

struct job {
    const struct qd_rmsnorm_args *args;
    enum qd_numerics numerics;
};

static void run_member(void *arg, int member, int n_members)
{
    const struct job *job = arg;
    const struct qd_rmsnorm_args *args = job->args;
    int64_t begin, end;
    qd_team_split(args->n_rows, 1, member, n_members, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t row = args->rows != NULL ? args->rows[i] : i;
        norm_row(args->x + row * args->dim, args->weight, args->out + i * args->dim, args->dim, args->eps,
                 job->numerics);
    }
}

qd_status QD_CPU_FN(qd_cpu_rmsnorm)(struct qd_cpu *cpu, const struct qd_rmsnorm_args *args)
{
    struct job job = {args, cpu->config.numerics};
    qd_cpu_run_rows(cpu, run_member, &job, args->n_rows, args->dim);
    return QD_OK;
}
