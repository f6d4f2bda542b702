/* Token embedding: copies table rows; a packed table (a tied lm_head) is gathered from its panels. */
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/split.h"

struct job {
    const struct qd_embed_args *args;
    const int32_t *sampled;
};

static int32_t token_id(const struct job *job, int64_t t)
{
    int32_t source = job->args->token_source[t];
    return source >= 0 ? source : job->sampled[-(source + 1)];
}

static void run_member(void *arg, int member, int n_members)
{
    const struct job *job = arg;
    const struct qd_embed_args *args = job->args;
    const int64_t dim = args->table.n_cols;
    int64_t begin, end;
    qd_team_split(args->n_tokens, 1, member, n_members, &begin, &end);
    for (int64_t t = begin; t < end; t++) {
        int64_t id = token_id(job, t);
        qd_bf16 *out = args->out + t * dim;
        if (args->table.layout == QD_LAYOUT_ROWS) {
            memcpy(out, (const qd_bf16 *)args->table.data + id * dim, (size_t)dim * sizeof *out);
            continue;
        }
        const qd_bf16 *column = (const qd_bf16 *)args->table.data + id / QD_CPU_PANEL * QD_CPU_PANEL * dim +
                                qd_cpu_panel_lane(id);
        for (int64_t k = 0; k < dim; k++) out[k] = column[k * QD_CPU_PANEL];
    }
}

qd_status QD_CPU_FN(qd_cpu_embed)(struct qd_cpu *cpu, const struct qd_embed_args *args)
{
    struct job job = {args, cpu->sampled};
    for (int64_t t = 0; t < args->n_tokens; t++)
        if (token_id(&job, t) < 0 || token_id(&job, t) >= args->table.n_rows) return QD_ERR_INPUT;
    qd_cpu_run_rows(cpu, run_member, &job, args->n_tokens, args->table.n_cols);
    return QD_OK;
}
