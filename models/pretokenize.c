#include "models/pretokenize.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* No character of an expression grows by more than a factor of 64 (\s, two characters, becomes one class). */
enum { MAX_PATTERN_LEN = 4096, MAX_GROWTH = 64, MAX_TRANSLATED_LEN = MAX_GROWTH * MAX_PATTERN_LEN };

/* Steps of matching before a text is given up: an expression that backtracks without end is refused instead
 * of waited for. Qwen's takes a few steps a byte at worst. */
enum { STEPS_PER_BYTE = 64, STEPS_AT_LEAST = 10000000, HEAP_KIB = 1 << 20 };

struct qd_splitter {
    pcre2_code *code;
    bool compiled_to_machine_code;
};

/* Unicode's White_Space, which is Oniguruma's \s. */
#define WHITE_SPACE                                                                                          \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"

_Static_assert(sizeof "[^" WHITE_SPACE "]" <= 2 * MAX_GROWTH, "\\s outgrows the translation's buffer");

/* Reads the expression piece by piece and writes what PCRE2 is to run. */
struct translation {
    const char *pattern;
    size_t len, at;
    bool in_class;
    char *out; /* [MAX_TRANSLATED_LEN] */
    size_t n;
};

static void emit(struct translation *t, const char *text, size_t len)
{
    memcpy(t->out + t->n, text, len);
    t->n += len;
}

static qd_status refuse(const struct translation *t, const char *what, char *err, size_t errlen)
{
    return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "character %zu of the expression: %s is not implemented",
                   t->at, what);
}

static bool is_punctuation(char c)
{
    return c > 0x20 && c < 0x7f && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", c) != NULL;
}

/* Length of \p{...} or \P{...}, or 0. */
static size_t property_len(const struct translation *t)
{
    const char *text = t->pattern + t->at, *end = memchr(text, '}', t->len - t->at);
    return end != NULL && t->at + 2 < t->len && text[2] == '{' ? (size_t)(end - text) + 1 : 0;
}

static qd_status translate_escape(struct translation *t, char *err, size_t errlen)
{
    char c = t->at + 1 < t->len ? t->pattern[t->at + 1] : 0;
    size_t n = 2;
    if (c == 's' && t->in_class) {
        emit(t, WHITE_SPACE, strlen(WHITE_SPACE));
    } else if (c == 's' || (c == 'S' && !t->in_class)) {
        emit(t, c == 's' ? "[" : "[^", c == 's' ? 1 : 2);
        emit(t, WHITE_SPACE "]", strlen(WHITE_SPACE "]"));
    } else if ((c == 'p' || c == 'P') && property_len(t) > 0) {
        n = property_len(t);
        emit(t, t->pattern + t->at, n);
    } else if (c == 'r' || c == 'n' || c == 't' || c == 'd' || is_punctuation(c)) {
        emit(t, t->pattern + t->at, n);
    } else {
        return refuse(t, "this escape", err, errlen);
    }
    t->at += n;
    return QD_OK;
}

/* "(", "(?:", "(?i:", look-ahead, look-behind and atomic groups mean the same to both engines. */
static qd_status translate_group(struct translation *t, char *err, size_t errlen)
{
    static const char *const kinds[] = {"?:", "?i:", "?=", "?!", "?<=", "?<!", "?>"};
    const char *rest = t->pattern + t->at + 1;
    size_t n_rest = t->len - t->at - 1, n = 1;
    if (n_rest > 0 && (rest[0] == '?' || rest[0] == '*')) {
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && n == 1; i++) {
            size_t len = strlen(kinds[i]);
            if (n_rest >= len && memcmp(rest, kinds[i], len) == 0) n += len;
        }
        if (n == 1) return refuse(t, "this kind of group", err, errlen);
    }
    emit(t, t->pattern + t->at, n);
    t->at += n;
    return QD_OK;
}

static qd_status open_class(struct translation *t)
{
    size_t n = t->at + 1 < t->len && t->pattern[t->at + 1] == '^' ? 2 : 1;
    emit(t, t->pattern + t->at, n);
    t->at += n;
    t->in_class = true;
    return QD_OK;
}

static qd_status translate_piece(struct translation *t, char *err, size_t errlen)
{
    char c = t->pattern[t->at], next = t->at + 1 < t->len ? t->pattern[t->at + 1] : 0;
    if (c == 0) return refuse(t, "U+0000", err, errlen);
    if (c == '\\') return translate_escape(t, err, errlen);
    if (t->in_class) {
        if (c == '[') return refuse(t, "'[' inside a class", err, errlen);
        if (c == '&' && next == '&') return refuse(t, "'&&' inside a class", err, errlen);
        if (c == ']') t->in_class = false;
    } else {
        if (c == '[') return open_class(t);
        if (c == '(') return translate_group(t, err, errlen);
        if (c == '^' || c == '$' || c == '.') return refuse(t, "'^', '$' or '.'", err, errlen);
        if (c == '}' && next == '+') return refuse(t, "'+' behind '}'", err, errlen);
    }
    emit(t, &c, 1);
    t->at++;
    return QD_OK;
}

