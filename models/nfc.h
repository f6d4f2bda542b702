/* Unicode normalisation form C, with utf8proc's tables (Unicode 14 or later). */
#ifndef QD_MODELS_NFC_H
#define QD_MODELS_NFC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

/* NFC of text[0..len), well-formed UTF-8 in which U+0000 may occur. *out is NULL where the text is seen to be
 * normalised already (ASCII, Latin, most of the large scripts), else the new text of *out_len bytes, which
 * the caller frees. O(len log len) on any input. QD_ERR_NO_MEMORY. */
qd_status qd_nfc(const char *text, size_t len, char **out, size_t *out_len, char *err, size_t errlen);

/* Whether a code point neither changes under NFC nor acts on its neighbours (NFC_Quick_Check=Yes and
 * combining class 0). Knows only the ranges that carry most text; false means "look closer". */
bool qd_nfc_is_inert(uint32_t code_point);

#endif
