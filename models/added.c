#include "models/added.h"

#include <stdlib.h>
#include <string.h>

void qd_added_free(struct qd_added *added)
{
    for (size_t i = 0; i < added->n; i++) free(added->tokens[i].content);
    free(added->tokens);
    *added = (struct qd_added){0};
}

static int compare_tokens(const void *a, const void *b)
{
    const struct qd_added_token *x = a, *y = b;
    int order = memcmp(x->content, y->content, x->len < y->len ? x->len : y->len);
    if (order != 0) return order;
    return x->len < y->len ? -1 : x->len > y->len;
}

qd_status qd_added_sort(struct qd_added *added, char *err, size_t errlen)
{
    if (added->n == 0) return QD_OK;
    qsort(added->tokens, added->n, sizeof *added->tokens, compare_tokens);
    for (size_t i = 0; i < added->n; i++) {
        const struct qd_added_token *token = &added->tokens[i];
        added->starts[(unsigned char)token->content[0]] = true;
        if (i > 0 && compare_tokens(token - 1, token) == 0)
            return qd_fail(QD_ERR_INPUT, err, errlen, "added_tokens: \"%.*s\" occurs twice",
                           token->len < 100 ? (int)token->len : 100, token->content);
    }
    return QD_OK;
}

/* The first index in [low, high) whose token has a byte at `depth` that is >= c (or > c with `above`). All
 * tokens of the range are longer than depth and equal before it. */
static size_t narrow(const struct qd_added *added, size_t low, size_t high, size_t depth, unsigned char c,
                     bool above)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        unsigned char byte = (unsigned char)added->tokens[middle].content[depth];
        if (above ? byte > c : byte >= c)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The longest token that text starts with: the sorted tokens are narrowed down byte by byte. */
static const struct qd_added_token *longest_at(const struct qd_added *added, const char *text, size_t len)
{
    const struct qd_added_token *best = NULL;
    size_t low = 0, high = added->n;
    for (size_t depth = 0; low < high; depth++) {
        if (added->tokens[low].len == depth) best = &added->tokens[low++]; /* the shortest sorts first */
        if (depth == len) break;
        unsigned char c = (unsigned char)text[depth];
        low = narrow(added, low, high, depth, c, false);
        high = narrow(added, low, high, depth, c, true);
    }
    return best;
}

const struct qd_added_token *qd_added_find(const struct qd_added *added, const char *text, size_t len,
                                           size_t from, size_t *at)
{
    for (size_t i = from; i < len; i++) {
        if (!added->starts[(unsigned char)text[i]]) continue;
        *at = i;
        const struct qd_added_token *token = longest_at(added, text + i, len - i);
        if (token != NULL) return token;
    }
    *at = len;
    return NULL;
}

const struct qd_added_token *qd_added_get(const struct qd_added *added, const char *content, size_t len)
{
    const struct qd_added_token *token = longest_at(added, content, len);
    return token != NULL && token->len == len ? token : NULL;
}
