/* Where registers live. nvcc writes thousands of registers, each for one value; most live within one run of
 * instructions without branches. Those share slots, so that a thread's memory fits into a cache. A register
 * that could be read before it is written keeps a slot of its own, which starts as poison. */
#include "kernels/emu/ptx/internal.h"

#include <stdlib.h>

#include "kernels/base/status.h"

static const uint32_t NOWHERE = UINT32_MAX;

struct use {
    uint32_t block; /* in which it is used first; NOWHERE: nowhere yet */
    bool is_shared; /* may have another's slot when it is not in use */
    size_t last;    /* instruction that uses it */
};

struct assignment {
    struct use *uses; /* [n_plans] */
    uint16_t *slot;   /* [n_plans]; 0: none now */
    uint16_t *free;   /* [n_free] slots that nobody has now */
    bool *starts;     /* [n_code] whether a branch comes here, or came before */
    size_t n_free, n_slots;
};

static void find_blocks(const struct qd_ptx_loader *l, bool *starts)
{
    const struct qd_ptx_entry *e = l->entry;
    for (size_t i = 0; i < l->n_labels; i++)
        if (l->labels[i].instruction < e->n_code) starts[l->labels[i].instruction] = true;
    for (size_t i = 0; i + 1 < e->n_code; i++)
        if (e->code[i].op == QD_PTX_OP_BRANCH || e->code[i].op == QD_PTX_OP_BRANCH_UNIFORM)
            starts[i + 1] = true;
}

static void note_use(struct use *u, size_t instruction, uint32_t block, bool is_defined)
{
    if (u->block == NOWHERE) {
        u->block = block;
        u->is_shared = is_defined;
    } else if (u->block != block) {
        u->is_shared = false;
    }
    u->last = instruction;
}

static void find_uses(const struct qd_ptx_entry *e, struct assignment *a)
{
    uint32_t block = 0;
    for (size_t n = 0; n < e->n_code; n++) {
        const struct qd_ptx_instruction *i = &e->code[n];
        if (a->starts[n]) block++;
        if (i->guard) note_use(&a->uses[i->guard], n, block, false);
        for (unsigned o = i->n_written; o < i->n_operands; o++)
            note_use(&a->uses[i->operand[o]], n, block, false);
        for (unsigned o = 0; o < i->n_written; o++)
            note_use(&a->uses[i->operand[o]], n, block, i->guard == 0);
    }
}

static void place(struct assignment *a, uint16_t *operand)
{
    uint16_t *slot = &a->slot[*operand];
    if (*slot == 0) *slot = a->n_free > 0 ? a->free[--a->n_free] : (uint16_t)a->n_slots++;
    *operand = *slot;
}

static void release(struct assignment *a, uint16_t plan, size_t instruction)
{
    if (!a->uses[plan].is_shared || a->uses[plan].last != instruction || a->slot[plan] == 0) return;
    a->free[a->n_free++] = a->slot[plan];
    a->slot[plan] = 0;
}

static void place_operands(struct qd_ptx_entry *e, struct assignment *a)
{
    for (size_t n = 0; n < e->n_code; n++) {
        struct qd_ptx_instruction *i = &e->code[n];
        uint16_t plans[QD_PTX_MAX_OPERANDS];
        const uint16_t guard = i->guard;
        if (guard) i->guard = a->slot[guard];
        for (unsigned o = 0; o < i->n_operands; o++) {
            plans[o] = i->operand[o];
            place(a, &i->operand[o]);
        }
        /* Only now: what is written must not lie over what is still to be read. */
        for (unsigned o = 0; o < i->n_operands; o++) release(a, plans[o], n);
        if (guard) release(a, guard, n);
    }
}

/* Constants, addresses, and registers that live longer, from slot 1 on. */
static void place_own(const struct qd_ptx_loader *l, struct assignment *a)
{
    a->n_slots = 1;
    for (size_t p = 1; p < l->n_plans; p++) {
        const bool is_used = l->plans[p].kind != QD_PTX_PLAN_REGISTER || a->uses[p].block != NOWHERE;
        if (is_used && !a->uses[p].is_shared) a->slot[p] = (uint16_t)a->n_slots++;
    }
}

static bool finish(struct qd_ptx_loader *l, const struct assignment *a)
{
    struct qd_ptx_entry *e = l->entry;
    if (a->n_slots > QD_PTX_MAX_SLOTS)
        return qd_ptx_refuse(l, l->token_line, "%s: %zu registers and constants at a time, at most %d",
                             e->name, a->n_slots, QD_PTX_MAX_SLOTS);
    e->n_slots = a->n_slots;
    e->initial = malloc(a->n_slots * sizeof *e->initial);
    QD_ASSERT(e->initial != NULL);
    for (size_t s = 0; s < a->n_slots; s++) e->initial[s].u64 = QD_EMU_POISON;
    for (size_t p = 1; p < l->n_plans; p++)
        if (l->plans[p].kind == QD_PTX_PLAN_CONSTANT) e->initial[a->slot[p]] = l->plans[p].value;
    for (size_t b = 0; b < e->n_bindings; b++) e->bindings[b].slot = a->slot[e->bindings[b].slot];
    return true;
}

bool qd_ptx_assign_slots(struct qd_ptx_loader *l)
{
    struct qd_ptx_entry *e = l->entry;
    struct assignment a = {
        .uses = calloc(l->n_plans, sizeof *a.uses),
        .slot = calloc(l->n_plans, sizeof *a.slot),
        .free = calloc(l->n_plans, sizeof *a.free),
        .starts = calloc(e->n_code, sizeof *a.starts),
    };
    QD_ASSERT(a.uses != NULL && a.slot != NULL && a.free != NULL && a.starts != NULL);
    for (size_t p = 0; p < l->n_plans; p++) a.uses[p].block = NOWHERE;
    find_blocks(l, a.starts);
    find_uses(e, &a);
    place_own(l, &a);
    place_operands(e, &a);
    bool done = finish(l, &a);
    free(a.uses);
    free(a.slot);
    free(a.free);
    free(a.starts);
    return done;
}
