/* The device interface: what the forward pass may ask of `cpu`, `null`, and later `cuda`, `emu`, `sim`.
 *
 * A device is a const table of functions; its state is a context made by open(), one per rank. Callers know
 * tensors, shapes and steps; how a device threads, streams or packs is its own business. Callers use the
 * qd_device_* wrappers below, which carry the contract.
 */
#ifndef QD_KERNELS_DEVICE_H
#define QD_KERNELS_DEVICE_H

#include "kernels/bootstrap.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QD_DEVICE_ABI_VERSION = 1 };

/* The shape facts of a model that decide whether a device can run it; of one rank where marked. */
struct qd_model_shape {
    int64_t hidden_dim, ffn_dim, vocab_size; /* H; I of this rank; V of all ranks */
    int32_t n_layers, n_heads, n_kv_heads, head_dim; /* heads of this rank */
};

/* What a rank's context is opened with. */
struct qd_device_config {
    int replica;                /* DP index, for thread names and messages */
    int first_rank, n_ranks;    /* this rank's index among all ranks of the process, and their number */
    int n_threads;              /* of the whole process, divided over ranks; 0: all available cores */
    const char *cpu_isa;        /* "auto", "portable", "avx2" */
    enum qd_numerics numerics;
    struct qd_model_shape shape;
    struct qd_step_limits limits;
    int32_t max_model_len;      /* longest kv_len */
};

struct qd_device_ops {
    uint32_t abi_version; /* QD_DEVICE_ABI_VERSION */
    const char *name;     /* as in --device */
    bool executes;        /* false: no weights, no forward pass; sampled ids come from a hash; working_bytes,
                           * alloc and the members from pack_weight on are NULL */

    /* lifecycle */
    qd_status (*open)(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap, void **ctx,
                      char *err, size_t errlen);
    void (*close)(void *ctx);
    bool (*supports)(const struct qd_model_shape *shape, int tp, enum qd_numerics numerics, char *why,
                     size_t why_len);

    /* memory and copies */
    qd_status (*working_bytes)(const struct qd_device_config *config, size_t *out, char *err, size_t errlen);
    qd_status (*alloc)(void *ctx, size_t bytes, void **out, char *err, size_t errlen);
    size_t (*weight_bytes)(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout); /* SIZE_MAX: overflow */
    qd_status (*pack_weight)(void *data, int64_t n_rows, int64_t n_cols, char *err, size_t errlen);

    /* plan, once per step */
    qd_status (*plan)(void *ctx, const struct qd_plan_args *args);

    /* ops */
    qd_status (*embed)(void *ctx, const struct qd_embed_args *args);
    qd_status (*rmsnorm)(void *ctx, const struct qd_rmsnorm_args *args);
    qd_status (*gemm_nt)(void *ctx, const struct qd_gemm_nt_args *args);
    qd_status (*silu_mul)(void *ctx, const struct qd_silu_mul_args *args);
    qd_status (*qk_norm_rope_kv)(void *ctx, const struct qd_qk_norm_rope_kv_args *args);
    qd_status (*attention)(void *ctx, const struct qd_attention_args *args);
    qd_status (*reduce_add_rmsnorm)(void *ctx, const struct qd_reduce_add_rmsnorm_args *args);
    qd_status (*sample)(void *ctx, const struct qd_sample_args *args);

    /* collectives */
    qd_status (*all_gather)(void *ctx, const struct qd_all_gather_args *args);
    qd_status (*all_reduce)(void *ctx, const struct qd_all_reduce_args *args);
};

/* The device of that name, or NULL. */
const struct qd_device_ops *qd_device_find(const char *name);

/* The devices of this build, in the order of `make help`; NULL-terminated. */
const struct qd_device_ops *const *qd_device_list(void);

/* A device with the state of one rank: what the forward pass passes around. */
struct qd_device {
    const struct qd_device_ops *ops;
    void *ctx;
};

/* Bytes that open() takes for the device's own work on a step, on top of what alloc() is asked for. Opens
 * nothing; errors as those of open() for the same configuration, QD_ERR_TOO_LARGE on overflow. */
static inline qd_status qd_device_working_bytes(const struct qd_device_ops *ops,
                                                const struct qd_device_config *config, size_t *out, char *err,
                                                size_t errlen)
{
    return ops->working_bytes(config, out, err, errlen);
}
/* Zeroed device memory that lives until the context closes; before the first step only. 64-byte aligned. */
static inline qd_status qd_device_alloc(struct qd_device d, size_t bytes, void **out, char *err,
                                        size_t errlen)
{
    return d.ops->alloc(d.ctx, bytes, out, err, errlen);
}
static inline qd_status qd_device_plan(struct qd_device d, const struct qd_plan_args *args)
{
    return d.ops->plan(d.ctx, args);
}
static inline qd_status qd_device_embed(struct qd_device d, const struct qd_embed_args *args)
{
    return d.ops->embed(d.ctx, args);
}
static inline qd_status qd_device_rmsnorm(struct qd_device d, const struct qd_rmsnorm_args *args)
{
    return d.ops->rmsnorm(d.ctx, args);
}
static inline qd_status qd_device_gemm_nt(struct qd_device d, const struct qd_gemm_nt_args *args)
{
    return d.ops->gemm_nt(d.ctx, args);
}
static inline qd_status qd_device_qk_norm_rope_kv(struct qd_device d,
                                                  const struct qd_qk_norm_rope_kv_args *args)
{
    return d.ops->qk_norm_rope_kv(d.ctx, args);
}
static inline qd_status qd_device_attention(struct qd_device d, const struct qd_attention_args *args)
{
    return d.ops->attention(d.ctx, args);
}
static inline qd_status qd_device_reduce_add_rmsnorm(struct qd_device d,
                                                     const struct qd_reduce_add_rmsnorm_args *args)
{
    return d.ops->reduce_add_rmsnorm(d.ctx, args);
}
static inline qd_status qd_device_sample(struct qd_device d, const struct qd_sample_args *args)
{
    return d.ops->sample(d.ctx, args);
}
static inline qd_status qd_device_all_gather(struct qd_device d, const struct qd_all_gather_args *args)
{
    return d.ops->all_gather(d.ctx, args);
}

#ifdef __cplusplus
}
#endif

#endif
