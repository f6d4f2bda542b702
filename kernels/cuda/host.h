/* The CUDA device's host side: what its files know of each other. One rank of a replica is one context, one
 * GPU, one stream and one host thread; everything below happens on that thread.
 *
 *     device.c   the table: opening, what is supported, memory of the GPUs
 *     memory.c   allocations, and where the other ranks have theirs
 *     store.c    memory of weights, filled by several threads before ranks open
 *     step.c     a step on its way to fixed device addresses, and its ids on the way back
 *     graph.c    decode steps recorded for each padded batch when the device is opened, and replayed
 *     timing.c   what a step takes on the device, and its ops
 *     overhead.c what timing the ops costs
 *     measure.c  how long single ops take, and cuBLASLt beside them
 *     ceilings.c what a GPU reaches, to set them beside
 *     reserve.c  what drivers and NCCL take of a GPU's memory
 *     comm.c     how ranks meet, and the collectives that are no part of another op
 *     collectives.c   own kernels or NCCL: which, and what goes by NCCL
 *     ops.c      the ops of the table over the launchers of kernels.h and attention.h
 *
 * Compiled against CUDA it is the device `cuda`, against the emulator (QD_EMU) the device `emu`.
 */
#ifndef QD_KERNELS_CUDA_HOST_H
#define QD_KERNELS_CUDA_HOST_H

#include <cuda_runtime.h>
#include <stdatomic.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/nccl.h"
#include "kernels/device.h"

enum {
    QD_CUDA_MAX_BLOCKS = 32,       /* allocations of one rank */
    QD_CUDA_MAX_GRAPH_BATCH = 512, /* larger decode steps are not recorded: launches no longer matter */
    QD_CUDA_N_GRAPHS = 51,         /* 1, 2, 4, 8, 16 ... 256, 272 ... 512 */
    /* qkv, o and down of a layer: a collective may still read the last o and down */
    QD_CUDA_N_SLICE_BUFFERS = 3,
    QD_CUDA_STEPS_IN_FLIGHT = 2,
    QD_CUDA_REDUCE_VALUES = 1 << 19, /* an all-reduce goes in pieces of this many bf16: 1 MiB */
#ifdef QD_EMU /* enough to run every line: the figures say nothing */
    QD_CUDA_OVERHEAD_STEPS = 2,
#else
    QD_CUDA_OVERHEAD_STEPS = 16, /* of each kind, to see what timing costs */
#endif
};

/* ---- memory.c ---- */

struct qd_cuda_memory {
    struct {
        unsigned char *data;
        size_t bytes;
        unsigned char *of_rank[QD_CUDA_MAX_RANKS]; /* the same allocation of every rank, once exchanged */
    } blocks[QD_CUDA_MAX_BLOCKS];
    int n_blocks;
    void *host[QD_CUDA_MAX_BLOCKS]; /* page-locked */
    int n_host;
};

/* ---- step.c ---- */

/* Where the arrays of a step lie in device memory, for every step alike. */
struct qd_cuda_step_arrays {
    int32_t *token_source, *position; /* [max_tokens] */
    int64_t *slot_mapping;            /* [max_tokens] */
    int32_t *cu_seqlens_q;            /* [max_seqs + 1] */
    int32_t *kv_len;                  /* [max_seqs] */
    int32_t *block_offset;            /* [max_seqs + 1] */
    int32_t *block_table;             /* [max_blocks] */
    int32_t *logit_row;               /* [max_logit_rows] */
    struct qd_sampling *sampling;     /* [max_logit_rows] */
    struct qd_cuda_attention_plan *plan;
};

/* One of the steps in flight, as the host has it. */
struct qd_cuda_step_slot {
    unsigned char *staging;         /* page-locked: parts, step, plan (step_unpack.h) */
    struct qd_step *launched;       /* the step in staging; counts as launched, padded for a graph */
    int32_t n_tokens, n_logit_rows; /* without padding */
    int32_t *host_ids;              /* [max_logit_rows] page-locked */
    cudaEvent_t begin, end;         /* before the upload, after the copy of ids */
    int64_t span_ns;                /* between them */
    bool runs;                      /* on the GPU: it is not only loaded or recorded */
};

