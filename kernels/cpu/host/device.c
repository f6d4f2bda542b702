#include "kernels/cpu/host/device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "kernels/base/size.h"
#include "kernels/cpu/host/comm.h"
#include "kernels/cpu/host/cores.h"
#include "kernels/cpu/host/isa.h"
#include "kernels/cpu/host/pack.h"

/* One alloc(): a mapping of its own, so that nobody needs to know the total in advance. */
struct qd_cpu_block {
    struct qd_arena arena;
    struct qd_cpu_block *next;
};

static bool cpu_supports(const struct qd_model_shape *shape, int tp, enum qd_numerics numerics, char *why,
                         size_t why_len)
{
    (void)numerics;
    qd_status st = QD_OK;
    if (tp < 1 || tp > QD_CPU_MAX_RANKS)
        st = qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "%d ranks: it is 1 to %d", tp, QD_CPU_MAX_RANKS);
    else if (shape->hidden_dim < 1 || shape->ffn_dim < 1 || shape->vocab_size < 1 || shape->n_layers < 1 ||
             shape->n_heads < 1 || shape->n_kv_heads < 1 || shape->head_dim < 1)
        st = qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "a dimension of the model is not positive");
    else if (shape->head_dim % 16 != 0)
        st = qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "head_dim %d: it must be a multiple of 16",
                     shape->head_dim);
    else if (shape->n_heads % shape->n_kv_heads != 0)
        st = qd_fail(QD_ERR_UNSUPPORTED, why, why_len, "%d query heads are no multiple of %d KV heads",
                     shape->n_heads, shape->n_kv_heads);
    return st == QD_OK;
}

/* Bytes of the memory of the device itself. */
struct working_memory {
    size_t scratch; /* of one team member */
    size_t angles;  /* of cos, and of sin */
    size_t sampled;
    size_t total;   /* for the whole team */
};

static qd_status measure(const struct qd_device_config *config, const struct qd_cpu_kernels *kernels,
                         size_t n_members, struct working_memory *out, char *err, size_t errlen)
{
    const struct qd_step_limits *limits = &config->limits;
    if (limits->max_tokens < 1 || limits->max_seqs < 1)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "limits of %d tokens and %d sequences a step",
                       limits->max_tokens, limits->max_seqs);
    size_t scratch;
    out->scratch = qd_round_up(kernels->scratch_bytes(config), 64);
    if (!qd_size_mul((size_t)limits->max_tokens, (size_t)config->shape.head_dim / 2 * sizeof(float),
                     &out->angles) ||
        !qd_size_mul((size_t)limits->max_seqs, sizeof(int32_t), &out->sampled) ||
        !qd_size_mul(out->scratch, n_members, &scratch) || !qd_size_add(scratch, 2 * out->angles, &out->total) ||
        !qd_size_add(out->total, out->sampled + 4 * 64, &out->total))
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "the working memory of a step does not fit an address");
    return QD_OK;
}

