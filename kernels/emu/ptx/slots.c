/* Where values live. nvcc gives each value a register of its own, and most are read soon: those that live
 * within a run of instructions without branches share slots, so that a thread's values fit into a cache. A
 * register that could be read before it is written keeps a slot of its own, which starts as poison. */
#include "kernels/emu/ptx/internal.h"

#include <stdlib.h>

#include "kernels/base/status.h"

struct life {
    size_t run;     /* of instructions, in which it is used first; 0: in none yet */
    size_t last;    /* instruction that uses it */
    bool is_shared; /* its slot is another's afterwards */
    uint16_t slot;  /* 0: none now */
};

struct slots {
    struct life *lives; /* [n_plans] */
    uint16_t *free;     /* [n_free] that nobody has now */
    size_t n_free, n;
};

static void use(struct life *life, size_t run, size_t instruction, bool is_defined)
{
    if (life->run == 0) *life = (struct life){.run = run, .is_shared = is_defined};
    life->is_shared &= life->run == run;
    life->last = instruction;
}

static void find_lives(const struct qd_ptx_loader *l, struct life *lives)
{
    const struct qd_ptx_place *label = l->labels, *end = label + l->n_labels;
    size_t run = 1;
    for (size_t n = 0; n < l->entry->n_code; n++) {
        const struct qd_ptx_instruction *i = &l->entry->code[n];
        for (; label < end && label->instruction == n; label++) run++;
        if (i->guard != 0) use(&lives[i->guard], run, n, false);
        for (unsigned o = i->n_operands; o-- > 0;) /* what is read comes before what is written */
            use(&lives[i->operand[o]], run, n, o < i->n_written && i->guard == 0);
        if (i->op == QD_PTX_OP_BRANCH || i->op == QD_PTX_OP_BRANCH_UNIFORM) run++;
    }
}

static void place(struct slots *s, uint16_t *operand)
{
    struct life *life = &s->lives[*operand];
    if (life->slot == 0)
        life->slot = life->is_shared && s->n_free > 0 ? s->free[--s->n_free] : (uint16_t)s->n++;
    *operand = life->slot;
}

static void release(struct slots *s, uint16_t plan, size_t instruction)
{
    struct life *life = &s->lives[plan];
    if (!life->is_shared || life->last != instruction || life->slot == 0) return;
    s->free[s->n_free++] = life->slot;
    life->slot = 0;
}

static void place_operands(const struct qd_ptx_entry *e, struct slots *s)
{
    for (size_t n = 0; n < e->n_code; n++) {
        struct qd_ptx_instruction *i = &e->code[n];
        const struct qd_ptx_instruction planned = *i;
        if (i->guard != 0) place(s, &i->guard);
        for (unsigned o = 0; o < i->n_operands; o++) place(s, &i->operand[o]);
        /* Only now: what is written must not lie over what is still to be read. */
        for (unsigned o = 0; o < i->n_operands; o++) release(s, planned.operand[o], n);
        if (i->guard != 0) release(s, planned.guard, n);
    }
}

void qd_ptx_place_slots(struct qd_ptx_loader *l)
{
    struct qd_ptx_entry *e = l->entry;
    struct slots s = {
        .lives = calloc(l->n_plans, sizeof *s.lives), .free = calloc(l->n_plans, sizeof *s.free), .n = 1};
    QD_ASSERT(s.lives != NULL && s.free != NULL);
    find_lives(l, s.lives);
    place_operands(e, &s);
    e->n_slots = s.n;
    e->initial = malloc(s.n * sizeof *e->initial);
    QD_ASSERT(e->initial != NULL);
    for (size_t n = 0; n < s.n; n++) e->initial[n].u64 = QD_EMU_POISON;
    for (size_t n = 1; n < l->n_plans; n++) {
        const struct qd_ptx_plan *p = &l->plans[n];
        const uint16_t slot = s.lives[n].slot;
        if (p->kind == QD_PTX_PLAN_CONSTANT) {
            e->initial[slot].u64 = p->value;
        } else if (p->kind != QD_PTX_PLAN_REGISTER) {
            e->at_start = qd_ptx_grow(e->at_start, e->n_at_start, sizeof *p);
            e->at_start[e->n_at_start++] = (struct qd_ptx_plan){p->kind, slot, p->value};
        }
    }
    free(s.lives);
    free(s.free);
}
