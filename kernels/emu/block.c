#include "kernels/emu/block.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "kernels/base/status.h"

__thread struct qd_emu_thread *qd_emu_self;
__thread struct worker *qd_emu_worker;

enum { PRIORITY_SWAP_ODDS = 256, TSAN_STACK_BYTES = 32 * 1024 };

/* ---- whose turn ---- */

/* The lowest bit set in `bits` at or after `from`, wrapping around. */
static unsigned next_bit(uint32_t bits, unsigned from)
{
    uint32_t rotated = bits >> from | bits << (-from & 31);
    return (from + (unsigned)__builtin_ctz(rotated)) & 31;
}

static unsigned most_urgent_warp(const struct block *b)
{
    unsigned i = 0;
    while (!(b->runnable_warps >> b->priority[i] & 1)) i++;
    return b->priority[i];
}

/* The next thread to run, NULL when none can. Fixed schedule: the lowest lane of warp `from` or of the next
 * after it. */
static struct thread *pick(struct block *b, unsigned from)
{
    if (b->runnable_warps == 0) return NULL;
    unsigned warp, first_lane = 0;
    if (b->run->mode.schedule == QD_EMU_SCHEDULE_FIXED) {
        warp = next_bit(b->runnable_warps, from);
    } else {
        uint64_t bits = draw(b);
        if (b->by_priority && bits % PRIORITY_SWAP_ODDS == 0) {
            unsigned i = (unsigned)(bits >> 16) % b->n_warps, k = (unsigned)(bits >> 32) % b->n_warps;
            uint8_t moved = b->priority[i];
            b->priority[i] = b->priority[k], b->priority[k] = moved;
        }
        warp = b->by_priority ? most_urgent_warp(b) : next_bit(b->runnable_warps, bits >> 40 & 31);
        first_lane = bits >> 50 & 31;
    }
    return &b->warps[warp].threads[next_bit(b->runnable[warp], first_lane)];
}

static void switch_from(struct thread *from, struct thread *to, bool final)
{
    if (from == to) return;
    qd_emu_self = to ? &to->self : NULL;
    qd_emu_fiber_switch(&from->fiber, to ? &to->fiber : &qd_emu_worker->scheduler, final);
}

void qd_emu_wait(const char *what, struct qd_emu_site site)
{
    struct thread *t = current_thread();
    t->waits_for = what;
    t->site = site;
    stop_running(t);
    switch_from(t, pick(t->block, t->warp->index), false);
}

void qd_emu_maybe_switch(void)
{
    struct thread *t = current_thread();
    if (t->block->run->mode.schedule == QD_EMU_SCHEDULE_RANDOM)
        switch_from(t, pick(t->block, t->warp->index), false);
}

/* A lane that has looked once waits until all others of its block have blocked or looked, too; then the
 * scheduler lets other blocks and devices go on before they look again. */
void qd_emu_spin(struct qd_emu_site site)
{
    const struct thread *t = current_thread();
    t->block->spun[t->warp->index] |= 1u << t->self.lane;
    qd_emu_wait("a flag", site);
}

/* ---- a thread's life ---- */

static void exit_thread(struct thread *t)
{
    struct block *b = t->block;
    if (t->n_copies > 0)
        qd_emu_fail((struct qd_emu_site){0},
                    "the thread ends with %u cp.async copies that it never waited for", t->n_copies);
    t->exited = true;
    t->warp->alive &= ~(1u << t->self.lane);
    stop_running(t);
    b->n_alive--;
    qd_emu_warp_exit(t);
    qd_emu_barriers_exit(t);
    qd_emu_note_progress();
}

static void thread_main(void)
{
    qd_emu_fiber_entered(&qd_emu_worker->scheduler);
    struct thread *t = current_thread();
    qd_emu_order_after(&qd_emu_worker->order_start);
    t->self.launch->call(t->self.launch->args, t->self.launch->kernel);
    exit_thread(t);
    qd_emu_order_before(&qd_emu_worker->order_end);
    switch_from(t, pick(t->block, t->warp->index), true);
    __builtin_unreachable();
}

/* ---- a block's life ---- */

enum { STACK_STEP = QD_EMU_STACK_BYTES + PAGE_BYTES };

/* Each above a page that may be a guard. Blocks beyond the first resident one do without: the system limits
 * how many areas of memory a process may tell apart. */
