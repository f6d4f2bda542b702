#include "kernels/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *qd_status_name(qd_status status)
{
    switch (status) {
#define QD_STATUS_NAME(name, value, text)                                                                    \
    case name: return #name;
        QD_STATUS_LIST(QD_STATUS_NAME)
#undef QD_STATUS_NAME
    }
    return "QD_ERR_?";
}

const char *qd_status_str(qd_status status)
{
    switch (status) {
#define QD_STATUS_STR(name, value, text)                                                                     \
    case name: return text;
        QD_STATUS_LIST(QD_STATUS_STR)
#undef QD_STATUS_STR
    }
    return "unknown status";
}

qd_status qd_fail(qd_status status, char *err, size_t errlen, const char *format, ...)
{
    if (err != NULL && errlen > 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(err, errlen, format, args);
        va_end(args);
    }
    return status;
}

void qd_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "qdyno: %s:%d: invariant violated: %s\n", file, line, condition);
    abort();
}
