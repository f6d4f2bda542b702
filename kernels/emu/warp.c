#include "kernels/emu/block.h"

static const char syncwarp[] = "__syncwarp";

/* The warp's pending collective that shares lanes with `mask`; NULL when there is none. */
static const struct pending *find_pending(const struct warp *w, uint32_t mask)
{
    for (unsigned i = 0; i < QD_EMU_WARP_SIZE; i++)
        if (w->pending[i].lanes.mask & mask) return &w->pending[i];
    return NULL;
}

static bool same_site(struct qd_emu_site a, struct qd_emu_site b)
{
    return a.line == b.line &&
           (a.file == b.file || (a.file && b.file && __builtin_strcmp(a.file, b.file) == 0));
}

static void check_mask(const struct thread *t, uint32_t mask, struct qd_emu_site site)
{
    const struct warp *w = t->warp;
    if (!(mask >> t->self.lane & 1))
        qd_emu_fail(site, "lane %u is not in its own mask %08x", t->self.lane, mask);
    if (mask & w->existing & ~w->alive)
        qd_emu_fail(site, "mask %08x names lanes %08x, which have exited", mask,
                    mask & w->existing & ~w->alive);
}

static struct pending *join_pending(struct warp *w, uint32_t mask, const char *what, struct qd_emu_site site)
{
    struct pending *p = &w->pending[__builtin_ctz(mask)];
    if (p->lanes.mask == mask && p->what == what && same_site(p->site, site)) return p;
    const struct pending *other = find_pending(w, mask);
    if (other != NULL)
        qd_emu_fail(site,
                    "divergent warp collective: mask %08x here, but lanes %08x wait at %s:%d with mask %08x",
                    mask, other->arrived, other->site.file ? other->site.file : "?", other->site.line,
                    other->lanes.mask);
    p->lanes.mask = mask;
    p->arrived = 0;
    p->turn = w->n_met++;
    p->what = what;
    p->site = site;
    return p;
}

void qd_emu_collective(uint32_t mask, const char *what, void *arg, void (*execute)(struct lanes *lanes),
                       struct qd_emu_site site)
{
    struct thread *t = current_thread();
    struct warp *w = t->warp;
    check_mask(t, mask, site);
    mask &= w->existing;
    struct pending *p = join_pending(w, mask, what, site);
    void *order = what == syncwarp ? warp_order(t->block, w->index, p->turn) : NULL;
    if (order) qd_emu_order_before(order);
    p->arrived |= 1u << t->self.lane;
    p->lanes.args[t->self.lane] = arg;
    if (p->arrived != mask) {
        qd_emu_wait(what, site);
    } else {
        if (execute) execute(&p->lanes);
        p->lanes.mask = 0;
        make_runnable(t->block, w->index, mask);
        qd_emu_maybe_switch();
    }
    if (order) qd_emu_order_after(order);
}

void qd_emu_warp_exit(struct thread *t)
{
    const struct pending *p = find_pending(t->warp, 1u << t->self.lane);
    if (p)
        qd_emu_fail(p->site, "lanes %08x wait for lane %u, which has exited (mask %08x)", p->arrived,
                    t->self.lane, p->lanes.mask);
}

void qd_emu_syncwarp(uint32_t mask, struct qd_emu_site site)
{
    qd_emu_collective(mask, syncwarp, NULL, NULL, site);
}

struct shuffle {
    uint64_t value, result;
    uint32_t lane, width;
    enum qd_emu_shuffle_mode mode;
};

bool qd_emu_shuffle_source(enum qd_emu_shuffle_mode mode, uint32_t self, uint32_t by, uint32_t width,
                           uint32_t *source)
{
    const uint32_t first = self & ~(width - 1), last = first + width - 1;
    const uint32_t lane = mode == QD_EMU_SHUFFLE_INDEX ? first + (by & (width - 1))
                          : mode == QD_EMU_SHUFFLE_UP  ? self - by
                                                       : self ^ by;
    const bool is_inside = lane <= last && (mode != QD_EMU_SHUFFLE_UP || lane >= first);
    *source = is_inside ? lane : self;
    return is_inside;
}

static void execute_shuffle(struct lanes *lanes)
{
    for (uint32_t left = lanes->mask; left; left &= left - 1) {
        unsigned l = (unsigned)__builtin_ctz(left);
        struct shuffle *s = lanes->args[l];
        uint32_t source;
        (void)qd_emu_shuffle_source(s->mode, l, s->lane, s->width, &source);
        bool takes_part = lanes->mask >> source & 1;
        s->result = takes_part ? ((const struct shuffle *)lanes->args[source])->value : QD_EMU_POISON;
    }
}

uint64_t qd_emu_shuffle(uint32_t mask, enum qd_emu_shuffle_mode mode, uint64_t value, uint32_t lane,
                        uint32_t width, struct qd_emu_site site)
{
    if (width == 0 || width > QD_EMU_WARP_SIZE || (width & (width - 1)))
        qd_emu_fail(site, "shuffle of width %u", width);
    struct shuffle s = {.value = value, .lane = lane, .width = width, .mode = mode};
    qd_emu_collective(mask, "a shuffle", &s, execute_shuffle, site);
    return *(volatile uint64_t *)&s.result; /* another fiber wrote it */
}

/* A lane brings its predicate and takes the result away in the same place. */
static void execute_vote(struct lanes *lanes)
{
    uint32_t result = 0;
    for (uint32_t left = lanes->mask; left; left &= left - 1)
        if (*(const uint32_t *)lanes->args[__builtin_ctz(left)]) result |= left & -left;
    for (uint32_t left = lanes->mask; left; left &= left - 1)
        *(uint32_t *)lanes->args[__builtin_ctz(left)] = result;
}

uint32_t qd_emu_ballot(uint32_t mask, bool predicate, struct qd_emu_site site)
{
    uint32_t vote = predicate;
    qd_emu_collective(mask, "a vote", &vote, execute_vote, site);
    return *(volatile uint32_t *)&vote;
}
