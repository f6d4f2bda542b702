#include "harness/cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/base/clock.h"

enum { POLL_MS = 100 };
static const int64_t KILL_DELAY_NS = 10000000000;

/* In the new process: never returns. It must not outlive the parent, whose next runs it would slow down, so the
 * kernel ends it when the parent dies; posix_spawn has no attribute for that. */
static void become_program(char *const *argv, int stderr_fd, pid_t parent)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC), out = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (in >= 0 && out >= 0 && dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
        dup2(stderr_fd, STDERR_FILENO) >= 0)
        execv("/proc/self/exe", argv);
    dprintf(stderr_fd, "cannot start %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static qd_status spawn(char *const *argv, int stderr_fd, pid_t *pid, char *err, size_t errlen)
{
    pid_t parent = getpid();
    *pid = fork();
    if (*pid < 0) return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cannot start %s: %s", argv[0], strerror(errno));
    if (*pid == 0) become_program(argv, stderr_fd, parent);
    setpgid(*pid, *pid); /* in both processes: whichever comes first */
    return QD_OK;
}

/* Appends to the tail, dropping the oldest whole lines when it is full. */
static void keep_tail(struct qd_child_result *out, const char *bytes, size_t n)
{
    size_t have = strlen(out->tail);
    if (n >= sizeof out->tail - 1) {
        bytes += n - (sizeof out->tail - 1);
        n = sizeof out->tail - 1;
    }
    if (have + n > sizeof out->tail - 1) {
        size_t drop = have + n - (sizeof out->tail - 1);
        const char *newline = memchr(out->tail + drop, '\n', have - drop);
        if (newline != NULL) drop = (size_t)(newline - out->tail) + 1;
        memmove(out->tail, out->tail + drop, have - drop);
        have -= drop;
    }
    memcpy(out->tail + have, bytes, n);
    out->tail[have + n] = '\0';
}

/* One read into the tail; what read returned. */
static ssize_t read_some(int fd, struct qd_child_result *out)
{
    char bytes[1024];
    ssize_t n = read(fd, bytes, sizeof bytes);
    for (ssize_t i = 0; i < n; i++)
        if (bytes[i] == '\0') bytes[i] = '?';
    if (n > 0) keep_tail(out, bytes, (size_t)n);
    return n;
}

/* Waits a moment for output; false at the end of the stream. */
static bool drain(int fd, struct qd_child_result *out)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (poll(&ready, 1, POLL_MS) <= 0) return true;
    ssize_t n = read_some(fd, out);
    return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

/* What is left in the pipe after the child's end; a grandchild that keeps it open is not waited for. */
static void drain_rest(int fd, struct qd_child_result *out)
{
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (read_some(fd, out) > 0) {}
}

/* Asks the child to stop when its time is up, and makes it when it does not listen. */
static void enforce(pid_t pid, int64_t deadline_ns, const volatile sig_atomic_t *interrupted,
                    int64_t *asked_ns, struct qd_child_result *out)
{
    int64_t now = qd_clock_now_ns();
    if (*asked_ns != 0) {
        if (now - *asked_ns > KILL_DELAY_NS) kill(-pid, SIGKILL);
        return;
    }
    out->interrupted = interrupted != NULL && *interrupted != 0;
    out->timed_out = !out->interrupted && now > deadline_ns;
    if (out->interrupted || out->timed_out) {
        kill(-pid, SIGINT);
        *asked_ns = now;
    }
}

qd_status qd_child_run(char *const *argv, double timeout_s, const volatile sig_atomic_t *interrupted,
                       void (*tick)(void *arg), void *tick_arg, struct qd_child_result *out, char *err,
                       size_t errlen)
{
    *out = (struct qd_child_result){.exit_code = -1};
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "pipe: %s", strerror(errno));
    pid_t pid;
    qd_status status = spawn(argv, fds[1], &pid, err, errlen);
    close(fds[1]);
    if (status != QD_OK) {
        close(fds[0]);
        return status;
    }
    int64_t deadline = qd_clock_now_ns() + (int64_t)(timeout_s * 1e9), asked = 0;
    int wait_status;
    bool open = true;
    while (waitpid(pid, &wait_status, WNOHANG) == 0) {
        if (open)
            open = drain(fds[0], out);
        else
            poll(NULL, 0, POLL_MS);
        enforce(pid, deadline, interrupted, &asked, out);
        if (tick != NULL) tick(tick_arg);
    }
    drain_rest(fds[0], out);
    close(fds[0]);
    if (WIFEXITED(wait_status)) out->exit_code = WEXITSTATUS(wait_status);
    if (WIFSIGNALED(wait_status)) out->signal = WTERMSIG(wait_status);
    return QD_OK;
}

void qd_child_last_line(const struct qd_child_result *result, char *line, size_t len)
{
    const char *end = result->tail + strlen(result->tail);
    while (end > result->tail && end[-1] == '\n') end--;
    const char *begin = end;
    while (begin > result->tail && begin[-1] != '\n') begin--;
    size_t n = (size_t)(end - begin) < len ? (size_t)(end - begin) : len - 1;
    memcpy(line, begin, n);
    line[n] = '\0';
}
