/* One op of kernels/device.h at one shape: what `qdyno kernels` and the self-test of `qdyno doctor` run.
 *
 * A case names the op by its place in the forward pass (qkv, o, gate_up, down and lm_head are all gemm_nt)
 * and a model's shape; every dimension, stride and tolerance follows from those, by the rules of
 * kernels/ops.h and models/qwen3.c.
 */
#ifndef QD_HARNESS_OPS_CASE_H
#define QD_HARNESS_OPS_CASE_H

#include "kernels/device.h"
#include "kernels/traffic.h"

enum qd_op {
    QD_OP_EMBED = 0,
    QD_OP_RMSNORM,
    QD_OP_QKV,
    QD_OP_QK_NORM_ROPE_KV,
    QD_OP_ATTENTION_PREFILL, /* one sequence: T tokens behind `context` keys */
    QD_OP_ATTENTION_DECODE,  /* T sequences: one token each behind `context` keys */
    QD_OP_ATTENTION_MIXED,   /* half of the tokens in one chunk, the others decodes */
    QD_OP_O,
    QD_OP_REDUCE_ADD_RMSNORM,
    QD_OP_FINAL_NORM, /* reduce_add_rmsnorm of every second token */
    QD_OP_GATE_UP,
    QD_OP_SILU_MUL,
    QD_OP_DOWN,
    QD_OP_LM_HEAD,
    QD_OP_SAMPLE,
    QD_OP_ALL_REDUCE,
    QD_OP_ALL_GATHER,
    QD_N_OPS,
};

/* How an op of several ranks goes (way.h). */
enum qd_op_way {
    QD_OP_WAY_AUTO = 0, /* as the device likes */
    QD_OP_WAY_ONE_SHOT, /* own collectives */
    QD_OP_WAY_TWO_SHOT,
    QD_OP_WAY_OWN, /* where there is one own way */
    QD_OP_WAY_NCCL,
    QD_OP_N_WAYS,
};

struct qd_op_case {
    enum qd_op op;
    struct qd_model_shape shape; /* of one rank; vocab_size of all */
    int tp;                      /* ranks; only collectives run on more than one */
    int32_t n_tokens;            /* T >= 1 */
    int32_t context;             /* attention: keys of a sequence before this step */
    int32_t n_slices;            /* reduce_add_rmsnorm with one rank: fp32 slices of its partial; 0: bf16 */
    enum qd_numerics numerics;
    enum qd_op_way way;
};

/* The matrix of a projection, and how the forward pass calls it. */
struct qd_op_gemm {
    int64_t n, k, lda, ldo;
    enum qd_epilogue epilogue;
};

/* "gate_up"; and the member of the device table that runs it, "gemm_nt". */
const char *qd_op_name(enum qd_op op);
const char *qd_op_member(enum qd_op op);
bool qd_op_is_attention(enum qd_op op);
bool qd_op_is_gemm(enum qd_op op);

/* Ranks that take part: tp for ops that are collective at that tp, else 1. */
int qd_op_ranks(const struct qd_op_case *c);
/* Of a projection, for rank 0. */
struct qd_op_gemm qd_op_gemm(const struct qd_op_case *c);
/* Rows of the vocabulary's shard of every rank, and how many of them rank `rank` has ids for. */
int64_t qd_op_vocab_rows(const struct qd_op_case *c);
int64_t qd_op_vocab_count(const struct qd_op_case *c, int rank);
/* Rows of the op's output: tokens, or every second one. */
int64_t qd_op_rows(const struct qd_op_case *c);

/* Bytes and operations of one rank (kernels/traffic.h). */
struct qd_traffic qd_op_traffic(const struct qd_op_case *c);

/* "M 16 N 6144 K 4096" */
void qd_op_describe(const struct qd_op_case *c, char *out, size_t len);

#endif
