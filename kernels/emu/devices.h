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

/* What there is. 0 stands for the default. */
struct qd_emu_gpus {
    int n;               /* -1: none; at most QD_EMU_MAX_DEVICES */
    size_t memory_bytes; /* of each; half of the machine's */
    size_t shared_bytes; /* that a block may have: 48 KiB .. 163 KiB (sm_80; sm_86 and sm_89 have 99 KiB) */
    bool lacks_peers;    /* none can reach another's memory */
};

/* From now on; none may be in use. 0, or -1 when a number is out of range: then nothing changes. */
int qd_emu_set_gpus(struct qd_emu_gpus gpus);

/* Device memory of the current device that is only addresses until it is touched: not filled, zero where not
 * written, not counted. For offsets beyond 32 bits. A cudaError_t; freed by cudaFree. */
int qd_emu_malloc_sparse(void **p, size_t bytes);

/* The number of allocations and streams that exist, told in text. Events and graphs are LeakSanitizer's. */
size_t qd_emu_leaks(char *text, size_t text_len);

/* Finishes what was issued, ends the worker threads, frees all memory and streams, forgets failures, peer
 * access and kernel attributes; qd_emu_set_gpus stays. No other call may be in progress.
 * The next call starts afresh; events and graphs are the caller's to destroy, before or after. */
void qd_emu_shutdown(void);

#ifdef __cplusplus
}
#endif

#endif