static void make_stacks(struct block *b, bool are_guarded)
{
    b->stacks = mmap(NULL, (size_t)QD_EMU_MAX_THREADS * STACK_STEP, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    QD_ASSERT(b->stacks != MAP_FAILED);
    for (size_t i = 0; i < QD_EMU_MAX_THREADS; i++) {
        char *guard = b->stacks + i * STACK_STEP;
        if (are_guarded) QD_ASSERT(mprotect(guard, PAGE_BYTES, PROT_NONE) == 0);
        b->threads[i].fiber.stack = guard + PAGE_BYTES;
        b->threads[i].fiber.stack_bytes = QD_EMU_STACK_BYTES;
    }
}

struct block *qd_emu_block_create(bool guard_stacks)
{
    struct block *b = calloc(1, sizeof *b);
    QD_ASSERT(b != NULL);
    b->threads = calloc(QD_EMU_MAX_THREADS, sizeof *b->threads);
    QD_ASSERT(b->threads != NULL);
    make_stacks(b, guard_stacks);
    qd_emu_shared_create(b);
    return b;
}

void qd_emu_block_destroy(struct block *b)
{
    if (b == NULL) return;
    qd_emu_shared_destroy(b);
    munmap(b->stacks, (size_t)QD_EMU_MAX_THREADS * STACK_STEP);
    free(b->threads);
    free(b);
}

static void seed_block(struct block *b)
{
    b->random = (b->run->mode.seed + 1) * 0x9E3779B97F4A7C15u ^ (b->linear + 1) * 0xBF58476D1CE4E5B9u;
    if (b->random == 0) b->random = 1;
    for (int i = 0; i < 8; i++) draw(b); /* the seed's bits spread */
    b->by_priority = draw(b) & 1;
    for (unsigned i = 0; i < b->n_warps; i++) {
        unsigned j = (unsigned)(draw(b) % (i + 1));
        b->priority[i] = b->priority[j];
        b->priority[j] = (uint8_t)i;
    }
}

static void start_warps(struct block *b)
{
    b->runnable_warps = 0;
    for (unsigned i = 0; i < b->n_warps; i++) {
        struct warp *w = &b->warps[i];
        unsigned lanes = b->n_threads - i * QD_EMU_WARP_SIZE;
        w->index = i;
        w->threads = &b->threads[i * QD_EMU_WARP_SIZE];
        w->existing = lanes >= QD_EMU_WARP_SIZE ? ~0u : (1u << lanes) - 1;
        w->alive = w->existing;
        w->arrived = 0;
        b->runnable[i] = b->spun[i] = 0;
        make_runnable(b, i, w->existing);
    }
}

/* ThreadSanitizer takes threads for the same that get the same slot of its own one after the other: threads
 * of equal index in two blocks must not. Fresh pages make it forget what another block did to this stack. */
static void watch_threads(struct block *b)
{
    (void)b;
#ifdef QD_EMU_TSAN
    enum { STEP = 37 };
    for (unsigned i = 0; i < b->n_threads; i++) {
        struct qd_emu_fiber *f = &b->threads[(i + b->linear * STEP) % b->n_threads].fiber;
        mmap(f->stack + QD_EMU_STACK_BYTES - TSAN_STACK_BYTES, TSAN_STACK_BYTES, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        f->tsan = __tsan_create_fiber(0);
    }
#endif
}

static void start_threads(struct block *b)
{
    const uint3 dim = b->run->launch->block;
    watch_threads(b);
    for (unsigned i = 0; i < b->n_threads; i++) {
        struct thread *t = &b->threads[i];
        t->self.index = (uint3){i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
        t->self.linear = i;
        t->self.lane = i % QD_EMU_WARP_SIZE;
        t->self.block_index = &b->index;
        t->self.launch = b->run->launch;
        t->self.access = (struct qd_emu_site){0};
        t->warp = &b->warps[i / QD_EMU_WARP_SIZE];
        t->block = b;
        t->exited = false;
        t->n_copies = t->n_groups = 0;
        qd_emu_fiber_init(&t->fiber, thread_main, i);
    }
}

void qd_emu_block_start(struct block *b, struct run *run, uint64_t linear)
{
    const uint3 grid = run->launch->grid, dim = run->launch->block;
    b->run = run;
    b->linear = linear;
    b->index = (uint3){(unsigned)(linear % grid.x), (unsigned)(linear / grid.x % grid.y),
                       (unsigned)(linear / grid.x / grid.y)};
    b->n_threads = b->n_alive = dim.x * dim.y * dim.z;
    b->n_warps = (b->n_threads + QD_EMU_WARP_SIZE - 1) / QD_EMU_WARP_SIZE;
    seed_block(b);
    start_warps(b);
    qd_emu_barriers_reset(b);
    qd_emu_shared_start(b, run->launch->shared_bytes);
    start_threads(b);
}

void qd_emu_block_resume(struct block *b)
{
    for (unsigned i = 0; i < b->n_warps; i++) {
        make_runnable(b, i, b->spun[i]);
        b->spun[i] = 0;
    }
    struct thread *t = pick(b, 0);
    if (t == NULL) return;
    qd_emu_self = &t->self;
    qd_emu_fiber_switch(&qd_emu_worker->scheduler, &t->fiber, false);
    qd_emu_self = NULL;
}

bool qd_emu_block_spins(const struct block *b)
{
    for (unsigned i = 0; i < b->n_warps; i++)
        if (b->spun[i]) return true;
    return false;
}

void qd_emu_block_end(struct block *b)
{
    qd_emu_shared_end(b);
    qd_emu_accesses_end(b);
#ifdef QD_EMU_TSAN
    for (unsigned i = 0; i < b->n_threads; i++) {
        struct thread *t = &b->threads[i];
        if (!t->exited) { /* the launch has failed; its end comes after what this thread did all the same */
            __tsan_switch_to_fiber(t->fiber.tsan, QD_EMU_TSAN_NO_ORDER);
            qd_emu_order_before(&qd_emu_worker->order_end);
            __tsan_switch_to_fiber(qd_emu_worker->scheduler.tsan, QD_EMU_TSAN_NO_ORDER);
        }
        __tsan_destroy_fiber(t->fiber.tsan);
    }
#endif
}
