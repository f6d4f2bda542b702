/* What the tests of the PTX front end share: modules written by the test, and launches of their entries. */
#ifndef QD_TESTS_EMU_PTX_RIG_H
#define QD_TESTS_EMU_PTX_RIG_H

#include "tests/support/test.h"

#include <unistd.h>

#include "kernels/emu/emu.h"
#include "kernels/emu/mode.h"

#define PTX_HEADER ".version 9.0\n.target sm_80\n.address_size 64\n"

static char err[QD_ERR_LEN];

/* Loads a module with this text; the name of its file ends in "rig.ptx". */
static inline int ptx_load_text(const char *text)
{
    char path[] = "/tmp/qdyno-XXXXXX-rig.ptx";
    const int file = mkstemps(path, sizeof "-rig.ptx" - 1);
    assert_true(file >= 0);
    const ssize_t bytes = (ssize_t)strlen(text);
    assert_int_equal(write(file, text, (size_t)bytes), bytes);
    close(file);
    err[0] = '\0';
    const int status = qd_emu_ptx_load(path, err, sizeof err);
    unlink(path);
    return status;
}

static inline void ptx_assert_loads(const char *text)
{
    if (ptx_load_text(text) != 0) fail_msg("%s", err);
}

/* Runs the entry `launch->name`: 0, or -1 with the text in err. */
static inline int ptx_launch(struct qd_emu_launch *launch, const unsigned *arg_sizes, unsigned n_args)
{
    if (qd_emu_ptx_replace(launch, arg_sizes, n_args, err, sizeof err) != 0) return -1;
    if (launch->call == NULL) fail_msg("no loaded module has an entry %s", launch->name);
    return qd_emu_run_grid(launch, err, sizeof err);
}

/* Runs an entry whose parameters are all .u64, given as `args`: 0, or -1 with the text in err. */
static inline int ptx_run(const char *entry, unsigned blocks, unsigned threads, unsigned n_args,
                          uint64_t *args)
{
    void *pointers[8];
    unsigned sizes[8];
    for (unsigned i = 0; i < n_args; i++) pointers[i] = &args[i], sizes[i] = sizeof args[i];
    struct qd_emu_launch launch = {
        .name = entry,
        .args = pointers,
        .grid = {blocks, 1, 1},
        .block = {threads, 1, 1},
        .shared_bytes = 64,
        .shared_limit = QD_EMU_MAX_SHARED_BYTES,
    };
    return ptx_launch(&launch, sizes, n_args);
}

static inline uint64_t ptx_address(const void *p)
{
    return (uintptr_t)p;
}

#endif
