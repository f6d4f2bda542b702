/* A progress line on standard error: redrawn in place on a terminal, a plain line every few seconds
 * elsewhere. Drawn from threads that are not measured. */
#ifndef QD_HARNESS_CLI_PROGRESS_H
#define QD_HARNESS_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct qd_progress {
    const char *label; /* "loading", "run", "sweep" */
    bool terminal;
    int64_t begin_ns, last_ns;
};

void qd_progress_begin(struct qd_progress *progress, const char *label);

/* done of total units (total 0: unknown), with a note such as "1234 tokens"; prints the time left. At most
 * ten times a second on a terminal, once in five seconds elsewhere. */
void qd_progress_update(struct qd_progress *progress, double done, double total, const char *note);

/* Ends the line on a terminal. */
void qd_progress_end(struct qd_progress *progress);

#endif
