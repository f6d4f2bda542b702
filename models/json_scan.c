#include "models/json_scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/utf8.h"

enum {
    EXPECT_VALUE,
    EXPECT_VALUE_OR_END,
    EXPECT_KEY,
    EXPECT_KEY_OR_END,
    EXPECT_COMMA_OR_END,
    EXPECT_NOTHING
};

/* cJSON copies a number into a buffer of 64 bytes and would cut a longer one in two. */
enum { MAX_NUMBER_LEN = 63 };

static qd_status fail_at(size_t offset, const char *reason, char *err, size_t errlen)
{
    return qd_fail(QD_ERR_INPUT, err, errlen, "byte %zu: %s", offset, reason);
}

qd_status qd_json_reader_init(struct qd_json_reader *reader, const char *text, size_t len, int max_depth,
                              char *err, size_t errlen)
{
    bool default_depth = max_depth <= 0 || max_depth > QD_JSON_MAX_DEPTH;
    reader->text = text;
    reader->len = len;
    reader->pos = 0;
    reader->depth = 0;
    reader->max_depth = default_depth ? QD_JSON_MAX_DEPTH : max_depth;
    reader->expect = EXPECT_VALUE;
    size_t valid = qd_utf8_check(text, len);
    if (valid != len) return fail_at(valid, "invalid UTF-8", err, errlen);
    return QD_OK;
}

static void skip_space(struct qd_json_reader *reader)
{
    while (reader->pos < reader->len) {
        char c = reader->text[reader->pos];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
        reader->pos++;
    }
}

