/* Status codes and error texts: how every qdyno function says that something went wrong.
 *
 * Functions that can fail return `qd_status`; 0 is success, failures are negative. A human-readable detail
 * goes into the caller's buffer (`char *err, size_t errlen`); libraries never print and never exit.
 */
#ifndef QD_KERNELS_BASE_STATUS_H
#define QD_KERNELS_BASE_STATUS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, value, text): the one list from which the enum and both string functions are made. */
#define QD_STATUS_LIST(X)                                                                                    \
    X(QD_OK, 0, "ok")                                                                                        \
    X(QD_ERR_ARGUMENT, -1, "invalid argument")                                                               \
    X(QD_ERR_INPUT, -2, "bad input")                                                                         \
    X(QD_ERR_UNSUPPORTED, -3, "not supported")                                                               \
    X(QD_ERR_NO_MEMORY, -4, "out of memory")                                                                 \
    X(QD_ERR_IO, -5, "input/output error")                                                                   \
    X(QD_ERR_ENVIRONMENT, -6, "environment lacks something needed")                                          \
    X(QD_ERR_TOO_LARGE, -7, "larger than the limit")                                                         \
    X(QD_ERR_FULL, -8, "no room left")                                                                       \
    X(QD_ERR_NOT_FOUND, -9, "not found")                                                                     \
    X(QD_ERR_DOES_NOT_FIT, -10, "does not fit in memory")                                                    \
    X(QD_ERR_ABORTED, -11, "aborted")                                                                        \
    X(QD_ERR_TIMEOUT, -12, "timed out")                                                                      \
    X(QD_ERR_RANK, -13, "a rank failed")                                                                     \
    X(QD_ERR_INTERNAL, -14, "internal error")

typedef enum {
#define QD_STATUS_ENUM(name, value, text) name = value,
    QD_STATUS_LIST(QD_STATUS_ENUM)
#undef QD_STATUS_ENUM
} qd_status;

/* The enumerator's name, e.g. "QD_ERR_INPUT"; "QD_ERR_?" for an unknown value. Never NULL. */
const char *qd_status_name(qd_status status);

/* A short lower-case text, e.g. "bad input". Never NULL. */
const char *qd_status_str(qd_status status);

/* Writes a printf-formatted detail into err (always terminated; err may be NULL or errlen 0) and returns
 * `status`, so that a failure is one line: `return qd_fail(QD_ERR_INPUT, err, errlen, "%s: ...", path);` */
qd_status qd_fail(qd_status status, char *err, size_t errlen, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Room that callers reserve for an error text. */
#define QD_ERR_LEN 1024

/* Returns from the current function when `call` fails. */
#define QD_TRY(call)                                                                                         \
    do {                                                                                                     \
        qd_status qd_try_status_ = (call);                                                                   \
        if (qd_try_status_ != QD_OK) return qd_try_status_;                                                  \
    } while (0)

/* Stores the failure in `st` and jumps to `label`, where the function releases what it owns. */
#define QD_TRY_GOTO(call, st, label)                                                                         \
    do {                                                                                                     \
        (st) = (call);                                                                                       \
        if ((st) != QD_OK) goto label;                                                                       \
    } while (0)

/* States an invariant; stays on in release builds. Never used for bad input. */
#define QD_ASSERT(condition)                                                                                 \
    do {                                                                                                     \
        if (__builtin_expect(!(condition), 0)) qd_assert_failed(#condition, __FILE__, __LINE__);             \
    } while (0)

void qd_assert_failed(const char *condition, const char *file, int line) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif

#endif
