/* Runs decoded instructions as one CUDA thread. The slots of its registers lie on the thread's own stack. */
#include "kernels/emu/ptx/internal.h"

#include <math.h>

/* A running thread. */
struct state {
    const struct qd_ptx_entry *entry;
    void *const *args;
    union qd_ptx_slot *r;
};

static struct qd_emu_site site_of(const struct state *s, const struct qd_ptx_instruction *i)
{
    return (struct qd_emu_site){s->entry->file, (int)i->line};
}

/* ---- functions that values in instructions.h use ---- */

static uint32_t reverse_bits(uint32_t a)
{
    uint32_t reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (a >> i & 1) << (31 - i);
    return reversed;
}

static double saturated(float integer, double least, double most)
{
    if (isnan(integer)) return 0;
    return integer < least ? least : integer > most ? most : integer;
}

/* Of a number and NaN the number; -0 is less than +0. */
static float smaller(float a, float b)
{
    if (isnan(a) || isnan(b)) return isnan(a) ? b : a;
    if (a == b) return signbit(a) ? a : b;
    return a < b ? a : b;
}

static uint64_t inserted(uint64_t a, uint64_t b, uint32_t start, uint32_t length, uint32_t bits)
{
    start &= 255, length &= 255;
    if (start >= bits || length == 0) return b;
    const uint64_t ones = length >= bits ? ~UINT64_C(0) : (UINT64_C(1) << length) - 1;
    return (b & ~(ones << start)) | (a & ones) << start;
}

static uint64_t checked_divisor(uint64_t b, struct qd_emu_site site)
{
    if (b == 0) qd_emu_fail(site, "integer division by zero");
    return b;
}

static int64_t signed_quotient(int64_t a, int64_t b, struct qd_emu_site site)
{
    checked_divisor((uint64_t)b, site);
    return b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}

/* ---- memory ---- */

/* What an access counts as. */
enum use { FLAG, LOAD, STORE, ATOMIC };

/* The bytes that the address operand in `base` names, checked and counted. */
static void *memory(const struct state *s, const struct qd_ptx_instruction *i, uint16_t base, size_t bytes,
                    enum use use)
{
    const struct qd_emu_site site = site_of(s, i);
    if (i->space == QD_PTX_SHARED) {
        const uint32_t at = s->r[base].u32 + (uint32_t)i->offset;
        void *p = qd_emu_shared_pointer(at, bytes, "access of shared memory", site);
        if (use != ATOMIC) qd_emu_note_shared(i->access, at, (unsigned)bytes);
        return p;
    }
    const uintptr_t address = s->r[base].u64 + (uint64_t)(int64_t)i->offset;
    if (address % bytes != 0)
        qd_emu_fail(site, "access of %zu bytes: %p is not aligned to them", bytes, (void *)address);
    if (i->space == QD_PTX_PARAM) return (void *)address;
    qd_emu_self->access = site;
    if (use == LOAD || use == ATOMIC) qd_emu_note_load(bytes);
    if (use == STORE || use == ATOMIC) qd_emu_note_store((const void *)address, bytes, use == ATOMIC, site);
    return (void *)address;
}

#define COPY_ELEMENTS(from, to)                                                                              \
    for (size_t k = 0; k < n; k++) to = from;                                                                \
    break

/* A register that is wider than the element gets its sign or zeros. */
static void load(const struct state *s, const struct qd_ptx_instruction *i)
{
    const uint16_t *to = i->operand;
    const size_t n = i->n_elements;
    const void *p = memory(s, i, i->operand[n], n * i->bytes, LOAD);
    union qd_ptx_slot *r = s->r;
    switch (i->is_signed ? -i->bytes : i->bytes) {
    case 1: COPY_ELEMENTS(((const uint8_t *)p)[k], r[to[k]].u64);
    case 2: COPY_ELEMENTS(((const uint16_t *)p)[k], r[to[k]].u64);
    case 4: COPY_ELEMENTS(((const uint32_t *)p)[k], r[to[k]].u64);
    case -4: COPY_ELEMENTS(((const int32_t *)p)[k], r[to[k]].s64);
    default: COPY_ELEMENTS(((const uint64_t *)p)[k], r[to[k]].u64);
    }
}

