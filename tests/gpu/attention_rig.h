/* One attention layer for the kernel tests: a pool of pages whose unused rows are NaN, steps over it, the
 * CUDA launch of a step and its specification. Keys, values and queries are functions of (sequence, head,
 * position), so that any chunking of a prompt sees the same numbers. Memory belongs to the running test.
 */
#ifndef QD_TESTS_GPU_ATTENTION_RIG_H
#define QD_TESTS_GPU_ATTENTION_RIG_H

#include "kernels/cuda/attention.h"
#include "tests/gpu/runner.h"

#ifdef __cplusplus
extern "C" {
#endif

struct rig_heads {
    int32_t n_heads, n_kv_heads, head_dim;
};

/* A sequence's part in a step. */
struct rig_chunk {
    int32_t seq;   /* 0 .. n_seqs - 1 */
    int32_t prior; /* keys before the chunk */
    int32_t q_len; /* tokens of the step */
};

enum rig_what { RIG_QUERY, RIG_KEY, RIG_VALUE };

struct attention_rig;
/* Writes row[head_dim]. */
typedef void (*rig_values)(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                           int32_t position, qd_bf16 *row);

struct attention_rig {
    struct rig_heads heads;
    enum qd_numerics numerics;
    bool batch_invariant;
    int n_sms;            /* the planner splits decodes into about twice as many parts */
    int32_t grid_padding; /* the launch's limits exceed what the plan needs by so many items of each kind */
    rig_values values;
    int32_t n_seqs, pages_per_seq, n_pages;
    int32_t first_page; /* the pool's lowest page that a sequence may have */
    int32_t *page;      /* [n_seqs * pages_per_seq] dealt in random order, the others belong to nobody */
    qd_bf16 *pool;      /* [2][n_pages][Hkv][16][hd] on the host */
};

/* A rig of fused numerics and random values in [-1, 1), all of the pool NaN. In hf numerics queries and keys
 * are multiples of 1/8, so that their products' sums are exact and no rounding of a score can differ. */
struct attention_rig attention_rig_init(struct rig_heads heads, int32_t n_seqs, int32_t max_len,
                                        uint64_t seed);

/* Writes keys and values of positions 0 .. kv_len - 1 of every chunk's sequence; the rest of the pool is NaN.
 */
void attention_rig_fill(struct attention_rig *rig, const struct rig_chunk *chunks, int32_t n_chunks);

/* The step of these chunks, checked by qd_step_validate. */
struct qd_step *attention_rig_step(const struct attention_rig *rig, const struct rig_chunk *chunks,
                                   int32_t n_chunks);

/* [T][Hq*hd] */
qd_bf16 *attention_rig_queries(const struct attention_rig *rig, const struct rig_chunk *chunks,
                               int32_t n_chunks);
struct qd_cuda_attention_config attention_rig_config(const struct attention_rig *rig);

/* Runs a step by this plan: out [T][Hq*hd] on the host. */
qd_bf16 *attention_rig_launch(const struct attention_rig *rig, const struct qd_step *step,
                              const qd_bf16 *queries, const struct qd_cuda_attention_plan *plan,
                              const struct qd_cuda_attention_limits *limits);
/* Plans and runs a step: out [T][Hq*hd] on the host. */
qd_bf16 *attention_rig_run(const struct attention_rig *rig, const struct rig_chunk *chunks, int32_t n_chunks);
/* What the specification makes of it. */
qd_bf16 *attention_rig_reference(const struct attention_rig *rig, const struct rig_chunk *chunks,
                                 int32_t n_chunks);

/* Fills the pool, runs the step, and compares with the specification and with the modes before. */
void attention_rig_check(const char *what, struct attention_rig *rig, const struct rig_chunk *chunks,
                         int32_t n_chunks);

int32_t attention_rig_tokens(const struct rig_chunk *chunks, int32_t n_chunks);
/* Elements of a step's queries. */
size_t attention_rig_elements(const struct attention_rig *rig, const struct rig_chunk *chunks,
                              int32_t n_chunks);

/* Scores that strain the running maximum, in natural units: rising and falling by equal steps from -80 to 80
 * over the keys, jumping between them, or all the same. Values are random. */
void rig_rising_scores(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                       int32_t position, qd_bf16 *row);
void rig_falling_scores(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                        int32_t position, qd_bf16 *row);
void rig_alternating_scores(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                            int32_t position, qd_bf16 *row);
void rig_equal_scores(const struct attention_rig *rig, enum rig_what what, int32_t seq, int32_t head,
                      int32_t position, qd_bf16 *row);

#ifdef __cplusplus
}
#endif

#endif