struct qd_cuda_step {
    struct qd_cuda_step_arrays at;
    size_t step_bytes, plan_bytes;          /* of the largest step and plan */
    struct qd_cuda_step_slot slots[QD_CUDA_STEPS_IN_FLIGHT];
    struct qd_cuda_step_slot *slot;   /* of the step that is being planned and launched */
    uint64_t n_submitted, n_finished; /* steps: the oldest unfinished one is in slots[n_finished % 2] */
    unsigned char *upload;            /* copy of staging in device memory; of one step after the other */
    struct qd_cuda_attention_limits limits; /* grids of this step's attention */
    float *cos, *sin;                       /* [max_model_len][hd/2] */
    bool has_rope;                          /* both are filled */
    int32_t *sampled;                       /* [max_seqs] by slot */
    int32_t *ids;                           /* [max_logit_rows] */
};

/* ---- graph.c ---- */

/* What becomes of the ops of a step: they run, they load their kernels, they are recorded, or are not called.
 */
enum qd_cuda_mode { QD_CUDA_EAGER = 0, QD_CUDA_LOAD, QD_CUDA_RECORD, QD_CUDA_REPLAY };

struct qd_cuda_graphs {
    struct {
        int32_t size;         /* decodes, padding included */
        cudaGraphExec_t exec; /* NULL: not recorded yet */
    } of[QD_CUDA_N_GRAPHS];   /* [n] rising */
    int n;
    int current; /* index of this step's, or -1 */
    enum qd_cuda_mode mode;    /* of this step */
    enum qd_cuda_mode planned; /* of the next step when the warm-up made it */
    bool recording;            /* the stream captures */
    int64_t capture_begin_ns;
    uint64_t bytes_before; /* free on the GPU before the first recording */
    int64_t capture_ns;    /* of all recordings */
    uint64_t bytes;        /* that they left less */
    cudaGraphExec_t plain; /* of the first batch, without events, to see what those cost; or NULL */
};

/* ---- timing.c ---- */

struct qd_cuda_timing {
    struct {
        cudaEvent_t begin, end;
        enum qd_segment segment;
        enum qd_segment recorded_segment; /* in a graph: all have the same ops */
    } * ops;                              /* [max_ops] of the step, with device_timing */
    int n_ops, max_ops;                   /* max_ops 0: ops are not timed */
    int n_recorded_ops;
    bool is_off; /* not in this step, to see what timing costs */
};

/* ---- overhead.c ---- */

struct qd_cuda_overhead {
    int64_t begin_ns; /* of the step that runs */
    int n[QD_N_TIMING_KINDS];
    int64_t span_ns[QD_N_TIMING_KINDS][QD_CUDA_OVERHEAD_STEPS];
    int64_t wall_ns[QD_N_TIMING_KINDS][QD_CUDA_OVERHEAD_STEPS];
    int n_events;
};

/* ---- the context ---- */

