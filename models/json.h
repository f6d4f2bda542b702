/* Strict JSON reading over cJSON (core only): whole files, bounded depth and size, no duplicate keys, numbers
 * that are what they claim to be, and strings that may hold U+0000.
 *
 * cJSON ends strings at U+0000. The parser therefore hands it "\u0000" as the two bytes C0 80 (never valid in
 * UTF-8, which is checked first); qd_json_text turns them back into a byte 0 with an explicit length.
 */
#ifndef QD_MODELS_JSON_H
#define QD_MODELS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "kernels/base/status.h"
#include "models/utf8.h"

/* Parses exactly one JSON value from text[0..len) (surrounding white space allowed).
 * QD_ERR_INPUT with byte offset and reason: invalid UTF-8, syntax, trailing data, deeper than max_depth,
 * a number beyond the doubles, one whose double would pass for another integer up to 2^53 (9007199254740993),
 * one of more than 63 bytes; with the key: a duplicate key. limits NULL: all zero. The caller deletes *out
 * with cJSON_Delete. */
struct qd_json_limits {
    int max_depth; /* 0: 512, which is also the most */
    bool allow_duplicate_keys;
};
qd_status qd_json_parse(const char *text, size_t len, const struct qd_json_limits *limits, cJSON **out,
                        char *err, size_t errlen);

/* Reads a regular file whole; *text has a terminating byte 0 beyond *len and is freed by the caller.
 * QD_ERR_NOT_FOUND, QD_ERR_IO, QD_ERR_TOO_LARGE (above max_bytes); err names the file. */
qd_status qd_file_read(const char *path, size_t max_bytes, char **text, size_t *len, char *err,
                       size_t errlen);

/* qd_file_read and qd_json_parse; err starts with the path. */
qd_status qd_json_read_file(const char *path, size_t max_bytes, cJSON **out, char *err, size_t errlen);

/* Typed members of an object. Absent or null: QD_ERR_NOT_FOUND (err names the key). Wrong type, a fraction,
 * or outside [min, max] (|value| <= 2^53): QD_ERR_INPUT. */
qd_status qd_json_get_int(const cJSON *object, const char *key, int64_t min, int64_t max, int64_t *out,
                          char *err, size_t errlen);
qd_status qd_json_get_number(const cJSON *object, const char *key, double *out, char *err, size_t errlen);
qd_status qd_json_get_bool(const cJSON *object, const char *key, bool *out, char *err, size_t errlen);
/* *out stays owned by the object. */
qd_status qd_json_get_string(const cJSON *object, const char *key, const char **out, char *err,
                             size_t errlen);

/* The UTF-8 bytes of a parsed string with its U+0000 restored; the caller frees *out. */
qd_status qd_json_text(const cJSON *string, char **out, size_t *len);

/* Writes text[0..len) (valid UTF-8, U+0000 allowed) as a JSON string literal, quotes included, characters
 * beyond ASCII as they are; NULL when out of memory; the caller frees it. */
char *qd_json_quote(const char *text, size_t len);

#endif
