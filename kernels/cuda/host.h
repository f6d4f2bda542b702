/* The CUDA device's host side: what its files know of each other. One rank of a replica is one context, one
 * GPU, one stream and one host thread; everything below happens on that thread.
 *
 *     device.c   the table: opening, what is supported, memory of the GPUs
 *     memory.c   allocations, and where the other ranks have theirs
 *     store.c    memory of weights, filled by several threads before ranks open
 *     step.c     a step on its way to fixed device addresses, and its ids on the way back
 *     graph.c    decode steps recorded once for each padded batch and replayed
 *     comm.c     how ranks meet, and the collectives that are no part of another op
 *     ops.c      the ops of the table over the launchers of kernels.h and attention.h
 *
 * Compiled against CUDA it is the device `cuda`, against the emulator (QD_EMU) the device `emu`.
 */
#ifndef QD_KERNELS_CUDA_HOST_H
#define QD_KERNELS_CUDA_HOST_H

#include <cuda_runtime.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/kernels.h"
#include "kernels/device.h"

enum {
    QD_CUDA_MAX_BLOCKS = 32,       /* allocations of one rank */
    QD_CUDA_MAX_GRAPH_BATCH = 512, /* larger decode steps are not recorded: launches no longer matter */
    QD_CUDA_N_GRAPHS = 3 + QD_CUDA_MAX_GRAPH_BATCH / 8,
    /* qkv, o and down of a layer: a collective may still read the last o and down */
    QD_CUDA_N_SLICE_BUFFERS = 3,
    QD_CUDA_REDUCE_VALUES = 1 << 19, /* an all-reduce goes in pieces of this many bf16: 1 MiB */
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

struct qd_cuda_step {
    struct qd_cuda_step_arrays at;
    size_t step_bytes, plan_bytes;          /* of the largest step and plan */
    unsigned char *staging;                 /* page-locked: parts, step, plan (step_unpack.h) */
    unsigned char *upload;                  /* its copy in device memory */
    struct qd_step *launched;               /* the step in staging; counts as launched, padded for a graph */
    int32_t n_logit_rows;                   /* without padding */
    struct qd_cuda_attention_limits limits; /* grids of this step's attention */
    float *cos, *sin;                       /* [max_model_len][hd/2] */
    bool has_rope;                          /* both are filled */
    int32_t *sampled;                       /* [max_seqs] by slot */
    int32_t *ids;                           /* [max_logit_rows] */
    int32_t *host_ids;                      /* [max_logit_rows] page-locked */
    cudaEvent_t done;                       /* after the copy of ids */
};

/* ---- graph.c ---- */

enum qd_cuda_mode { QD_CUDA_EAGER = 0, QD_CUDA_RECORD, QD_CUDA_REPLAY };

struct qd_cuda_graphs {
    struct {
        cudaGraphExec_t exec; /* NULL: not recorded yet */
        bool has_run; /* op by op with this padding: every kernel is loaded and every shape was accepted */
    } of[QD_CUDA_N_GRAPHS];
    int current; /* index of this step's, or -1 */
    enum qd_cuda_mode mode;
    bool recording; /* the stream captures */
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
    void *sample_scratch[QD_CUDA_MAX_RANKS];
    struct qd_cuda_attention_config attention;
    struct qd_cuda_attention_limits attention_capacity;
    void *attention_parts;
    float *slices[QD_CUDA_N_SLICE_BUFFERS];
    int n_partials;   /* of this step so far: which slices come next */
    qd_bf16 *reduced; /* [QD_CUDA_REDUCE_VALUES] with several ranks */
    struct qd_cuda_step step;
    struct qd_cuda_graphs graphs;
};

/* The GPU of a rank by its global index. */
qd_status qd_cuda_gpu_of_rank(int global_rank, int *gpu, char *err, size_t errlen);
extern const struct qd_store_ops qd_cuda_store_ops;

/* Zeroed memory of the current GPU, once `stream` has come so far; page-locked memory of the host. Refusals
 * name the GPU, what was asked for and what is free. Of no context: cudaFree, cudaFreeHost. */
qd_status qd_cuda_allocate_zeroed(cudaStream_t stream, size_t bytes, void **out, char *err, size_t errlen);
qd_status qd_cuda_allocate_host(size_t bytes, void **out, char *err, size_t errlen);

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

/* Page-locked memory and the event of steps. */
qd_status qd_cuda_step_init(struct qd_cuda *cuda, char *err, size_t errlen);
void qd_cuda_step_free(struct qd_cuda *cuda);
/* The step's arrays, padded, and the attention plan on their way to the device. */
qd_status qd_cuda_step_plan(struct qd_cuda *cuda, const struct qd_plan_args *args);
/* Waits for the stream, with the ids of this step's logit rows. */
qd_status qd_cuda_step_finish(struct qd_cuda *cuda, int32_t *ids);
/* Where the array of the launched step (token_source or logit_row) lies in device memory; NULL for NULL. */
const int32_t *qd_cuda_step_array(const struct qd_cuda *cuda, const int32_t *host);

/* How many steps may ever be recorded under the configuration's limits. */
int qd_cuda_graph_count(const struct qd_device_config *config);
/* Decides how this step runs; *n_padded is the count of tokens and logit rows to launch. */
void qd_cuda_graph_choose(struct qd_cuda *cuda, const struct qd_step *step, int32_t *n_padded);
qd_status qd_cuda_graph_begin(struct qd_cuda *cuda);
qd_status qd_cuda_graph_end(struct qd_cuda *cuda);
void qd_cuda_graph_free(struct qd_cuda *cuda);

/* Gives this rank's GPU access to the others'. Collective. */
qd_status qd_cuda_comm_open(struct qd_cuda *cuda, char *err, size_t errlen);
/* Once allocations are exchanged: flags and scratch of every rank. */
qd_status qd_cuda_comm_connect(struct qd_cuda *cuda, char *err, size_t errlen);
/* Every rank's stream has come here before any goes on. */
qd_status qd_cuda_comm_meet(struct qd_cuda *cuda);
qd_status qd_cuda_all_gather(void *ctx, const struct qd_all_gather_args *args);
qd_status qd_cuda_all_reduce_in_place(void *ctx, const struct qd_all_reduce_args *args);

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
