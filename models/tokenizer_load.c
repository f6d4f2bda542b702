/* tokenizer.json to a tokenizer. The vocabulary and the merges (nearly all of the file) are read token by
 * token into hash tables; everything else becomes small trees, checked field by field: a setting that is not
 * implemented is refused by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/directory.h"
#include "models/json.h"
#include "models/json_scan.h"
#include "models/tokenizer_fields.h"
#include "models/tokenizer_impl.h"

enum { MAX_FILE_BYTES = 1 << 28, MAX_DEPTH = 64 };

/* What a token and its merge take in Qwen3's file; only room is guessed from it. */
enum { FILE_BYTES_PER_TOKEN = 75 };

/* The file while it is read. */
struct loader {
    qd_tokenizer_t *tokenizer;
    struct qd_json_reader reader;
    struct qd_json_reader merges; /* stands inside the list of merges, where has_merges */
    bool has_vocab, has_merges;
    cJSON *fields; /* the top level but "model" */
    cJSON *model;  /* "model" but "vocab" and "merges" */
    char *buffer;  /* [reader.len] room for any string of the file */
    char *left, *right;
};

static qd_status read_token(struct qd_json_reader *reader, struct qd_json_token *token,
                            enum qd_json_kind kind, const char *what, char *err, size_t errlen)
{
    QD_TRY(qd_json_read(reader, token, err, errlen));
    if (token->kind != kind)
        return qd_fail(QD_ERR_INPUT, err, errlen, "byte %zu: expected %s", token->begin, what);
    return QD_OK;
}

/* The bytes of a byte-level string token into out (which holds token->len bytes). */
static qd_status token_bytes(const struct loader *loader, const struct qd_json_token *token, char *out,
                             size_t *n, char *err, size_t errlen)
{
    const char *text = loader->reader.text + token->begin;
    size_t len = token->len;
    if (token->escaped) {
        len = qd_json_unescape(text, len, loader->buffer);
        text = loader->buffer;
    }
    if (qd_byte_level_decode(text, len, out, n)) return QD_OK;
    return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "byte %zu: \"%.*s\" is not in the byte-level alphabet",
                   token->begin, token->len < 100 ? (int)token->len : 100,
                   loader->reader.text + token->begin);
}

static qd_status read_vocab(struct loader *loader, char *err, size_t errlen)
{
    struct qd_json_token token, value;
    struct qd_json_reader *reader = &loader->reader;
    QD_TRY(read_token(reader, &token, QD_JSON_OBJECT, "an object (model.vocab)", err, errlen));
    loader->has_vocab = true;
    QD_TRY(qd_vocab_reserve(&loader->tokenizer->vocab, reader->len / FILE_BYTES_PER_TOKEN, err, errlen));
    for (;;) {
        QD_TRY(qd_json_read(reader, &token, err, errlen));
        if (token.kind == QD_JSON_OBJECT_END) return QD_OK;
        QD_TRY(read_token(reader, &value, QD_JSON_NUMBER, "an id", err, errlen));
        double id = qd_json_number(reader, &value);
        char reason[QD_ERR_LEN];
        size_t n;
        if (!(id >= 0 && id <= QD_VOCAB_MAX_ID) || id != (int32_t)id)
            return qd_fail(QD_ERR_INPUT, err, errlen, "byte %zu: model.vocab: an id is an integer in 0 .. %d",
                           value.begin, QD_VOCAB_MAX_ID);
        QD_TRY(token_bytes(loader, &token, loader->left, &n, err, errlen));
        qd_status status = qd_vocab_add(&loader->tokenizer->vocab, (int32_t)id, loader->left, n, true, reason,
                                        sizeof reason);
        if (status != QD_OK)
            return qd_fail(status, err, errlen, "byte %zu: model.vocab: %s", token.begin, reason);
    }
}

static qd_status merge_error(size_t offset, const char *what, char *err, size_t errlen)
{
    return qd_fail(QD_ERR_INPUT, err, errlen, "byte %zu: model.merges: %s", offset, what);
}