/* What may follow a complete value. */
static void value_done(struct qd_json_reader *reader)
{
    reader->expect = reader->depth == 0 ? EXPECT_NOTHING : EXPECT_COMMA_OR_END;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Four hexadecimal digits at text[0..4), or -1. */
static int32_t hex4(const char *text, size_t len)
{
    if (len < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(text[i]);
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

static bool is_high_surrogate(int32_t unit)
{
    return unit >= 0xd800 && unit < 0xdc00;
}

static bool is_low_surrogate(int32_t unit)
{
    return unit >= 0xdc00 && unit < 0xe000;
}

/* Length of the escape at text[0] == '\\' (2, 6, or 12 for a surrogate pair) and its code point; 0 when it is
 * none. A surrogate alone has no UTF-8 form and is none. */
static size_t read_escape(const char *text, size_t len, uint32_t *code_point)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (len < 2) return 0;
    if (text[1] != 'u') {
        const char *name = text[1] != 0 ? strchr(names, text[1]) : NULL;
        if (name == NULL) return 0;
        *code_point = (unsigned char)values[name - names];
        return 2;
    }
    int32_t unit = hex4(text + 2, len - 2);
    if (unit < 0 || is_low_surrogate(unit)) return 0;
    *code_point = (uint32_t)unit;
    if (!is_high_surrogate(unit)) return 6;
    if (len < 12 || text[6] != '\\' || text[7] != 'u') return 0;
    int32_t low = hex4(text + 8, len - 8);
    if (!is_low_surrogate(low)) return 0;
    *code_point = 0x10000u + ((uint32_t)(unit - 0xd800) << 10 | (uint32_t)(low - 0xdc00));
    return 12;
}

static qd_status read_string(struct qd_json_reader *reader, struct qd_json_token *token, char *err,
                             size_t errlen)
{
    const char *text = reader->text;
    size_t start = reader->pos, at = start + 1;
    token->begin = at;
    token->escaped = token->zero = false;
    for (; at < reader->len; at++) {
        unsigned char c = (unsigned char)text[at];
        if (c == '"') {
            token->len = at - token->begin;
            reader->pos = at + 1;
            return QD_OK;
        }
        if (c < 0x20) return fail_at(at, "control character in a string", err, errlen);
        if (c != '\\') continue;
        uint32_t code_point;
        size_t n = read_escape(text + at, reader->len - at, &code_point);
        if (n == 0) return fail_at(at, "bad escape in a string", err, errlen);
        token->escaped = true;
        if (code_point == 0) token->zero = true;
        at += n - 1;
    }
    return fail_at(start, "string without an end", err, errlen);
}

static size_t count_digits(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && text[n] >= '0' && text[n] <= '9') n++;
    return n;
}

/* Length of the number at text[0] by JSON's grammar, 0 when there is none. */
static size_t number_len(const char *text, size_t len)
{
    size_t at = len > 0 && text[0] == '-' ? 1 : 0;
    size_t digits = count_digits(text + at, len - at);
    if (digits == 0) return 0;
    if (text[at] == '0') digits = 1;
    at += digits;
    if (at < len && text[at] == '.') {
        digits = count_digits(text + at + 1, len - at - 1);
        if (digits == 0) return 0;
        at += 1 + digits;
    }
    if (at < len && (text[at] == 'e' || text[at] == 'E')) {
        size_t sign = at + 1 < len && (text[at + 1] == '+' || text[at + 1] == '-') ? 1 : 0;
        digits = count_digits(text + at + 1 + sign, len - at - 1 - sign);
        if (digits == 0) return 0;
        at += 1 + sign + digits;
    }
    return at;
}

/* digits * 10^n; false when it does not fit. */
static bool scale_by_ten(int64_t *digits, int64_t n)
{
    for (; n > 0 && *digits != 0; n--)
        if (__builtin_mul_overflow(*digits, (int64_t)10, digits)) return false;
    return true;
}

/* Whether the number written in text (size at most 2^53) is the integer `expected` exactly, signs left out.
 * Its digits and exponent are taken apart, with trailing zeros of the digits moved into the exponent. */
static bool is_exactly(const char *text, int64_t expected)
{
    int64_t digits = 0, exponent = 0, zeros = 0;
    bool fraction = false;
    const char *at = text;
    for (; *at != 0 && *at != 'e' && *at != 'E'; at++) {
        if (*at == '.') fraction = true;
        if (*at < '0' || *at > '9') continue;
        if (fraction) exponent--;
        zeros++;
        if (*at == '0') continue; /* counted; appended only when another digit follows */
        if (!scale_by_ten(&digits, zeros) || __builtin_add_overflow(digits, (int64_t)(*at - '0'), &digits))
            return false;
        zeros = 0;
    }
    if (digits == 0) return expected == 0;
    exponent += zeros;
    if (*at != 0) {
        int64_t written = strtol(at + 1, NULL, 10);
        if (written < -1000 || written > 1000) return false;
        exponent += written;
    }
    return exponent >= 0 && scale_by_ten(&digits, exponent) && digits == expected;
}

/* Digits only, few enough for an exact double: nearly all numbers of a vocabulary. */
static bool is_short_integer(const char *text, size_t len)
{
    return len <= 15 && count_digits(text, len) == len;
}

/* A terminated copy: the text around a number may end right behind it. */
static void copy_number(const struct qd_json_reader *reader, const struct qd_json_token *token,
                        char copy[MAX_NUMBER_LEN + 1])
{
    memcpy(copy, reader->text + token->begin, token->len);
    copy[token->len] = 0;
}

double qd_json_number(const struct qd_json_reader *reader, const struct qd_json_token *token)
{
    const char *text = reader->text + token->begin;
    if (is_short_integer(text, token->len)) {
        int64_t value = 0;
        for (size_t i = 0; i < token->len; i++) value = 10 * value + (text[i] - '0');
        return (double)value;
    }
    char copy[MAX_NUMBER_LEN + 1];
    copy_number(reader, token, copy);
    return strtod(copy, NULL);
}

/* A double that looks like an exact integer must be what the text says: 2^53 + 1 and 1.00000000000000000001
 * round to integers that nobody wrote. */
static qd_status check_number(const struct qd_json_reader *reader, const struct qd_json_token *token,
                              char *err, size_t errlen)
{
    char copy[MAX_NUMBER_LEN + 1];
    copy_number(reader, token, copy);
    double value = strtod(copy, NULL);
    if (!isfinite(value)) return fail_at(token->begin, "number out of range", err, errlen);
    double size = fabs(value);
    if (size > 0x1p53 || size != floor(size)) return QD_OK;
    if (!is_exactly(copy, (int64_t)size))
        return fail_at(token->begin, "number cannot be held exactly enough", err, errlen);
    return QD_OK;
}

static qd_status read_number(struct qd_json_reader *reader, struct qd_json_token *token, char *err,
                             size_t errlen)
{
    token->kind = QD_JSON_NUMBER;
    token->begin = reader->pos;
    token->len = number_len(reader->text + reader->pos, reader->len - reader->pos);
    if (token->len == 0) return fail_at(token->begin, "malformed number", err, errlen);
    if (token->len > MAX_NUMBER_LEN) return fail_at(token->begin, "number longer than 63 bytes", err, errlen);
    if (!is_short_integer(reader->text + token->begin, token->len))
        QD_TRY(check_number(reader, token, err, errlen));
    reader->pos += token->len;
    value_done(reader);
    return QD_OK;
}

static qd_status read_word(struct qd_json_reader *reader, struct qd_json_token *token, char *err,
                           size_t errlen)
{
    static const struct {
        const char *word;
        enum qd_json_kind kind;
    } words[] = {{"true", QD_JSON_TRUE}, {"false", QD_JSON_FALSE}, {"null", QD_JSON_NULL}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t len = strlen(words[i].word);
        if (reader->len - reader->pos < len || memcmp(reader->text + reader->pos, words[i].word, len) != 0)
            continue;
        *token = (struct qd_json_token){.kind = words[i].kind, .begin = reader->pos, .len = len};
        reader->pos += len;
        value_done(reader);
        return QD_OK;
    }
    return fail_at(reader->pos, "expected a value", err, errlen);
}

static qd_status open_container(struct qd_json_reader *reader, struct qd_json_token *token, bool object,
                                char *err, size_t errlen)
{
    if (reader->depth == reader->max_depth)
        return qd_fail(QD_ERR_INPUT, err, errlen, "byte %zu: nested deeper than %d", reader->pos,
                       reader->max_depth);
    token->kind = object ? QD_JSON_OBJECT : QD_JSON_ARRAY;
    token->begin = reader->pos;
    reader->in_object[reader->depth++] = object;
    reader->expect = object ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END;
    reader->pos++;
    return QD_OK;
}

static qd_status close_container(struct qd_json_reader *reader, struct qd_json_token *token)
{
    reader->depth--;
    token->kind = reader->in_object[reader->depth] ? QD_JSON_OBJECT_END : QD_JSON_ARRAY_END;
    reader->pos++;
    value_done(reader);
    return QD_OK;
}

static qd_status read_value(struct qd_json_reader *reader, struct qd_json_token *token, char *err,
                            size_t errlen)
{
    char c = reader->text[reader->pos];
    if (c == '{' || c == '[') return open_container(reader, token, c == '{', err, errlen);
    if (c == '-' || (c >= '0' && c <= '9')) return read_number(reader, token, err, errlen);
    if (c != '"') return read_word(reader, token, err, errlen);
    token->kind = QD_JSON_STRING;
    QD_TRY(read_string(reader, token, err, errlen));
    value_done(reader);
    return QD_OK;
}

static qd_status read_key(struct qd_json_reader *reader, struct qd_json_token *token, char *err,
                          size_t errlen)
{
    if (reader->text[reader->pos] != '"') return fail_at(reader->pos, "expected a key", err, errlen);
    token->kind = QD_JSON_KEY;
    QD_TRY(read_string(reader, token, err, errlen));
    skip_space(reader);
    if (reader->pos == reader->len || reader->text[reader->pos] != ':')
        return fail_at(reader->pos, "expected ':'", err, errlen);
    reader->pos++;
    reader->expect = EXPECT_VALUE;
    return QD_OK;
}

/* Takes the comma between members, if one is due. */
static qd_status take_comma(struct qd_json_reader *reader, char *err, size_t errlen)
{
    bool object = reader->in_object[reader->depth - 1];
    if (reader->text[reader->pos] != ',')
        return fail_at(reader->pos, object ? "expected ',' or '}'" : "expected ',' or ']'", err, errlen);
    reader->pos++;
    reader->expect = object ? EXPECT_KEY : EXPECT_VALUE;
    skip_space(reader);
    return QD_OK;
}

qd_status qd_json_read(struct qd_json_reader *reader, struct qd_json_token *token, char *err, size_t errlen)
{
    skip_space(reader);
    *token = (struct qd_json_token){.kind = QD_JSON_END, .begin = reader->pos};
    if (reader->expect == EXPECT_NOTHING) {
        if (reader->pos == reader->len) return QD_OK;
        return fail_at(reader->pos, "something follows the value", err, errlen);
    }
    if (reader->pos < reader->len && reader->expect != EXPECT_VALUE && reader->expect != EXPECT_KEY &&
        reader->text[reader->pos] == (reader->in_object[reader->depth - 1] ? '}' : ']'))
        return close_container(reader, token);
    if (reader->pos < reader->len && reader->expect == EXPECT_COMMA_OR_END)
        QD_TRY(take_comma(reader, err, errlen));
    if (reader->pos == reader->len) return fail_at(reader->pos, "the text ends too early", err, errlen);
    if (reader->expect == EXPECT_KEY || reader->expect == EXPECT_KEY_OR_END)
        return read_key(reader, token, err, errlen);
    return read_value(reader, token, err, errlen);
}

qd_status qd_json_skip(struct qd_json_reader *reader, const struct qd_json_token *first, size_t *end,
                       char *err, size_t errlen)
{
    if (first->kind == QD_JSON_OBJECT || first->kind == QD_JSON_ARRAY) {
        int outside = reader->depth - 1;
        struct qd_json_token token;
        while (reader->depth > outside) QD_TRY(qd_json_read(reader, &token, err, errlen));
    }
    *end = reader->pos;
    return QD_OK;
}

size_t qd_json_unescape(const char *span, size_t len, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < len;) {
        if (span[at] != '\\') {
            out[n++] = span[at++];
            continue;
        }
        uint32_t code_point = 0;
        at += read_escape(span + at, len - at, &code_point);
        n += qd_utf8_encode(code_point, out + n);
    }
    return n;
}