struct qd_cuda {
    struct qd_device_config config;
    struct qd_bootstrap bootstrap;
    int gpu;
    struct qd_cuda_gpu_size size; /* the least of the replica's GPUs, so that all ranks choose alike */
    cudaStream_t stream;
    char text[QD_ERR_LEN]; /* of the op that failed last */
    struct qd_cuda_memory memory;
    bool has_peers; /* allocations are exchanged: no more may come */
    struct qd_cuda_peers peers;
    struct qd_nccl nccl; /* config.collectives says what it is used for, once the context is open */
    float *gathered;     /* [qd_cuda_gathered_values] what NCCL has gathered */
    char note[QD_ERR_LEN]; /* as the table's member */
    _Atomic uint32_t *abandoned;     /* what peers.abandoned points to; written by any thread */
    _Atomic(const char *) waits_for; /* as the table's member */
    void *sample_scratch[QD_CUDA_MAX_RANKS];
    struct qd_cuda_attention_config attention;
    struct qd_cuda_attention_limits attention_capacity;
    void *attention_parts;
    float *slices[QD_CUDA_N_SLICE_BUFFERS];
    int n_partials;   /* of this step so far: which slices come next */
    qd_bf16 *reduced; /* [QD_CUDA_REDUCE_VALUES] with several ranks */
    qd_bf16 *pieces;  /* sums of this rank in two-shot launches; of no size with fewer than 3 ranks */
    struct qd_cuda_step step;
    struct qd_cuda_graphs graphs;
    struct qd_cuda_timing timing;
    struct qd_cuda_overhead overhead;
    struct qd_device_stats stats;
    cudaEvent_t time_begin, time_end; /* NULL until somebody measures */
    qd_cublaslt_t *cublaslt;          /* likewise */
};

/* The GPU of a rank of n_ranks by its global index; QD_ERR_ENVIRONMENT when there are too few. */
qd_status qd_cuda_gpu_of_rank(int global_rank, int n_ranks, int ranks_per_gpu, int *gpu, char *err, size_t errlen);
extern const struct qd_store_ops qd_cuda_store_ops;

/* Zeroed memory of the current GPU, once `stream` has come so far; page-locked memory of the host. Refusals
 * name the GPU, what was asked for and what is free. Of no context: cudaFree, cudaFreeHost. */
qd_status qd_cuda_allocate_zeroed(cudaStream_t stream, size_t bytes, void **out, char *err, size_t errlen);
qd_status qd_cuda_allocate_host(size_t bytes, void **out, char *err, size_t errlen);
/* Where kernels are launched. */
static inline cudaStream_t qd_cuda_launch_stream(const struct qd_cuda *cuda)
{
    return cuda->graphs.mode == QD_CUDA_LOAD ? QD_CUDA_LOAD_ONLY : cuda->stream;
}

/* Device memory of `bytes`, zeroed, or page-locked host memory; both until the context closes. */
qd_status qd_cuda_memory_alloc(struct qd_cuda *cuda, size_t bytes, void **out, char *err, size_t errlen);
qd_status qd_cuda_memory_alloc_host(struct qd_cuda *cuda, size_t bytes, void **out, char *err, size_t errlen);
qd_status qd_cuda_memory_upload(struct qd_cuda *cuda, void *data, const void *host, size_t bytes, char *err,
                                size_t errlen);
/* Tells every rank where the others have each allocation, in order. Collective; before the first step. */
qd_status qd_cuda_memory_exchange(struct qd_cuda *cuda, char *err, size_t errlen);
/* all[rank]: what corresponds to `mine` in each rank's memory. QD_ERR_INTERNAL when it is none of ours. */
qd_status qd_cuda_memory_of_ranks(const struct qd_cuda *cuda, const void *mine, const void **all, char *err,
                                  size_t errlen);
void qd_cuda_memory_free(struct qd_cuda *cuda);

/* Bytes of the context's own memory under `config` on GPUs of this size; with `cuda` also allocates and
 * places it. */
qd_status qd_cuda_working_memory(const struct qd_device_config *config, struct qd_cuda_gpu_size size,
                                 struct qd_cuda *cuda, size_t *bytes, char *err, size_t errlen);

/* Page-locked memory and events of steps. */
qd_status qd_cuda_step_init(struct qd_cuda *cuda, char *err, size_t errlen);
void qd_cuda_step_free(struct qd_cuda *cuda);
/* The step's arrays, padded, and the attention plan on their way to the device. */
qd_status qd_cuda_step_plan(struct qd_cuda *cuda, const struct qd_plan_args *args);
/* Behind the step's last op: its ids come to the host, and the next step may be planned. */
qd_status qd_cuda_step_submit(struct qd_cuda *cuda);
/* Waits until the event or, with NULL, the whole stream has come to its end; QD_ERR_RANK when ranks were told
 * meanwhile or before to wait no more: what their kernels left then is nothing. */
