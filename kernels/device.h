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

enum { QD_DEVICE_ABI_VERSION = 7 };

/* Which collectives a device with several uses. */
enum qd_collectives {
    QD_COLLECTIVES_AUTO = 0, /* by size and by what is there */
    QD_COLLECTIVES_OWN,      /* this project's kernels: the same bits for every size, in rank order */
    QD_COLLECTIVES_NCCL,
};

/* How own collectives sum over ranks. */
enum qd_shots {
    QD_SHOTS_AUTO = 0, /* by size */
    QD_SHOTS_ONE,      /* every rank reads all terms of the others */
    QD_SHOTS_TWO,      /* each sums a part, and reads the other parts' sums */
};

/* Up to which message, in bytes a rank, a device sums over its ranks in which way. */
struct qd_sum_limits {
    size_t one_shot_bytes; /* own collectives: in one shot, in two beyond; SIZE_MAX: always one */
    size_t own_bytes;      /* where NCCL is there too: by own collectives, by NCCL beyond */
};

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
    bool device_timing;         /* time every op of a step (devices with stats) */
    bool batch_invariant;       /* a row's bits never depend on the other rows (`cpu`: always so) */
    int ranks_per_gpu;          /* global ranks [g * N, (g + 1) * N) are on GPU g; 0: 1 (devices with GPUs) */
    enum qd_collectives collectives; /* cuda, emu; NCCL neither with batch_invariant nor shared GPUs */
    enum qd_shots shots;             /* of own collectives, to set them beside each other; AUTO in a run */
};

/* Memory of one device that is not the host's. */
struct qd_device_memory {
    size_t free_bytes, total_bytes;
    int n_devices; /* there are */
    char name[256]; /* "NVIDIA H100 80GB HBM3" */
};

/* What drivers and libraries take of such a memory for one rank, beside what is asked for: allowances. */
struct qd_device_reserve {
    size_t graph_bytes;      /* recorded steps */
    size_t collective_bytes; /* what NCCL keeps, where it may be opened; own collectives' is in working_bytes */
};

/* What the time of a step on the device goes to. An op that is fused with a collective counts as collective,
 * but sampling over ranks as sampling; gap is everything between ops, the step's and the ids' copies
 * included. */
enum qd_segment {
    QD_SEGMENT_LINEAR = 0,
    QD_SEGMENT_ATTENTION,
    QD_SEGMENT_NORM_ROPE,
    QD_SEGMENT_SAMPLING,
    QD_SEGMENT_COLLECTIVE,
    QD_SEGMENT_GAP,
    QD_N_SEGMENTS
};

/* What timing every op costs: the same decode of one sequence without and with it, run by turns when the
 * context was opened with device_timing. */
enum { QD_WITHOUT_TIMING = 0, QD_WITH_TIMING, QD_N_TIMING_KINDS };
struct qd_timing_cost {
    int32_t n_steps;  /* of each kind; 0: not measured */
    int32_t n_events; /* that a step with it records */
    int64_t span_ns[QD_N_TIMING_KINDS]; /* on the device; median */
    int64_t wall_ns[QD_N_TIMING_KINDS]; /* on the host, from the plan to the ids, events read; median */
};

/* What a rank's device did since it was opened, its warm-up left out. */
struct qd_device_stats {
    int32_t n_graphs;     /* recorded when it was opened */
    int64_t capture_ns;   /* which took so long */
    uint64_t graph_bytes; /* and so much of the device's memory */
    struct qd_timing_cost timing_cost; /* measured then */
    uint64_t n_eager_steps, n_replayed_steps;
    uint64_t n_eager_tokens, n_replayed_tokens; /* of these steps, without padding */
    uint64_t n_padded_tokens;                   /* what replays computed beyond them, for nobody */
    uint64_t n_timed_steps;                     /* eager or replayed steps whose ops were timed */
    int64_t span_ns;                            /* of all steps on the device; 0: not measured */
    int64_t last_span_ns;                       /* of the last one */
    int64_t timed_span_ns;                      /* of the timed steps */
    int64_t segment_ns[QD_N_SEGMENTS];          /* likewise */
};