/* Memory of the device itself: scratch of every team member, cos and sin of a step, sampled ids. */
static qd_status reserve(struct qd_cpu *cpu, char *err, size_t errlen)
{
    size_t n_members = (size_t)qd_team_size(cpu->team);
    struct working_memory bytes;
    QD_TRY(measure(&cpu->config, cpu->kernels, n_members, &bytes, err, errlen));
    QD_TRY(qd_arena_init(&cpu->memory, bytes.total, err, errlen));
    cpu->scratch_bytes = bytes.scratch;
    cpu->scratch = calloc(n_members, sizeof *cpu->scratch);
    if (cpu->scratch == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for %zu threads", n_members);
    for (size_t i = 0; i < n_members; i++)
        cpu->scratch[i] = qd_arena_take(&cpu->memory, cpu->scratch_bytes, 64);
    cpu->plan.cos = qd_arena_take(&cpu->memory, bytes.angles, 64);
    cpu->plan.sin = qd_arena_take(&cpu->memory, bytes.angles, 64);
    cpu->sampled = qd_arena_take(&cpu->memory, bytes.sampled, 64);
    QD_ASSERT(cpu->sampled != NULL);
    return QD_OK;
}

/* The rank's share of the cores that the calling thread may use. */
static qd_status share_cores(const struct qd_device_config *config, struct qd_cpu_cores *out, char *err,
                             size_t errlen)
{
    cpu_set_t available;
    if (sched_getaffinity(0, sizeof available, &available) != 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cannot read which cores are available");
    return qd_cpu_cores_share(&available, config->n_threads, config->first_rank, config->n_ranks, out, err,
                              errlen);
}

static qd_status cpu_working_bytes(const struct qd_device_config *config, size_t *out, char *err,
                                   size_t errlen)
{
    const struct qd_cpu_kernels *kernels;
    struct qd_cpu_cores cores;
    struct working_memory bytes;
    QD_TRY(qd_cpu_isa_select(config->cpu_isa, &kernels, err, errlen));
    QD_TRY(share_cores(config, &cores, err, errlen));
    QD_TRY(measure(config, kernels, (size_t)cores.n_threads, &bytes, err, errlen));
    *out = bytes.total;
    return QD_OK;
}

static qd_status start_team(struct qd_cpu *cpu, char *err, size_t errlen)
{
    struct qd_cpu_cores cores;
    QD_TRY(share_cores(&cpu->config, &cores, err, errlen));
    char label[16];
    snprintf(label, sizeof label, "r%dk%d", cpu->config.replica % 1000, cpu->bootstrap.rank % 1000);
    struct qd_team_config team = {
        .n_members = cores.n_threads,
        .cores = cores.own_cores ? cores.cores : NULL,
        .may_spin = cores.own_cores,
        .label = label,
    };
    return qd_team_create(&team, &cpu->team, err, errlen);
}

static void cpu_close(void *ctx)
{
    struct qd_cpu *cpu = ctx;
    if (cpu == NULL) return;
    qd_cpu_comm_close(cpu);
    while (cpu->blocks != NULL) {
        struct qd_cpu_block *block = cpu->blocks;
        cpu->blocks = block->next;
        qd_arena_free(&block->arena);
        free(block);
    }
    free(cpu->scratch);
    qd_arena_free(&cpu->memory);
    qd_team_destroy(cpu->team);
    free(cpu);
}

static qd_status cpu_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                          void **ctx, char *err, size_t errlen)
{
    *ctx = NULL;
    char why[QD_ERR_LEN];
    if (!cpu_supports(&config->shape, bootstrap->world, config->numerics, why, sizeof why))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s", why);
    struct qd_cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a device context");
    cpu->config = *config;
    cpu->bootstrap = *bootstrap;

    qd_status st;
    QD_TRY_GOTO(qd_cpu_isa_select(config->cpu_isa, &cpu->kernels, err, errlen), st, failed);
    QD_TRY_GOTO(start_team(cpu, err, errlen), st, failed);
    QD_TRY_GOTO(reserve(cpu, err, errlen), st, failed);
    QD_TRY_GOTO(qd_cpu_comm_open(cpu, err, errlen), st, failed);
    *ctx = cpu;
    return QD_OK;
failed:
    cpu_close(cpu);
    return st;
}

static qd_status cpu_alloc(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    struct qd_cpu *cpu = ctx;
    struct qd_cpu_block *block = calloc(1, sizeof *block);
    if (block == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for an allocation");
    qd_status st = qd_arena_init(&block->arena, bytes > 0 ? bytes : 1, err, errlen);
    if (st != QD_OK) {
        free(block);
        return st;
    }
    block->next = cpu->blocks;
    cpu->blocks = block;
    *out = qd_arena_take(&block->arena, bytes, 64);
    return QD_OK;
}

static qd_status cpu_copy_to_host(void *ctx, const struct qd_copy_to_host_args *args)
{
    (void)ctx;
    for (size_t r = 0; r < args->n_rows; r++)
        memcpy((unsigned char *)args->host + r * args->host_stride,
               (const unsigned char *)args->data + r * args->stride, args->row_bytes);
    return QD_OK;
}

struct angle_work {
    struct qd_cpu *cpu;
    const struct qd_plan_args *args;
};

/* cos and sin of the tokens that fall to one member. The angle is rounded to fp32, as Hugging Face computes
 * it, and may be large: the C library reduces it exactly. */
static void fill_angles(void *arg, int member, int n_members)
{
    const struct angle_work *work = arg;
    const struct qd_plan_args *args = work->args;
    const struct qd_cpu_plan *plan = &work->cpu->plan;
    const int32_t *position = qd_step_position(args->step);
    bool rounded = work->cpu->config.numerics == QD_NUMERICS_HF;
    int64_t half = args->head_dim / 2, begin, end;
    qd_team_split(args->step->n_tokens, 1, member, n_members, &begin, &end);
    for (int64_t t = begin; t < end; t++) {
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)position[t] * args->rope.inv_freq[i];
            float c = cosf(angle) * args->rope.attention_scaling,
                  s = sinf(angle) * args->rope.attention_scaling;
            plan->cos[t * half + i] = rounded ? qd_bf16_round(c) : c;
            plan->sin[t * half + i] = rounded ? qd_bf16_round(s) : s;
        }
    }
}

