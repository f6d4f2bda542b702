#include "models/nfc.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "kernels/base/size.h"
#include "models/utf8.h"

/* The longest canonical decomposition of one code point (U+1F82 and its like). */
enum { MAX_EXPANSION = 4 };

bool qd_nfc_is_inert(uint32_t c)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0x4e00, 0x9fff},   /* unified ideographs */
        {0x3400, 0x4dff},   /* extension A, hexagrams */
        {0x309b, 0x33ff},   /* katakana (the hiragana before it end in two marks) */
        {0x3001, 0x3029},   /* punctuation */
        {0x3030, 0x3098},   /* hiragana */
        {0xac00, 0xd7a3},   /* Hangul syllables */
        {0x0400, 0x0482},   /* Cyrillic */
        {0x0388, 0x03ff},   /* Greek */
        {0x048a, 0x0590},   /* Cyrillic, Armenian */
        {0x1e00, 0x1eff},   /* Latin with diacritics */
        {0x2002, 0x20cf},   /* general punctuation, currency */
        {0xff00, 0xffef},   /* full and half width */
        {0x1f000, 0x1f9ff}, /* emoji */
    };
    if (c < 0x300) return true;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (c >= ranges[i].first && c <= ranges[i].last) return true;
    return false;
}

static bool is_all_inert(const char *text, size_t len)
{
    for (size_t at = 0, n; at < len; at += n) {
        if ((unsigned char)text[at] < 0x80)
            n = 1;
        else if (!qd_nfc_is_inert(qd_utf8_decode(text + at, &n)))
            return false;
    }
    return true;
}

/* A combining mark in a run that is being put in order. */
struct mark {
    utf8proc_int32_t code_point;
    utf8proc_propval_t combining_class;
    size_t place; /* keeps equal classes in their order */
};

static int compare_marks(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    if (x->combining_class != y->combining_class) return x->combining_class < y->combining_class ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

static utf8proc_propval_t combining_class(utf8proc_int32_t code_point)
{
    return utf8proc_get_property(code_point)->combining_class;
}

/* Canonical ordering: each run of marks is sorted by combining class. utf8proc's own ordering moves one place
 * at a time and takes quadratic time on a long run. */
static void order_marks(utf8proc_int32_t *text, size_t n, struct mark *marks)
{
    for (size_t i = 0; i < n;) {
        size_t run = 0;
        bool ordered = true;
        for (; i + run < n; run++) {
            utf8proc_propval_t class = combining_class(text[i + run]);
            if (class == 0) break;
            marks[run] = (struct mark){text[i + run], class, run};
            if (run > 0 && class < marks[run - 1].combining_class) ordered = false;
        }
        if (!ordered) {
            qsort(marks, run, sizeof *marks, compare_marks);
            for (size_t k = 0; k < run; k++) text[i + k] = marks[k].code_point;
        }
        i += run > 0 ? run : 1;
    }
}

/* Canonical decomposition, in order, then composition; returns the number of code points. */
static size_t compose(const char *text, size_t len, utf8proc_int32_t *code_points, struct mark *marks)
{
    size_t n = 0;
    for (size_t at = 0, width; at < len; at += width) {
        int boundary = 0;
        utf8proc_int32_t c = (utf8proc_int32_t)qd_utf8_decode(text + at, &width);
        utf8proc_ssize_t added =
            utf8proc_decompose_char(c, code_points + n, MAX_EXPANSION, UTF8PROC_DECOMPOSE, &boundary);
        QD_ASSERT(added >= 0 && added <= MAX_EXPANSION);
        n += (size_t)added;
    }
    order_marks(code_points, n, marks);
    utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(code_points, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    QD_ASSERT(composed >= 0);
    return (size_t)composed;
}

static size_t count_code_points(const char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

qd_status qd_nfc(const char *text, size_t len, char **out, size_t *out_len, char *err, size_t errlen)
{
    *out = NULL;
    *out_len = 0;
    if (is_all_inert(text, len)) return QD_OK;
    size_t room = MAX_EXPANSION * count_code_points(text, len), n = 0;
    utf8proc_int32_t *code_points = calloc(room, sizeof *code_points);
    struct mark *marks = calloc(room, sizeof *marks);
    char *bytes = NULL;
    if (code_points != NULL && marks != NULL) {
        size_t n_code_points = compose(text, len, code_points, marks);
        bytes = malloc(4 * n_code_points + 1);
        for (size_t i = 0; bytes != NULL && i < n_code_points; i++)
            n += qd_utf8_encode((uint32_t)code_points[i], bytes + n);
    }
    free(marks);
    free(code_points);
    if (bytes == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "normalising %zu bytes", len);
    *out = bytes;
    *out_len = n;
    return QD_OK;
}
