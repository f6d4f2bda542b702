/* The CUDA emulator's inside: what its parts and its two front ends know of each other.
 *
 * A CUDA thread is a fiber. The blocks of a launch run on the OS thread that called qd_emu_run_grid (one per
 * emulated device, and more where launches of a device wait for each other), one after another unless they
 * wait for each other. Threads change places only where they synchronise: at warp collectives, barriers and
 * spins. Everything here except qd_emu_run_grid and qd_emu_release_thread is called by a running CUDA thread;
 * an error ends the launch and never returns to it. Front ends: the source compiled for the CPU
 * (shim/device_side.h, instructions.h), and the PTX interpreter. */
#ifndef QD_KERNELS_EMU_EMU_H
#define QD_KERNELS_EMU_EMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/emu/shim/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- launches ---- */

struct qd_emu_launch {
    const char *name;                                    /* for reports */
    void (*call)(void *const *args, const void *kernel); /* runs the kernel's body as one CUDA thread */
    const void *kernel;                                  /* passed to call */
    void *const *args;                                   /* one pointer per argument, passed to call */
    uint3 grid, block;
    size_t shared_bytes; /* dynamic */
    size_t shared_limit; /* static and dynamic */
    int device;
    /* Or NULL: told when nothing moves as all resident blocks spin or none can start, and when it is over. */
    void (*spins)(void *arg, bool in_vain);
    void *spins_arg;
};

enum {
    QD_EMU_WARP_SIZE = 32,
    QD_EMU_MAX_THREADS = 1024, /* of a block */
    QD_EMU_MAX_BLOCK_Z = 64,
    QD_EMU_MAX_GRID_YZ = 65535,
    QD_EMU_MAX_SHARED_BYTES = 163 * 1024,    /* of a block, static and dynamic together, as on sm_80 */
    QD_EMU_DEFAULT_SHARED_BYTES = 48 * 1024, /* static, and dynamic without cudaFuncSetAttribute */
};

/* Runs every block of the launch in the mode that is set (mode.h). 0, or -1 with a text that names the
 * kernel, block, thread and place. */
int qd_emu_run_grid(const struct qd_emu_launch *launch, char *err, size_t errlen);

/* Whether the launch keeps the limits above; false with a text when not. */
bool qd_emu_shape_fits(const struct qd_emu_launch *launch, char *err, size_t errlen);

/* Frees the stacks and arenas that the calling OS thread's launches used; the thread may launch again. */
void qd_emu_release_thread(void);

/* The source front end tells the registry how to call a kernel: `call` as in struct qd_emu_launch, the size
 * of each argument, and what reports call it (copied). Registering a kernel again changes nothing. */
void qd_emu_register_kernel(const void *kernel, const char *name, void (*call)(void *const *, const void *),
                            const unsigned *arg_sizes, unsigned n_args);

/* Lets another front end take over launches of registered kernels: `replace` may change the launch's call and
 * kernel. It returns 0, or -1 with a text, which fails the launch. NULL: none. No launch may be under way. */
typedef int qd_emu_replace(struct qd_emu_launch *launch, const unsigned *arg_sizes, unsigned n_args,
                           char *err, size_t errlen);
void qd_emu_set_replace(qd_emu_replace *replace);
/* What launches through the runtime are given to while PTX is loaded: makes the launch one of the entry of
 * its kernel's symbol, or of its name where it has no kernel. Without such an entry it stays as it is. */
qd_emu_replace qd_emu_ptx_replace;

/* ---- the running thread ---- */

/* Where a call stands in the kernel's source. */
struct qd_emu_site {
    const char *file;
    int line;
};

struct qd_emu_thread {
    uint3 index;              /* threadIdx */
    unsigned linear;          /* index in its block, x fastest */
    unsigned lane;            /* linear % 32 */
    const uint3 *block_index; /* blockIdx */
    const struct qd_emu_launch *launch;
    struct qd_emu_site access; /* of memory, the last: where a fault is; file NULL: not known */
};

/* The CUDA thread that runs on this OS thread; NULL outside of launches. */
extern __thread struct qd_emu_thread *qd_emu_self;

