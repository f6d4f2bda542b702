/* The blocks of a running launch: threads, warps, barriers, shared memory, and who runs next. Known to the
 * files of this folder that implement emu.h; front ends see emu.h only. */
#ifndef QD_KERNELS_EMU_BLOCK_H
#define QD_KERNELS_EMU_BLOCK_H

#include <stdatomic.h>

#include "kernels/emu/emu.h"
#include "kernels/emu/mode.h"
#include "kernels/emu/sanitize.h"

enum {
    PAGE_BYTES = 4096, /* of the host: what a guard takes */
    MAX_WARPS = QD_EMU_MAX_THREADS / QD_EMU_WARP_SIZE,
    N_BARRIERS = 16,
    MAX_SHARED_OBJECTS = 64,
    MAX_COPIES = 256, /* cp.async of one thread on their way */
    ERROR_BYTES = 1024,
};

/* A fiber: a stack and where its execution stands. Switching costs a dozen instructions; ucontext's system
 * call per switch would make a barrier 60 times slower. x86-64 only. */
struct qd_emu_fiber {
    void *stack_pointer; /* while it does not run */
    char *stack;         /* lowest byte; of an OS thread's own stack known to AddressSanitizer only */
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
    void *tsan;       /* ThreadSanitizer's */
};

enum { QD_EMU_STACK_BYTES = 128 * 1024 };

/* Makes `fiber` run entry() on its stack when it is switched to first. `stagger` moves the top of the stack:
 * equal offsets in all stacks would share one set of each cache. entry never returns. */
void qd_emu_fiber_init(struct qd_emu_fiber *fiber, void (*entry)(void), unsigned stagger);

/* Leaves `from`, for good when `final`, and goes on in `to`. */
void qd_emu_fiber_switch(struct qd_emu_fiber *from, struct qd_emu_fiber *to, int final);

/* First thing in entry(); `origin` is the OS thread's fiber, which was left for the first fiber ever. */
void qd_emu_fiber_entered(struct qd_emu_fiber *origin);

struct async_copy {
    void *dst; /* NULL: has arrived */
    const void *src;
    uint32_t src_bytes;
    unsigned group; /* the thread's groups before its own */
};

struct thread {
    struct qd_emu_thread self; /* first: qd_emu_self points here */
    struct qd_emu_fiber fiber;
    struct warp *warp;
    struct block *block;
    const char *waits_for;   /* while it cannot run: what its report calls it */
    unsigned barrier;        /* its id, when it waits for qd_emu_barrier_name */
    struct qd_emu_site site; /* where it waits or spins */
    bool exited;
    unsigned n_groups, n_copies; /* of cp.async: committed; nobody waited for */
    struct async_copy copies[MAX_COPIES];
};

/* A load or store of shared memory by a warp (traffic.c). */
struct shared_access {
    uint32_t n_done[QD_EMU_WARP_SIZE]; /* times each lane executed it */
    uint32_t first;                    /* time that open[0] is */
    unsigned n_open, n_counted, capacity;
    struct shared_group *open; /* [n_open] times that are not all counted */
    unsigned bytes;            /* of a lane */
};

struct warp {
    unsigned index;
    struct thread *threads; /* of lane 0 */
    uint32_t existing;      /* lanes the block has */
    uint32_t alive;         /* lanes that have not exited */
    unsigned n_met;         /* collectives begun */
    uint32_t arrived;       /* lanes that have reached the collective under way; 0: none is */
    const char *what;       /* it is, and */
    struct qd_emu_site site;
    void *args[QD_EMU_WARP_SIZE]; /* what each lane brought to it */
    unsigned n_accesses;
    struct shared_access *accesses; /* [n_accesses] of the running block; by their number */
};

struct barrier {
    unsigned arrived, expected;  /* threads; expected 0: nobody has come */
    unsigned turn;               /* times completed */
    bool whole_block;            /* expected was not named */
    struct qd_emu_site site;     /* of the first to come */
    uint32_t came[MAX_WARPS];    /* lanes that arrived */
    uint32_t waiting[MAX_WARPS]; /* those of them that wait */
};

struct shared_object {
    const void *key;
    const char *name;
    uint32_t offset, bytes; /* in the arena */
};

struct block {
    uint3 index; /* blockIdx */
    struct run *run;
    uint64_t linear; /* index in the grid */
    unsigned n_threads, n_warps, n_alive;
    uint32_t runnable_warps;      /* warps with runnable lanes */
    uint32_t runnable[MAX_WARPS]; /* lanes that can run */
    uint32_t spun[MAX_WARPS];     /* lanes that look again for something outside when no other can run */
    struct thread *threads;
    struct warp warps[MAX_WARPS];
    struct barrier barriers[N_BARRIERS];
    uint64_t random;             /* generator's state */
    bool by_priority;            /* random schedule's kind */
    uint8_t priority[MAX_WARPS]; /* warps, most urgent first */
    char *arena;                 /* shared memory */
    uint32_t arena_used;         /* bytes up to which something may have been written */
    unsigned n_objects;          /* object 0 is the dynamic memory */
    struct shared_object objects[MAX_SHARED_OBJECTS];
    char *order_objects; /* addresses that stand for this block's barriers (ThreadSanitizer) */
    char *stacks;
};

