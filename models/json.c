#include "models/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/size.h"
#include "models/json_scan.h"

/* Reads the whole text once by the strict grammar; *has_zero says whether a string holds \u0000. */
static qd_status check_grammar(const char *text, size_t len, int max_depth, bool *has_zero, char *err,
                               size_t errlen)
{
    struct qd_json_reader reader;
    QD_TRY(qd_json_reader_init(&reader, text, len, max_depth, err, errlen));
    struct qd_json_token token;
    *has_zero = false;
    do {
        QD_TRY(qd_json_read(&reader, &token, err, errlen));
        if (token.zero) *has_zero = true;
    } while (token.kind != QD_JSON_END);
    return QD_OK;
}

/* Copies the text with each \u0000 replaced by C0 80. The grammar has been checked: a backslash is always
 * inside a string and followed by a complete escape. */
static char *replace_zeros(const char *text, size_t len, size_t *new_len)
{
    char *copy = malloc(len + 1);
    if (copy == NULL) return NULL;
    size_t n = 0;
    for (size_t at = 0; at < len;) {
        if (text[at] != '\\') {
            copy[n++] = text[at++];
        } else if (text[at + 1] == 'u' && memcmp(text + at + 2, "0000", 4) == 0) {
            memcpy(copy + n, "\xc0\x80", 2);
            n += 2;
            at += 6;
        } else {
            copy[n++] = text[at++];
            copy[n++] = text[at++];
        }
    }
    *new_len = n;
    return copy;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static qd_status check_object_keys(const cJSON *object, char *err, size_t errlen)
{
    size_t n_keys = 0, i = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next) n_keys++;
    if (n_keys < 2) return QD_OK;
    const char **keys = calloc(n_keys, sizeof *keys);
    if (keys == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%zu keys", n_keys);
    for (const cJSON *member = object->child; member != NULL; member = member->next)
        keys[i++] = member->string;
    qsort(keys, n_keys, sizeof *keys, compare_keys);
    qd_status status = QD_OK;
    for (i = 1; i < n_keys && status == QD_OK; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            status = qd_fail(QD_ERR_INPUT, err, errlen, "duplicate key \"%.200s\"", keys[i]);
    free(keys);
    return status;
}

/* Recursion is bounded by the depth limit of the grammar check. */
static qd_status check_keys(const cJSON *value, char *err, size_t errlen)
{
    if (cJSON_IsObject(value)) QD_TRY(check_object_keys(value, err, errlen));
    if (!cJSON_IsObject(value) && !cJSON_IsArray(value)) return QD_OK;
    for (const cJSON *child = value->child; child != NULL; child = child->next)
        QD_TRY(check_keys(child, err, errlen));
    return QD_OK;
}

qd_status qd_json_parse(const char *text, size_t len, const struct qd_json_limits *limits, cJSON **out,
                        char *err, size_t errlen)
{
    const struct qd_json_limits defaults = {0};
    if (limits == NULL) limits = &defaults;
    *out = NULL;
    bool has_zero;
    QD_TRY(check_grammar(text, len, limits->max_depth, &has_zero, err, errlen));
    char *copy = NULL;
    if (has_zero) {
        copy = replace_zeros(text, len, &len);
        if (copy == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "copy of %zu bytes of JSON", len);
    }
    cJSON *root = cJSON_ParseWithLengthOpts(copy != NULL ? copy : text, len, NULL, false);
    free(copy);
    /* The grammar holds, so cJSON can only have run out of memory. */
    if (root == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "tree of %zu bytes of JSON", len);
    qd_status status = limits->allow_duplicate_keys ? QD_OK : check_keys(root, err, errlen);
    if (status == QD_OK)
        *out = root;
    else
        cJSON_Delete(root);
    return status;
}

/* Reads exactly `size` bytes. */
static qd_status read_fully(int fd, const char *path, char *buffer, size_t size, char *err, size_t errlen)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, buffer + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return qd_fail(QD_ERR_IO, err, errlen, "%s: %s", path, strerror(errno));
        if (n == 0) return qd_fail(QD_ERR_IO, err, errlen, "%s: became shorter while being read", path);
        done += (size_t)n;
    }
    return QD_OK;
}