static void store(const struct state *s, const struct qd_ptx_instruction *i)
{
    const uint16_t *from = i->operand + 1;
    const size_t n = i->n_elements;
    void *p = memory(s, i, i->operand[0], n * i->bytes, STORE);
    const union qd_ptx_slot *r = s->r;
    switch (i->bytes) {
    case 1: COPY_ELEMENTS(r[from[k]].u8, ((uint8_t *)p)[k]);
    case 2: COPY_ELEMENTS(r[from[k]].u16, ((uint16_t *)p)[k]);
    case 4: COPY_ELEMENTS(r[from[k]].u32, ((uint32_t *)p)[k]);
    default: COPY_ELEMENTS(r[from[k]].u64, ((uint64_t *)p)[k]);
    }
}

/* [address], a: puts the sum with a there; what was there before. Relaxed, as on hardware. What changes
 * nothing may be a poll in a loop. */
static uint32_t add_atomically(const struct state *s, const struct qd_ptx_instruction *i, const uint16_t *o)
{
    uint32_t *p = memory(s, i, o[0], sizeof *p, ATOMIC);
    const uint32_t added = s->r[o[1]].u32, old = __atomic_fetch_add(p, added, __ATOMIC_RELAXED);
    if (added != 0)
        qd_emu_note_progress();
    else
        qd_emu_spin(site_of(s, i));
    return old;
}

/* ---- warps ---- */

/* d|p, a, b, c, mask; c: what lanes are clamped at, of the whole warp. p: whether there is such a lane. */
static void shuffle(const struct state *s, const struct qd_ptx_instruction *i, enum qd_emu_shuffle_mode mode)
{
    const uint16_t *o = i->operand;
    const uint32_t c = s->r[o[4]].b32, by = s->r[o[3]].b32 & (QD_EMU_WARP_SIZE - 1);
    const uint32_t clamp = mode == QD_EMU_SHUFFLE_UP ? 0 : QD_EMU_WARP_SIZE - 1;
    if (c != clamp) qd_emu_fail(site_of(s, i), "shfl clamps lanes at %#x, not at %#x", c, clamp);
    const uint64_t value = qd_emu_shuffle(s->r[o[5]].b32, mode, s->r[o[2]].b32, by, site_of(s, i));
    s->r[o[0]].b32 = (uint32_t)value;
    s->r[o[1]].pred = mode != QD_EMU_SHUFFLE_UP || qd_emu_self->lane >= by;
}

static void multiply(const struct state *s, const struct qd_ptx_instruction *i)
{
    const uint16_t *d = i->operand, *a = d + 4, *b = a + 4, *c = b + 2;
    union qd_ptx_slot *r = s->r;
    const uint32_t left[4] = {r[a[0]].b32, r[a[1]].b32, r[a[2]].b32, r[a[3]].b32};
    const uint32_t right[2] = {r[b[0]].b32, r[b[1]].b32};
    float sums[4] = {r[c[0]].f32, r[c[1]].f32, r[c[2]].f32, r[c[3]].f32};
    qd_emu_mma_m16n8k16_bf16(sums, left, right, site_of(s, i));
    for (int k = 0; k < 4; k++) r[d[k]].f32 = sums[k];
}

static void load_matrices(const struct state *s, const struct qd_ptx_instruction *i, bool is_transposed)
{
    uint32_t registers[4];
    const uint32_t row = s->r[i->operand[i->n_elements]].u32 + (uint32_t)i->offset;
    qd_emu_ldmatrix(registers, i->n_elements, is_transposed, row, site_of(s, i));
    for (int k = 0; k < i->n_elements; k++) s->r[i->operand[k]].b32 = registers[k];
}

