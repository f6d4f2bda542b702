/* Added tokens: strings that are found in the text before anything else happens to it, special or not. */
#ifndef QD_MODELS_ADDED_H
#define QD_MODELS_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

struct qd_added_token {
    char *content; /* owned */
    size_t len;    /* >= 1 */
    int32_t id;
    bool special;
};

struct qd_added {
    struct qd_added_token *tokens; /* [n], by content once sorted */
    size_t n;
    bool starts[256]; /* bytes that some token starts with */
};

/* An empty set is all zero. */
void qd_added_free(struct qd_added *added);

/* Sorts, once all tokens are there. QD_ERR_INPUT names a content that occurs twice. */
qd_status qd_added_sort(struct qd_added *added, char *err, size_t errlen);

/* The first place at or behind `from` where a token stands, the longest where several start:
 * leftmost-longest, as in Hugging Face. NULL, and *at == len, when there is none. */
const struct qd_added_token *qd_added_find(const struct qd_added *added, const char *text, size_t len,
                                           size_t from, size_t *at);

/* The token with this content, or NULL. */
const struct qd_added_token *qd_added_get(const struct qd_added *added, const char *content, size_t len);

#endif