/* One entry, ["a", "b"] or "a b", as bytes in loader->left and right. */
static qd_status read_pair(struct loader *loader, const struct qd_json_token *first, size_t *n_left,
                           size_t *n_right, char *err, size_t errlen)
{
    struct qd_json_token left = *first, right, end;
    if (first->kind == QD_JSON_ARRAY) {
        QD_TRY(read_token(&loader->merges, &left, QD_JSON_STRING, "a token (model.merges)", err, errlen));
        QD_TRY(read_token(&loader->merges, &right, QD_JSON_STRING, "a token (model.merges)", err, errlen));
        QD_TRY(read_token(&loader->merges, &end, QD_JSON_ARRAY_END, "the end of a pair (model.merges)", err,
                          errlen));
    } else if (first->kind == QD_JSON_STRING) {
        /* The alphabet has no space, so that the first one separates. */
        const char *text = loader->merges.text + first->begin, *space = memchr(text, ' ', first->len);
        if (space == NULL) return merge_error(first->begin, "expected two tokens", err, errlen);
        left.len = (size_t)(space - text);
        right = left;
        right.begin = left.begin + left.len + 1;
        right.len = first->len - left.len - 1;
    } else {
        return merge_error(first->begin, "expected a pair", err, errlen);
    }
    QD_TRY(token_bytes(loader, &left, loader->left, n_left, err, errlen));
    return token_bytes(loader, &right, loader->right, n_right, err, errlen);
}

/* The id of a token's bytes. Vocabularies number tokens in the order of their merges, so that the one after
 * the last is tried before the hash table, whose places are all over memory. */
static int32_t find_merged(const struct qd_vocab *vocab, int32_t last, const char *bytes, size_t len)
{
    const char *next;
    size_t n;
    if (qd_vocab_get(vocab, last + 1, &next, &n) && n == len && memcmp(next, bytes, len) == 0)
        return last + 1;
    return qd_vocab_find(vocab, bytes, len);
}

static qd_status read_merges(struct loader *loader, char *err, size_t errlen)
{
    const struct qd_vocab *vocab = &loader->tokenizer->vocab;
    /* Nearly every token but the single bytes is made by one merge. */
    QD_TRY(qd_bpe_reserve(&loader->tokenizer->bpe, (size_t)vocab->n_tokens, err, errlen));
    int32_t merged = -1;
    for (int32_t rank = 0;; rank++) {
        struct qd_json_token token;
        size_t n_left, n_right;
        QD_TRY(qd_json_read(&loader->merges, &token, err, errlen));
        if (token.kind == QD_JSON_ARRAY_END) return QD_OK;
        QD_TRY(read_pair(loader, &token, &n_left, &n_right, err, errlen));
        int32_t left = qd_vocab_find(vocab, loader->left, n_left);
        int32_t right = qd_vocab_find(vocab, loader->right, n_right);
        memcpy(loader->left + n_left, loader->right, n_right);
        merged = find_merged(vocab, merged, loader->left, n_left + n_right);
        if (left < 0 || right < 0 || merged < 0)
            return merge_error(token.begin, "a token that is not in model.vocab", err, errlen);
        QD_TRY(qd_bpe_add(&loader->tokenizer->bpe, left, right, rank, merged, err, errlen));
    }
}

/* Skips the list of merges but remembers where it starts: it can only be read once the vocabulary is known,
 * whichever stands first. */
static qd_status note_merges(struct loader *loader, char *err, size_t errlen)
{
    struct qd_json_token token;
    size_t end;
    QD_TRY(read_token(&loader->reader, &token, QD_JSON_ARRAY, "a list (model.merges)", err, errlen));
    loader->merges = loader->reader;
    loader->has_merges = true;
    return qd_json_skip(&loader->reader, &token, &end, err, errlen);
}

/* Parses the next value as a small tree and hangs it into object. */
static qd_status keep_field(struct loader *loader, cJSON *object, const char *key, char *err, size_t errlen)
{
    struct qd_json_token token;
    char reason[QD_ERR_LEN];
    size_t end;
    cJSON *value;
    if (cJSON_GetObjectItemCaseSensitive(object, key) != NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "duplicate key \"%s\"", key);
    QD_TRY(qd_json_read(&loader->reader, &token, err, errlen));
    size_t begin = token.begin - (token.kind == QD_JSON_STRING ? 1 : 0); /* with its quote */
    QD_TRY(qd_json_skip(&loader->reader, &token, &end, err, errlen));
    const char *text = loader->reader.text + begin;
    qd_status status = qd_json_parse(text, end - begin, NULL, &value, reason, sizeof reason);
    if (status != QD_OK) return qd_fail(status, err, errlen, "%s: %s", key, reason);
    if (cJSON_AddItemToObject(object, key, value)) return QD_OK;
    cJSON_Delete(value);
    return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s", key);
}

static qd_status skip_field(struct loader *loader, char *err, size_t errlen)
{
    struct qd_json_token token;
    size_t end;
    QD_TRY(qd_json_read(&loader->reader, &token, err, errlen));
    return qd_json_skip(&loader->reader, &token, &end, err, errlen);
}

static bool is_one_of(const char *const *names, const char *name)
{
    while (*names != NULL && strcmp(*names, name) != 0) names++;
    return *names != NULL;
}