static qd_status compile(qd_splitter_t *splitter, const char *pattern, size_t len, char *err, size_t errlen)
{
    int code;
    PCRE2_SIZE offset;
    splitter->code = pcre2_compile((PCRE2_SPTR)pattern, len, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                                   &code, &offset, NULL);
    if (splitter->code == NULL) {
        PCRE2_UCHAR reason[128];
        pcre2_get_error_message(code, reason, sizeof reason);
        return qd_fail(QD_ERR_INPUT, err, errlen, "the expression does not compile: %s",
                       (const char *)reason);
    }
    uint32_t matches_nothing = 0;
    pcre2_pattern_info(splitter->code, PCRE2_INFO_MATCHEMPTY, &matches_nothing);
    if (matches_nothing)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "an expression that matches no character at all");
    splitter->compiled_to_machine_code = pcre2_jit_compile(splitter->code, PCRE2_JIT_COMPLETE) == 0;
    return QD_OK;
}

qd_status qd_splitter_create(const char *pattern, size_t len, qd_splitter_t **out, char *err, size_t errlen)
{
    *out = NULL;
    if (len > MAX_PATTERN_LEN)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "an expression of %zu bytes, limit %d", len,
                       MAX_PATTERN_LEN);
    struct translation translation = {.pattern = pattern, .len = len, .out = malloc(MAX_TRANSLATED_LEN)};
    qd_splitter_t *splitter = calloc(1, sizeof *splitter);
    qd_status status = QD_OK;
    if (translation.out == NULL || splitter == NULL)
        status = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "regular expression");
    while (status == QD_OK && translation.at < len) status = translate_piece(&translation, err, errlen);
    if (status == QD_OK) status = compile(splitter, translation.out, translation.n, err, errlen);
    free(translation.out);
    if (status == QD_OK)
        *out = splitter;
    else
        qd_splitter_destroy(splitter);
    return status;
}

void qd_splitter_destroy(qd_splitter_t *splitter)
{
    if (splitter == NULL) return;
    pcre2_code_free(splitter->code);
    free(splitter);
}

qd_status qd_split_walk_init(struct qd_split_walk *walk, const qd_splitter_t *splitter, char *err,
                             size_t errlen)
{
    *walk = (struct qd_split_walk){.splitter = splitter,
                                   .match = pcre2_match_data_create_from_pattern(splitter->code, NULL),
                                   .limits = pcre2_match_context_create(NULL)};
    if (walk->match == NULL || walk->limits == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "regular expression");
    pcre2_set_heap_limit(walk->limits, HEAP_KIB);
    return QD_OK;
}

void qd_split_walk_free(struct qd_split_walk *walk)
{
    pcre2_match_context_free(walk->limits);
    pcre2_match_data_free(walk->match);
    *walk = (struct qd_split_walk){0};
}

void qd_split_walk_start(struct qd_split_walk *walk, const char *text, size_t len)
{
    walk->text = text;
    walk->len = len;
    walk->at = walk->match_begin = walk->match_end = 0;
    uint64_t steps = STEPS_AT_LEAST + (uint64_t)STEPS_PER_BYTE * len;
    pcre2_set_match_limit(walk->limits, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
}

/* One match from `at` on. Machine code works on 32 KiB of the thread's own stack; where that does not suffice
 * the interpreter, which takes memory from the heap, does the same match. */
static int match_once(struct qd_split_walk *walk)
{
    const qd_splitter_t *splitter = walk->splitter;
    PCRE2_SPTR text = (PCRE2_SPTR)walk->text;
    if (splitter->compiled_to_machine_code) {
        int code = pcre2_jit_match(splitter->code, text, walk->len, walk->at, 0, walk->match, walk->limits);
        if (code != PCRE2_ERROR_JIT_STACKLIMIT) return code;
    }
    return pcre2_match(splitter->code, text, walk->len, walk->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       walk->match, walk->limits);
}

static qd_status find_match(struct qd_split_walk *walk, char *err, size_t errlen)
{
    int code = match_once(walk);
    if (code == PCRE2_ERROR_NOMATCH) {
        walk->match_begin = walk->match_end = walk->len;
        return QD_OK;
    }
    if (code < 0) {
        PCRE2_UCHAR reason[128];
        pcre2_get_error_message(code, reason, sizeof reason);
        return qd_fail(QD_ERR_INPUT, err, errlen, "byte %zu: splitting the text into words: %s", walk->at,
                       (const char *)reason);
    }
    const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(walk->match);
    walk->match_begin = bounds[0];
    walk->match_end = bounds[1];
    /* The expression matches at least one character, forwards; \K is refused. */
    QD_ASSERT(walk->match_begin >= walk->at && walk->match_end > walk->match_begin);
    return QD_OK;
}

qd_status qd_split_walk_next(struct qd_split_walk *walk, size_t *begin, size_t *end, char *err, size_t errlen)
{
    if (walk->at < walk->len && walk->at >= walk->match_end) QD_TRY(find_match(walk, err, errlen));
    *begin = walk->at;
    *end = walk->at < walk->match_begin ? walk->match_begin : walk->match_end;
    walk->at = *end;
    return QD_OK;
}
