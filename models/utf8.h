/* Well-formed UTF-8 (Unicode, table 3-7), one sequence at a time. */
#ifndef QD_MODELS_UTF8_H
#define QD_MODELS_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum qd_utf8_kind {
    QD_UTF8_VALID,      /* one well-formed sequence */
    QD_UTF8_ILL_FORMED, /* a maximal ill-formed part: stands for one U+FFFD */
    QD_UTF8_INCOMPLETE  /* the text ends inside a sequence that is well-formed so far */
};

/* Looks at the sequence that starts at text[0], len >= 1. *n is its length in bytes, 1..4; an ill-formed part
 * is as long as it could have been the start of a well-formed sequence (Unicode, section 3.9, "maximal
 * subpart"), at least 1. */
enum qd_utf8_kind qd_utf8_step(const char *text, size_t len, size_t *n);

/* Offset of the first byte that is not part of well-formed UTF-8, or len. */
size_t qd_utf8_check(const char *text, size_t len);

/* The code point of the well-formed sequence at text[0], and its length in bytes. */
uint32_t qd_utf8_decode(const char *text, size_t *n);

/* Writes a scalar value as 1..4 bytes; returns how many. */
size_t qd_utf8_encode(uint32_t code_point, char out[4]);

#endif