/* One launch on one OS thread. */
struct run {
    const struct qd_emu_launch *launch;
    struct qd_emu_mode mode;
    struct qd_emu_counters counters;
    uint32_t number;              /* of the process's launches, from 1 */
    uint64_t n_blocks, n_started; /* of the grid */
    bool spins_in_vain;           /* as told */
    bool failed;
    char error[ERROR_BYTES];
};

/* What an OS thread keeps between launches. */
struct worker {
    struct qd_emu_fiber scheduler;             /* the OS thread's own stack */
    struct run *run;                           /* NULL between launches */
    struct block *blocks[QD_EMU_MAX_RESIDENT]; /* slots, made when first used */
    unsigned n_resident;                       /* slots in use are the first ones */
    char *order_space;                         /* where order_objects point; NULL without ThreadSanitizer */
    char order_start, order_end; /* launch before its threads, threads before the launch's end */
};

/* The worker of this OS thread; NULL before its first launch. */
extern __thread struct worker *qd_emu_worker;

static inline struct thread *current_thread(void)
{
    return (struct thread *)(void *)qd_emu_self;
}

static inline void make_runnable(struct block *b, unsigned warp, uint32_t lanes)
{
    b->runnable[warp] |= lanes;
    if (b->runnable[warp]) b->runnable_warps |= 1u << warp;
}

static inline void stop_running(struct thread *t)
{
    struct block *b = t->block;
    unsigned warp = t->warp->index;
    b->runnable[warp] &= ~(1u << t->self.lane);
    if (b->runnable[warp] == 0) b->runnable_warps &= ~(1u << warp);
}

/* xorshift64. */
static inline uint64_t draw(struct block *b)
{
    uint64_t x = b->random;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return b->random = x;
}

/* The address that stands for a meeting's order to ThreadSanitizer. Meetings in turn use several: a thread
 * that still leaves one must not see what others did before they reached the next. */
enum { ORDERS = 4, ORDER_BYTES = 8, ORDER_PER_BLOCK = (N_BARRIERS + MAX_WARPS) * ORDERS };
/* Of a barrier, or of warp `meeting` - N_BARRIERS. */
static inline void *order_of(const struct block *b, unsigned meeting, unsigned turn)
{
    return b->order_objects + (meeting * ORDERS + turn % ORDERS) * ORDER_BYTES;
}

/* block.c: making and running one block. */
struct block *qd_emu_block_create(bool guard_stacks);
void qd_emu_block_destroy(struct block *block);
/* Makes `block` block number `linear` of the run's grid, all threads at their start. */
void qd_emu_block_start(struct block *block, struct run *run, uint64_t linear);
/* Runs it until no thread can go on; from then on some spin, or all have exited, or it is stuck. */
void qd_emu_block_resume(struct block *block);
bool qd_emu_block_spins(const struct block *block);
/* After its last turn, in success or failure. */
void qd_emu_block_end(struct block *block);

/* Takes the running thread's turn: it waits until someone makes it runnable again. */
void qd_emu_wait(const char *what, struct qd_emu_site site);
/* After completing something for others: in a random schedule another thread may go on first. */
void qd_emu_maybe_switch(void);

/* warp.c */
/* Meets the other lanes; the last to come runs `execute` (may be NULL) for all of them. An error when a lane
 * has exited, or when lanes meet with other names or sites. `what` is one string of its file. */
void qd_emu_collective(uint32_t mask, const char *what, void *arg, void (*execute)(struct warp *warp),
                       struct qd_emu_site site);
void qd_emu_warp_exit(struct thread *thread);

/* barrier.c */
extern const char qd_emu_barrier_name[];
void qd_emu_barriers_reset(struct block *block);
void qd_emu_barriers_exit(struct thread *thread);

/* shared.c */
void qd_emu_shared_create(struct block *block);
void qd_emu_shared_destroy(struct block *block);
void qd_emu_shared_start(struct block *block, size_t dynamic_bytes);
/* Fails the run when bytes between objects were written. */
void qd_emu_shared_end(struct block *block);

/* traffic.c */
/* The lanes' accesses to `bytes` at these addresses of shared memory, as one instruction of a warp. */
void qd_emu_count_shared(struct run *run, uint32_t lanes, const uint32_t *address, unsigned bytes);
/* Counts what divergent lanes left. */
void qd_emu_accesses_end(struct block *block);

/* report.c: failures, recorded in the run. The first one wins. */
void qd_emu_run_fail(struct run *run, const struct thread *thread, struct qd_emu_site site,
                     const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Nothing can run, or spins in vain (`what`): tells who waits where. */
void qd_emu_report_stuck(struct run *run, const char *what);
/* Calls body(run) with faults of CUDA threads turned into a failure of the run; body returns at once then. */
void qd_emu_catch_faults(struct run *run, void (*body)(struct run *run));

/* mode.c */
void qd_emu_add_counters(const struct qd_emu_counters *counters);

#endif
