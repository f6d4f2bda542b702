/* What a test can say to the emulator: how it behaves where CUDA leaves it open, what it counted, which GPUs
 * there are, and which PTX. A launch uses the mode that is set when it starts. */
#ifndef QD_KERNELS_EMU_MODE_H
#define QD_KERNELS_EMU_MODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which thread goes on at a synchronisation point. RANDOM picks one of two kinds for each block: uniformly
 * among the threads that can run, or warps by a fixed random priority with rare swaps, so that one runs far
 * ahead. It also permutes the order of blocks. */
enum qd_emu_schedule { QD_EMU_SCHEDULE_FIXED, QD_EMU_SCHEDULE_RANDOM };

/* When the bytes of an asynchronous copy move: when it is issued, at the wait that needs them (until then the
 * destination holds 0xff), or somewhere between, drawn for each copy. EAGER shows buffers that are refilled
 * too early, LATEST waits that are missing; neither shows the other's bugs. */
enum qd_emu_arrival { QD_EMU_ARRIVAL_LATEST, QD_EMU_ARRIVAL_EAGER, QD_EMU_ARRIVAL_RANDOM };

/* How mma sums: fp32 in k order, or in double rounded once. Hardware does neither exactly. */
enum qd_emu_mma_sum { QD_EMU_MMA_SUM_F32, QD_EMU_MMA_SUM_F64 };

struct qd_emu_mode {
    enum qd_emu_schedule schedule;
    enum qd_emu_arrival arrival;
    enum qd_emu_mma_sum mma_sum;
    uint64_t seed;            /* of everything random */
    bool shared_base_odd;     /* dynamic shared memory at 16 bytes past a multiple of 1024, not on one */
    unsigned resident_blocks; /* of all launches on a device, at most; 1 .. QD_EMU_MAX_RESIDENT */
    unsigned stall_ms;        /* spinning without progress on any device for so long is a livelock */
};

enum { QD_EMU_MAX_RESIDENT = 64 };

/* Fixed schedule, latest arrival, fp32 sums, 32 resident blocks, 30 s. */
struct qd_emu_mode qd_emu_default_mode(void);
struct qd_emu_mode qd_emu_get_mode(void);
void qd_emu_set_mode(const struct qd_emu_mode *mode);

/* What the launches did that have ended since the last reset: reset, launch, wait and read for one launch.
 * Exact where PTX is interpreted. Of what the source itself loads and stores nothing is seen: there bytes are
 * those that ptx:: functions load, and shared memory is that of ldmatrix. */
struct qd_emu_counters {
    uint64_t launches, blocks;
    uint64_t mma;               /* m16n8k16 products, one a warp */
    uint64_t ldmatrix;          /* one a warp */
    uint64_t loaded_bytes;      /* of global memory; atomics load and store, flags (ld.acquire, st.release) */
    uint64_t stored_bytes;      /* do neither */
    uint64_t async_copy_bytes;  /* of loaded_bytes: by cp.async */
    uint64_t shared_wavefronts; /* of loads, stores and ldmatrix: 32 banks give a word each */
    uint64_t shared_conflicts;  /* of those: more than the accesses would take without bank conflicts */
    uint64_t barriers;          /* completed, any id */
};
struct qd_emu_counters qd_emu_read_counters(void);
void qd_emu_reset_counters(void);

/* From now on a launch fails when it stores to one of these bytes a second time, whichever thread does. Only
 * where PTX is interpreted; atomics may. What nobody wrote is told by what was there before. No launch may be
 * under way; NULL forgets all ranges. */
void qd_emu_write_once(const void *p, size_t bytes);

/* ---- the GPUs: what CUDA has no call for ---- */

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

/* ---- the PTX front end: runs what nvcc made of a kernel instead of the kernel's source ---- */

/* Of a module, the unedited output of `nvcc -ptx`, everything is understood when it is loaded, or refused by
 * name with its file and line. A launch is interpreted when a loaded module has an entry of the kernel's
 * mangled name. Load and unload while no launch is under way.
 * 0, or -1 with a text; the modules loaded before stay. */
int qd_emu_ptx_load(const char *path, char *err, size_t errlen);
void qd_emu_ptx_unload_all(void);

/* Launches since the first load: those that were interpreted, and those of kernels that no module has, which
 * ran from source. */
struct qd_emu_ptx_counts {
    uint64_t interpreted, called;
};
struct qd_emu_ptx_counts qd_emu_ptx_read_counts(void);

#ifdef __cplusplus
}
#endif

#endif