static qd_status read_open_file(int fd, const char *path, size_t max_bytes, char **text, size_t *len,
                                char *err, size_t errlen)
{
    struct stat info;
    if (fstat(fd, &info) != 0) return qd_fail(QD_ERR_IO, err, errlen, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: not a regular file", path);
    size_t size = (size_t)info.st_size;
    if (size > max_bytes || size == SIZE_MAX)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: %zu bytes, limit %zu", path, size, max_bytes);
    char *buffer = malloc(size + 1);
    if (buffer == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: %zu bytes", path, size);
    qd_status status = read_fully(fd, path, buffer, size, err, errlen);
    if (status != QD_OK) {
        free(buffer);
        return status;
    }
    buffer[size] = 0;
    *text = buffer;
    *len = size;
    return QD_OK;
}

qd_status qd_file_read(const char *path, size_t max_bytes, char **text, size_t *len, char *err, size_t errlen)
{
    *text = NULL;
    *len = 0;
    /* Not blocking, so that a named pipe is refused instead of waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        qd_status status = errno == ENOENT || errno == ENOTDIR ? QD_ERR_NOT_FOUND : QD_ERR_IO;
        return qd_fail(status, err, errlen, "%s: %s", path, strerror(errno));
    }
    qd_status status = read_open_file(fd, path, max_bytes, text, len, err, errlen);
    close(fd);
    return status;
}

qd_status qd_json_read_file(const char *path, size_t max_bytes, cJSON **out, char *err, size_t errlen)
{
    char *text, reason[QD_ERR_LEN];
    size_t len;
    *out = NULL;
    QD_TRY(qd_file_read(path, max_bytes, &text, &len, err, errlen));
    qd_status status = qd_json_parse(text, len, NULL, out, reason, sizeof reason);
    free(text);
    if (status != QD_OK) return qd_fail(status, err, errlen, "%s: %s", path, reason);
    return QD_OK;
}

/* The member `key`; QD_ERR_NOT_FOUND when it is absent or null. */
static qd_status find_member(const cJSON *object, const char *key, const cJSON **member, char *err,
                             size_t errlen)
{
    *member = cJSON_GetObjectItemCaseSensitive(object, key);
    if (*member == NULL || cJSON_IsNull(*member))
        return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "%s: missing", key);
    return QD_OK;
}

qd_status qd_json_get_number(const cJSON *object, const char *key, double *out, char *err, size_t errlen)
{
    const cJSON *member;
    QD_TRY(find_member(object, key, &member, err, errlen));
    if (!cJSON_IsNumber(member)) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: not a number", key);
    *out = member->valuedouble;
    return QD_OK;
}

qd_status qd_json_get_int(const cJSON *object, const char *key, int64_t min, int64_t max, int64_t *out,
                          char *err, size_t errlen)
{
    double value;
    QD_TRY(qd_json_get_number(object, key, &value, err, errlen));
    /* NaN and infinities do not pass: only a finite value equals its own floor within the bound. */
    if (!(fabs(value) <= 0x1p53))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %g is beyond 2^53", key, value);
    if (value != floor(value))
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %g is not an integer", key, value);
    int64_t integer = (int64_t)value;
    if (integer < min || integer > max)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s: %lld is outside %lld .. %lld", key, (long long)integer,
                       (long long)min, (long long)max);
    *out = integer;
    return QD_OK;
}

qd_status qd_json_get_bool(const cJSON *object, const char *key, bool *out, char *err, size_t errlen)
{
    const cJSON *member;
    QD_TRY(find_member(object, key, &member, err, errlen));
    if (!cJSON_IsBool(member)) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: not true or false", key);
    *out = cJSON_IsTrue(member);
    return QD_OK;
}

qd_status qd_json_get_string(const cJSON *object, const char *key, const char **out, char *err, size_t errlen)
{
    const cJSON *member;
    QD_TRY(find_member(object, key, &member, err, errlen));
    if (!cJSON_IsString(member)) return qd_fail(QD_ERR_INPUT, err, errlen, "%s: not a string", key);
    *out = member->valuestring;
    return QD_OK;
}

qd_status qd_json_text(const cJSON *string, char **out, size_t *len)
{
    *out = NULL;
    *len = 0;
    if (!cJSON_IsString(string)) return QD_ERR_INPUT;
    const char *from = string->valuestring;
    char *to = malloc(strlen(from) + 1);
    if (to == NULL) return QD_ERR_NO_MEMORY;
    size_t n = 0;
    while (*from != 0) {
        bool zero = from[0] == '\xc0' && from[1] == '\x80';
        to[n++] = zero ? 0 : *from;
        from += zero ? 2 : 1;
    }
    to[n] = 0;
    *out = to;
    *len = n;
    return QD_OK;
}

/* The letter after the backslash of a short escape, or 0. */
static char short_escape(unsigned char c)
{
    switch (c) {
    case '"': return '"';
    case '\\': return '\\';
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 0;
    }
}

char *qd_json_quote(const char *text, size_t len)
{
    size_t room;
    if (!qd_size_mul(len, 6, &room) || !qd_size_add(room, 3, &room)) return NULL;
    char *out = malloc(room);
    if (out == NULL) return NULL;
    size_t n = 0;
    out[n++] = '"';
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        char escape = short_escape(c);
        if (escape != 0) {
            out[n++] = '\\';
            out[n++] = escape;
        } else if (c < 0x20) {
            n += (size_t)snprintf(out + n, 7, "\\u%04x", c);
        } else {
            out[n++] = (char)c;
        }
    }
    out[n++] = '"';
    out[n] = 0;
    return out;
}
