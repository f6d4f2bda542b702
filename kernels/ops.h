/* The arguments of every op: shapes, dtypes, layouts and the exact arithmetic a device must perform.
 *
 * T tokens of the step, H hidden, N x K a weight, hd head_dim, Hq/Hkv query and KV heads of this rank.
 * Activations are row-major bf16 unless a field says otherwise. Sums are accumulated in fp32, in an order
 * that never depends on the number of rows or threads. r(x) is rounding to bf16 (nearest even).
 * `hf` numerics round at every point where Hugging Face's eager bf16 path rounds; `fused` keeps fp32 inside
 * an op and rounds once per stored activation. The readable specification of each op is kernels/ref/.
 */
#ifndef QD_KERNELS_OPS_H
#define QD_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/bf16.h"
#include "kernels/step.h"

#ifdef __cplusplus
extern "C" {
#endif

enum qd_numerics {
    QD_NUMERICS_FUSED = 0,
    QD_NUMERICS_HF = 1,
};

enum qd_weight_layout {
    QD_LAYOUT_ROWS = 0,   /* row-major [N][K] bf16 */
    QD_LAYOUT_PACKED = 1, /* the device's own arrangement of the same values (pack_weight) */
};

/* A weight matrix as a device holds it. */
struct qd_weight {
    const void *data;
    int64_t n_rows; /* N */
    int64_t n_cols; /* K */
    enum qd_weight_layout layout;
};

/* out[t] = table[id(t)]; id(t) = token_source[t], or what slot -(token_source[t]+1) sampled last. */
struct qd_embed_args {
    struct qd_weight table;       /* [vocab][H], rows or packed (tied lm_head) */
    const int32_t *token_source;  /* [T] */
    int64_t n_tokens;             /* T */
    qd_bf16 *out;                 /* [T][H] */
};

/* hf:    out = r(w * r(x * rsqrt(mean(x^2) + eps)))
 * fused: out = r(w * x * rsqrt(mean(x^2) + eps)) */
struct qd_rmsnorm_args {
    const qd_bf16 *x;      /* [*][H] */
    const qd_bf16 *weight; /* [H] */
    const int32_t *rows;   /* [n_rows] rows of x to normalise; NULL: 0 .. n_rows-1 */
    int64_t n_rows, dim;   /* R, H */
    float eps;
    qd_bf16 *out; /* [n_rows][H], may alias x only when rows is NULL */
};

enum qd_partial_dtype { QD_PARTIAL_BF16 = 0, QD_PARTIAL_F32 = 1 };

/* A projection's output on its way to the op that reads it next (QD_EPILOGUE_PARTIAL): stored in bf16, or
 * sums over parts of K that the reader still adds up. */
struct qd_partial {
    const void *data;            /* [n_slices][rows][N] */
    enum qd_partial_dtype dtype; /* bf16: one slice. fp32 slices are summed in index order, then rounded to
                                  * bf16 once, as if the projection had been stored */
    int32_t n_slices;
    int64_t stride;  /* elements between slices */
    bool cross_rank; /* true: every rank holds a part; summed in fp32 in rank order (collective) */
};
static inline struct qd_partial qd_partial_stored(const qd_bf16 *data)
{
    struct qd_partial partial = {data, QD_PARTIAL_BF16, 1, 0, false};
    return partial;
}

enum qd_epilogue {
    QD_EPILOGUE_STORE = 0,     /* out bf16 [M][N] = r(sum) */
    QD_EPILOGUE_STORE_F32 = 1, /* out fp32 [M][N] = sum; hf: r(sum), widened (logits) */
    QD_EPILOGUE_SILU_MUL = 2,  /* weight rows are gate and up interleaved in groups of 8 (8 gate, 8 up, ...;
                                * the last group may be shorter: n gate, n up); out bf16 [M][N/2] =
                                * fused: r(silu(g) * u)   hf: r(r(silu(r(g))) * r(u)) */
    QD_EPILOGUE_PARTIAL = 3,   /* as STORE, or fp32 slices in memory of the device: *partial says which */
};

/* out = a * w^T. */
struct qd_gemm_nt_args {
    const qd_bf16 *a; /* [M][K], row stride lda elements; columns from K to the next multiple of 64 are zero
                       * where lda has room for them, and a device may need that room */
    int64_t m, lda;
    struct qd_weight w;   /* [N][K] */
    enum qd_epilogue epilogue;
    void *out;            /* row stride ldo elements of its dtype */
    int64_t ldo;
    struct qd_partial *partial; /* QD_EPILOGUE_PARTIAL: out, all but cross_rank, which the caller sets. The
                                 * third PARTIAL after this one overwrites its slices */
};

/* The epilogue QD_EPILOGUE_SILU_MUL on its own, for devices whose GEMM did not fuse it. */
struct qd_silu_mul_args {
    const qd_bf16 *gate_up; /* [M][2*I], columns interleaved in groups of 8 as above */
    int64_t m, n;           /* M, I */
    qd_bf16 *out;           /* [M][I] */
};

/* Rotary embedding of the model: angle = position * inv_freq[i] in fp32 for the pair (i, i + hd/2);
 * cos and sin carry attention_scaling (YaRN); hf rounds both to bf16. */
struct qd_rope {
    const float *inv_freq;   /* [hd/2] */
    float attention_scaling; /* 1 without YaRN */
};

/* One rank's KV pool of one layer; K and V of a page are each [Hkv][16][hd] bf16. A device may arrange the
 * inside of a page differently: only its own ops read it. Layer stride = 2 * n_blocks * Hkv * 16 * hd. */
struct qd_kv_layer {
    qd_bf16 *data;       /* K pages [n_blocks][Hkv][16][hd], then V pages alike */
    int64_t n_blocks;
    int32_t n_kv_heads;
    int32_t head_dim;
};

/* Called once per step before any op below that names a step; fixes cos/sin rows and the attention work
 * split of this step inside the device. */
struct qd_plan_args {
    const struct qd_step *step; /* host buffer; valid until the step has ended */
    struct qd_rope rope;
    int32_t n_heads, n_kv_heads, head_dim; /* of this rank */
};

/* Per token t: q and k heads get RMSNorm (weights [hd], as qd_rmsnorm), then RoPE:
 *   hf:    r(r(a*cos) + r(-b*sin)), r(r(b*cos) + r(a*sin))      fused: r(a*cos - b*sin), r(b*cos + a*sin)
 * (fused: norm and rotation without rounding in between). q goes to q_out, k and v (v as it is) to the KV
 * page and offset that slot_mapping[t] names. */
struct qd_qk_norm_rope_kv_args {
    const struct qd_step *step;
    struct qd_partial qkv; /* [T][(Hq + 2*Hkv) * hd]: q heads, k heads, v heads; of this rank */
    const qd_bf16 *q_norm_weight, *k_norm_weight; /* [hd] each */
    float eps;
    int32_t n_heads, n_kv_heads, head_dim;
    struct qd_kv_layer kv;
    qd_bf16 *q_out; /* [T][Hq * hd] */
};

/* Causal attention of every token of the step over its sequence's pages; query head h reads KV head
 * h / (Hq/Hkv); scale = hd^-0.5.
 *   hf:    p = r(softmax(r(r(q.k) * scale))), out = r(sum p*v): two passes over the whole row
 *   fused: online softmax in fp32 over KV tiles aligned to position 0, out = r(sum p*v / sum p) */
struct qd_attention_args {
    const struct qd_step *step;
    const qd_bf16 *q; /* [T][Hq * hd] */
    int32_t n_heads, n_kv_heads, head_dim;
    struct qd_kv_layer kv;
    qd_bf16 *out; /* [T][Hq * hd] */
};

/* residual[t] = r(residual[t] + r(sum over ranks of r(sum over slices))), out = rmsnorm(residual) as
 * qd_rmsnorm. With `rows`, only those tokens are updated and normalised (the last norm). With one rank and
 * one bf16 slice the inner rounding changes nothing. A cross-rank partial may change again only when the next
 * collective has returned: o and down write to two buffers in turn. */
struct qd_reduce_add_rmsnorm_args {
    qd_bf16 *residual; /* [T][H], in and out */
    struct qd_partial partial;
    const qd_bf16 *weight; /* [H] */
    const int32_t *rows;   /* [n_rows] token indices; NULL: 0 .. n_rows-1 */
    int64_t n_rows, dim;
    float eps;
    qd_bf16 *out; /* [n_rows][H] */
};

/* Samples one id per logit row (collective over ranks; all ranks get all ids) and keeps it in its slot.
 * Order: scaled = logit / temperature; top-k (ties with the k-th stay); softmax; top-p (a token stays while
 * the probabilities before it, falling, sum to less than top_p; the first always); renormalise; draw with
 * one Philox uniform keyed by (seed, output_index). Temperature 0: the largest logit. Ties: smallest id.
 * NaN never wins. The draw does not depend on the number of ranks. */
struct qd_sample_args {
    const struct qd_step *step;
    const float *logits;   /* [R][ld] this rank's vocabulary shard, fp32 */
    int64_t ld;
    int64_t vocab_begin;   /* first id of the shard */
    int64_t n_vocab;       /* ids of this shard (may be 0) */
    int64_t vocab_size;    /* ids of all shards */
    int32_t *ids; /* [R] out, on the host; not written by a device with finish_step, which returns them */
};

/* Gathers `bytes` of every rank into out[world * bytes], in rank order; a rank that does not want them passes
 * NULL for out. Collective. */
struct qd_all_gather_args {
    const void *in;
    size_t bytes;
    void *out;
};

/* Copies n_rows rows of row_bytes to the host; the rows there are host_stride bytes apart. On a device with
 * finish_step they have arrived when that returns. */
struct qd_copy_to_host_args {
    void *host;
    const void *data; /* [n_rows] rows, stride bytes apart */
    size_t n_rows, row_bytes, host_stride, stride;
};

/* data[n] = sum over ranks in rank order, in fp32, rounded to bf16 once; equal bits on all ranks. */
struct qd_all_reduce_args {
    qd_bf16 *data;
    int64_t n;
};

#ifdef __cplusplus
}
#endif

#endif
