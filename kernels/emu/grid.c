#include "kernels/emu/block.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "kernels/base/status.h"
#include "kernels/emu/mode.h"

enum {
    OPEN_NEXT_AFTER_US = 1000, /* a block spins in vain so long before the next one of its launch joins it */
    SLEEP_AFTER_US = 5000,     /* and the OS thread so long before it sleeps instead of yielding */
    SLEEP_US = 50,
    ORDER_SPACE_BYTES = 1 << 22,
};

static _Atomic uint32_t n_launches; /* of the process */

static struct worker *get_worker(void)
{
    if (qd_emu_worker) return qd_emu_worker;
    qd_emu_worker = calloc(1, sizeof *qd_emu_worker);
    QD_ASSERT(qd_emu_worker != NULL);
#ifdef QD_EMU_TSAN
    qd_emu_worker->order_space =
        mmap(NULL, ORDER_SPACE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    qd_emu_worker->scheduler.tsan = __tsan_get_current_fiber();
#endif
    return qd_emu_worker;
}

void qd_emu_release_thread(void)
{
    struct worker *w = qd_emu_worker;
    if (w == NULL) return;
    for (unsigned i = 0; i < QD_EMU_MAX_RESIDENT; i++) qd_emu_block_destroy(w->blocks[i]);
    if (w->order_space) munmap(w->order_space, ORDER_SPACE_BYTES);
    free(w);
    qd_emu_worker = NULL;
}

/* Blocks in index order, or, in a random schedule, from anywhere on, forwards or backwards. */
static uint64_t nth_block(const struct run *run, uint64_t n)
{
    if (run->mode.schedule == QD_EMU_SCHEDULE_FIXED) return n;
    const uint64_t from = run->mode.seed * 2654435761u % run->n_blocks;
    return (from + (run->mode.seed % 2 ? n : run->n_blocks - n)) % run->n_blocks;
}

/* Resident blocks of each device: launches of several streams share its SMs. */
static _Atomic unsigned n_resident_on[QD_EMU_MAX_DEVICES];

static bool take_place(const struct run *run)
{
    _Atomic unsigned *n_resident = &n_resident_on[run->launch->device];
    unsigned n = atomic_load(n_resident);
    while (n < run->mode.resident_blocks)
        if (atomic_compare_exchange_weak(n_resident, &n, n + 1)) return true;
    return false;
}

/* Makes the next block of the grid resident; false when there is none, or no place for it. */
static bool open_next(struct run *run)
{
    struct worker *w = qd_emu_worker;
    if (run->n_started == run->n_blocks || !take_place(run)) return false;
    const uint64_t linear = nth_block(run, run->n_started++);
    struct block **slot = &w->blocks[w->n_resident++];
    if (*slot == NULL) *slot = qd_emu_block_create(w->n_resident == 1);
    if (w->order_space)
        (*slot)->order_objects = w->order_space + linear * ORDER_PER_BLOCK * ORDER_BYTES %
                                                      (ORDER_SPACE_BYTES - ORDER_PER_BLOCK * ORDER_BYTES);
    qd_emu_block_start(*slot, run, linear);
    return true;
}

/* Block in slot `i` has ended; the slots in use stay the first ones. */
static void close_block(struct run *run, unsigned i)
{
    struct worker *w = qd_emu_worker;
    struct block *ended = w->blocks[i];
    qd_emu_block_end(ended);
    w->n_resident--;
    w->blocks[i] = w->blocks[w->n_resident];
    w->blocks[w->n_resident] = ended;
    atomic_fetch_sub(&n_resident_on[run->launch->device], 1);
    run->counters.blocks++;
}

static _Atomic uint64_t progress; /* events on all devices */

void qd_emu_note_progress(void)
{
    atomic_fetch_add_explicit(&progress, 1, memory_order_relaxed);
}

/* Gives each resident block a turn, the last one first. */
static void run_round(struct run *run)
{
    struct worker *w = qd_emu_worker;
    for (unsigned i = w->n_resident; i-- > 0 && !run->failed;) {
        struct block *b = w->blocks[i];
        qd_emu_block_resume(b);
        if (run->failed) return;
        if (b->n_alive == 0)
            close_block(run, i);
        else if (!qd_emu_block_spins(b))
            qd_emu_report_stuck(run, "deadlock");
    }
}

static void tell_spins(struct run *run, bool in_vain)
{
    if (run->spins_in_vain == in_vain || run->launch->spins == NULL) return;
    run->spins_in_vain = in_vain;
    run->launch->spins(run->launch->spins_arg, in_vain);
}

/* All resident blocks spin, or none has a place, and nothing has happened on any device for `idle_us`. */
static void idle(struct run *run, uint64_t idle_us)
{
    if (idle_us > run->mode.stall_ms * 1000u) {
        qd_emu_report_stuck(run, "livelock, threads spin without progress");
        return;
    }
    if (idle_us > OPEN_NEXT_AFTER_US) {
        tell_spins(run, true);
        if (open_next(run)) return;
    }
    if (idle_us > SLEEP_AFTER_US)
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_US * 1000}, NULL);
    else
        sched_yield();
}

