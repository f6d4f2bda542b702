/* Three targets in one, by the first byte: 'T', the rest as text through the tiny model's tokenizer and back;
 * 'D', the rest as ids to decode; else everything as a tokenizer.json, which is refused with a reason or
 * encodes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/json.h"
#include "models/nfc.h"
#include "models/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decoding gives back the text's NFC. Added tokens keep marks behind them from being ordered with those
 * before, so that a text which may hold one ('<') is not checked here. */
static void check_round_trip(const char *text, size_t len, const char *decoded, size_t n_decoded)
{
    char err[QD_ERR_LEN], *normalised;
    size_t n;
    if (memchr(text, '<', len) != NULL) return;
    QD_ASSERT(qd_nfc(text, len, &normalised, &n, err, sizeof err) == QD_OK);
    if (normalised == NULL) n = len;
    QD_ASSERT(n_decoded == n && memcmp(decoded, normalised != NULL ? normalised : text, n) == 0);
    free(normalised);
}

static void check_stream(const qd_tokenizer_t *tokenizer, const int32_t *ids, size_t n, const char *decoded,
                         size_t n_decoded)
{
    struct qd_detokenizer stream;
    char err[QD_ERR_LEN];
    size_t joined = 0;
    qd_detokenizer_init(&stream, tokenizer, false);
    for (size_t i = 0; i <= n; i++) {
        const char *part;
        size_t len;
        qd_status status = i < n ? qd_detokenizer_push(&stream, ids[i], &part, &len, err, sizeof err)
                                 : qd_detokenizer_finish(&stream, &part, &len, err, sizeof err);
        QD_ASSERT(status == QD_OK && joined + len <= n_decoded);
        QD_ASSERT(memcmp(part, decoded + joined, len) == 0 && qd_utf8_check(part, len) == len);
        joined += len;
    }
    QD_ASSERT(joined == n_decoded);
    qd_detokenizer_free(&stream);
}

static void fuzz_text(const qd_tokenizer_t *tokenizer, const char *text, size_t len)
{
    char err[QD_ERR_LEN] = "", *decoded;
    int32_t *ids;
    size_t n, n_decoded;
    qd_status status = qd_tokenizer_encode(tokenizer, text, len, &ids, &n, err, sizeof err);
    QD_ASSERT((status == QD_OK) == (qd_utf8_check(text, len) == len));
    if (status != QD_OK) return;
    QD_ASSERT(qd_tokenizer_decode(tokenizer, ids, n, false, &decoded, &n_decoded, err, sizeof err) == QD_OK);
    check_round_trip(text, len, decoded, n_decoded);
    check_stream(tokenizer, ids, n, decoded, n_decoded);
    free(decoded);
    free(ids);
}

/* Any bytes as ids: decoding never fails, and equals streaming. */
static void fuzz_ids(const qd_tokenizer_t *tokenizer, const uint8_t *data, size_t size)
{
    char err[QD_ERR_LEN], *decoded;
    size_t n = size / 2, n_decoded;
    int32_t *ids = calloc(n + 1, sizeof *ids);
    QD_ASSERT(ids != NULL);
    for (size_t i = 0; i < n; i++) ids[i] = data[2 * i] % 9 * 256 + data[2 * i + 1] - 100;
    QD_ASSERT(qd_tokenizer_decode(tokenizer, ids, n, false, &decoded, &n_decoded, err, sizeof err) == QD_OK);
    QD_ASSERT(qd_utf8_check(decoded, n_decoded) == n_decoded);
    check_stream(tokenizer, ids, n, decoded, n_decoded);
    free(decoded);
    free(ids);
}

static void fuzz_file(const char *json, size_t len)
{
    static const char text[] = "It's 3 o'clock,\n\n\t na\xc3\xafve <|im_end|> \xe4\xb8\xad";
    char err[QD_ERR_LEN] = "";
    qd_tokenizer_t *tokenizer;
    int32_t *ids;
    size_t n;
    qd_status status = qd_tokenizer_parse(json, len, &tokenizer, err, sizeof err);
    QD_ASSERT(status == QD_OK || err[0] != 0);
    if (status != QD_OK) return;
    if (qd_tokenizer_encode(tokenizer, text, sizeof text - 1, &ids, &n, err, sizeof err) == QD_OK) {
        for (size_t i = 0; i < n; i++) QD_ASSERT(ids[i] >= 0 && ids[i] < qd_tokenizer_vocab_size(tokenizer));
        free(ids);
    }
    qd_tokenizer_free(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Loaded once for all inputs; the operating system frees it. */
    static qd_tokenizer_t *tiny;
    char err[QD_ERR_LEN] = "";
    if (tiny == NULL && qd_tokenizer_load("models/tiny", &tiny, err, sizeof err) != QD_OK) {
        fprintf(stderr, "run from the repository's root: %s\n", err);
        abort();
    }
    if (size > 0 && data[0] == 'T')
        fuzz_text(tiny, (const char *)data + 1, size - 1);
    else if (size > 0 && data[0] == 'D')
        fuzz_ids(tiny, data + 1, size - 1);
    else
        fuzz_file((const char *)data, size);
    return 0;
}
