/* Small kernels for the emulator's own tests, found by name. All take the same arguments. */
#ifndef QD_TESTS_EMU_KERNELS_H
#define QD_TESTS_EMU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/emu/emu.h"
#include "kernels/emu/mode.h"

#ifdef __cplusplus
extern "C" {
#endif

struct emu_args {
    const uint32_t *in;
    uint32_t *out;
    uint32_t n;
};

struct emu_kernel {
    const char *name;
    void (*call)(void *const *args, const void *kernel);
};

/* Runs `kernel` with `blocks` blocks of `threads` threads: 0, or -1 with the text. */
int emu_run(const char *kernel, unsigned blocks, unsigned threads, size_t shared_bytes,
            const struct emu_args *args, char *err, size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
