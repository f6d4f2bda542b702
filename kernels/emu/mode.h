/* How the emulator behaves where CUDA leaves it open, and what it counted: the only state that all emulated
 * devices of a process share. A launch uses the mode that is set when it starts. */
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

#ifdef __cplusplus
}
#endif

#endif