/* What a shared object of its own was compiled with. */
struct qd_device_build {
    int cuda;                  /* 13000: the toolkit is CUDA 13.0 */
    const char *architectures; /* with code of their own: "80 90"; the driver makes it for newer ones */
};

/* What a device reaches in a measurement, to set an op's figures beside. */
struct qd_device_ceilings {
    double copy_gbps;     /* GB/s (1e9) read and written by a copy within its memory */
    double matrix_gflops; /* GFLOP/s (1e9) of a large bf16 product, this project's best */
};

/* Another library's product on the stream of the ops, to set gemm_nt beside: out [M][N] = a [M][K] * w
 * [N][K]^T in bf16 with fp32 accumulation, all without gaps between rows and 256-byte aligned. */
struct qd_rival_ops {
    const char *name; /* "cuBLASLt" */
    /* Asks for algorithms, the most promising first. QD_ERR_NOT_FOUND: the library is not installed;
     * QD_ERR_ENVIRONMENT, QD_ERR_UNSUPPORTED: it cannot be used, or not for this shape. */
    qd_status (*prepare)(void *ctx, int64_t m, int64_t n, int64_t k, int *n_algorithms, char *err,
                         size_t errlen);
    int (*algorithm)(void *ctx, int i); /* its number in the library */
    qd_status (*run)(void *ctx, int i, const qd_bf16 *a, const qd_bf16 *w, qd_bf16 *out, char *err,
                     size_t errlen);
};

struct qd_device_ops {
    uint32_t abi_version; /* QD_DEVICE_ABI_VERSION */
    const char *name;     /* as in --device */
    bool executes; /* false: no weights, no forward pass; sampled ids come from a hash; every member that
                    * is not lifecycle or weight_bytes is NULL */

    const struct qd_device_build *build; /* (optional) */

    /* lifecycle */
    qd_status (*open)(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap, void **ctx,
                      char *err, size_t errlen);
    void (*close)(void *ctx);
    bool (*supports)(const struct qd_model_shape *shape, int tp, enum qd_numerics numerics, char *why,
                     size_t why_len);
    const char *(*error_text)(void *ctx); /* (optional) */
    void (*abandon)(void *ctx);           /* (optional) */
    const char *(*waits_for)(void *ctx);  /* (optional) */
    const char *(*note)(void *ctx);       /* (optional) */
    const char *(*collectives)(void *ctx); /* (optional) */

    /* memory and copies */
    qd_status (*memory)(const struct qd_device_config *config, struct qd_device_memory *out, char *err,
                        size_t errlen); /* (optional) of the rank's GPU */
    void (*reserve)(const struct qd_device_config *config, int tp,
                    struct qd_device_reserve *out); /* (with memory) */
    qd_status (*working_bytes)(const struct qd_device_config *config, size_t *out, char *err, size_t errlen);
    qd_status (*alloc)(void *ctx, size_t bytes, void **out, char *err, size_t errlen);
    qd_status (*alloc_host)(void *ctx, size_t bytes, void **out, char *err, size_t errlen); /* (optional) */
    size_t (*weight_bytes)(int64_t n_rows, int64_t n_cols,
                           enum qd_weight_layout layout); /* SIZE_MAX: overflow */
    qd_status (*pack_weight)(void *data, int64_t n_rows, int64_t n_cols, char *err,
                             size_t errlen); /* or store */
    const struct qd_store_ops *store;        /* (optional) weights in memory of the device's own */
    qd_status (*upload)(void *ctx, void *data, const void *host, size_t bytes, char *err,
                        size_t errlen); /* (with store) */
    qd_status (*copy_to_host)(void *ctx, const struct qd_copy_to_host_args *args);

    /* plan, once per step */
    qd_status (*plan)(void *ctx, const struct qd_plan_args *args);