static void load_weight(const struct state *s, const struct qd_ptx_instruction *i)
{
    const uint64_t address = s->r[i->operand[4]].u64 + (uint64_t)(int64_t)i->offset;
    const uint4 v = qd_emu_load_weight_16((const void *)(uintptr_t)address, site_of(s, i));
    const uint32_t words[] = {v.x, v.y, v.z, v.w};
    for (int k = 0; k < 4; k++) s->r[i->operand[k]].u32 = words[k];
}

/* ---- a thread ---- */

/* Of a slot that is neither a register nor a constant. */
static uint64_t start_value(const struct state *s, const struct qd_ptx_start *p)
{
    const struct qd_emu_thread *t = qd_emu_self;
    const unsigned specials[] = {t->index.x, t->launch->block.x, t->launch->grid.x, t->block_index->x,
                                 t->block_index->y}; /* as QD_PTX_SPECIAL_NAMES */
    const struct qd_ptx_shared *object = (const struct qd_ptx_shared *)(uintptr_t)p->value;
    if (p->kind == QD_PTX_SLOT_SPECIAL) return specials[p->value];
    if (p->kind == QD_PTX_SLOT_PARAM) return (uintptr_t)s->args[p->value];
    if (object->bytes == 0) return qd_emu_shared_address(qd_emu_shared_dynamic());
    return qd_emu_shared_address(qd_emu_shared_object(object, object->bytes, object->align, object->name));
}

/* Everything that neither computes a value nor decides what comes next. */
static void execute_other(const struct state *s, const struct qd_ptx_instruction *i)
{
    union qd_ptx_slot *r = s->r;
    const uint16_t *o = i->operand;
    const struct qd_emu_site site = site_of(s, i);
    qd_emu_self->access = site;
    switch (i->op) {
    case QD_PTX_OP_PACK_16: r[o[0]].b32 = r[o[1]].b16 | (uint32_t)r[o[2]].b16 << 16; break;
    case QD_PTX_OP_PACK_32: r[o[0]].b64 = r[o[1]].b32 | (uint64_t)r[o[2]].b32 << 32; break;
    case QD_PTX_OP_UNPACK_32:
        r[o[1]].u64 = r[o[2]].u64 >> 32;
        r[o[0]].u64 = r[o[2]].u32;
        break;
    case QD_PTX_OP_INSERT_32:
        r[o[0]].b32 = (uint32_t)inserted(r[o[1]].b32, r[o[2]].b32, r[o[3]].u32, r[o[4]].u32, 32);
        break;
    case QD_PTX_OP_INSERT_64:
        r[o[0]].b64 = inserted(r[o[1]].b64, r[o[2]].b64, r[o[3]].u32, r[o[4]].u32, 64);
        break;
    case QD_PTX_OP_BAR_SYNC_ALL: qd_emu_barrier_sync(r[o[0]].u32, 0, site); break;
    case QD_PTX_OP_BAR_SYNC: qd_emu_barrier_sync(r[o[0]].u32, r[o[1]].u32, site); break;
    case QD_PTX_OP_BAR_ARRIVE: qd_emu_barrier_arrive(r[o[0]].u32, r[o[1]].u32, site); break;
    case QD_PTX_OP_SYNCWARP: qd_emu_syncwarp(r[o[0]].b32, site); break;
    case QD_PTX_OP_FENCE: qd_emu_fence(); break;
    case QD_PTX_OP_SHUFFLE_INDEX: shuffle(s, i, QD_EMU_SHUFFLE_INDEX); break;
    case QD_PTX_OP_SHUFFLE_UP: shuffle(s, i, QD_EMU_SHUFFLE_UP); break;
    case QD_PTX_OP_SHUFFLE_XOR: shuffle(s, i, QD_EMU_SHUFFLE_XOR); break;
    case QD_PTX_OP_BALLOT: r[o[0]].b32 = qd_emu_ballot(r[o[2]].b32, r[o[1]].pred, site); break;
    case QD_PTX_OP_LDMATRIX_1:
    case QD_PTX_OP_LDMATRIX_2:
    case QD_PTX_OP_LDMATRIX_4: load_matrices(s, i, false); break;
    case QD_PTX_OP_LDMATRIX_4_TRANS: load_matrices(s, i, true); break;
    case QD_PTX_OP_MMA: multiply(s, i); break;
    case QD_PTX_OP_COPY_ASYNC:
        qd_emu_async_copy(r[o[0]].u32, (const void *)(uintptr_t)r[o[1]].u64, r[o[2]].u32, site);
        break;
    case QD_PTX_OP_COPY_COMMIT: qd_emu_async_commit(); break;
    case QD_PTX_OP_COPY_WAIT: qd_emu_async_wait((unsigned)i->offset); break;
    case QD_PTX_OP_LOAD_WEIGHT: load_weight(s, i); break;
    case QD_PTX_OP_LOAD_ACQUIRE:
        r[o[0]].u64 = qd_emu_load_acquire((const uint32_t *)memory(s, i, o[1], 4, FLAG), site);
        break;
    case QD_PTX_OP_STORE_RELEASE:
        qd_emu_store_release((uint32_t *)memory(s, i, o[0], 4, FLAG), r[o[1]].u32);
        break;
    case QD_PTX_OP_ATOMIC_ADD_GLOBAL:
    case QD_PTX_OP_ATOMIC_ADD_SHARED: r[o[0]].u32 = add_atomically(s, i, o + 1); break;
    case QD_PTX_OP_REDUCE_ADD_SHARED: add_atomically(s, i, o); break;
    default: qd_emu_fail(site, "instruction %u is decoded, but not executed", i->op);
    }
}

