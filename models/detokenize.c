/* Token ids to text, all at once or as they arrive; both are the same walk. */
#include <stdlib.h>
#include <string.h>

#include "models/tokenizer_impl.h"
#include "models/utf8.h"

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
enum { REPLACEMENT_LEN = 3 };

void qd_detokenizer_init(struct qd_detokenizer *detokenizer, const qd_tokenizer_t *tokenizer,
                         bool skip_special)
{
    *detokenizer = (struct qd_detokenizer){.tokenizer = tokenizer, .skip_special = skip_special};
}

void qd_detokenizer_free(struct qd_detokenizer *detokenizer)
{
    free(detokenizer->text);
    *detokenizer = (struct qd_detokenizer){0};
}

/* Room for what n more bytes can become, pending ones and a closing byte 0 included. */
static qd_status reserve_text(struct qd_detokenizer *d, size_t n, char *err, size_t errlen)
{
    size_t needed = REPLACEMENT_LEN * (n + sizeof d->pending) + 1;
    if (d->text != NULL && d->room - d->len >= needed) return QD_OK;
    size_t room = d->room + d->room / 2 + needed;
    char *text = realloc(d->text, room);
    if (text == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu bytes of text", room);
    d->text = text;
    d->room = room;
    return QD_OK;
}

static void append(struct qd_detokenizer *d, const char *bytes, size_t n)
{
    memcpy(d->text + d->len, bytes, n);
    d->len += n;
}

/* Appends what is complete at the front of bytes and returns how many were used; an incomplete sequence at
 * the end stays. */
static size_t append_complete(struct qd_detokenizer *d, const char *bytes, size_t len)
{
    size_t at = 0;
    while (at < len) {
        size_t n;
        enum qd_utf8_kind kind = qd_utf8_step(bytes + at, len - at, &n);
        if (kind == QD_UTF8_INCOMPLETE) break;
        if (kind == QD_UTF8_VALID)
            append(d, bytes + at, n);
        else
            append(d, replacement, REPLACEMENT_LEN);
        at += n;
    }
    return at;
}

static qd_status feed(struct qd_detokenizer *d, const char *bytes, size_t len, char *err, size_t errlen)
{
    QD_TRY(reserve_text(d, len, err, errlen));
    /* Byte by byte until nothing is pending: a byte completes the sequence, or shows that it was ill-formed
     * and perhaps starts the next. */
    for (; d->n_pending > 0 && len > 0; bytes++, len--) {
        d->pending[d->n_pending++] = *bytes;
        size_t used = append_complete(d, d->pending, d->n_pending);
        d->n_pending -= used;
        memmove(d->pending, d->pending + used, d->n_pending);
    }
    if (len == 0) return QD_OK;
    size_t used = append_complete(d, bytes, len);
    d->n_pending = len - used;
    memcpy(d->pending, bytes + used, d->n_pending);
    return QD_OK;
}

/* Feeds the bytes of a token, if it has any and is not to be left out. */
static qd_status feed_token(struct qd_detokenizer *d, int32_t id, char *err, size_t errlen)
{
    const char *bytes = "";
    size_t len = 0;
    if (!(d->skip_special && qd_tokenizer_is_special(d->tokenizer, id)))
        (void)qd_tokenizer_get(d->tokenizer, id, &bytes, &len);
    return feed(d, bytes, len, err, errlen);
}

/* What is pending has no rest: it is one maximal ill-formed part. */
static void flush(struct qd_detokenizer *d)
{
    if (d->n_pending > 0) append(d, replacement, REPLACEMENT_LEN);
    d->n_pending = 0;
}

qd_status qd_detokenizer_push(struct qd_detokenizer *d, int32_t id, const char **text, size_t *len, char *err,
                              size_t errlen)
{
    d->len = 0;
    QD_TRY(feed_token(d, id, err, errlen));
    *text = d->text;
    *len = d->len;
    return QD_OK;
}

qd_status qd_detokenizer_finish(struct qd_detokenizer *d, const char **text, size_t *len, char *err,
                                size_t errlen)
{
    d->len = 0;
    QD_TRY(reserve_text(d, 0, err, errlen));
    flush(d);
    *text = d->text;
    *len = d->len;
    return QD_OK;
}

qd_status qd_tokenizer_decode(const qd_tokenizer_t *tokenizer, const int32_t *ids, size_t n_ids,
                              bool skip_special, char **text, size_t *len, char *err, size_t errlen)
{
    struct qd_detokenizer d;
    qd_detokenizer_init(&d, tokenizer, skip_special);
    *text = NULL;
    *len = 0;
    qd_status status = reserve_text(&d, 0, err, errlen);
    for (size_t i = 0; i < n_ids && status == QD_OK; i++) status = feed_token(&d, ids[i], err, errlen);
    if (status != QD_OK) {
        qd_detokenizer_free(&d);
        return status;
    }
    flush(&d);
    d.text[d.len] = 0;
    *text = d.text;
    *len = d.len;
    return QD_OK;
}
