/* Normalisation against utf8proc's own, on every code point and on random sequences. */
#include "tests/support/test.h"

#include <utf8proc.h>

#include "kernels/base/random.h"
#include "models/nfc.h"
#include "models/utf8.h"

enum { LAST_CODE_POINT = 0x10ffff };

static bool is_scalar(uint32_t c)
{
    return c < 0xd800 || c > 0xdfff;
}

/* Checks qd_nfc on a text without U+0000 and says whether it changed. */
static bool check_against_utf8proc(const char *text, size_t len)
{
    char err[QD_ERR_LEN] = "", *out;
    size_t out_len;
    utf8proc_uint8_t *expected = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &expected,
                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    assert_true(n >= 0);
    ASSERT_OK(qd_nfc(text, len, &out, &out_len, err, sizeof err), err);
    const char *result = out != NULL ? out : text;
    if (out == NULL) out_len = len;
    if (out_len != (size_t)n || memcmp(result, expected, out_len) != 0) {
        for (size_t i = 0; i < len; i++) printf("%02x", (unsigned char)text[i]);
        fail_msg(" is normalised otherwise");
    }
    bool changed = out_len != len || memcmp(result, text, len) != 0;
    free(out);
    free(expected);
    return changed;
}

static void test_every_code_point(void **state)
{
    (void)state;
    int n_changed = 0;
    for (uint32_t c = 0; c <= LAST_CODE_POINT; c++) {
        char text[16] = "a";
        if (!is_scalar(c)) continue;
        size_t n = 1 + qd_utf8_encode(c, text + 1);
        text[n++] = 'b';
        if (check_against_utf8proc(text, n)) n_changed++;
    }
    assert_in_range(n_changed, 1000, 2000); /* 1120 in Unicode 14 */
}

/* Inert code points have combining class 0, do not change, and are never the second half of a composition. */
static void test_inert_code_points_are_inert(void **state)
{
    (void)state;
    int n_inert = 0;
    for (uint32_t c = 0; c <= LAST_CODE_POINT; c++) {
        utf8proc_int32_t parts[4];
        int boundary = 0;
        if (!is_scalar(c)) continue;
        utf8proc_ssize_t n =
            utf8proc_decompose_char((utf8proc_int32_t)c, parts, 4, UTF8PROC_DECOMPOSE, &boundary);
        assert_true(n >= 1 && n <= 4);
        for (utf8proc_ssize_t i = 1; i < n; i++)
            if (qd_nfc_is_inert((uint32_t)parts[i])) fail_msg("U+%04X composes", (unsigned)parts[i]);
        if (!qd_nfc_is_inert(c)) continue;
        n_inert++;
        if (utf8proc_get_property((utf8proc_int32_t)c)->combining_class != 0) fail_msg("U+%04X combines", c);
        /* Changed code points would be caught here: composing its decomposition must give it back. */
        if (n > 1 || parts[0] != (utf8proc_int32_t)c) {
            utf8proc_ssize_t back = utf8proc_normalize_utf32(parts, n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
            if (back != 1 || parts[0] != (utf8proc_int32_t)c) fail_msg("U+%04X changes", c);
        }
    }
    assert_true(n_inert > 40000);
}

static void test_random_sequences(void **state)
{
    (void)state;
    /* Starters, marks of several classes, Hangul parts, singletons, what composes across blocked marks. */
    static const uint32_t alphabet[] = {'a',    'e',     'A',    0x301,  0x300,  0x316,  0x323,
                                        0x327,  0x345,   0x1100, 0x1161, 0x11a8, 0xac00, 0x212b,
                                        0x3b1,  0x313,   0x342,  0x9c7,  0x9be,  0x915,  0x93c,
                                        0x4e2d, 0x1f600, 0x1f82, 0xfb1d, 0x5d0,  0x5b4};
    enum { N_LETTERS = sizeof alphabet / sizeof alphabet[0] };
    int n_changed = 0;
    for (uint64_t round = 0; round < 20000; round++) {
        char text[64];
        size_t n = 0, n_letters = qd_philox(1, round, 0).word[0] % 12;
        for (size_t i = 0; i < n_letters; i++)
            n += qd_utf8_encode(alphabet[qd_philox(1, round, i + 1).word[0] % N_LETTERS], text + n);
        if (check_against_utf8proc(text, n)) n_changed++;
    }
    assert_true(n_changed > 1000);
}

static void test_zero_is_text(void **state)
{
    (void)state;
    char err[QD_ERR_LEN] = "", *out;
    size_t len;
    ASSERT_OK(qd_nfc("\0e\xcc\x81\0", 5, &out, &len, err, sizeof err), err);
    assert_int_equal(len, 4);
    assert_memory_equal(out, "\0\xc3\xa9\0", 4);
    free(out);
    ASSERT_OK(qd_nfc("", 0, &out, &len, err, sizeof err), err);
    assert_null(out);
}

/* Half a million marks in the wrong order: ordering them one place at a time would take minutes. */
static void test_long_run_of_marks(void **state)
{
    (void)state;
    enum { N = 1 << 18 };
    char err[QD_ERR_LEN] = "", *text = malloc(4 * N), *out;
    size_t len;
    assert_non_null(text);
    for (size_t i = 0; i < N; i++) memcpy(text + 4 * i, "\xcc\x81\xcc\x96", 4);
    ASSERT_OK(qd_nfc(text, 4 * N, &out, &len, err, sizeof err), err);
    assert_int_equal(len, 4 * N);
    for (size_t i = 0; i < 2 * N; i++) assert_memory_equal(out + 2 * i, i < N ? "\xcc\x96" : "\xcc\x81", 2);
    free(out);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),  cmocka_unit_test(test_inert_code_points_are_inert),
        cmocka_unit_test(test_random_sequences),  cmocka_unit_test(test_zero_is_text),
        cmocka_unit_test(test_long_run_of_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
