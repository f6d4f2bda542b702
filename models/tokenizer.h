/* Text to token ids and back, as Hugging Face does it for byte-level BPE tokenizers of Qwen's kind
 * (tokenizer.json: NFC, a regular expression that cuts words, BPE on bytes, added and special tokens).
 *
 * Ids equal Hugging Face's on any text of code points assigned in Unicode 14; beyond, this machine's PCRE2
 * and utf8proc decide. Other kinds of tokenizer are refused, naming the field. After loading a tokenizer is
 * read only: any number of threads may encode and decode with it at once.
 */
#ifndef QD_MODELS_TOKENIZER_H
#define QD_MODELS_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

typedef struct qd_tokenizer qd_tokenizer_t;

/* Reads DIR/tokenizer.json; DIR as qd_model_dir_resolve takes it. QD_ERR_NOT_FOUND, QD_ERR_IO, QD_ERR_INPUT,
 * QD_ERR_UNSUPPORTED, QD_ERR_NO_MEMORY; err names file, field and reason. */
qd_status qd_tokenizer_load(const char *dir, qd_tokenizer_t **out, char *err, size_t errlen);

/* The same from the bytes of a tokenizer.json, which are not kept. */
qd_status qd_tokenizer_parse(const char *json, size_t len, qd_tokenizer_t **out, char *err, size_t errlen);

/* Accepts NULL. */
void qd_tokenizer_free(qd_tokenizer_t *tokenizer);

/* Text (UTF-8, U+0000 allowed, at most 2^30 bytes) to ids. Added tokens written in the text are recognised;
 * none are put in front or behind. The caller frees *ids (never NULL on success).
 * QD_ERR_INPUT with the byte offset of invalid UTF-8. */
qd_status qd_tokenizer_encode(const qd_tokenizer_t *tokenizer, const char *text, size_t len, int32_t **ids,
                              size_t *n_ids, char *err, size_t errlen);

/* Ids to text: the bytes of all tokens, read as UTF-8 once; each maximal ill-formed part gives one U+FFFD.
 * Ids without a token give nothing; with skip_special neither do special tokens. The caller frees *text,
 * which has a byte 0 beyond *len. QD_ERR_NO_MEMORY only. */
qd_status qd_tokenizer_decode(const qd_tokenizer_t *tokenizer, const int32_t *ids, size_t n_ids,
                              bool skip_special, char **text, size_t *len, char *err, size_t errlen);

/* Largest id + 1, added tokens included; some ids below may have no token. */
int32_t qd_tokenizer_vocab_size(const qd_tokenizer_t *tokenizer);

/* Largest id of the base vocabulary (model.vocab, without added tokens) + 1. */
int32_t qd_tokenizer_base_size(const qd_tokenizer_t *tokenizer);

/* Whether the id is an added token marked special. */
bool qd_tokenizer_is_special(const qd_tokenizer_t *tokenizer, int32_t id);

/* The bytes that a token stands for (not always UTF-8 on their own), owned by the tokenizer; false when the
 * id has no token. */
bool qd_tokenizer_get(const qd_tokenizer_t *tokenizer, int32_t id, const char **bytes, size_t *len);

/* The id of the added token with this content, e.g. "<|im_end|>", or -1. */
int32_t qd_tokenizer_find_added(const qd_tokenizer_t *tokenizer, const char *content);

/* Decoding as tokens arrive. What push and finish give, joined, equals qd_tokenizer_decode of all ids; no
 * UTF-8 sequence is ever split. */
struct qd_detokenizer {
    const qd_tokenizer_t *tokenizer;
    bool skip_special;
    char pending[4]; /* the start of a sequence whose rest has not come yet */
    size_t n_pending;
    char *text; /* what is complete; owned */
    size_t len, room;
};

void qd_detokenizer_init(struct qd_detokenizer *detokenizer, const qd_tokenizer_t *tokenizer,
                         bool skip_special);
void qd_detokenizer_free(struct qd_detokenizer *detokenizer);

/* Adds a token; *text (valid until the next call) is what became complete by it, perhaps nothing.
 * QD_ERR_NO_MEMORY. */
qd_status qd_detokenizer_push(struct qd_detokenizer *detokenizer, int32_t id, const char **text, size_t *len,
                              char *err, size_t errlen);

/* The end: a sequence still waiting for its rest becomes U+FFFD. The detokenizer is ready for the next text.
 */
qd_status qd_detokenizer_finish(struct qd_detokenizer *detokenizer, const char **text, size_t *len, char *err,
                                size_t errlen);

#endif