    /* stream and graph */
    qd_status (*begin_step)(void *ctx, const struct qd_step **launched); /* (optional, with end_step) */
    qd_status (*end_step)(void *ctx);                                    /* (optional, with begin_step) */
    qd_status (*finish_step)(void *ctx, int32_t *ids);                   /* (optional, with begin_step) */
    bool (*step_ended)(void *ctx);                                       /* (optional, with begin_step) */
    bool (*warm_up_step)(void *ctx, int index, struct qd_step *step);    /* (optional) */
    void (*stats)(void *ctx, struct qd_device_stats *out);               /* (optional) */

    /* timing (optional, all or none): of devices whose ops return before they have run */
    qd_status (*time_begin)(void *ctx);
    qd_status (*time_end)(void *ctx, int64_t *ns);
    qd_status (*cache_bytes)(int first_rank, size_t *out, char *err, size_t errlen);
    qd_status (*ceilings)(int first_rank, struct qd_device_ceilings *out, char *err, size_t errlen);
    qd_status (*pci_bus_id)(int first_rank, char *out, size_t len, char *err,
                            size_t errlen); /* (optional by itself) */
    const struct qd_rival_ops *rival; /* (optional by itself) */

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
    struct qd_sum_limits (*sum_limits)(int tp); /* (optional) of devices that sum in several ways */
};

/* The device of that name in this binary, or NULL. */
const struct qd_device_ops *qd_device_find(const char *name);

/* The devices in this binary, in the order of `make help`; NULL-terminated. */
const struct qd_device_ops *const *qd_device_list(void);

/* The device of that name, from this binary or, for "cuda", from libqdyno_cuda.so in the binary's folder,
 * which stays open until the process ends. QD_ERR_UNSUPPORTED for an unknown name, QD_ERR_ENVIRONMENT with
 * the reason when the shared object is missing or was built from another version. */
qd_status qd_device_get(const char *name, const struct qd_device_ops **out, char *err, size_t errlen);

/* "linear", "attention", ... */
const char *qd_segment_name(enum qd_segment segment);

/* What was done between two readings of the same device; what opening took stays. */
struct qd_device_stats qd_device_stats_since(const struct qd_device_stats *now,
                                             const struct qd_device_stats *then);
/* Adds another rank's; of the times of opening and of the last step the larger stays, of timing_cost the
 * first. */
void qd_device_stats_add(struct qd_device_stats *sum, const struct qd_device_stats *other);
/* True when there is a libqdyno_cuda.so beside the binary, whether or not it can be opened. */
bool qd_device_cuda_is_built(void);

/* A device with the state of one rank: what the forward pass passes around. */
struct qd_device {
    const struct qd_device_ops *ops;
    void *ctx;
};

/* What the device says of the failure that one of its ops has just returned; "" when it has nothing to say.
 * Valid until the next op. */
static inline const char *qd_device_error_text(struct qd_device d)
{
    return d.ops->error_text != NULL ? d.ops->error_text(d.ctx) : "";
}
/* Another rank of the replica has failed or hangs: whatever this context does or will do on the device that
 * waits for other ranks ends soon, and steps fail with QD_ERR_RANK from now on. From any thread while the
 * context is open; returns at once and calls nothing that could wait. Without the member nothing on the
 * device waits for other ranks: they meet through the bootstrap alone. */
static inline void qd_device_abandon(struct qd_device d)
{
    if (d.ops->abandon != NULL) d.ops->abandon(d.ctx);
}
/* What the thread that runs the context's steps waits for outside of the bootstrap ("its GPU"), or NULL. From
 * any thread while the context is open. */
static inline const char *qd_device_waits_for(struct qd_device d)
{
    return d.ops->waits_for != NULL ? d.ops->waits_for(d.ctx) : NULL;
}
/* What the device does otherwise than a user might expect, for whom it is one line; "" when nothing. As long
 * as the context is open. */
static inline const char *qd_device_note(struct qd_device d)
{
    return d.ops->note != NULL ? d.ops->note(d.ctx) : "";
}
/* What the collectives of an open context go by, of devices that have a choice: "own", "nccl", or "auto", which
 * is own ones up to a size and NCCL beyond. NULL elsewhere, and with one rank. */
