/* The PTX front end: runs what nvcc made of a kernel instead of the kernel's source, so that inline asm and
 * nvcc's translation are tested, too. A module is the output of `nvcc -ptx`, unedited. Everything in it is
 * understood when it is loaded, or refused by name with its file and line.
 *
 * A launch through the runtime is interpreted when a loaded module has an entry of the kernel's mangled name.
 * Load and unload while no launch is under way. */
#ifndef QD_KERNELS_EMU_PTX_PTX_H
#define QD_KERNELS_EMU_PTX_PTX_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/emu/emu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 0, or -1 with a text; the modules loaded before stay. */
int qd_emu_ptx_load(const char *path, char *err, size_t errlen);
void qd_emu_ptx_unload_all(void);

/* What launches through the runtime are given to (emu.h): makes the launch one of the entry of its kernel's
 * symbol, or of its name where it has no kernel. Without such an entry it stays as it is. */
qd_emu_replace qd_emu_ptx_replace;

/* Launches since the first load: those that were interpreted, and those of kernels that
 * no module has, which ran from source. */
struct qd_emu_ptx_counts {
    uint64_t interpreted, called;
};
struct qd_emu_ptx_counts qd_emu_ptx_read_counts(void);

#ifdef __cplusplus
}
#endif

#endif
