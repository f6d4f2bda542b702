#include "kernels/emu/block.h"

static const char syncwarp[] = "__syncwarp";

/* Whether the running lane may meet the others here. */
static void check_meeting(const struct warp *w, uint32_t mask, const char *what, struct qd_emu_site site)
{
    if (mask != QD_EMU_FULL_WARP)
        qd_emu_fail(site, "%s of lanes %08x: only whole warps meet in the emulator", what, mask);
    if (w->alive != w->existing)
        qd_emu_fail(site, "%s, but lanes %08x of the warp have exited", what, w->existing & ~w->alive);
    if (w->arrived && (w->what != what || w->site.line != site.line || w->site.file != site.file))
        qd_emu_fail(site, "divergent warp collective: %s here, but lanes %08x wait for %s at %s:%d", what,
                    w->arrived, w->what, w->site.file ? w->site.file : "?", w->site.line);
}

void qd_emu_collective(uint32_t mask, const char *what, void *arg, void (*execute)(struct warp *warp),
                       struct qd_emu_site site)
{
    struct thread *t = current_thread();
    struct warp *w = t->warp;
    check_meeting(w, mask, what, site);
    if (w->arrived == 0) w->what = what, w->site = site, w->n_met++;
    void *order = what == syncwarp ? order_of(t->block, N_BARRIERS + w->index, w->n_met) : NULL;
    if (order) qd_emu_order_before(order);
    w->arrived |= 1u << t->self.lane;
    w->args[t->self.lane] = arg;
    if (w->arrived != w->existing) {
        qd_emu_wait(what, site);
    } else {
        if (execute) execute(w);
        w->arrived = 0;
        make_runnable(t->block, w->index, w->existing);
        qd_emu_maybe_switch();
    }
    if (order) qd_emu_order_after(order);
}

void qd_emu_warp_exit(struct thread *t)
{
    const struct warp *w = t->warp;
    if (w->arrived)
        qd_emu_fail(w->site, "lanes %08x wait for lane %u in %s, which has exited", w->arrived, t->self.lane,
                    w->what);
}

void qd_emu_syncwarp(uint32_t mask, struct qd_emu_site site)
{
    qd_emu_collective(mask, syncwarp, NULL, NULL, site);
}

struct shuffle {
    uint64_t value, result;
    uint32_t by;
    enum qd_emu_shuffle_mode mode;
};

static void execute_shuffle(struct warp *w)
{
    for (uint32_t left = w->existing; left; left &= left - 1) {
        const uint32_t lane = (uint32_t)__builtin_ctz(left);
        struct shuffle *s = w->args[lane];
        const uint32_t source = s->mode == QD_EMU_SHUFFLE_INDEX ? s->by
                                : s->mode == QD_EMU_SHUFFLE_XOR ? lane ^ s->by
                                : lane >= s->by                 ? lane - s->by
                                                                : lane;
        const bool exists = w->existing >> source & 1;
        s->result = exists ? ((const struct shuffle *)w->args[source])->value : QD_EMU_POISON;
    }
}

uint64_t qd_emu_shuffle(uint32_t mask, enum qd_emu_shuffle_mode mode, uint64_t value, uint32_t by,
                        struct qd_emu_site site)
{
    if (by >= QD_EMU_WARP_SIZE) qd_emu_fail(site, "a shuffle by %u lanes", by);
    struct shuffle s = {.value = value, .by = by, .mode = mode};
    qd_emu_collective(mask, "a shuffle", &s, execute_shuffle, site);
    return *(volatile uint64_t *)&s.result; /* another fiber wrote it */
}

/* A lane brings its predicate and takes the result away in the same place. */
static void execute_vote(struct warp *w)
{
    uint32_t result = 0;
    for (uint32_t left = w->existing; left; left &= left - 1)
        if (*(const uint32_t *)w->args[__builtin_ctz(left)]) result |= left & -left;
    for (uint32_t left = w->existing; left; left &= left - 1)
        *(uint32_t *)w->args[__builtin_ctz(left)] = result;
}

uint32_t qd_emu_ballot(uint32_t mask, bool predicate, struct qd_emu_site site)
{
    uint32_t vote = predicate;
    qd_emu_collective(mask, "a vote", &vote, execute_vote, site);
    return *(volatile uint32_t *)&vote;
}
