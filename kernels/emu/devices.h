/* The emulated GPUs themselves: what CUDA has no call for. */
#ifndef QD_KERNELS_EMU_DEVICES_H
#define QD_KERNELS_EMU_DEVICES_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    QD_EMU_MAX_DEVICES = 16,
    QD_EMU_DEFAULT_DEVICES = 8,
    QD_EMU_N_SMS = 8, /* what cudaDeviceProp::multiProcessorCount says */
};

/* 0 .. QD_EMU_MAX_DEVICES GPUs from now on; none may be in use. 0, or -1 when the number is out of range. */
int qd_emu_set_device_count(int n);

/* Shared memory that a block of each GPU may have, static and dynamic together: 48 KiB .. 163 KiB, which is
 * the default (sm_80; sm_86 and sm_89 have 99 KiB); 0: the default. 0, or -1 when it is out of range. */
int qd_emu_set_shared_limit(size_t bytes);

/* Whether GPUs can read each other's memory, as at first. Before anything uses a GPU. */
void qd_emu_set_peers(bool can_access);

/* Memory of each GPU; 0: half of the machine's, which is the default. */
void qd_emu_set_device_memory(size_t bytes);

/* Device memory of the current device that is only addresses until it is touched: not filled, zero where not
 * written, not counted. For offsets beyond 32 bits. A cudaError_t; freed by cudaFree. */
int qd_emu_malloc_sparse(void **p, size_t bytes);

/* The number of allocations and streams that exist, told in text. Events and graphs are LeakSanitizer's. */
size_t qd_emu_leaks(char *text, size_t text_len);

/* Finishes what was issued, ends the worker threads, frees all memory and streams, forgets failures, peer
 * access and kernel attributes; the number of GPUs and their limits stay. No other call may be in progress.
 * The next call starts afresh; events and graphs are the caller's to destroy, before or after. */
void qd_emu_shutdown(void);

#ifdef __cplusplus
}
#endif

#endif