/* Reads the key of the next member as a string that stays valid while its value is skipped; *done at the end
 * of the object. A key with U+0000 is none that we know. */
static qd_status read_key(struct loader *loader, const char **key, bool *done, char *err, size_t errlen)
{
    struct qd_json_token token;
    QD_TRY(qd_json_read(&loader->reader, &token, err, errlen));
    *done = token.kind == QD_JSON_OBJECT_END;
    size_t n = qd_json_unescape(loader->reader.text + token.begin, token.len, loader->buffer);
    loader->buffer[token.zero ? 0 : n] = 0;
    *key = loader->buffer;
    return QD_OK;
}

static qd_status duplicate(const char *key, char *err, size_t errlen)
{
    return qd_fail(QD_ERR_INPUT, err, errlen, "duplicate key \"%s\"", key);
}

static qd_status read_model(struct loader *loader, char *err, size_t errlen)
{
    struct qd_json_token token;
    if (loader->model != NULL) return duplicate("model", err, errlen);
    loader->model = cJSON_CreateObject();
    if (loader->model == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "model");
    QD_TRY(read_token(&loader->reader, &token, QD_JSON_OBJECT, "an object (model)", err, errlen));
    for (;;) {
        const char *key;
        bool done;
        QD_TRY(read_key(loader, &key, &done, err, errlen));
        if (done) return QD_OK;
        if (strcmp(key, "vocab") == 0) {
            if (loader->has_vocab) return duplicate("model.vocab", err, errlen);
            QD_TRY(read_vocab(loader, err, errlen));
        } else if (strcmp(key, "merges") == 0) {
            if (loader->has_merges) return duplicate("model.merges", err, errlen);
            QD_TRY(note_merges(loader, err, errlen));
        } else if (is_one_of(qd_tokenizer_model_fields, key)) {
            QD_TRY(keep_field(loader, loader->model, key, err, errlen));
        } else {
            QD_TRY(skip_field(loader, err, errlen));
        }
    }
}

static qd_status read_file(struct loader *loader, char *err, size_t errlen)
{
    struct qd_json_token token;
    QD_TRY(read_token(&loader->reader, &token, QD_JSON_OBJECT, "an object", err, errlen));
    for (;;) {
        const char *key;
        bool done;
        QD_TRY(read_key(loader, &key, &done, err, errlen));
        if (done) break;
        if (strcmp(key, "model") == 0)
            QD_TRY(read_model(loader, err, errlen));
        else if (is_one_of(qd_tokenizer_top_fields, key))
            QD_TRY(keep_field(loader, loader->fields, key, err, errlen));
        else
            QD_TRY(skip_field(loader, err, errlen));
    }
    return qd_json_read(&loader->reader, &token, err, errlen); /* nothing follows */
}

/* A word starts as bytes: each must be a token. */
static qd_status find_bytes(qd_tokenizer_t *tokenizer, char *err, size_t errlen)
{
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        tokenizer->bpe.byte_id[byte] = qd_vocab_find(&tokenizer->vocab, &c, 1);
        if (tokenizer->bpe.byte_id[byte] < 0)
            return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "model.vocab: no token for byte 0x%02x", byte);
    }
    return QD_OK;
}

/* Gives an added token its place among the ids. It decodes as Hugging Face does it: through the byte-level
 * alphabet where all of it is written in that alphabet, as it stands otherwise. */
static qd_status place_added(struct loader *loader, const struct qd_added_token *token, char *err,
                             size_t errlen)
{
    struct qd_vocab *vocab = &loader->tokenizer->vocab;
    const char *bytes = loader->left, *taken;
    size_t n, n_taken;
    bool byte_level = qd_byte_level_decode(token->content, token->len, loader->left, &n);
    if (!byte_level) {
        bytes = token->content;
        n = token->len;
    }
    int32_t base_id = byte_level ? qd_vocab_find(vocab, bytes, n) : -1;
    if (base_id >= 0 && base_id != token->id)
        return qd_fail(QD_ERR_INPUT, err, errlen, "id %d, but in model.vocab it is %d", token->id, base_id);
    if (base_id < 0 && qd_vocab_get(vocab, token->id, &taken, &n_taken))
        return qd_fail(QD_ERR_INPUT, err, errlen, "id %d belongs to another token", token->id);
    return base_id < 0 ? qd_vocab_add(vocab, token->id, bytes, n, false, err, errlen) : QD_OK;
}

