/* Where make puts what nvcc made of a file of these tests: beside the folder of the tests. */
#ifndef QD_TESTS_EMU_PTX_MODULE_H
#define QD_TESTS_EMU_PTX_MODULE_H

#include "tests/support/test.h"

static inline void ptx_find_module(const char *stem, char *path, size_t path_len)
{
    char program[4096];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    assert_true(length > 0);
    program[length] = '\0';
    const char *tests = strstr(program, "/tests/emu/");
    assert_non_null(tests);
    snprintf(path, path_len, "%.*s/ptx/emu/%s.ptx", (int)(tests - program), program, stem);
}

#endif
