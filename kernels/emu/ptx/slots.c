/* Where registers live. nvcc writes thousands of registers, each for one value; most live within one run of
 * instructions without branches. Those share slots, so that a thread's memory fits into a cache. A register
 * that could be read before it is written keeps a slot of its own, which starts as poison. */
#include "kernels/emu/ptx/internal.h"

#include <stdlib.h>

uint16_t qd_ptx_add_plan(struct qd_ptx_loader *l, enum qd_ptx_plan_kind kind, uint64_t value)
{
    l->plans = qd_ptx_grow(l->plans, l->n_plans, sizeof *l->plans);
    l->plans[l->n_plans] = (struct qd_ptx_plan){.kind = kind, .value = value};
    return (uint16_t)l->n_plans++;
}

static void note_use(struct qd_ptx_loader *l, uint16_t plan, bool is_defined)
{
    struct qd_ptx_plan *p = &l->plans[plan];
    p->is_shared = p->block == 0 ? is_defined : p->is_shared && p->block == l->block;
    p->block = l->block;
    p->last_use = l->entry->n_code;
}

/* What it reads before what it writes, as it is executed. */
void qd_ptx_note_uses(struct qd_ptx_loader *l, const struct qd_ptx_instruction *i)
{
    if (i->guard) note_use(l, i->guard, false);
    for (unsigned o = i->n_written; o < i->n_operands; o++) note_use(l, i->operand[o], false);
    for (unsigned o = 0; o < i->n_written; o++) note_use(l, i->operand[o], i->guard == 0);
}

/* Slots that nobody has now, and how many there are. */
struct pool {
    uint16_t *free; /* [n_free] */
    size_t n_free, n_slots;
};

static uint16_t place(struct qd_ptx_plan *p, struct pool *pool)
{
    if (p->slot == 0) p->slot = pool->n_free > 0 ? pool->free[--pool->n_free] : (uint16_t)pool->n_slots++;
    return p->slot;
}

static void release(struct qd_ptx_plan *p, struct pool *pool, size_t instruction)
{
    if (!p->is_shared || p->last_use != instruction || p->slot == 0) return;
    pool->free[pool->n_free++] = p->slot;
    p->slot = 0;
}

static void place_operands(struct qd_ptx_loader *l, size_t n, struct pool *pool)
{
    struct qd_ptx_instruction *i = &l->entry->code[n];
    const struct qd_ptx_instruction planned = *i;
    if (i->guard) i->guard = l->plans[i->guard].slot;
    for (unsigned o = 0; o < i->n_operands; o++) i->operand[o] = place(&l->plans[i->operand[o]], pool);
    /* Only now: what is written must not lie over what is still to be read. */
    for (unsigned o = 0; o < i->n_operands; o++) release(&l->plans[planned.operand[o]], pool, n);
    if (planned.guard) release(&l->plans[planned.guard], pool, n);
}

bool qd_ptx_assign_slots(struct qd_ptx_loader *l)
{
    struct qd_ptx_entry *e = l->entry;
    struct pool pool = {.free = calloc(l->n_plans, sizeof *pool.free), .n_slots = 1};
    QD_ASSERT(pool.free != NULL);
    /* First constants, addresses, and registers that live longer. */
    for (struct qd_ptx_plan *p = l->plans + 1; p < l->plans + l->n_plans; p++)
        if (p->block != 0 && !p->is_shared) place(p, &pool);
    for (size_t n = 0; n < e->n_code; n++) place_operands(l, n, &pool);
    free(pool.free);
    if (pool.n_slots > QD_PTX_MAX_SLOTS)
        return qd_ptx_refuse(l, l->token->line, "%s: %zu registers and constants at a time, at most %d",
                             e->name, pool.n_slots, QD_PTX_MAX_SLOTS);
    e->n_slots = pool.n_slots;
    e->initial = malloc(e->n_slots * sizeof *e->initial);
    QD_ASSERT(e->initial != NULL);
    for (size_t s = 0; s < e->n_slots; s++) e->initial[s].u64 = QD_EMU_POISON;
    for (const struct qd_ptx_plan *p = l->plans + 1; p < l->plans + l->n_plans; p++) {
        if (p->slot == 0) continue;
        e->initial[p->slot].u64 = p->value;
        if (p->kind <= QD_PTX_PLAN_CONSTANT) continue;
        e->bindings = qd_ptx_grow(e->bindings, e->n_bindings, sizeof *e->bindings);
        e->bindings[e->n_bindings++] = (struct qd_ptx_binding){p->kind, p->slot, p->value};
    }
    return true;
}