static inline const char *qd_device_collectives(struct qd_device d)
{
    return d.ops->collectives != NULL ? d.ops->collectives(d.ctx) : NULL;
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
/* Host bytes into memory from alloc(), of ops that are run by themselves: weights go to stores. `host` may go
 * when it has returned. Only where qd_device_has_copies. */
static inline qd_status qd_device_upload(struct qd_device d, void *data, const void *host, size_t bytes,
                                         char *err, size_t errlen)
{
    return d.ops->upload(d.ctx, data, host, bytes, err, errlen);
}
static inline qd_status qd_device_copy_to_host(struct qd_device d, const struct qd_copy_to_host_args *args)
{
    return d.ops->copy_to_host(d.ctx, args);
}
static inline qd_status qd_device_plan(struct qd_device d, const struct qd_plan_args *args)
{
    return d.ops->plan(d.ctx, args);
}
/* Between plan and the first op. *launched (in: the planned step) is what the ops are to be called with: the
 * same arrays, but counts may be padded. NULL: the device has recorded these ops before and replays them, so
 * none is to be called. Without the member every op runs when it is called. */
static inline qd_status qd_device_begin_step(struct qd_device d, const struct qd_step **launched)
{
    return d.ops->begin_step != NULL ? d.ops->begin_step(d.ctx, launched) : QD_OK;
}
/* After the last op: the step is handed to the device, which need not have begun it. The next may then be
 * planned, whose token sources may be what this one samples; two steps at most are unfinished. */
static inline qd_status qd_device_end_step(struct qd_device d)
{
    return d.ops->end_step != NULL ? d.ops->end_step(d.ctx) : QD_OK;
}
/* Waits for the oldest unfinished step, with its sampled ids [R]. Without the member sample() has written
 * them. */
static inline qd_status qd_device_finish_step(struct qd_device d, int32_t *ids)
{
    return d.ops->finish_step != NULL ? d.ops->finish_step(d.ctx, ids) : QD_OK;
}
/* Whether qd_device_finish_step would not wait; also when it would fail. True without the member. */
static inline bool qd_device_step_ended(struct qd_device d)
{
    return d.ops->step_ended == NULL || d.ops->step_ended(d.ctx);
}
/* Before the first step, with index 0, 1, ...: writes a step, within the limits, that the device wants to be
 * run next as any other is, from plan to end. It changes no page and no slot, and its ids are not to be read.
 * False: that was all. The steps of all ranks are alike; each is written to the same buffer. */
static inline bool qd_device_warm_up_step(struct qd_device d, int index, struct qd_step *step)
{
    return d.ops->warm_up_step != NULL && d.ops->warm_up_step(d.ctx, index, step);
}
/* On the rank's thread, between steps. All zeros without the member. */
static inline struct qd_device_stats qd_device_get_stats(struct qd_device d)
{
    struct qd_device_stats stats = {0};
    if (d.ops->stats != NULL) d.ops->stats(d.ctx, &stats);
    return stats;
}
/* Measures both, in a second or so, with memory of its own that is given back; no context need be open. Only
 * where there is time_begin. QD_ERR_NO_MEMORY when the device has less than a gigabyte free. */
static inline qd_status qd_device_measure_ceilings(const struct qd_device_ops *ops, int first_rank,
                                                   struct qd_device_ceilings *out, char *err, size_t errlen)
{
    return ops->ceilings(first_rank, out, err, errlen);
}
/* What the device takes for the ops called between the two, on its own clock; time_end waits for them. Both
 * are called between plan and end_step, by a context that does not record. Only where there is time_begin. */
static inline qd_status qd_device_time_begin(struct qd_device d)
{
    return d.ops->time_begin(d.ctx);
}
static inline qd_status qd_device_time_end(struct qd_device d, int64_t *ns)
{
    return d.ops->time_end(d.ctx, ns);
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
