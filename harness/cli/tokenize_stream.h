/* What `qdyno tokenize` does between two streams. */
#ifndef QD_HARNESS_CLI_TOKENIZE_STREAM_H
#define QD_HARNESS_CLI_TOKENIZE_STREAM_H

#include <stdbool.h>
#include <stdio.h>

#include "models/chat.h"
#include "models/tokenizer.h"

enum qd_tokenize_direction {
    QD_TOKENIZE_ENCODE, /* text to an array of ids */
    QD_TOKENIZE_DECODE, /* an array of ids to text */
    QD_TOKENIZE_CHAT    /* a list of messages to {"text", "ids"} */
};

struct qd_tokenize_mode {
    enum qd_tokenize_direction direction;
    bool jsonl;        /* a value a line, text as a JSON string; else one value, text as it is */
    bool skip_special; /* of decoding */
    struct qd_chat_options chat;
};

/* Converts all of `in` to `out`. With jsonl, results of the lines before a bad one are written. QD_ERR_INPUT
 * with the line (jsonl) and the byte offset of what is wrong, QD_ERR_UNSUPPORTED, QD_ERR_IO,
 * QD_ERR_NO_MEMORY. */
qd_status qd_tokenize_stream(const qd_tokenizer_t *tokenizer, const struct qd_tokenize_mode *mode, FILE *in,
                             FILE *out, char *err, size_t errlen);

#endif