qd_status qd_cuda_step_wait(struct qd_cuda *cuda, cudaEvent_t event);
/* Waits for the oldest unfinished step, with the ids of its logit rows; for nothing when it did not run. */
qd_status qd_cuda_step_finish(struct qd_cuda *cuda, int32_t *ids);
/* As in the table. */
bool qd_cuda_step_ended(void *ctx);
/* Where the array of the launched step (token_source or logit_row) lies in device memory; NULL for NULL. */
const int32_t *qd_cuda_step_array(const struct qd_cuda *cuda, const int32_t *host);

/* How many steps are recorded under the configuration's limits. */
int qd_cuda_graph_count(const struct qd_device_config *config);
/* The batches to record under the context's limits. */
void qd_cuda_graph_init(struct qd_cuda *cuda);
/* As in the table. */
bool qd_cuda_graph_warm_up_step(void *ctx, int index, struct qd_step *step);
/* Decides how this step runs; *n_padded is the count of tokens and logit rows to launch. */
void qd_cuda_graph_choose(struct qd_cuda *cuda, const struct qd_step *step, int32_t *n_padded);
qd_status qd_cuda_graph_begin(struct qd_cuda *cuda);
qd_status qd_cuda_graph_end(struct qd_cuda *cuda);
void qd_cuda_graph_free(struct qd_cuda *cuda);

/* Prepares step 0, 1, ... of one decode that shows what timing costs; false when there is none or no more.
 * The step before has been waited for. */
bool qd_cuda_overhead_step(struct qd_cuda *cuda, int index);
/* What they have shown; all zeros when there were none. */
void qd_cuda_overhead_end(struct qd_cuda *cuda, struct qd_timing_cost *out);

/* With device_timing: events of ops. */
qd_status qd_cuda_timing_init(struct qd_cuda *cuda, char *err, size_t errlen);
void qd_cuda_timing_free(struct qd_cuda *cuda);
/* More ops than a step of the model has. */
int qd_cuda_timing_max_ops(const struct qd_device_config *config);
/* Whether the ops of this step are timed. */
bool qd_cuda_timing_is_on(const struct qd_cuda *cuda);
/* Around every op of a step, after a first call of begin_step. */
void qd_cuda_timing_begin_step(struct qd_cuda *cuda);
qd_status qd_cuda_timing_begin_op(struct qd_cuda *cuda, enum qd_segment segment);
qd_status qd_cuda_timing_end_op(struct qd_cuda *cuda);
/* The ops of this step are those of every graph. */
void qd_cuda_timing_keep_recorded(struct qd_cuda *cuda);
/* When the end of a step was reached: adds its span, and that of the ops launched last, to the context's
 * stats. */
qd_status qd_cuda_timing_add_step(struct qd_cuda *cuda, struct qd_cuda_step_slot *slot, char *err,
                                  size_t errlen);

/* measure.c, as in the table. */
qd_status qd_cuda_time_begin(void *ctx);
qd_status qd_cuda_time_end(void *ctx, int64_t *ns);
void qd_cuda_time_free(struct qd_cuda *cuda); /* cuBLASLt too */

/* reserve.c, as in the table. */
void qd_cuda_reserve(const struct qd_device_config *config, int tp, struct qd_device_reserve *out);

/* ceilings.c: on the calling thread's GPU. */
qd_status qd_cuda_ceilings(struct qd_cuda_gpu_size gpu, struct qd_device_ceilings *out, char *err, size_t errlen);

