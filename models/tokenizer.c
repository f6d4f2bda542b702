#include "models/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "models/nfc.h"
#include "models/tokenizer_impl.h"
#include "models/utf8.h"

enum { MAX_TEXT_BYTES = 1 << 30 };

void qd_tokenizer_free(qd_tokenizer_t *tokenizer)
{
    if (tokenizer == NULL) return;
    free((void *)tokenizer->word_state);
    free(tokenizer->special);
    qd_splitter_destroy(tokenizer->splitter);
    qd_added_free(&tokenizer->added);
    qd_bpe_free(&tokenizer->bpe);
    qd_vocab_free(&tokenizer->vocab);
    free(tokenizer);
}

int32_t qd_tokenizer_vocab_size(const qd_tokenizer_t *tokenizer)
{
    return tokenizer->vocab.size;
}

int32_t qd_tokenizer_base_size(const qd_tokenizer_t *tokenizer)
{
    return tokenizer->base_size;
}

bool qd_tokenizer_is_special(const qd_tokenizer_t *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->vocab.size && tokenizer->special[id];
}

bool qd_tokenizer_get(const qd_tokenizer_t *tokenizer, int32_t id, const char **bytes, size_t *len)
{
    return qd_vocab_get(&tokenizer->vocab, id, bytes, len);
}

int32_t qd_tokenizer_find_added(const qd_tokenizer_t *tokenizer, const char *content)
{
    const struct qd_added_token *token = qd_added_get(&tokenizer->added, content, strlen(content));
    return token != NULL ? token->id : -1;
}

/* One call of encode: the ids so far, and what its steps work with. */
struct encoder {
    const qd_tokenizer_t *tokenizer;
    struct qd_split_walk walk;
    struct qd_bpe_scratch scratch;
    int32_t *ids;
    size_t n_ids, room;
};

/* Room for n more ids. */
static qd_status reserve_ids(struct encoder *encoder, size_t n, char *err, size_t errlen)
{
    if (encoder->room - encoder->n_ids >= n) return QD_OK;
    size_t room = encoder->room + encoder->room / 2 + n + 64;
    int32_t *ids = realloc(encoder->ids, room * sizeof *ids);
    if (ids == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu token ids", room);
    encoder->ids = ids;
    encoder->room = room;
    return QD_OK;
}

/* Most words are one token of the vocabulary, which the vocabulary's hash table says faster than merging
 * does. Being in the vocabulary is not enough: the merges must lead there, which is tried once per token. */
static qd_status encode_word(struct encoder *encoder, const char *word, size_t len, char *err, size_t errlen)
{
    const qd_tokenizer_t *tokenizer = encoder->tokenizer;
    QD_TRY(reserve_ids(encoder, len, err, errlen));
    int32_t *ids = encoder->ids + encoder->n_ids;
    int32_t id = qd_vocab_find(&tokenizer->vocab, word, len);
    if (id >= 0 && atomic_load_explicit(&tokenizer->word_state[id], memory_order_relaxed) == TOKEN_IS_WORD) {
        ids[0] = id;
        encoder->n_ids++;
        return QD_OK;
    }
    size_t n;
    QD_TRY(qd_bpe_encode(&tokenizer->bpe, &encoder->scratch, word, len, ids, &n, err, errlen));
    if (id >= 0)
        atomic_store_explicit(&tokenizer->word_state[id],
                              n == 1 && ids[0] == id ? TOKEN_IS_WORD : TOKEN_IS_NO_WORD,
                              memory_order_relaxed);
    encoder->n_ids += n;
    return QD_OK;
}

/* A stretch without added tokens: normalised, cut into words, each encoded. */
static qd_status encode_stretch(struct encoder *encoder, const char *text, size_t len, char *err,
                                size_t errlen)
{
    char *normalised = NULL;
    size_t n_normalised = 0, begin, end;
    if (len == 0) return QD_OK;
    if (encoder->tokenizer->normalise) QD_TRY(qd_nfc(text, len, &normalised, &n_normalised, err, errlen));
    if (normalised != NULL) {
        text = normalised;
        len = n_normalised;
    }
    qd_split_walk_start(&encoder->walk, text, len);
    qd_status status;
    do {
        status = qd_split_walk_next(&encoder->walk, &begin, &end, err, errlen);
        if (status == QD_OK && end > begin)
            status = encode_word(encoder, text + begin, end - begin, err, errlen);
    } while (status == QD_OK && end > begin);
    free(normalised);
    return status;
}

static qd_status encode_text(struct encoder *encoder, const char *text, size_t len, char *err, size_t errlen)
{
    for (size_t from = 0; from < len;) {
        size_t at;
        const struct qd_added_token *token = qd_added_find(&encoder->tokenizer->added, text, len, from, &at);
        QD_TRY(encode_stretch(encoder, text + from, at - from, err, errlen));
        if (token == NULL) break;
        QD_TRY(reserve_ids(encoder, 1, err, errlen));
        encoder->ids[encoder->n_ids++] = token->id;
        from = at + token->len;
    }
    return QD_OK;
}

qd_status qd_tokenizer_encode(const qd_tokenizer_t *tokenizer, const char *text, size_t len, int32_t **ids,
                              size_t *n_ids, char *err, size_t errlen)
{
    *ids = NULL;
    *n_ids = 0;
    if (len > MAX_TEXT_BYTES)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "a text of %zu bytes, limit %d", len, MAX_TEXT_BYTES);
    size_t valid = qd_utf8_check(text, len);
    if (valid != len) return qd_fail(QD_ERR_INPUT, err, errlen, "byte %zu: invalid UTF-8", valid);
    struct encoder encoder = {.tokenizer = tokenizer};
    qd_status status = qd_split_walk_init(&encoder.walk, tokenizer->splitter, err, errlen);
    if (status == QD_OK) status = reserve_ids(&encoder, len / 4, err, errlen);
    if (status == QD_OK) status = encode_text(&encoder, text, len, err, errlen);
    qd_bpe_scratch_free(&encoder.scratch);
    qd_split_walk_free(&encoder.walk);
    if (status != QD_OK) {
        free(encoder.ids);
        return status;
    }
    *ids = encoder.ids;
    *n_ids = encoder.n_ids;
    return QD_OK;
}
