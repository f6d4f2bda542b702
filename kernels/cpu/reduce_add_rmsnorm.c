/* Sum of a projection's parts, residual addition and the norm that follows; rows are split over the team.
 * Every rank computes all of it for its own residual: the parts are read where the other ranks left them. */
#include "kernels/cpu/norm.h"
#include "kernels/cpu/split.h"

struct job {
    const struct qd_reduce_add_rmsnorm_args *args;
    const void *const *partials; /* [n_ranks] */
    int n_ranks;
    enum qd_numerics numerics;
};

/* Eight elements, or the first n of them, from `index` on of one slice. */
static inline vf load_part(const struct qd_partial *partial, const void *data, int64_t index, int64_t n)
{
    if (partial->dtype == QD_PARTIAL_BF16) {
        const qd_bf16 *from = (const qd_bf16 *)data + index;
        return n < VF_LANES ? vf_load_bf16_part(from, n) : vf_load_bf16(from);
    }
    float part[VF_LANES] = {0};
    if (n >= VF_LANES) return vf_load((const float *)data + index);
    memcpy(part, (const float *)data + index, (size_t)n * sizeof *part);
    return vf_load(part);
}

/* residual[0 .. n) += r(sum over ranks, then slices), n <= 8, at element `index` of the activations. */
static inline void add_parts(const struct job *job, int64_t index, int64_t n)
{
    const struct qd_partial *partial = &job->args->partial;
    vf sum = vf_zero();
    for (int rank = 0; rank < job->n_ranks; rank++)
        for (int slice = 0; slice < partial->n_slices; slice++)
            sum = vf_add(sum, load_part(partial, job->partials[rank], slice * partial->stride + index, n));
    sum = vf_round_bf16(sum);
    qd_bf16 *residual = job->args->residual + index;
    if (n < VF_LANES)
        vf_store_bf16_part(residual, vf_add(vf_load_bf16_part(residual, n), sum), n);
    else
        vf_store_bf16(residual, vf_add(vf_load_bf16(residual), sum));
}

static void run_member(void *arg, int member, int n_members)
{
    const struct job *job = arg;
    const struct qd_reduce_add_rmsnorm_args *args = job->args;
    int64_t begin, end, dim = args->dim;
    qd_team_split(args->n_rows, 1, member, n_members, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t row = args->rows != NULL ? args->rows[i] : i;
        for (int64_t d = 0; d < dim; d += VF_LANES)
            add_parts(job, row * dim + d, dim - d < VF_LANES ? dim - d : VF_LANES);
        norm_row(args->residual + row * dim, args->weight, args->out + i * dim, dim, args->eps,
                 job->numerics);
    }
}

qd_status QD_CPU_FN(qd_cpu_reduce_add_rmsnorm)(struct qd_cpu *cpu,
                                               const struct qd_reduce_add_rmsnorm_args *args,
                                               const void *const *partials, int n_ranks)
{
    struct job job = {args, partials, n_ranks, cpu->config.numerics};
    qd_cpu_run_rows(cpu, run_member, &job, args->n_rows, args->dim);
    return QD_OK;
}