#define RESULT(type, value)                                                                                  \
    r[i->operand[0]].type = (__typeof__(r->type))(value);                                                    \
    break
#define SITE site_of(&s, i)
/* Operands that an instruction does not have are slot 0. */
#define UNARY(name, result, A, value)     TERNARY(name, result, A, A, A, value)
#define BINARY(name, result, A, B, value) TERNARY(name, result, A, B, B, value)

#define OPERAND(name, n, type) __attribute__((unused)) const __typeof__(r->type) name = r[i->operand[n]].type
#define TERNARY(name, result, A, B, C, value)                                                                \
    case QD_PTX_OP_##name: {                                                                                 \
        OPERAND(a, 1, A);                                                                                    \
        OPERAND(b, 2, B);                                                                                    \
        OPERAND(c, 3, C);                                                                                    \
        RESULT(result, value);                                                                               \
    }
void qd_ptx_run_thread(void *const *args, const void *kernel)
{
    const struct qd_ptx_entry *entry = kernel;
    union qd_ptx_slot r[entry->n_slots];
    const struct state s = {entry, args, r};
    for (size_t n = 0; n < entry->n_slots; n++) {
        const struct qd_ptx_start *p = &entry->starts[n];
        r[n].u64 = p->kind <= QD_PTX_SLOT_CONSTANT ? p->value : start_value(&s, p);
    }
    for (const struct qd_ptx_instruction *i = entry->code;; i++) {
        if (i->guard != 0 && (r[i->guard].pred != 0) != i->wanted) continue;
        switch (i->op) {
            QD_PTX_UNARY(UNARY)
            QD_PTX_BINARY(BINARY)
            QD_PTX_TERNARY(TERNARY)
        case QD_PTX_OP_LOAD: load(&s, i); break;
        case QD_PTX_OP_STORE: store(&s, i); break;
        case QD_PTX_OP_BRANCH:
        case QD_PTX_OP_BRANCH_UNIFORM: i = entry->code + i->offset - 1; break;
        case QD_PTX_OP_RETURN: return;
        default: execute_other(&s, i);
        }
    }
}
