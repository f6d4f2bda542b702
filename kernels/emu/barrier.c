#include "kernels/emu/block.h"

const char qd_emu_barrier_name[] = "barrier";

/* In loops: ThreadSanitizer would take memset for an access of the running thread's. */
static void clear_barrier(struct barrier *r, unsigned n_warps)
{
    r->arrived = 0;
    for (unsigned i = 0; i < n_warps; i++) r->came[i] = r->waiting[i] = 0;
}

void qd_emu_barriers_reset(struct block *b)
{
    for (unsigned i = 0; i < N_BARRIERS; i++) clear_barrier(&b->barriers[i], b->n_warps);
}

/* bar.sync and bar.arrive count whole warps: a part of one would hang or release early on hardware. */
static void check_whole_warps(const struct block *b, const struct barrier *r, unsigned id,
                              struct qd_emu_site site)
{
    for (unsigned i = 0; i < b->n_warps; i++)
        if (r->came[i] && r->came[i] != b->warps[i].existing)
            qd_emu_fail(site, "barrier %u: only lanes %08x of warp %u came", id, r->came[i], i);
}

/* Of a call with these numbers, and those of who came before. */
static void check_call(const struct block *b, unsigned id, unsigned n_threads, struct qd_emu_site site)
{
    if (id >= N_BARRIERS) qd_emu_fail(site, "barrier %u: there are %d", id, N_BARRIERS);
    const struct barrier *r = &b->barriers[id];
    const unsigned expected = n_threads ? n_threads : b->n_threads;
    if (n_threads % QD_EMU_WARP_SIZE || n_threads > b->n_threads)
        qd_emu_fail(site, "barrier %u for %u threads: not a number of warps of a block of %u", id, n_threads,
                    b->n_threads);
    if (n_threads == 0 && b->n_alive != b->n_threads)
        qd_emu_fail(site, "barrier %u of the whole block, but %u of its %u threads have exited", id,
                    b->n_threads - b->n_alive, b->n_threads);
    if (r->arrived > 0 && r->expected != expected)
        qd_emu_fail(site, "barrier %u: %u threads here, but %u at %s:%d", id, expected, r->expected,
                    r->site.file ? r->site.file : "?", r->site.line);
}

static void meet(unsigned id, unsigned n_threads, bool must_wait, struct qd_emu_site site)
{
    struct thread *t = current_thread();
    struct block *b = t->block;
    check_call(b, id, n_threads, site);
    struct barrier *r = &b->barriers[id];
    if (r->arrived++ == 0) {
        r->expected = n_threads ? n_threads : b->n_threads;
        r->whole_block = n_threads == 0;
        r->site = site;
    }
    const uint32_t me = 1u << t->self.lane;
    if (r->came[t->warp->index] & me)
        qd_emu_fail(site, "barrier %u: the thread arrives twice before it completes", id);
    r->came[t->warp->index] |= me;
    void *order = order_of(b, id, r->turn);
    qd_emu_order_before(order);
    if (r->arrived == r->expected) {
        check_whole_warps(b, r, id, site);
        for (unsigned i = 0; i < b->n_warps; i++) make_runnable(b, i, r->waiting[i]);
        clear_barrier(r, b->n_warps);
        r->turn++;
        b->run->counters.barriers++;
        qd_emu_note_progress();
        if (must_wait) qd_emu_maybe_switch();
    } else if (must_wait) {
        r->waiting[t->warp->index] |= me;
        t->barrier = id;
        qd_emu_wait(qd_emu_barrier_name, site);
    }
    if (must_wait) qd_emu_order_after(order);
}

void qd_emu_barrier_sync(unsigned id, unsigned n_threads, struct qd_emu_site site)
{
    meet(id, n_threads, true, site);
}

void qd_emu_barrier_arrive(unsigned id, unsigned n_threads, struct qd_emu_site site)
{
    meet(id, n_threads, false, site);
}

void qd_emu_barriers_exit(struct thread *t)
{
    for (unsigned i = 0; i < N_BARRIERS; i++) {
        const struct barrier *r = &t->block->barriers[i];
        if (r->arrived && r->whole_block)
            qd_emu_fail(r->site, "barrier %u of the whole block: %u threads came, and thread %u has exited",
                        i, r->arrived, t->self.linear);
    }
}
