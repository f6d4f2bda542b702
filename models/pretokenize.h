/* The pre-tokenizer: cuts text into the words that byte-pair encoding sees, by the regular expression of the
 * tokenizer's file, run by PCRE2 (compiled to machine code where PCRE2 can).
 *
 * Hugging Face runs the expression with Oniguruma. What the two read differently is either translated (\s,
 * which in PCRE2 takes U+180E for white space) or refused; what is left was compared on Qwen's expression.
 */
#ifndef QD_MODELS_PRETOKENIZE_H
#define QD_MODELS_PRETOKENIZE_H

#include <stddef.h>

#include "kernels/base/status.h"

typedef struct qd_splitter qd_splitter_t;

/* Compiles an expression. QD_ERR_UNSUPPORTED names a construct that is not read the same way in both engines,
 * or says that the expression matches nothing at all; QD_ERR_INPUT carries PCRE2's complaint. */
qd_status qd_splitter_create(const char *pattern, size_t len, qd_splitter_t **out, char *err, size_t errlen);
void qd_splitter_destroy(qd_splitter_t *splitter);

/* A walk over one text. Owned by one thread; any number of walks may share a splitter. */
struct qd_split_walk {
    const qd_splitter_t *splitter;
    void *match, *limits; /* PCRE2's */
    const char *text;
    size_t len;
    size_t at;                     /* everything before is handed out */
    size_t match_begin, match_end; /* the next match, where match_end > at */
};

/* QD_ERR_NO_MEMORY. qd_split_walk_free is due in any case. */
qd_status qd_split_walk_init(struct qd_split_walk *walk, const qd_splitter_t *splitter, char *err,
                             size_t errlen);
void qd_split_walk_free(struct qd_split_walk *walk);

/* Puts the walk at the start of a text: well-formed UTF-8, U+0000 allowed, which must outlive the walk. */
void qd_split_walk_start(struct qd_split_walk *walk, const char *text, size_t len);

/* The next piece: a match, or what lies between two ("isolated"); never empty but at the end of the text,
 * where *end == *begin. QD_ERR_INPUT when matching takes more steps than the limit. */
qd_status qd_split_walk_next(struct qd_split_walk *walk, size_t *begin, size_t *end, char *err,
                             size_t errlen);

#endif