static void run_blocks(struct run *run)
{
    struct worker *w = qd_emu_worker;
    uint64_t seen = atomic_load(&progress);
    int64_t since_ns = qd_clock_now_ns();
    while (!run->failed && (w->n_resident > 0 || run->n_started < run->n_blocks)) {
        bool is_full = w->n_resident == 0 && !open_next(run);
        run_round(run);
        if (run->failed || (w->n_resident == 0 && !is_full)) continue;
        uint64_t now = atomic_load(&progress);
        int64_t now_ns = qd_clock_now_ns();
        if (now != seen) {
            seen = now, since_ns = now_ns;
            tell_spins(run, false);
        } else {
            idle(run, (uint64_t)(now_ns - since_ns) / 1000);
        }
    }
}

bool qd_emu_shape_fits(const struct qd_emu_launch *l, char *err, size_t errlen)
{
    const uint3 g = l->grid, b = l->block;
    const uint64_t threads = (uint64_t)b.x * b.y * b.z;
    if (threads == 0 || threads > QD_EMU_MAX_THREADS || b.z > QD_EMU_MAX_BLOCK_Z)
        snprintf(err, errlen, "kernel %s: blocks of %u x %u x %u threads", l->name, b.x, b.y, b.z);
    else if (g.x == 0 || g.x > INT32_MAX || g.y == 0 || g.y > QD_EMU_MAX_GRID_YZ || g.z == 0 ||
             g.z > QD_EMU_MAX_GRID_YZ)
        snprintf(err, errlen, "kernel %s: a grid of %u x %u x %u", l->name, g.x, g.y, g.z);
    else if (l->shared_bytes > l->shared_limit)
        snprintf(err, errlen, "kernel %s: %zu bytes of shared memory, more than %zu", l->name,
                 l->shared_bytes, l->shared_limit);
    else
        return true;
    return false;
}

int qd_emu_run_grid(const struct qd_emu_launch *launch, char *err, size_t errlen)
{
    if (!qd_emu_shape_fits(launch, err, errlen)) return -1;
    struct worker *w = get_worker();
    struct run run = {
        .launch = launch,
        .mode = qd_emu_get_mode(),
        .number = ++n_launches,
        .n_blocks = (uint64_t)launch->grid.x * launch->grid.y * launch->grid.z,
        .counters = {.launches = 1},
    };
    w->run = &run;
    qd_emu_order_before(&w->order_start);

    qd_emu_catch_faults(&run, run_blocks);

    while (w->n_resident > 0) close_block(&run, w->n_resident - 1); /* after a failure */
    tell_spins(&run, false);
    qd_emu_order_after(&w->order_end);
    w->run = NULL;
    qd_emu_add_counters(&run.counters);
    if (run.failed) snprintf(err, errlen, "%s", run.error);
    return run.failed ? -1 : 0;
}
