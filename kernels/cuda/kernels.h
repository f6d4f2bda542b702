/* The launchers of the CUDA kernels: what the CUDA host code (the .c files here) and the kernel tests call.
 *
 * Every launcher checks its shape (QD_ERR_UNSUPPORTED with the reason, before anything runs), launches on the
 * stream and returns the launch's error; it neither allocates nor synchronises nor reads device memory.
 * Everything that changes from step to step is read from device memory by the kernels, so that a captured
 * launch can be replayed; counts in the argument structs are those of the launch (for a captured step: the
 * padded counts). All pointers are device pointers, 16-byte aligned, row-major. Arithmetic as in
 * kernels/ops.h; the twin of each kernel is kernels/ref/. H hidden, hd head_dim, Hq and Hkv heads of this
 * rank, T tokens, R logit rows.
 */
#ifndef QD_KERNELS_CUDA_KERNELS_H
#define QD_KERNELS_CUDA_KERNELS_H

#include "kernels/ops.h"
#include "kernels/store.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* cudaStream_t is a pointer to it */

/* In a stream's place: the launcher checks and loads its kernels, and launches nothing. */
#define QD_CUDA_LOAD_ONLY ((struct CUstream_st *)(intptr_t)-1)

enum {
    QD_CUDA_MAX_RANKS = 8,    /* of one replica */
    QD_CUDA_PEER_BLOCKS = 32, /* most blocks of a kernel that meets its twins on other GPUs */
};

/* How the ranks' kernels meet: block b of every rank waits for block b of all others. Flags live in memory of
 * their rank and are written by the peers. All ranks launch the same collective kernels in the same order. */
struct qd_cuda_peers {
    int rank, n_ranks;                      /* n_ranks 1: the rest is unused */
    int n_blocks; /* 1 .. QD_CUDA_PEER_BLOCKS: most blocks of a launch, all resident at once; the same on all
                     ranks */
    /* of each rank, zero at first */
    uint32_t *flags[QD_CUDA_MAX_RANKS]; /* [QD_CUDA_PEER_BLOCKS][QD_CUDA_MAX_RANKS] */
    uint32_t *epoch;               /* [QD_CUDA_PEER_BLOCKS] this rank's count of meetings, zero at first */
    /* not 0: a rank has failed, so that nobody waits; in page-locked host memory; or NULL */
    const uint32_t *abandoned;
};

/* embed.cu: out[t] = table[id(t)], ids as in qd_embed_args. An id outside the table gives a row of zeros. */
struct qd_cuda_embed_args {
    const qd_bf16 *table;        /* [n_ids][H] */
    int64_t n_ids, hidden_dim;   /* H a multiple of 8 */
    const int32_t *token_source; /* [T] */
    const int32_t *sampled;      /* [max_seqs] by slot: what was sampled last */
    int64_t n_tokens;            /* T */
    qd_bf16 *out;                /* [T][H] */
};
qd_status qd_cuda_embed(const struct qd_cuda_embed_args *args, struct CUstream_st *stream, char *err,
                        size_t errlen);

/* rmsnorm.cu: as qd_rmsnorm_args; dim a multiple of 8, at most 8192. */
struct qd_cuda_rmsnorm_args {
    const qd_bf16 *x, *weight; /* [*][dim], [dim] */
    const int32_t *rows;       /* [n_rows] or NULL */
    int64_t n_rows, dim;
    float eps;
    enum qd_numerics numerics;
    qd_bf16 *out; /* [n_rows][dim] */
};
qd_status qd_cuda_rmsnorm(const struct qd_cuda_rmsnorm_args *args, struct CUstream_st *stream, char *err,
                          size_t errlen);

/* Where ranks leave what they have summed for all in a two-shot launch, memory of each rank (NULL: one-shot).
 * Two-shot launches may follow each other with the same pieces, which nobody else may write to. */
struct qd_cuda_pieces {
    qd_bf16 *of_rank[QD_CUDA_MAX_RANKS];
};

/* reduce_add_rmsnorm.cu: residual[t] = r(residual[t] + r(sum over ranks of r(sum over slices))), out =
 * rmsnorm(residual); sums in fp32 in index order. With n_ranks > 1 one launch on every rank, bit-equal
 * results on all ranks and in both ways: one-shot reads all of every rank's partial in place; two-shot reads
 * this rank's part of the columns, and then the sums of the other columns from the ranks that made them. A
 * partial may be overwritten only after the next collective launch has begun on every rank. dim a multiple of
 * 8, at most 8192. */