/* With device_timing an op's time is its call's: ops return when they are done. What lies between two of them
 * is gap, the plan included; a step's span ends with its last op. */
static void add_segment(struct qd_cpu *cpu, enum qd_segment segment, int64_t end_ns)
{
    int64_t ns = end_ns - cpu->stamp_ns;
    cpu->stats.segment_ns[segment] += ns;
    cpu->stats.timed_span_ns += ns;
    cpu->stats.span_ns += ns;
    cpu->stamp_ns = end_ns;
}

static void begin_step(struct qd_cpu *cpu)
{
    if (!cpu->config.device_timing) return;
    cpu->stats.n_timed_steps++;
    cpu->stamp_ns = qd_clock_now_ns();
}

static void begin_op(struct qd_cpu *cpu)
{
    if (cpu->config.device_timing) add_segment(cpu, QD_SEGMENT_GAP, qd_clock_now_ns());
}

/* Hands `status` through. */
static qd_status end_op(struct qd_cpu *cpu, enum qd_segment segment, qd_status status)
{
    if (cpu->config.device_timing) add_segment(cpu, segment, qd_clock_now_ns());
    return status;
}

static void cpu_stats(void *ctx, struct qd_device_stats *out)
{
    const struct qd_cpu *cpu = ctx;
    *out = cpu->stats;
}

static qd_status cpu_plan(void *ctx, const struct qd_plan_args *args)
{
    struct qd_cpu *cpu = ctx;
    begin_step(cpu);
    cpu->plan.step = args->step;
    qd_team_run(cpu->team, fill_angles, &(struct angle_work){.cpu = cpu, .args = args});
    return QD_OK;
}

static qd_status cpu_embed(void *ctx, const struct qd_embed_args *args)
{
    struct qd_cpu *cpu = ctx;
    begin_op(cpu);
    return end_op(cpu, QD_SEGMENT_NORM_ROPE, cpu->kernels->embed(cpu, args));
}

static qd_status cpu_rmsnorm(void *ctx, const struct qd_rmsnorm_args *args)
{
    struct qd_cpu *cpu = ctx;
    begin_op(cpu);
    return end_op(cpu, QD_SEGMENT_NORM_ROPE, cpu->kernels->rmsnorm(cpu, args));
}

