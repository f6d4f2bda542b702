/* Per-head RMSNorm of q and k, rotary embedding, and the store of k and v into the paged pool; tokens are
 * split over the team. K goes into its page transposed, [hd][16]: attention multiplies pages whose lanes are
 * keys.
 *
 * Constraints: head_dim a multiple of 16; qkv in bf16, as this device's gemm_nt leaves it; plan() has filled
 * cos and sin of the step.
 */
#include "kernels/cpu/norm.h"
#include "kernels/cpu/split.h"

struct job {
    const struct qd_qk_norm_rope_kv_args *args;
    struct qd_cpu *cpu;
    enum qd_numerics numerics;
};

/* Norm and rotation of one head into out[hd]. */
static void turn_head(const struct job *job, int64_t token, const qd_bf16 *x, const qd_bf16 *weight,
                      qd_bf16 *out)
{
    const int64_t dim = job->args->head_dim, half = dim / 2;
    const float *cos = job->cpu->plan.cos + token * half, *sin = job->cpu->plan.sin + token * half;
    const float reciprocal_rms = norm_reciprocal_rms(x, dim, job->args->eps);
    for (int64_t i = 0; i < half; i += VF_LANES) {
        vf a = norm_vector(vf_load_bf16(x + i), vf_load_bf16(weight + i), reciprocal_rms, job->numerics);
        vf b = norm_vector(vf_load_bf16(x + half + i), vf_load_bf16(weight + half + i), reciprocal_rms,
                           job->numerics);
        vf c = vf_load(cos + i), s = vf_load(sin + i);
        if (job->numerics == QD_NUMERICS_HF) {
            a = vf_round_bf16(a);
            b = vf_round_bf16(b);
        }
        vf ac = vf_mul(a, c), bs = vf_mul(b, s), bc = vf_mul(b, c), as = vf_mul(a, s);
        if (job->numerics == QD_NUMERICS_HF) {
            ac = vf_round_bf16(ac);
            bs = vf_round_bf16(bs);
            bc = vf_round_bf16(bc);
            as = vf_round_bf16(as);
        }
        vf_store_bf16(out + i, vf_sub(ac, bs));
        vf_store_bf16(out + half + i, vf_add(bc, as));
    }
}

/* k and v heads of one token to their place in the pool; turned[hd] is room for one k head. */
static void store_kv(const struct job *job, int64_t token, const qd_bf16 *k, const qd_bf16 *v,
                     qd_bf16 *turned)
{
    const struct qd_qk_norm_rope_kv_args *args = job->args;
    const struct qd_kv_layer *kv = &args->kv;
    const int64_t dim = args->head_dim, head_size = QD_KV_BLOCK_SIZE * dim;
    const int64_t slot = qd_step_slot_mapping(args->step)[token];
    const int64_t page = slot / QD_KV_BLOCK_SIZE, offset = slot % QD_KV_BLOCK_SIZE;
    qd_bf16 *k_page = kv->data + page * kv->n_kv_heads * head_size;
    qd_bf16 *v_page = k_page + kv->n_blocks * kv->n_kv_heads * head_size;
    for (int64_t h = 0; h < args->n_kv_heads; h++) {
        turn_head(job, token, k + h * dim, args->k_norm_weight, turned);
        qd_bf16 *lane = k_page + h * head_size + qd_cpu_panel_lane(offset);
        for (int64_t d = 0; d < dim; d++) lane[d * QD_KV_BLOCK_SIZE] = turned[d];
        qd_bf16 *row = v_page + h * head_size + offset * dim;
        for (int64_t d = 0; d < dim; d++)
            row[d / QD_CPU_PANEL * QD_CPU_PANEL + qd_cpu_panel_lane(d)] = v[h * dim + d];
    }
}

static void run_member(void *arg, int member, int n_members)
{
    const struct job *job = arg;
    const struct qd_qk_norm_rope_kv_args *args = job->args;
    const int64_t dim = args->head_dim, n_q = args->n_heads, n_kv = args->n_kv_heads;
    int64_t begin, end;
    qd_team_split(args->step->n_tokens, 1, member, n_members, &begin, &end);
    for (int64_t t = begin; t < end; t++) {
        const qd_bf16 *q = (const qd_bf16 *)args->qkv.data + t * (n_q + 2 * n_kv) * dim, *k = q + n_q * dim;
        for (int64_t h = 0; h < n_q; h++)
            turn_head(job, t, q + h * dim, args->q_norm_weight, args->q_out + (t * n_q + h) * dim);
        store_kv(job, t, k, k + n_kv * dim, (qd_bf16 *)(void *)job->cpu->scratch[member]);
    }
}

qd_status QD_CPU_FN(qd_cpu_qk_norm_rope_kv)(struct qd_cpu *cpu, const struct qd_qk_norm_rope_kv_args *args)
{
    if (args->head_dim % QD_KV_BLOCK_SIZE != 0 || args->qkv.dtype != QD_PARTIAL_BF16 ||
        cpu->scratch_bytes < (size_t)args->head_dim * sizeof(qd_bf16))
        return QD_ERR_UNSUPPORTED;
    struct job job = {args, cpu, cpu->config.numerics};
    qd_cpu_run_rows(cpu, run_member, &job, args->step->n_tokens,
                    (args->n_heads + 2 * args->n_kv_heads) * args->head_dim);
    return QD_OK;
}