/* Gives this rank's GPU access to the others'. Collective. */
qd_status qd_cuda_comm_open(struct qd_cuda *cuda, char *err, size_t errlen);
/* The pieces of every rank where all ranks sum a message of `bytes` a rank in two shots; otherwise none. */
qd_status qd_cuda_comm_choose_pieces(struct qd_cuda *cuda, int64_t bytes, struct qd_cuda_pieces *out);
/* Once allocations are exchanged: flags and scratch of every rank. */
qd_status qd_cuda_comm_connect(struct qd_cuda *cuda, char *err, size_t errlen);
/* Every rank's stream has come here before any goes on. */
qd_status qd_cuda_comm_meet(struct qd_cuda *cuda);
qd_status qd_cuda_all_gather(void *ctx, const struct qd_all_gather_args *args);
qd_status qd_cuda_all_reduce_in_place(void *ctx, const struct qd_all_reduce_args *args);

/* ---- collectives.c ---- */

/* As in the table. */
struct qd_sum_limits qd_cuda_sum_limits(int tp);
/* How all ranks sum a message of so many bytes a rank; if not by NCCL, in how many shots. */
bool qd_cuda_sums_by_nccl(const struct qd_cuda *cuda, size_t bytes);
bool qd_cuda_sums_in_two_shots(const struct qd_cuda *cuda, size_t bytes);
/* NCCL takes one rank a GPU, and its sums depend on the size of the message. */
bool qd_cuda_collectives_allow_nccl(const struct qd_device_config *config);
/* QD_ERR_ARGUMENT for a configuration that contradicts itself. */
qd_status qd_cuda_collectives_check(const struct qd_device_config *config, char *err, size_t errlen);
/* Settles config.collectives for this replica: OWN, NCCL, or AUTO when both are there; opens NCCL if it is used.
 * has_peers: this rank reaches all others, or `no_peers` says why not. Collective. */
qd_status qd_cuda_collectives_open(struct qd_cuda *cuda, bool has_peers, const char *no_peers, char *err,
                                   size_t errlen);
/* What open will settle as far as memory depends on it: NCCL alone where some GPU may not reach another. */
qd_status qd_cuda_collectives_expect(struct qd_device_config *config, int n_gpus, char *err, size_t errlen);
/* Floats of `gathered`: where NCCL alone serves, the logits of all ranks. */
int64_t qd_cuda_gathered_values(const struct qd_device_config *config);
/* out [n_rows][world][row_bytes] (NULL: `gathered`) by NCCL. Collective. */
qd_status qd_cuda_gather_rows(struct qd_cuda *cuda, const void *in, int64_t n_rows, size_t row_bytes, void *out);
/* With NCCL: returns when the stream has come there, or it will because a rank has failed; QD_ERR_ENVIRONMENT when
 * NCCL has. */
qd_status qd_cuda_collectives_wait(struct qd_cuda *cuda, cudaEvent_t event);
void qd_cuda_collectives_close(struct qd_cuda *cuda);
/* As in the table. */
const char *qd_cuda_collectives_name(void *ctx);

/* ops.c, as in the table. */
qd_status qd_cuda_op_embed(void *ctx, const struct qd_embed_args *args);
qd_status qd_cuda_op_rmsnorm(void *ctx, const struct qd_rmsnorm_args *args);
qd_status qd_cuda_op_gemm_nt(void *ctx, const struct qd_gemm_nt_args *args);
qd_status qd_cuda_op_silu_mul(void *ctx, const struct qd_silu_mul_args *args);
qd_status qd_cuda_op_qk_norm_rope_kv(void *ctx, const struct qd_qk_norm_rope_kv_args *args);
qd_status qd_cuda_op_attention(void *ctx, const struct qd_attention_args *args);
qd_status qd_cuda_op_reduce_add_rmsnorm(void *ctx, const struct qd_reduce_add_rmsnorm_args *args);
qd_status qd_cuda_op_sample(void *ctx, const struct qd_sample_args *args);
/* As in the table: rows and columns are padded with zeros to what the GEMM kernels take. */
size_t qd_cuda_weight_bytes(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout);
int64_t qd_cuda_row_stride(int64_t n_cols, enum qd_weight_layout layout);

#endif
