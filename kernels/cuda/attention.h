/* Paged attention on CUDA: the work of a step is planned once on the host, as lists of items in device
 * memory, and every layer runs the same lists. Chunks of a prompt go to the prefill kernel, single tokens to
 * the split-KV decode kernel and its merge; with batch_invariant everything goes to the prefill kernel. Grids
 * are constant for given capacities: blocks beyond the counts in the plan's header return at once.
 */
#ifndef QD_KERNELS_CUDA_ATTENTION_H
#define QD_KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    QD_CUDA_PREFILL_ROWS = 128, /* query rows of a prefill item */
    QD_CUDA_PART_STATS = 4,     /* floats behind a part's sums: maximum, total, two that keep rows aligned */
};

/* Prefill: query rows [q_begin, q_begin + 128) of the tokens of a sequence, for one query head. */
struct qd_cuda_prefill_item {
    int32_t seq;     /* index into cu_seqlens_q, kv_len, block_offset */
    int32_t head;    /* query head of this rank */
    int32_t q_begin; /* first row within the chunk, a multiple of the tile */
};

/* Decode: keys [kv_begin, kv_end) of one sequence, for all query heads of one KV head. */
struct qd_cuda_decode_item {
    int32_t seq, kv_head;
    int32_t kv_begin, kv_end; /* kv_begin a multiple of the page */
    int32_t part;             /* where its partial result goes; -1: the only part, written to out */
};

/* Merge: parts [part_begin, part_begin + n_parts) of a sequence's KV head, in order of keys. */
struct qd_cuda_merge_item {
    int32_t seq, kv_head;
    int32_t part_begin, n_parts;
};

/* Capacities, fixed at open: they size the plan's memory and the grids. */
struct qd_cuda_attention_limits {
    int32_t max_prefill_items, max_decode_items, max_merge_items, max_parts;
};

/* Header of the plan in device memory; item arrays follow at these byte offsets. */
struct qd_cuda_attention_plan {
    int32_t n_prefill, n_decode, n_merge, n_parts;
    uint64_t prefill, decode, merge; /* offsets of the arrays from the header */
    uint64_t used_bytes;
};

/* What the planner needs to know of device and model. */
struct qd_cuda_attention_config {
    int32_t n_heads, n_kv_heads, head_dim; /* of this rank */
    int n_sms;
    bool batch_invariant;
};

/* Upper bounds of the items that any step within `limits` can need. */
struct qd_cuda_attention_limits qd_cuda_attention_capacity(const struct qd_cuda_attention_config *config,
                                                           const struct qd_step_limits *limits);
/* Bytes of a plan under these capacities; of the partial results (fp32 sums and two statistics a head). */
size_t qd_cuda_attention_plan_bytes(const struct qd_cuda_attention_limits *limits);
size_t qd_cuda_attention_parts_bytes(const struct qd_cuda_attention_config *config,
                                     const struct qd_cuda_attention_limits *limits);
/* Writes the plan of a step into a host buffer of qd_cuda_attention_plan_bytes; a pure function. Longest work
 * first. QD_ERR_FULL when a capacity is exceeded, with its name. */
qd_status qd_cuda_attention_plan(const struct qd_cuda_attention_config *config,
                                 const struct qd_cuda_attention_limits *limits, const struct qd_step *step,
                                 struct qd_cuda_attention_plan *plan, char *err, size_t errlen);

struct qd_cuda_attention_args {
    const struct qd_cuda_attention_plan *plan; /* in device memory */
    struct qd_cuda_attention_limits limits;    /* grids of this launch; items beyond them do not run */
    const int32_t *cu_seqlens_q, *kv_len, *block_offset, *block_table; /* of the step */
    const qd_bf16 *q;                          /* [T][Hq*hd] */
    int32_t n_heads, n_kv_heads, head_dim;     /* head_dim 64 or 128, Hq/Hkv at most 16 */
    struct qd_kv_layer kv;
    enum qd_numerics numerics;
    void *parts;  /* qd_cuda_attention_parts_bytes */
    qd_bf16 *out; /* [T][Hq*hd] */
};
/* Launches prefill, decode and merge, each only when its limit is above 0. hf: scores are rounded as Hugging
 * Face rounds them, probabilities stay un-normalised until the end. */
qd_status qd_cuda_attention(const struct qd_cuda_attention_args *args, struct CUstream_st *stream, char *err,
                            size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
