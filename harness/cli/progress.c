#include "harness/cli/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"

static const int64_t TERMINAL_PERIOD_NS = 100000000;
static const int64_t PLAIN_PERIOD_NS = 5000000000;

void qd_progress_begin(struct qd_progress *progress, const char *label)
{
    const char *term = getenv("TERM");
    int64_t now = qd_clock_now_ns();
    *progress = (struct qd_progress){
        .label = label,
        .terminal = isatty(STDERR_FILENO) && term != NULL && strcmp(term, "dumb") != 0,
        .begin_ns = now,
        .last_ns = now,
    };
}

void qd_progress_update(struct qd_progress *progress, double done, double total, const char *note)
{
    int64_t now = qd_clock_now_ns();
    if (now - progress->last_ns < (progress->terminal ? TERMINAL_PERIOD_NS : PLAIN_PERIOD_NS)) return;
    progress->last_ns = now;
    char share[16] = "", left[48] = "";
    double elapsed_s = (double)(now - progress->begin_ns) * 1e-9;
    if (total > 0) snprintf(share, sizeof share, " %.0f %%", 100 * done / total);
    if (total > 0 && done > 0)
        snprintf(left, sizeof left, ", %.0f s left", elapsed_s * (total - done) / done);
    fprintf(stderr, "%s%s:%s%s%s%s%s", progress->terminal ? "\r\033[K" : "", progress->label, share,
            note[0] == '\0'    ? ""
            : share[0] != '\0' ? ", "
                               : " ",
            note, left, progress->terminal ? "" : "\n");
    fflush(stderr);
}

void qd_progress_end(struct qd_progress *progress)
{
    if (progress->terminal) fprintf(stderr, "\r\033[K");
}