static qd_status add_tokens(struct loader *loader, char *err, size_t errlen)
{
    qd_tokenizer_t *tokenizer = loader->tokenizer;
    QD_TRY(qd_tokenizer_read_added(loader->fields, &tokenizer->added, err, errlen));
    QD_TRY(qd_added_sort(&tokenizer->added, err, errlen));
    for (size_t i = 0; i < tokenizer->added.n; i++) {
        const struct qd_added_token *token = &tokenizer->added.tokens[i];
        char reason[QD_ERR_LEN];
        qd_status status = place_added(loader, token, reason, sizeof reason);
        if (status != QD_OK)
            return qd_fail(status, err, errlen, "added_tokens: \"%.*s\": %s",
                           token->len < 100 ? (int)token->len : 100, token->content, reason);
    }
    tokenizer->special = calloc((size_t)tokenizer->vocab.size, sizeof *tokenizer->special);
    if (tokenizer->special == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "added_tokens");
    for (size_t i = 0; i < tokenizer->added.n; i++)
        tokenizer->special[tokenizer->added.tokens[i].id] = tokenizer->added.tokens[i].special;
    return QD_OK;
}

/* What the file said becomes a tokenizer, once all of it is read. */
static qd_status finish(struct loader *loader, char *err, size_t errlen)
{
    qd_tokenizer_t *tokenizer = loader->tokenizer;
    struct qd_tokenizer_settings settings;
    QD_TRY(qd_tokenizer_read_settings(loader->fields, loader->model, &settings, err, errlen));
    if (!loader->has_vocab) return qd_fail(QD_ERR_INPUT, err, errlen, "model.vocab: missing");
    if (!loader->has_merges) return qd_fail(QD_ERR_INPUT, err, errlen, "model.merges: missing");
    QD_TRY(find_bytes(tokenizer, err, errlen));
    QD_TRY(read_merges(loader, err, errlen));
    tokenizer->normalise = settings.normalise;
    tokenizer->base_size = tokenizer->vocab.size;
    tokenizer->word_state = calloc((size_t)tokenizer->base_size, sizeof *tokenizer->word_state);
    if (tokenizer->word_state == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "model.vocab");
    QD_TRY(add_tokens(loader, err, errlen));
    char *pattern, reason[QD_ERR_LEN];
    size_t len;
    qd_status status = qd_json_text(settings.pattern, &pattern, &len);
    if (status == QD_OK)
        status = qd_splitter_create(pattern, len, &tokenizer->splitter, reason, sizeof reason);
    else
        snprintf(reason, sizeof reason, "%s", qd_status_str(status));
    free(pattern);
    if (status != QD_OK)
        return qd_fail(status, err, errlen, "pre_tokenizer.pretokenizers[0].pattern.Regex: %s", reason);
    return QD_OK;
}

qd_status qd_tokenizer_parse(const char *json, size_t len, qd_tokenizer_t **out, char *err, size_t errlen)
{
    *out = NULL;
    /* The working strings are as long as the file, so that no string in it can outgrow them. */
    struct loader loader = {.tokenizer = calloc(1, sizeof *loader.tokenizer),
                            .fields = cJSON_CreateObject(),
                            .buffer = malloc(len + 1),
                            .left = malloc(len + 1),
                            .right = malloc(len + 1)};
    qd_status status = QD_OK;
    if (loader.tokenizer == NULL || loader.fields == NULL || loader.buffer == NULL || loader.left == NULL ||
        loader.right == NULL)
        status = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "tokenizer of %zu bytes", len);
    if (status == QD_OK) status = qd_json_reader_init(&loader.reader, json, len, MAX_DEPTH, err, errlen);
    if (status == QD_OK) status = read_file(&loader, err, errlen);
    if (status == QD_OK) status = finish(&loader, err, errlen);
    free(loader.right);
    free(loader.left);
    free(loader.buffer);
    cJSON_Delete(loader.model);
    cJSON_Delete(loader.fields);
    if (status == QD_OK)
        *out = loader.tokenizer;
    else
        qd_tokenizer_free(loader.tokenizer);
    return status;
}

qd_status qd_tokenizer_load(const char *dir, qd_tokenizer_t **out, char *err, size_t errlen)
{
    char folder[QD_PATH_LEN], path[QD_PATH_LEN], reason[QD_ERR_LEN], *text;
    size_t len;
    *out = NULL;
    QD_TRY(qd_model_dir_resolve(dir, folder, sizeof folder, err, errlen));
    QD_TRY(qd_model_path(folder, "tokenizer.json", path, sizeof path, err, errlen));
    QD_TRY(qd_file_read(path, MAX_FILE_BYTES, &text, &len, err, errlen));
    qd_status status = qd_tokenizer_parse(text, len, out, reason, sizeof reason);
    free(text);
    if (status != QD_OK) return qd_fail(status, err, errlen, "%.500s: %s", path, reason);
    return QD_OK;
}