/* Ends the launch with an error at `site` (file NULL: no place to name). */
void qd_emu_fail(struct qd_emu_site site, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));

/* ---- synchronisation ---- */

/* Of whole warps only: an error on another mask than QD_EMU_FULL_WARP. */
#define QD_EMU_FULL_WARP 0xffffffffu
void qd_emu_syncwarp(uint32_t mask, struct qd_emu_site site);

enum qd_emu_shuffle_mode { QD_EMU_SHUFFLE_INDEX, QD_EMU_SHUFFLE_UP, QD_EMU_SHUFFLE_XOR };
/* What nobody wrote: registers, and what a lane brings that the warp does not have. */
#define QD_EMU_POISON 0xdeadbeefdeadbeefull
/* `value` of lane `by`, or of the lane `by` (0 .. 31) further, as __shfl_*_sync. */
uint64_t qd_emu_shuffle(uint32_t mask, enum qd_emu_shuffle_mode mode, uint64_t value, uint32_t by,
                        struct qd_emu_site site);
/* The lanes whose predicate is set. */
uint32_t qd_emu_ballot(uint32_t mask, bool predicate, struct qd_emu_site site);

/* Barrier `id` (0 .. 15) of n_threads, a multiple of 32, or 0 for the whole block. Whole warps only. An error
 * on different counts, too many arrivals, or, for the whole block, exited threads. */
void qd_emu_barrier_sync(unsigned id, unsigned n_threads, struct qd_emu_site site);
void qd_emu_barrier_arrive(unsigned id, unsigned n_threads, struct qd_emu_site site);

/* Lets others go on: called in a loop that waits for another block or device. */
void qd_emu_spin(struct qd_emu_site site);
/* Something happened that a spinning thread may have waited for, on any device. */
void qd_emu_note_progress(void);

/* ---- memory ---- */

/* The static shared object `key` of this block, made (0xff-filled) by the first thread that asks. */
void *qd_emu_shared_object(const void *key, size_t bytes, size_t align, const char *name);
/* The block's dynamic shared memory. */
void *qd_emu_shared_dynamic(void);
/* 32-bit shared addresses: tagged offsets, so that they are no pointers and no plain offsets. */
uint32_t qd_emu_shared_address(const void *p);
/* The bytes behind a shared address: an error unless they lie in one shared object and the address is a
 * multiple of their number. */
void *qd_emu_shared_pointer(uint32_t address, size_t bytes, const char *what, struct qd_emu_site site);
/* cp.async of 16 bytes: the first src_bytes from src, zeros after. When they arrive the mode says. */
void qd_emu_async_copy(uint32_t dst, const void *src, uint32_t src_bytes, struct qd_emu_site site);
void qd_emu_async_commit(void);
void qd_emu_async_wait(unsigned pending);

/* ---- what only the PTX front end sees: every access ---- */

/* Counted for mode.h; a store is checked against qd_emu_write_once. */
void qd_emu_note_load(size_t bytes);
void qd_emu_note_store(const void *p, size_t bytes, bool is_atomic, struct qd_emu_site site);
/* By a load or store of shared memory, number `access` of its kernel's. Its n-th execution by a lane counts
 * as one with the n-th by each other lane of the warp. */
void qd_emu_note_shared(unsigned access, uint32_t address, unsigned bytes);

/* ---- instructions, on raw registers ---- */

void qd_emu_mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], struct qd_emu_site site);
/* n_matrices 1, 2 or 4 registers. */
void qd_emu_ldmatrix(uint32_t *registers, unsigned n_matrices, bool transposed, uint32_t row,
                     struct qd_emu_site site);
float qd_emu_exp2_approx(float x);
uint32_t qd_emu_pack_bf16(float low, float high);
uint4 qd_emu_load_weight_16(const void *p, struct qd_emu_site site);
void qd_emu_store_release(uint32_t *p, uint32_t value);
uint32_t qd_emu_load_acquire(const uint32_t *p, struct qd_emu_site site);
void qd_emu_fence(void);

#ifdef __cplusplus
}
#endif

#endif
