/* One engine step as one flat, pointer-free, versioned buffer.
 *
 * The scheduler writes it, the group uploads, broadcasts, records or hashes it, the forward pass reads it.
 * All arrays live behind the header at byte offsets; maximum sizes are fixed when the buffer is made, only
 * the used prefix (`used_bytes`) is ever copied. Little-endian; offsets are multiples of 16.
 *
 * A sequence of the step contributes the tokens [cu_seqlens_q[s], cu_seqlens_q[s+1]); its keys after the step
 * are positions 0 .. kv_len[s]-1, so its chunk starts at position kv_len[s] - q_len[s].
 */
#ifndef QD_KERNELS_STEP_H
#define QD_KERNELS_STEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    QD_STEP_MAGIC = 0x50545351, /* "QSTP" */
    QD_STEP_VERSION = 1,
    QD_KV_BLOCK_SIZE = 16, /* tokens of a KV page */
};

enum qd_step_flags {
    QD_STEP_WANT_LOGITS = 1, /* also return the fp32 logits of every logit row */
};

/* Largest counts a step may hold; fixed when a group is opened. */
struct qd_step_limits {
    int32_t max_tokens;     /* max_num_batched_tokens */
    int32_t max_seqs;       /* max_num_seqs */
    int32_t max_blocks;     /* entries of all block tables of one step together */
    int32_t max_logit_rows; /* max_seqs for the engine; more for eval */
};

/* Sampling of one logit row. Random numbers are keyed by (seed, output_index), never by step or row. */
struct qd_sampling {
    float temperature;    /* 0: greedy */
    float top_p;          /* 1: off */
    int32_t top_k;        /* 0: off */
    int32_t slot;         /* the sampled id is kept here for the next step's token source; -1: nowhere */
    uint64_t seed;        /* of the request */
    uint64_t output_index; /* 0 for the request's first output token */
};

struct qd_step {
    uint32_t magic, version;
    uint64_t used_bytes;  /* header and arrays */
    uint64_t step_index;  /* counts up from 0 per group, which sets it at launch */
    int32_t n_tokens;     /* T */
    int32_t n_seqs;       /* S */
    int32_t n_logit_rows; /* R: tokens whose logits are wanted, at most one per sequence unless eval */
    uint32_t flags;       /* enum qd_step_flags */
    /* byte offsets from the start of the header */
    uint64_t token_source;  /* int32 [T]: id >= 0, or -(slot+1) = what that slot sampled in the last step */
    uint64_t position;      /* int32 [T]: position in its sequence */
    uint64_t slot_mapping;  /* int64 [T]: kv_block * 16 + offset, where this token's K and V go */
    uint64_t cu_seqlens_q;  /* int32 [S+1] */
    uint64_t kv_len;        /* int32 [S]: keys visible to the sequence's last token of this step */
    uint64_t block_offset;  /* int32 [S+1]: start of each sequence's block table in block_table */
    uint64_t block_table;   /* int32 [block_offset[S]]: KV page numbers, packed */
    uint64_t logit_row;     /* int32 [R]: token index, rising */
    uint64_t sampling;      /* struct qd_sampling [R] */
};

/* Bytes to allocate for a step under `limits`; 0 on overflow or a negative limit. */
size_t qd_step_capacity(const struct qd_step_limits *limits);

/* Starts a step in `buffer` with the given counts: writes header and offsets, clears nothing else.
 * QD_ERR_FULL when a count exceeds the limits. n_blocks = sum of block table lengths. */
qd_status qd_step_begin(struct qd_step *step, const struct qd_step_limits *limits, int32_t n_tokens,
                        int32_t n_seqs, int32_t n_blocks, int32_t n_logit_rows);

/* Checks every count, offset and index (pages < n_kv_blocks, slots, monotone cu_seqlens_q, positions that
 * match kv_len, token ids < vocab_size) before a device trusts the buffer; err names the field. */
qd_status qd_step_validate(const struct qd_step *step, size_t buffer_bytes, int32_t n_kv_blocks,
                           int32_t vocab_size, int32_t max_slots, char *err, size_t errlen);

/* 64-bit FNV-1a over the used bytes, step_index excluded: equal steps hash alike. */
uint64_t qd_step_hash(const struct qd_step *step);

static inline void *qd_step_at(const struct qd_step *step, uint64_t offset)
{
    return (unsigned char *)(uintptr_t)step + offset;
}
static inline int32_t *qd_step_token_source(const struct qd_step *s)
{
    return (int32_t *)qd_step_at(s, s->token_source);
}
static inline int32_t *qd_step_position(const struct qd_step *s)
{
    return (int32_t *)qd_step_at(s, s->position);
}
static inline int64_t *qd_step_slot_mapping(const struct qd_step *s)
{
    return (int64_t *)qd_step_at(s, s->slot_mapping);
}
static inline int32_t *qd_step_cu_seqlens_q(const struct qd_step *s)
{
    return (int32_t *)qd_step_at(s, s->cu_seqlens_q);
}
static inline int32_t *qd_step_kv_len(const struct qd_step *s)
{
    return (int32_t *)qd_step_at(s, s->kv_len);
}
static inline int32_t *qd_step_block_offset(const struct qd_step *s)
{
    return (int32_t *)qd_step_at(s, s->block_offset);
}
static inline int32_t *qd_step_block_table(const struct qd_step *s)
{
    return (int32_t *)qd_step_at(s, s->block_table);
}
static inline int32_t *qd_step_logit_row(const struct qd_step *s)
{
    return (int32_t *)qd_step_at(s, s->logit_row);
}
static inline struct qd_sampling *qd_step_sampling(const struct qd_step *s)
{
    return (struct qd_sampling *)qd_step_at(s, s->sampling);
}

#ifdef __cplusplus
}
#endif

#endif
