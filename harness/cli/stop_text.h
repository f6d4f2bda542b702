/* Ends a text before the first stop string, however tokens cut it: text that could be the start of one is
 * held back. */
#ifndef QD_HARNESS_CLI_STOP_TEXT_H
#define QD_HARNESS_CLI_STOP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/status.h"

struct qd_stop_text {
    const char *const *stops; /* [n_stops] none empty, borrowed */
    int n_stops;
    size_t n_held_most; /* bytes: the longest stop string - 1 */
    char *text;         /* held back, then what push returned; owned */
    size_t len, room;
    size_t n_given; /* of text, by the last push */
};

void qd_stop_text_init(struct qd_stop_text *stop, const char *const *stops, int n_stops);
void qd_stop_text_free(struct qd_stop_text *stop);

/* Adds what a token made complete; *given (valid until the next call) is what may go out now. *has_ended: a
 * stop string is there, *given ends before it, and nothing is held back any more. Where one token completes
 * several stop strings the first of the list counts, as in vLLM (detokenizer.py, check_stop_strings).
 * QD_ERR_NO_MEMORY. */
qd_status qd_stop_text_push(struct qd_stop_text *stop, const char *text, size_t len, const char **given,
                            size_t *n_given, bool *has_ended, char *err, size_t errlen);

/* What is still held back when the text ends without a stop string. */
void qd_stop_text_finish(struct qd_stop_text *stop, const char **given, size_t *n_given);

#endif
