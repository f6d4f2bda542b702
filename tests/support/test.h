/* What every test file includes: cmocka in its required order, skips with a reason, paths to data.
 * Tests run from the repository root. */
#ifndef QD_TESTS_SUPPORT_TEST_H
#define QD_TESTS_SUPPORT_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/base/status.h"

/* Skips the running test and says why. */
#define SKIP(...)                                                                                            \
    do {                                                                                                     \
        printf("skip: %s: ", __func__);                                                                      \
        printf(__VA_ARGS__);                                                                                 \
        printf("\n");                                                                                        \
        fflush(stdout);                                                                                      \
        skip();                                                                                              \
    } while (0)

/* Under a sanitizer kernels take ten times as long: tests of many variations run a part of them, of one
 * instruction set. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { IS_SANITIZED = 1 };
#else
enum { IS_SANITIZED = 0 };
#endif
#else
enum { IS_SANITIZED = 0 };
#endif

static inline void assert_within(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance)) fail_msg("%.9g is not %.9g +- %.9g", value, expected, tolerance);
}

/* Data that is not part of the repository; tests that want it skip where it is absent. */
#define SHARED_DATA "../shared/data/"

/* Skips the running test unless `path` can be read. */
#define NEED_FILE(path)                                                                                      \
    do {                                                                                                     \
        if (access((path), R_OK) != 0) SKIP("%s is not here", (path));                                       \
    } while (0)

/* Fails with the error text when `call` (which fills `err`) does not return QD_OK. */
#define ASSERT_OK(call, err)                                                                                 \
    do {                                                                                                     \
        qd_status assert_status_ = (call);                                                                   \
        if (assert_status_ != QD_OK)                                                                         \
            fail_msg("%s: %s: %s", #call, qd_status_name(assert_status_), (err));                            \
    } while (0)

/* Fails unless `haystack` contains `needle`, printing both. */
#define ASSERT_CONTAINS(haystack, needle)                                                                    \
    do {                                                                                                     \
        if (strstr((haystack), (needle)) == NULL)                                                            \
            fail_msg("expected \"%s\" inside \"%s\"", (needle), (haystack));                                 \
    } while (0)

#endif
