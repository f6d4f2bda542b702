/* The vocabulary of a byte-level BPE tokenizer: the bytes of every token by id, and ids by bytes.
 *
 * Byte-level vocabularies are written in an alphabet of 256 printable characters, one a byte (GPT-2,
 * bytes_to_unicode); in memory a token is the bytes themselves.
 */
#ifndef QD_MODELS_VOCAB_H
#define QD_MODELS_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum { QD_VOCAB_MAX_ID = (1 << 22) - 1 };

struct qd_vocab_slot {
    uint32_t hash; /* of the token's bytes */
    int32_t id;    /* -1: free */
};

struct qd_vocab_token {
    uint32_t begin, len; /* place in the bytes; len UINT32_MAX: an id without a token */
};

struct qd_vocab {
    char *bytes; /* all tokens, one behind the other */
    size_t n_bytes, bytes_room;
    struct qd_vocab_token *tokens; /* [size] */
    int32_t size, ids_room;        /* largest id + 1 */
    int32_t n_tokens;
    struct qd_vocab_slot *slots; /* [n_slots] open addressing, a power of two, at most 2/3 used */
    size_t n_slots;
};

/* An empty vocabulary is all zero. */
void qd_vocab_free(struct qd_vocab *vocab);

/* Room for about n tokens, so that adding them moves nothing. QD_ERR_NO_MEMORY. */
qd_status qd_vocab_reserve(struct qd_vocab *vocab, size_t n, char *err, size_t errlen);

/* Adds a token. QD_ERR_INPUT when the id is taken, negative or above QD_VOCAB_MAX_ID; with `findable`, also
 * when another token has the same bytes. Tokens that are not findable only decode. */
qd_status qd_vocab_add(struct qd_vocab *vocab, int32_t id, const char *bytes, size_t len, bool findable,
                       char *err, size_t errlen);

/* The id of the findable token with these bytes, or -1. */
int32_t qd_vocab_find(const struct qd_vocab *vocab, const char *bytes, size_t len);

/* The bytes of a token; false for an id without a token. They stay the vocabulary's. */
bool qd_vocab_get(const struct qd_vocab *vocab, int32_t id, const char **bytes, size_t *len);

/* Byte-level characters to bytes: text is UTF-8, out holds len bytes. False when a character is not of the
 * alphabet. */
bool qd_byte_level_decode(const char *text, size_t len, char *out, size_t *n);

#endif
