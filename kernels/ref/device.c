/* The specification as a device of one rank: no threads, no packing, no collectives to speak of. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "kernels/ref/ref.h"
#include "kernels/traffic.h"

enum { ALIGNMENT = 64 };

/* Memory handed out, newest first; the caller's bytes follow the header at the next multiple of 64. */
struct block {
    struct block *next;
};

struct ref {
    enum qd_numerics numerics;
    struct block *blocks;
    int32_t *sampled;    /* [max_seqs] what each slot sampled last */
    struct qd_rope rope; /* of the planned step */
};

static bool ref_supports(const struct qd_model_shape *shape, int tp, enum qd_numerics numerics, char *why,
                         size_t why_len)
{
    (void)shape, (void)numerics;
    if (tp == 1) return true;
    snprintf(why, why_len, "the reference device has one rank, not %d", tp);
    return false;
}

static qd_status ref_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                          void **ctx, char *err, size_t errlen)
{
    if (bootstrap != NULL && bootstrap->world != 1)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "the reference device has one rank, not %d",
                       bootstrap->world);
    struct ref *ref = calloc(1, sizeof *ref);
    const size_t n_slots = config->limits.max_seqs > 0 ? (size_t)config->limits.max_seqs : 1;
    int32_t *sampled = calloc(n_slots, sizeof *sampled);
    if (ref == NULL || sampled == NULL) {
        free(ref);
        free(sampled);
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for the reference device");
    }
    ref->numerics = config->numerics;
    ref->sampled = sampled;
    *ctx = ref;
    return QD_OK;
}

static void ref_close(void *ctx)
{
    struct ref *ref = ctx;
    if (ref == NULL) return;
    while (ref->blocks != NULL) {
        struct block *block = ref->blocks;
        ref->blocks = block->next;
        free(block);
    }
    free(ref->sampled);
    free(ref);
}

static qd_status ref_working_bytes(const struct qd_device_config *config, size_t *out, char *err,
                                   size_t errlen)
{
    (void)err, (void)errlen;
    *out = (size_t)(config->limits.max_seqs > 0 ? config->limits.max_seqs : 1) * sizeof(int32_t);
    return QD_OK;
}

