#include "models/utf8.h"

#include <string.h>

/* Number of continuation bytes after lead byte c and the range of the first of them; 0 when c leads nothing.
 */
static int continuation_bytes(unsigned char c, unsigned char *low, unsigned char *high)
{
    *low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    *high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (c < 0xc2 || c > 0xf4) return 0;
    return c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
}

enum qd_utf8_kind qd_utf8_step(const char *text, size_t len, size_t *n)
{
    const unsigned char *bytes = (const unsigned char *)text;
    *n = 1;
    if (bytes[0] < 0x80) return QD_UTF8_VALID;
    unsigned char low, high;
    int n_more = continuation_bytes(bytes[0], &low, &high);
    if (n_more == 0) return QD_UTF8_ILL_FORMED;
    for (int i = 1; i <= n_more; i++) {
        if ((size_t)i == len) return QD_UTF8_INCOMPLETE;
        if (bytes[i] < low || bytes[i] > high) return QD_UTF8_ILL_FORMED;
        *n = (size_t)i + 1;
        low = 0x80;
        high = 0xbf;
    }
    return QD_UTF8_VALID;
}

size_t qd_utf8_check(const char *text, size_t len)
{
    const uint64_t high_bits = 0x8080808080808080u;
    size_t at = 0;
    while (at < len) {
        uint64_t word;
        if (len - at >= sizeof word) {
            memcpy(&word, text + at, sizeof word);
            if ((word & high_bits) == 0) {
                at += sizeof word;
                continue;
            }
        }
        size_t n;
        if (qd_utf8_step(text + at, len - at, &n) != QD_UTF8_VALID) return at;
        at += n;
    }
    return len;
}

uint32_t qd_utf8_decode(const char *text, size_t *n)
{
    const unsigned char *b = (const unsigned char *)text;
    if (b[0] < 0x80) {
        *n = 1;
        return b[0];
    }
    if (b[0] < 0xe0) {
        *n = 2;
        return (uint32_t)(b[0] & 0x1f) << 6 | (uint32_t)(b[1] & 0x3f);
    }
    if (b[0] < 0xf0) {
        *n = 3;
        return (uint32_t)(b[0] & 0x0f) << 12 | (uint32_t)(b[1] & 0x3f) << 6 | (uint32_t)(b[2] & 0x3f);
    }
    *n = 4;
    return (uint32_t)(b[0] & 0x07) << 18 | (uint32_t)(b[1] & 0x3f) << 12 | (uint32_t)(b[2] & 0x3f) << 6 |
           (uint32_t)(b[3] & 0x3f);
}

size_t qd_utf8_encode(uint32_t code_point, char out[4])
{
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    size_t n = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code_point & 0x3f));
        code_point >>= 6;
    }
    static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[n] | code_point);
    return n;
}
