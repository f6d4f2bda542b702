#include "tests/support/fakes.h"

#include <limits.h>

#include "tests/support/test.h"

/* Beside the folder that this binary is in. */
static void fakes_folder(char *out, size_t len)
{
    char binary[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", binary, sizeof binary - 1);
    assert_true(n > 0);
    binary[n] = '\0';
    *strrchr(binary, '/') = '\0';
    assert_true(snprintf(out, len, "%s/../fakes", binary) < (int)len);
}

void fakes_come_first(char **argv)
{
    char folder[PATH_MAX];
    fakes_folder(folder, sizeof folder);
    const char *present = getenv("LD_LIBRARY_PATH");
    if (present != NULL && strcmp(present, folder) == 0) return;
    setenv("LD_LIBRARY_PATH", folder, 1);
    execv("/proc/self/exe", argv);
    perror("execv");
    exit(1);
}

const char *fake_path(const char *soname)
{
    static char path[PATH_MAX];
    fakes_folder(path, sizeof path);
    size_t n = strlen(path);
    assert_true(snprintf(path + n, sizeof path - n, "/%s", soname) < (int)(sizeof path - n));
    return path;
}