static qd_status ref_alloc(void *ctx, size_t bytes, void **out, char *err, size_t errlen)
{
    struct ref *ref = ctx;
    size_t total;
    struct block *block = NULL;
    if (qd_size_add(bytes, 2 * ALIGNMENT - 1, &total))
        block = aligned_alloc(ALIGNMENT, total / ALIGNMENT * ALIGNMENT);
    if (block == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no %zu bytes for the reference device", bytes);
    block->next = ref->blocks;
    ref->blocks = block;
    *out = (unsigned char *)block + ALIGNMENT;
    memset(*out, 0, bytes);
    return QD_OK;
}

/* One layout: packed is the same as rows. */
static size_t ref_weight_bytes(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout)
{
    size_t bytes;
    (void)layout;
    if (!qd_size_mul((size_t)n_rows, (size_t)n_cols, &bytes)) return SIZE_MAX;
    return qd_size_mul(bytes, sizeof(qd_bf16), &bytes) ? bytes : SIZE_MAX;
}

static qd_status ref_pack_weight(void *data, int64_t n_rows, int64_t n_cols, char *err, size_t errlen)
{
    (void)data, (void)n_rows, (void)n_cols, (void)err, (void)errlen;
    return QD_OK;
}

static qd_status ref_copy_to_host(void *ctx, const struct qd_copy_to_host_args *args)
{
    (void)ctx;
    for (size_t r = 0; r < args->n_rows; r++)
        memcpy((unsigned char *)args->host + r * args->host_stride,
               (const unsigned char *)args->data + r * args->stride, args->row_bytes);
    return QD_OK;
}

static qd_status ref_plan(void *ctx, const struct qd_plan_args *args)
{
    ((struct ref *)ctx)->rope = args->rope;
    return QD_OK;
}

static qd_status ref_embed(void *ctx, const struct qd_embed_args *args)
{
    qd_ref_embed(args, ((struct ref *)ctx)->sampled);
    return QD_OK;
}

static qd_status ref_rmsnorm(void *ctx, const struct qd_rmsnorm_args *args)
{
    qd_ref_rmsnorm(args, ((struct ref *)ctx)->numerics);
    return QD_OK;
}

static qd_status ref_gemm_nt(void *ctx, const struct qd_gemm_nt_args *args)
{
    qd_ref_gemm_nt(args, ((struct ref *)ctx)->numerics);
    return QD_OK;
}

static qd_status ref_silu_mul(void *ctx, const struct qd_silu_mul_args *args)
{
    qd_ref_silu_mul(args, ((struct ref *)ctx)->numerics);
    return QD_OK;
}

static qd_status ref_qk_norm_rope_kv(void *ctx, const struct qd_qk_norm_rope_kv_args *args)
{
    struct ref *ref = ctx;
    qd_ref_qk_norm_rope_kv(args, &ref->rope, ref->numerics);
    return QD_OK;
}

static qd_status ref_attention(void *ctx, const struct qd_attention_args *args)
{
    qd_ref_attention(args, ((struct ref *)ctx)->numerics);
    return QD_OK;
}

static qd_status ref_reduce_add_rmsnorm(void *ctx, const struct qd_reduce_add_rmsnorm_args *args)
{
    qd_ref_reduce_add_rmsnorm(args, &args->partial.data, 1, ((struct ref *)ctx)->numerics);
    return QD_OK;
}

static qd_status ref_sample(void *ctx, const struct qd_sample_args *args)
{
    struct ref *ref = ctx;
    for (int32_t r = 0; r < args->step->n_logit_rows; r++) {
        const struct qd_sampling *sampling = &qd_step_sampling(args->step)[r];
        args->ids[r] = qd_ref_sample_row(args->logits + r * args->ld, args->n_vocab, sampling);
        if (args->ids[r] < 0) return QD_ERR_NO_MEMORY;
        if (sampling->slot >= 0) ref->sampled[sampling->slot] = args->ids[r];
    }
    return QD_OK;
}

static qd_status ref_all_gather(void *ctx, const struct qd_all_gather_args *args)
{
    (void)ctx;
    memmove(args->out, args->in, args->bytes);
    return QD_OK;
}

static qd_status ref_all_reduce(void *ctx, const struct qd_all_reduce_args *args)
{
    (void)ctx, (void)args; /* the sum over one rank is what is already there */
    return QD_OK;
}

const struct qd_device_ops qd_ref_ops = {
    .abi_version = QD_DEVICE_ABI_VERSION,
    .name = "ref",
    .executes = true,
    .open = ref_open,
    .close = ref_close,
    .supports = ref_supports,
    .working_bytes = ref_working_bytes,
    .alloc = ref_alloc,
    .weight_bytes = ref_weight_bytes,
    .pack_weight = ref_pack_weight,
    .copy_to_host = ref_copy_to_host,
    .plan = ref_plan,
    .embed = ref_embed,
    .rmsnorm = ref_rmsnorm,
    .gemm_nt = ref_gemm_nt,
    .silu_mul = ref_silu_mul,
    .qk_norm_rope_kv = ref_qk_norm_rope_kv,
    .attention = ref_attention,
    .reduce_add_rmsnorm = ref_reduce_add_rmsnorm,
    .sample = ref_sample,
    .all_gather = ref_all_gather,
    .all_reduce = ref_all_reduce,
};

struct qd_traffic qd_traffic_all_gather(int64_t bytes, int world)
{
    return (struct qd_traffic){.bytes = (uint64_t)(bytes * (1 + world))};
}

struct qd_traffic qd_traffic_all_reduce(int64_t n, int world)
{
    /* Every rank's part read, the sum written. */
    return (struct qd_traffic){.bytes = (uint64_t)(2 * n * (world + 1)),
                               .flops = (uint64_t)(n * (world - 1))};
}
