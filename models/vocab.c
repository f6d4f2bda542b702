#include "models/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"
#include "models/utf8.h"

#define NO_TOKEN UINT32_MAX

void qd_vocab_free(struct qd_vocab *vocab)
{
    free(vocab->bytes);
    free(vocab->tokens);
    free(vocab->slots);
    *vocab = (struct qd_vocab){0};
}

/* Eight bytes at a time, multiplied and folded; words are short, so the tail matters most. */
static uint32_t hash_bytes(const char *bytes, size_t len)
{
    const uint64_t factor = 0x9e3779b97f4a7c15u;
    uint64_t hash = len * factor, word;
    for (; len >= sizeof word; len -= sizeof word, bytes += sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = (hash ^ word) * factor;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, bytes, len);
    hash = (hash ^ word) * factor;
    return (uint32_t)(hash >> 32);
}

bool qd_vocab_get(const struct qd_vocab *vocab, int32_t id, const char **bytes, size_t *len)
{
    if (id < 0 || id >= vocab->size || vocab->tokens[id].len == NO_TOKEN) return false;
    *bytes = vocab->bytes + vocab->tokens[id].begin;
    *len = vocab->tokens[id].len;
    return true;
}

/* The slot of the token with these bytes, or the free slot where it would go. */
static size_t find_slot(const struct qd_vocab *vocab, uint32_t hash, const char *bytes, size_t len)
{
    size_t mask = vocab->n_slots - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        const struct qd_vocab_slot *slot = &vocab->slots[i];
        if (slot->id < 0) return i;
        if (slot->hash != hash) continue;
        struct qd_vocab_token token = vocab->tokens[slot->id];
        if (token.len == len && memcmp(vocab->bytes + token.begin, bytes, len) == 0) return i;
    }
}

int32_t qd_vocab_find(const struct qd_vocab *vocab, const char *bytes, size_t len)
{
    if (vocab->n_slots == 0) return -1;
    return vocab->slots[find_slot(vocab, hash_bytes(bytes, len), bytes, len)].id;
}

static qd_status resize_slots(struct qd_vocab *vocab, size_t n_slots, char *err, size_t errlen)
{
    struct qd_vocab_slot *slots = malloc(n_slots * sizeof *slots);
    if (slots == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "hash table of %zu tokens", n_slots);
    for (size_t i = 0; i < n_slots; i++) slots[i].id = -1;
    for (size_t i = 0; i < vocab->n_slots; i++) {
        if (vocab->slots[i].id < 0) continue;
        size_t to = vocab->slots[i].hash & (n_slots - 1);
        while (slots[to].id >= 0) to = (to + 1) & (n_slots - 1);
        slots[to] = vocab->slots[i];
    }
    free(vocab->slots);
    vocab->slots = slots;
    vocab->n_slots = n_slots;
    return QD_OK;
}

qd_status qd_vocab_reserve(struct qd_vocab *vocab, size_t n, char *err, size_t errlen)
{
    size_t n_slots = vocab->n_slots == 0 ? 1024 : vocab->n_slots;
    while (2 * n_slots < 3 * n) n_slots *= 2;
    return n_slots == vocab->n_slots ? QD_OK : resize_slots(vocab, n_slots, err, errlen);
}

/* Room for ids up to `id`, the new ones without a token. */
static qd_status grow_ids(struct qd_vocab *vocab, int32_t id, char *err, size_t errlen)
{
    if (id >= vocab->ids_room) {
        size_t room = qd_round_up((size_t)id + 1 + (size_t)id / 2, 1024);
        struct qd_vocab_token *tokens = realloc(vocab->tokens, room * sizeof *tokens);
        if (tokens == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu ids", room);
        vocab->tokens = tokens;
        vocab->ids_room = (int32_t)room;
    }
    for (; vocab->size <= id; vocab->size++) vocab->tokens[vocab->size].len = NO_TOKEN;
    return QD_OK;
}

static qd_status append_bytes(struct qd_vocab *vocab, const char *bytes, size_t len, char *err, size_t errlen)
{
    if (len >= NO_TOKEN - vocab->n_bytes)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "vocabulary of more than 4 GiB");
    if (vocab->bytes == NULL || len > vocab->bytes_room - vocab->n_bytes) {
        size_t room = 2 * (vocab->n_bytes + len) + 4096;
        char *grown = realloc(vocab->bytes, room);
        if (grown == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu bytes of vocabulary", room);
        vocab->bytes = grown;
        vocab->bytes_room = room;
    }
    if (len > 0) memcpy(vocab->bytes + vocab->n_bytes, bytes, len);
    vocab->n_bytes += len;
    return QD_OK;
}

qd_status qd_vocab_add(struct qd_vocab *vocab, int32_t id, const char *bytes, size_t len, bool findable,
                       char *err, size_t errlen)
{
    if (id < 0 || id > QD_VOCAB_MAX_ID)
        return qd_fail(QD_ERR_INPUT, err, errlen, "id %d is outside 0 .. %d", id, QD_VOCAB_MAX_ID);
    if (id < vocab->size && vocab->tokens[id].len != NO_TOKEN)
        return qd_fail(QD_ERR_INPUT, err, errlen, "id %d is given twice", id);
    QD_TRY(qd_vocab_reserve(vocab, (size_t)vocab->n_tokens + 1, err, errlen));
    uint32_t hash = hash_bytes(bytes, len);
    size_t slot = find_slot(vocab, hash, bytes, len);
    if (findable && vocab->slots[slot].id >= 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "ids %d and %d are the same token", vocab->slots[slot].id,
                       id);
    QD_TRY(grow_ids(vocab, id, err, errlen));
    size_t begin = vocab->n_bytes;
    QD_TRY(append_bytes(vocab, bytes, len, err, errlen));
    vocab->tokens[id] = (struct qd_vocab_token){(uint32_t)begin, (uint32_t)len};
    vocab->n_tokens++;
    if (findable) vocab->slots[slot] = (struct qd_vocab_slot){hash, id};
    return QD_OK;
}

/* Bytes that are printable characters of Latin-1 stand for themselves; the others, in rising order, are
 * written as U+0100, U+0101, … */
static bool is_own_character(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
}

/* The byte of a character of the alphabet, or -1. */
static int byte_of_character(uint32_t c)
{
    if (c < 0x100) return is_own_character(c) ? (int)c : -1;
    if (c <= 0x120) return (int)(c - 0x100);        /* 00 .. 20 */
    if (c <= 0x142) return (int)(c - 0x121) + 0x7f; /* 7f .. a0 */
    return c == 0x143 ? 0xad : -1;
}

bool qd_byte_level_decode(const char *text, size_t len, char *out, size_t *n)
{
    *n = 0;
    for (size_t at = 0, width; at < len; at += width) {
        int byte = byte_of_character(qd_utf8_decode(text + at, &width));
        if (byte < 0) return false;
        out[(*n)++] = (char)byte;
    }
    return true;
}
