/* Byte-pair encoding of one word: starts from bytes and merges the adjacent pair of lowest rank, the leftmost
 * of equals, until no pair has a rank (Sennrich et al., 2016; Hugging Face tokenizers, models/bpe/word.rs).
 */
#ifndef QD_MODELS_BPE_H
#define QD_MODELS_BPE_H

#include <stdint.h>

#include "models/vocab.h"

struct qd_merge_slot {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free */
    int32_t rank;  /* position in the list of merges */
    int32_t id;    /* what the pair becomes */
};

struct qd_bpe {
    int32_t byte_id[256];        /* the token of each byte */
    struct qd_merge_slot *slots; /* [n_slots] open addressing, a power of two, at most 2/3 used */
    size_t n_slots, n_merges;
};

/* An empty table is all zero. */
void qd_bpe_free(struct qd_bpe *bpe);

/* Room for n merges, so that adding them moves nothing. QD_ERR_NO_MEMORY. */
qd_status qd_bpe_reserve(struct qd_bpe *bpe, size_t n, char *err, size_t errlen);

/* Adds a merge; a pair given again takes the later rank, as in Hugging Face. Ids are of the vocabulary. */
qd_status qd_bpe_add(struct qd_bpe *bpe, int32_t left, int32_t right, int32_t rank, int32_t id, char *err,
                     size_t errlen);

/* Working memory of an encoder, all zero at first; grows to what the longest word needs (44 bytes a byte). */
struct qd_bpe_scratch {
    struct qd_bpe_symbol *symbols;
    uint64_t *heap;
    size_t room; /* bytes of the longest word that fits */
};
void qd_bpe_scratch_free(struct qd_bpe_scratch *scratch);

/* Encodes a word of 1 .. 2^30 bytes into at most `len` ids; *n_ids says how many. O(len log len).
 * QD_ERR_NO_MEMORY when the scratch cannot grow. Only scratch is written besides ids. */
qd_status qd_bpe_encode(const struct qd_bpe *bpe, struct qd_bpe_scratch *scratch, const char *word,
                        size_t len, int32_t *ids, size_t *n_ids, char *err, size_t errlen);

#endif
