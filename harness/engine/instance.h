/* An instance: a model on a device with its replicas and the engine over them. The one place that turns
 * options into something that runs, or into the arithmetic of why it cannot.
 */
#ifndef QD_HARNESS_ENGINE_INSTANCE_H
#define QD_HARNESS_ENGINE_INSTANCE_H

#include "harness/engine/engine.h"
#include "harness/engine/memory.h"
#include "models/model.h"

/* Where the device has no memory of its own; else vLLM's, by that memory (instance_plan.c). */
enum { QD_DEFAULT_BUDGET = 2048, QD_DEFAULT_MAX_SEQS = 128 };

/* 0 means "not given" wherever a number has a default. */
struct qd_instance_options {
    const char *model;  /* directory, or a preset's name with QD_LOAD_DUMMY */
    enum qd_load_format load_format;
    const char *device; /* as in --device */
    const struct qd_device_ops *ops; /* NULL: the device of that name */
    const char *cpu_isa;
    enum qd_numerics numerics;
    uint64_t seed; /* of dummy weights */
    int tp, dp, n_threads;
    int64_t max_num_batched_tokens, max_num_seqs, max_model_len, n_kv_blocks;
    size_t kv_cache_bytes;    /* KV pool per rank */
    size_t memory_limit;      /* --memory-limit */
    double memory_utilization; /* (0, 1], always given */
    bool device_timing;        /* as in qd_device_config, like the next two */
    bool enforce_eager, batch_invariant; /* as in qd_device_config */
    int ranks_per_gpu;                   /* as in qd_device_config, as the next */
    enum qd_collectives collectives;
    bool prefix_caching, async_scheduling; /* as in qd_engine_config, as the next */
    int64_t long_prefill_token_threshold;
    enum qd_router_policy router;
    bool is_stepped, is_virtual; /* as in qd_engine_config, as the next */
    enum qd_dp_coupling coupling;
    int64_t null_step_ns;        /* as in qd_group_config */
    const struct qd_null_steps *null_steps; /* [dp], borrowed; NULL: null_step_ns */
    int64_t watchdog_ns;      /* as in qd_group_config */
    int32_t max_logit_rows;   /* of a step whose logits are wanted (eval); 0: nobody wants logits */
    size_t max_requests;      /* alive or unpolled at once */
    size_t n_step_rows;       /* as in qd_engine_config, as the next */
    struct qd_step_recorder recorder;
    void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* of loading; NULL: silent */
    void *progress_arg;
};

/* What will run, with every default and every shrinking applied. */
struct qd_instance_plan {
    struct qd_model_config config;
    const struct qd_device_ops *ops;
    struct qd_model_shape shape;    /* of rank 0 */
    int tp, dp, n_threads;          /* n_threads: 0 is all cores */
    struct qd_step_limits limits;   /* budget and sequences among them */
    int32_t max_model_len, n_kv_blocks;
    bool shrunk_model_len, shrunk_pool, lowered_seqs;
    struct qd_memory_need need;     /* of one rank */
    int n_sharing;       /* ranks in one memory: all of all replicas on the host, else those of a GPU */
    size_t weight_bytes; /* of those ranks: shared by replicas on the host, the embedding by all; where
                          * the device has copies, one a rank */
    size_t activation_bytes;        /* of those ranks, working_bytes among them */
    size_t working_bytes;           /* of the devices themselves (qd_device_working_bytes), those ranks */
    size_t kv_bytes;                /* of those ranks; imagined pages may saturate it */
    size_t kv_block_bytes;          /* one page over the ranks of a replica */
    /* Of devices with memory of their own; 0 elsewhere. What follows is of the fullest one. */
    int gpu;                        /* index of the fullest */
    size_t graph_bytes;             /* allowance for recorded steps, those ranks */
    size_t collective_bytes;        /* bound of what NCCL takes, those ranks */
    size_t taken_bytes;             /* not free before anything is opened: CUDA's context, other processes */
    struct qd_memory_limit memory;  /* what there is */
    size_t usable_bytes;            /* memory times utilization */
};

/* The sum that is held against usable_bytes; SIZE_MAX when it saturates. */
size_t qd_instance_plan_needed(const struct qd_instance_plan *plan);

/* What is wrong whatever the memory: options, config.json, whether the model goes on the device at this TP.
 * Opens no device. Sets config, ops, shape, tp, dp of `out`; errors as qd_instance_plan_make. */
qd_status qd_instance_plan_check(const struct qd_instance_options *options, struct qd_instance_plan *out,
                                 char *err, size_t errlen);

/* The arithmetic only: reads config.json, loads and opens nothing. QD_ERR_DOES_NOT_FIT with the sum spelled
 * out, and its terms in `out` (qd_instance_plan_needed), against usable_bytes; QD_ERR_UNSUPPORTED,
 * QD_ERR_INPUT, QD_ERR_NOT_FOUND, QD_ERR_TOO_LARGE; those of the device for its instruction set and threads.
 * max_model_len and the pool shrink to what fits unless they were asked for. On a device that executes
 * nothing pages are imagined; only the lists of them take memory. */
qd_status qd_instance_plan_make(const struct qd_instance_options *options, struct qd_instance_plan *out,
                                char *err, size_t errlen);

/* What an opened instance has of the memory of plan->gpu, beside what was planned, in words; "" where the plan
 * is of no GPU's memory. All that is not free counts: also what other processes have taken meanwhile. */
void qd_instance_plan_describe_use(const struct qd_instance_options *options,
                                   const struct qd_instance_plan *plan, char *text, size_t len);

/* What rank 0 of a replica is opened with. `cpu_isa` is that of the options. */
struct qd_device_config qd_instance_device(const struct qd_instance_options *options,
                                           const struct qd_instance_plan *plan, int replica);

typedef struct qd_instance qd_instance_t;

/* Plans, loads the model, opens dp groups of tp ranks and the engine. On failure nothing is left, but with
 * QD_ERR_TIMEOUT: then a rank hangs, and what it may use stays until the process ends. */
qd_status qd_instance_open(const struct qd_instance_options *options, qd_instance_t **out, char *err,
                           size_t errlen);
/* Ends the engine and the ranks. QD_ERR_TIMEOUT when a rank does not end (see qd_group_end): what it may use
 * then stays, also after qd_instance_close, until the process ends. */
qd_status qd_instance_end(qd_instance_t *instance, char *err, size_t errlen);
void qd_instance_close(qd_instance_t *instance); /* ends it first; accepts NULL */

qd_engine_t *qd_instance_engine(qd_instance_t *instance);
qd_group_t *qd_instance_group(qd_instance_t *instance, int replica); /* only while the engine is idle */
const struct qd_instance_plan *qd_instance_get_plan(const qd_instance_t *instance);
const struct qd_model_config *qd_instance_config(const qd_instance_t *instance);
/* What the devices of a replica do otherwise than expected, in one line; "" when nothing. */
const char *qd_instance_note(const qd_instance_t *instance, int replica);
/* What the collectives of a replica go by (qd_device_collectives), or NULL. */
const char *qd_instance_collectives(const qd_instance_t *instance, int replica);
struct qd_load_stats qd_instance_load_stats(const qd_instance_t *instance);

#endif