struct qd_cuda_reduce_add_rmsnorm_args {
    qd_bf16 *residual;                          /* [T][dim] in and out */
    const void *partials[QD_CUDA_MAX_RANKS];    /* [n_slices][T][dim] of each rank */
    enum qd_partial_dtype dtype;                /* QD_PARTIAL_BF16: n_slices 1 */
    int32_t n_slices;
    int64_t slice_stride;      /* elements */
    struct qd_cuda_peers peers;
    struct qd_cuda_pieces pieces; /* qd_cuda_reduce_add_rmsnorm_piece_bytes each */
    const qd_bf16 *weight;     /* [dim] */
    const int32_t *rows;       /* [n_rows] token indices or NULL */
    int64_t n_rows, dim;
    float eps;
    enum qd_numerics numerics;
    qd_bf16 *out; /* [n_rows][dim] */
};
qd_status qd_cuda_reduce_add_rmsnorm(const struct qd_cuda_reduce_add_rmsnorm_args *args,
                                     struct CUstream_st *stream, char *err, size_t errlen);

size_t qd_cuda_reduce_add_rmsnorm_piece_bytes(int64_t n_rows, int64_t dim, int n_ranks);

/* all_reduce.cu: out = sum over ranks of parts[rank] in fp32 in rank order, rounded once; out apart from
 * every part. One-shot or two-shot as above, the same bits. Parts may be overwritten when the launch has
 * ended on every rank, and a rank's own when it has ended there: it meets once more when all have been read.
 */
struct qd_cuda_all_reduce_args {
    const qd_bf16 *parts[QD_CUDA_MAX_RANKS]; /* [n] of each rank */
    int64_t n;                               /* a multiple of 8 */
    struct qd_cuda_peers peers;
    struct qd_cuda_pieces pieces; /* qd_cuda_all_reduce_piece_bytes each */
    qd_bf16 *out; /* [n] */
};
size_t qd_cuda_all_reduce_piece_bytes(int64_t n, int n_ranks);
qd_status qd_cuda_all_reduce(const struct qd_cuda_all_reduce_args *args, struct CUstream_st *stream,
                             char *err, size_t errlen);

/* gemm_tile.cu and gemm_skinny.cu: out = a * w^T.
 * QD_EPILOGUE_STORE and QD_EPILOGUE_SILU_MUL write bf16, QD_EPILOGUE_STORE_F32 fp32 logits. With n_slices > 1
 * (store only) K is split into n_slices parts of equal length, a multiple of 64, and slice s of the fp32 sums
 * goes to out + s * slice_stride. K a multiple of 64; N of 8 (16 for silu_mul): the last group of 8 gate and
 * 8 up rows is always whole; lda, ldo and slice_stride of 8. Rows of w: gate and up interleaved for silu_mul.
 * The bits of an output element depend on the plan and K, never on M or on the row's place. */
enum qd_cuda_gemm_kernel {
    QD_CUDA_GEMM_TILE_128X256, /* 128 tokens x 256 columns, 3 stages of 64 */
    QD_CUDA_GEMM_TILE_128X128, /* 4 stages */
    QD_CUDA_GEMM_TILE_128X128_3_STAGES, /* the same bits with less shared memory */
    QD_CUDA_GEMM_SKINNY_DIRECT, /* 1 .. 16 tokens */
    QD_CUDA_GEMM_SKINNY_RING,   /* 1 .. 64 tokens */
};
struct qd_cuda_gemm_plan {
    enum qd_cuda_gemm_kernel kernel;
    int32_t n_slices;
};
/* Dynamic shared memory, in bytes, with which the kernel is launched for M tokens (those that it takes). */
size_t qd_cuda_gemm_shared_bytes(enum qd_cuda_gemm_kernel kernel, int64_t m);
/* What choices depend on of a GPU. */
struct qd_cuda_gpu_size {
    int n_sms;
    int shared_bytes; /* that a block may ask for: cudaDevAttrMaxSharedMemoryPerBlockOptin */
};
/* The kernel and split for a shape: a function of its arguments alone; with batch_invariant the split is of
 * n, k and may_slice alone, and the kernel one for all shapes, of which GPUs with less shared memory run a
 * twin that gives the same bits. Every kernel chosen fits gpu.shared_bytes, given the 99 KiB that every GPU
 * since sm_80 has. may_slice: the consumer can sum fp32 slices. */
