/* The device interface: what the forward pass may ask of `cpu`, `null`, `emu`, `cuda`, and later `sim`.
 *
 * A device is a const table of functions; its state is a context made by open(), one per rank. Callers know
 * tensors, shapes and steps; how a device threads, streams or packs is its own business. Callers use the
 * qd_device_* wrappers below, which carry the contract.
 */
#ifndef QD_KERNELS_DEVICE_H
#define QD_KERNELS_DEVICE_H

#include "kernels/bootstrap.h"
#include "kernels/ops.h"
#include "kernels/store.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QD_DEVICE_ABI_VERSION = 3 };

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
    bool enforce_eager;         /* never record and replay a step (devices with begin_step) */
    bool batch_invariant;       /* a row's bits never depend on the other rows (`cpu`: always so) */
};

/* Memory of one device that is not the host's. */
struct qd_device_memory {
    size_t free_bytes, total_bytes;
    int n_devices; /* ranks are dealt over these in order of their global index */
    char name[64]; /* "NVIDIA H100 80GB HBM3" */
};

/* What drivers and libraries take of such a memory for one rank, beside what is asked for: allowances. */
struct qd_device_reserve {
    size_t graph_bytes;      /* recorded steps */
    size_t collective_bytes; /* channels and mappings of collectives */
};

struct qd_device_ops {
    uint32_t abi_version; /* QD_DEVICE_ABI_VERSION */
    const char *name;     /* as in --device */
    bool executes;        /* false: no weights, no forward pass; sampled ids come from a hash; every member that
                           * is not lifecycle or weight_bytes is NULL */

    /* lifecycle */
    qd_status (*open)(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap, void **ctx,
                      char *err, size_t errlen);
    void (*close)(void *ctx);
    bool (*supports)(const struct qd_model_shape *shape, int tp, enum qd_numerics numerics, char *why,
                     size_t why_len);
    const char *(*error_text)(void *ctx); /* (optional) */

    /* memory and copies */
    qd_status (*memory)(int first_rank, struct qd_device_memory *out, char *err, size_t errlen); /* (optional) */
    void (*reserve)(const struct qd_device_config *config, int tp,
                    struct qd_device_reserve *out); /* (with memory) */
    qd_status (*working_bytes)(const struct qd_device_config *config, size_t *out, char *err, size_t errlen);
    qd_status (*alloc)(void *ctx, size_t bytes, void **out, char *err, size_t errlen);
    qd_status (*alloc_host)(void *ctx, size_t bytes, void **out, char *err, size_t errlen); /* (optional) */
    size_t (*weight_bytes)(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout); /* SIZE_MAX: overflow */
    qd_status (*pack_weight)(void *data, int64_t n_rows, int64_t n_cols, char *err,
                             size_t errlen); /* or store */
    const struct qd_store_ops *store;        /* (optional) weights in memory of the device's own */
    qd_status (*copy_to_host)(void *ctx, const struct qd_copy_to_host_args *args);

    /* plan, once per step */
    qd_status (*plan)(void *ctx, const struct qd_plan_args *args);

    /* stream and graph */
    qd_status (*begin_step)(void *ctx, const struct qd_step **launched); /* (optional, with end_step) */
    qd_status (*end_step)(void *ctx, int32_t *ids);                      /* (optional, with begin_step) */

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

/* The device of that name in this binary, or NULL. */
const struct qd_device_ops *qd_device_find(const char *name);

/* The devices in this binary, in the order of `make help`; NULL-terminated. */
const struct qd_device_ops *const *qd_device_list(void);

/* The device of that name, from this binary or, for "cuda", from libqdyno_cuda.so in the binary's folder, which
 * stays open until the process ends. QD_ERR_UNSUPPORTED for an unknown name, QD_ERR_ENVIRONMENT with the reason when
 * the shared object is missing or was built from another version. */
qd_status qd_device_get(const char *name, const struct qd_device_ops **out, char *err, size_t errlen);

/* A device with the state of one rank: what the forward pass passes around. */
struct qd_device {
    const struct qd_device_ops *ops;
    void *ctx;
};

/* What the device says of the failure that one of its ops has just returned; "" when it has nothing to say. Valid
 * until the next op. */
static inline const char *qd_device_error_text(struct qd_device d)
{
    return d.ops->error_text != NULL ? d.ops->error_text(d.ctx) : "";
}
/* True when the device has memory apart from the host's and other ranks': weights go to stores, never to the
 * host's memory as a whole, and what alloc() returns is no address of the host's. */
static inline bool qd_device_has_copies(const struct qd_device_ops *ops)
{
    return ops->store != NULL;
}
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
/* Zeroed memory of the host, otherwise as alloc(). */
static inline qd_status qd_device_alloc_host(struct qd_device d, size_t bytes, void **out, char *err,
                                             size_t errlen)
{
    return d.ops->alloc_host != NULL ? d.ops->alloc_host(d.ctx, bytes, out, err, errlen)
                                     : d.ops->alloc(d.ctx, bytes, out, err, errlen);
}
static inline qd_status qd_device_copy_to_host(struct qd_device d, const struct qd_copy_to_host_args *args)
{
    return d.ops->copy_to_host(d.ctx, args);
}
static inline qd_status qd_device_plan(struct qd_device d, const struct qd_plan_args *args)
{
    return d.ops->plan(d.ctx, args);
}
/* Between plan and the first op. *launched (in: the planned step) is what the ops are to be called with: the same
 * arrays, but counts may be padded. NULL: the device has recorded these ops before and replays them, so none is to
 * be called. Without the member every op runs when it is called. */
static inline qd_status qd_device_begin_step(struct qd_device d, const struct qd_step **launched)
{
    return d.ops->begin_step != NULL ? d.ops->begin_step(d.ctx, launched) : QD_OK;
}
/* After the last op: returns when the step has ended on the device, with the sampled ids [R]. Without the member
 * sample() has written them. */
static inline qd_status qd_device_end_step(struct qd_device d, int32_t *ids)
{
    return d.ops->end_step != NULL ? d.ops->end_step(d.ctx, ids) : QD_OK;
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
