/* A pull reader for JSON text (RFC 8259, strictly): one token at a time, nothing allocated.
 *
 * It is the one place that decides whether a text is JSON: qd_json_parse runs it before cJSON builds a tree,
 * and readers of very large files (a tokenizer's vocabulary) use it instead of a tree.
 */
#ifndef QD_MODELS_JSON_SCAN_H
#define QD_MODELS_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum { QD_JSON_MAX_DEPTH = 512 }; /* below cJSON's own limit of 1000 */

enum qd_json_kind {
    QD_JSON_OBJECT,
    QD_JSON_OBJECT_END,
    QD_JSON_ARRAY,
    QD_JSON_ARRAY_END,
    QD_JSON_KEY,
    QD_JSON_STRING,
    QD_JSON_NUMBER,
    QD_JSON_TRUE,
    QD_JSON_FALSE,
    QD_JSON_NULL,
    QD_JSON_END /* the value is complete and nothing but white space follows */
};

struct qd_json_token {
    enum qd_json_kind kind;
    size_t begin; /* byte offset of the token in the text; of a key or string: behind its quote */
    size_t len;   /* bytes; of a key or string: without quotes, escapes as written */
    bool escaped; /* key or string: holds a backslash */
    bool zero;    /* key or string: holds \u0000 */
};

struct qd_json_reader {
    const char *text;
    size_t len, pos;
    int depth, max_depth;
    int expect; /* what the grammar allows next */
    bool in_object[QD_JSON_MAX_DEPTH];
};

/* Checks that the text is UTF-8 and starts a reader on it; the text stays the caller's and outlives the
 * reader. max_depth <= 0 or above QD_JSON_MAX_DEPTH means QD_JSON_MAX_DEPTH. */
qd_status qd_json_reader_init(struct qd_json_reader *reader, const char *text, size_t len, int max_depth,
                              char *err, size_t errlen);

/* The next token. QD_ERR_INPUT with byte offset and reason. After QD_JSON_END it gives QD_JSON_END again. */
qd_status qd_json_read(struct qd_json_reader *reader, struct qd_json_token *token, char *err, size_t errlen);

/* Reads to the end of the value whose first token is `first`; *end is the offset behind it. */
qd_status qd_json_skip(struct qd_json_reader *reader, const struct qd_json_token *first, size_t *end,
                       char *err, size_t errlen);

/* The UTF-8 bytes of a key or string that the reader accepted, U+0000 as a byte 0; out holds len bytes, which
 * is always enough. Returns the number of bytes written. */
size_t qd_json_unescape(const char *span, size_t len, char *out);

/* The value of a number token; its text is at most 63 bytes. */
double qd_json_number(const struct qd_json_reader *reader, const struct qd_json_token *token);

#endif