struct qd_cuda_gemm_plan qd_cuda_gemm_choose(int64_t m, int64_t n, int64_t k, bool may_slice,
                                             struct qd_cuda_gpu_size gpu, bool batch_invariant);
struct qd_cuda_gemm_args {
    const qd_bf16 *a; /* [M][K] row stride lda */
    int64_t m, n, k, lda;
    const qd_bf16 *w; /* [N][K] */
    enum qd_epilogue epilogue;
    enum qd_numerics numerics;
    struct qd_cuda_gemm_plan plan;
    void *out; /* row stride ldo elements; silu_mul: [M][N/2] */
    int64_t ldo, slice_stride;
};
qd_status qd_cuda_gemm(const struct qd_cuda_gemm_args *args, struct CUstream_st *stream, char *err,
                       size_t errlen);

/* silu_mul.cu: the epilogue on its own, over columns interleaved in groups of 8: out = silu(gate) * up. fp32
 * slices are summed in index order first (and rounded to bf16 in hf). */
struct qd_cuda_silu_mul_args {
    struct qd_partial gate_up; /* [n_slices][M][2*I], bf16 or fp32 */
    int64_t m, n;              /* M, I (a multiple of 8) */
    enum qd_numerics numerics;
    qd_bf16 *out; /* [M][I] */
};
qd_status qd_cuda_silu_mul(const struct qd_cuda_silu_mul_args *args, struct CUstream_st *stream, char *err,
                           size_t errlen);

/* qk_norm_rope_kv.cu: as qd_qk_norm_rope_kv_args; head_dim 64 or 128; a slot below 0 writes no K and V. fp32
 * slices of qkv are summed in index order and rounded to bf16 first, as if the GEMM had stored bf16. */
struct qd_cuda_qk_norm_rope_kv_args {
    struct qd_partial qkv;       /* [n_slices][T][(Hq + 2*Hkv)*hd] */
    int64_t n_tokens;            /* T */
    const int32_t *position;     /* [T] */
    const int64_t *slot_mapping; /* [T] */
    const float *cos, *sin;      /* [max_position][hd/2], scaling included, rounded to bf16 in hf */
    const qd_bf16 *q_norm_weight, *k_norm_weight; /* [hd] */
    float eps;
    int32_t n_heads, n_kv_heads, head_dim;
    enum qd_numerics numerics;
    struct qd_kv_layer kv;
    qd_bf16 *q_out; /* [T][Hq*hd] */
};
qd_status qd_cuda_qk_norm_rope_kv(const struct qd_cuda_qk_norm_rope_kv_args *args, struct CUstream_st *stream,
                                  char *err, size_t errlen);

/* attention.h holds the attention kernels: they come with a plan. sample.cu: */

/* Samples one id per logit row as qd_sample_args; every rank computes the same ids. Rank r holds the logits
 * of ids [r*shard_rows, min((r+1)*shard_rows, vocab_size)). With n_ranks > 1 the ranks meet once before and
 * once after they have read each other's logits or keys. Sums of probabilities are 64-bit fixed-point
 * integers, so that a draw depends neither on the schedule nor on the number of ranks. */
struct qd_cuda_sample_args {
    const float *logits[QD_CUDA_MAX_RANKS]; /* [R][ld] of each rank */
    int64_t ld;         /* a multiple of 4 */
    int64_t shard_rows; /* a multiple of 4 when n_ranks > 1 */
    int64_t vocab_size; /* at most 2^20 */
    int64_t n_rows;                     /* R */
    const struct qd_sampling *sampling; /* [R] */
    struct qd_cuda_peers peers;
    void *scratch[QD_CUDA_MAX_RANKS];   /* qd_cuda_sample_scratch_bytes(max R) of each rank, zero at first */
    int32_t *sampled; /* [max_seqs] by slot */
    int32_t *ids;     /* [R] out */
};
size_t qd_cuda_sample_scratch_bytes(int64_t max_rows);
qd_status qd_cuda_sample(const struct qd_cuda_sample_args *args, struct CUstream_st *stream, char *err,
                         size_t errlen);

/* fill_uniform.cu: random weights (kernels/store.h); `to` is 16-byte aligned. */
qd_status qd_cuda_fill_uniform(const struct qd_store_fill *args, struct CUstream_st *stream, char *err,
                               size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
