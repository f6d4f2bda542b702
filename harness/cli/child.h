/* A run of this same program as a child process: its own process group, a time limit, its output kept. It
 * ends with its parent, however that ends. */
#ifndef QD_HARNESS_CLI_CHILD_H
#define QD_HARNESS_CLI_CHILD_H

#include <signal.h>
#include <stdbool.h>

#include "kernels/base/status.h"

enum { QD_CHILD_TAIL = 4096, QD_CHILD_OUTPUT = 4096 };

/* Seconds that a child gets between the request to stop and its end, to write what it has measured. */
enum { QD_CHILD_GRACE_S = 10 };

struct qd_child_limits {
    double timeout_s;
    double grace_s;                           /* QD_CHILD_GRACE_S but for tests */
    const volatile sig_atomic_t *interrupted; /* non-zero: stop early; NULL: never */
};

struct qd_child_result {
    int exit_code;  /* -1 when it did not exit by itself */
    int signal;     /* that ended it, 0: none */
    bool timed_out; /* stopped after timeout_s */
    bool interrupted;
    char tail[QD_CHILD_TAIL];     /* the last bytes of its standard error, whole lines */
    char output[QD_CHILD_OUTPUT]; /* the first bytes of its standard output */
};

/* Runs argv (argv[0] is replaced by this program; NULL-terminated), keeps what it says, and waits. After
 * timeout_s, or once interrupted, it gets SIGINT, and SIGKILL grace_s later. `tick` is called a few times a
 * second (NULL: never). The caller must have no other threads.
 * QD_ERR_ENVIRONMENT when there can be no process; one that cannot become this program exits with 127. */
qd_status qd_child_run(char *const *argv, const struct qd_child_limits *limits, void (*tick)(void *arg),
                       void *tick_arg, struct qd_child_result *out, char *err, size_t errlen);

/* The last line of a result's tail that is not empty, into line. */
void qd_child_last_line(const struct qd_child_result *result, char *line, size_t len);

#endif
