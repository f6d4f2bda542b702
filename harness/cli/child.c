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

/* The child's two streams. */
enum { STREAM_OUT, STREAM_ERR, N_STREAMS };

/* In the new process: never returns. It must not outlive the parent, whose next runs it would slow down, so
 * the kernel ends it when the parent dies; posix_spawn has no attribute for that. */
static void become_program(char *const *argv, const int write_ends[N_STREAMS], pid_t parent)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    /* A parent started in the background ignores SIGINT, and exec keeps that; the child must hear it. */
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in >= 0 && dup2(in, STDIN_FILENO) >= 0 && dup2(write_ends[STREAM_OUT], STDOUT_FILENO) >= 0 &&
        dup2(write_ends[STREAM_ERR], STDERR_FILENO) >= 0)
        execv("/proc/self/exe", argv);
    dprintf(write_ends[STREAM_ERR], "cannot start %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static qd_status spawn(char *const *argv, const int write_ends[N_STREAMS], pid_t *pid, char *err,
                       size_t errlen)
{
    pid_t parent = getpid();
    /* Ignored, as some parents leave it, no child would leave a status. */
    signal(SIGCHLD, SIG_DFL);
    *pid = fork();
    if (*pid < 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "cannot start %s: %s", argv[0], strerror(errno));
    if (*pid == 0) become_program(argv, write_ends, parent);
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

/* Appends to the output what it still has room for. */
static void keep_output(struct qd_child_result *out, const char *bytes, size_t n)
{
    size_t have = strlen(out->output), room = sizeof out->output - 1 - have;
    if (n > room) n = room;
    memcpy(out->output + have, bytes, n);
    out->output[have + n] = '\0';
}

/* One read of a stream, kept; what read returned. */
static ssize_t read_some(int fd, int stream, struct qd_child_result *out)
{
    char bytes[1024];
    ssize_t n = read(fd, bytes, sizeof bytes);
    for (ssize_t i = 0; i < n; i++)
        if (bytes[i] == '\0') bytes[i] = '?';
    if (n > 0) (stream == STREAM_ERR ? keep_tail : keep_output)(out, bytes, (size_t)n);
    return n;
}

/* Waits a moment for output; a stream that has ended is watched no more. */
static void drain(struct pollfd streams[N_STREAMS], struct qd_child_result *out)
{
    if (poll(streams, N_STREAMS, POLL_MS) <= 0) return;
    for (int i = 0; i < N_STREAMS; i++) {
        if (streams[i].fd < 0 || streams[i].revents == 0) continue;
        ssize_t n = read_some(streams[i].fd, i, out);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) streams[i].fd = -1;
    }
}

/* What is left in a pipe after the child's end; a grandchild that keeps it open is not waited for. */
static void drain_rest(int fd, int stream, struct qd_child_result *out)
{
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (read_some(fd, stream, out) > 0) {
    }
}

/* Asks the child to stop when its time is up, and makes it when it does not listen. */
static void enforce(pid_t pid, const struct qd_child_limits *limits, int64_t begin_ns, int64_t *asked_ns,
                    struct qd_child_result *out)
{
    int64_t now = qd_clock_now_ns();
    if (*asked_ns != 0) {
        if ((double)(now - *asked_ns) > limits->grace_s * 1e9) kill(-pid, SIGKILL);
        return;
    }
    out->interrupted = limits->interrupted != NULL && *limits->interrupted != 0;
    out->timed_out = !out->interrupted && (double)(now - begin_ns) > limits->timeout_s * 1e9;
    if (out->interrupted || out->timed_out) {
        kill(-pid, SIGINT);
        *asked_ns = now;
    }
}

static void close_pair(const int fds[N_STREAMS])
{
    for (int i = 0; i < N_STREAMS; i++)
        if (fds[i] >= 0) close(fds[i]);
}

static qd_status open_pipes(int read_ends[N_STREAMS], int write_ends[N_STREAMS], char *err, size_t errlen)
{
    for (int i = 0; i < N_STREAMS; i++) read_ends[i] = write_ends[i] = -1;
    for (int i = 0; i < N_STREAMS; i++) {
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) != 0) {
            qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "pipe: %s", strerror(errno));
            close_pair(read_ends);
            close_pair(write_ends);
            return QD_ERR_ENVIRONMENT;
        }
        read_ends[i] = fds[0];
        write_ends[i] = fds[1];
    }
    return QD_OK;
}

qd_status qd_child_run(char *const *argv, const struct qd_child_limits *limits, void (*tick)(void *arg),
                       void *tick_arg, struct qd_child_result *out, char *err, size_t errlen)
{
    *out = (struct qd_child_result){.exit_code = -1};
    int read_ends[N_STREAMS], write_ends[N_STREAMS];
    QD_TRY(open_pipes(read_ends, write_ends, err, errlen));
    pid_t pid;
    qd_status status = spawn(argv, write_ends, &pid, err, errlen);
    close_pair(write_ends);
    if (status != QD_OK) {
        close_pair(read_ends);
        return status;
    }
    int64_t begin_ns = qd_clock_now_ns(), asked_ns = 0;
    int wait_status;
    pid_t ended;
    struct pollfd streams[N_STREAMS];
    for (int i = 0; i < N_STREAMS; i++) streams[i] = (struct pollfd){.fd = read_ends[i], .events = POLLIN};
    while ((ended = waitpid(pid, &wait_status, WNOHANG)) == 0) {
        drain(streams, out);
        enforce(pid, limits, begin_ns, &asked_ns, out);
        if (tick != NULL) tick(tick_arg);
    }
    for (int i = 0; i < N_STREAMS; i++) drain_rest(read_ends[i], i, out);
    close_pair(read_ends);
    if (ended < 0)
        return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "waiting for %s: %s", argv[0], strerror(errno));
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