static qd_status cpu_gemm_nt(void *ctx, const struct qd_gemm_nt_args *args)
{
    struct qd_cpu *cpu = ctx;
    if (args->epilogue == QD_EPILOGUE_PARTIAL) *args->partial = qd_partial_stored(args->out);
    begin_op(cpu);
    return end_op(cpu, QD_SEGMENT_LINEAR, cpu->kernels->gemm_nt(cpu, args));
}

static qd_status cpu_silu_mul(void *ctx, const struct qd_silu_mul_args *args)
{
    struct qd_cpu *cpu = ctx;
    begin_op(cpu);
    return end_op(cpu, QD_SEGMENT_LINEAR, cpu->kernels->silu_mul(cpu, args));
}

static qd_status cpu_qk_norm_rope_kv(void *ctx, const struct qd_qk_norm_rope_kv_args *args)
{
    struct qd_cpu *cpu = ctx;
    begin_op(cpu);
    return end_op(cpu, QD_SEGMENT_NORM_ROPE, cpu->kernels->qk_norm_rope_kv(cpu, args));
}

static qd_status cpu_attention(void *ctx, const struct qd_attention_args *args)
{
    struct qd_cpu *cpu = ctx;
    begin_op(cpu);
    return end_op(cpu, QD_SEGMENT_ATTENTION, cpu->kernels->attention(cpu, args));
}

static qd_status cpu_reduce_add_rmsnorm(void *ctx, const struct qd_reduce_add_rmsnorm_args *args)
{
    struct qd_cpu *cpu = ctx;
    const void *partials[QD_CPU_MAX_RANKS] = {args->partial.data};
    begin_op(cpu);
    if (!args->partial.cross_rank)
        return end_op(cpu, QD_SEGMENT_NORM_ROPE, cpu->kernels->reduce_add_rmsnorm(cpu, args, partials, 1));
    QD_TRY(qd_cpu_comm_publish(cpu, args->partial.data, partials));
    return end_op(cpu, QD_SEGMENT_COLLECTIVE,
                  cpu->kernels->reduce_add_rmsnorm(cpu, args, partials, cpu->bootstrap.world));
}

static qd_status cpu_sample(void *ctx, const struct qd_sample_args *args)
{
    struct qd_cpu *cpu = ctx;
    begin_op(cpu);
    return end_op(cpu, QD_SEGMENT_SAMPLING, cpu->kernels->sample(cpu, args));
}

static qd_status cpu_all_gather(void *ctx, const struct qd_all_gather_args *args)
{
    struct qd_cpu *cpu = ctx;
    begin_op(cpu);
    return end_op(cpu, QD_SEGMENT_COLLECTIVE, qd_cpu_all_gather(cpu, args));
}

static qd_status cpu_all_reduce(void *ctx, const struct qd_all_reduce_args *args)
{
    struct qd_cpu *cpu = ctx;
    begin_op(cpu);
    return end_op(cpu, QD_SEGMENT_COLLECTIVE, qd_cpu_all_reduce(cpu, args));
}

const struct qd_device_ops qd_cpu_ops = {
    .abi_version = QD_DEVICE_ABI_VERSION,
    .name = "cpu",
    .executes = true,
    .open = cpu_open,
    .close = cpu_close,
    .supports = cpu_supports,
    .working_bytes = cpu_working_bytes,
    .alloc = cpu_alloc,
    .weight_bytes = qd_cpu_weight_bytes,
    .pack_weight = qd_cpu_pack_weight,
    .copy_to_host = cpu_copy_to_host,
    .plan = cpu_plan,
    .stats = cpu_stats,
    .embed = cpu_embed,
    .rmsnorm = cpu_rmsnorm,
    .gemm_nt = cpu_gemm_nt,
    .silu_mul = cpu_silu_mul,
    .qk_norm_rope_kv = cpu_qk_norm_rope_kv,
    .attention = cpu_attention,
    .reduce_add_rmsnorm = cpu_reduce_add_rmsnorm,
    .sample = cpu_sample,
    .all_gather = cpu_all_gather,
    .all_reduce = cpu_all_reduce,
};
