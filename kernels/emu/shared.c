#include "kernels/emu/block.h"

#include <sys/mman.h>

#include "kernels/base/status.h"

/* The arena: a guard page, the objects with RED_BYTES between them, a guard page. All bytes are 0xff at a
 * block's start, which reads as NaN; those between objects must still be at its end. */
enum {
    RED_BYTES = 64,
    ALIGN_MAX = 128, /* of a static object */
    BASE_ODD = 16,   /* dynamic memory is promised no more alignment than this */
    ARENA_BYTES = 192 * 1024,
};
#define ADDRESS_TAG 0x01000000u
_Static_assert(ARENA_BYTES >=
                   QD_EMU_MAX_SHARED_BYTES + MAX_SHARED_OBJECTS * (RED_BYTES + ALIGN_MAX) + BASE_ODD,
               "every allowed set of objects fits");

void qd_emu_shared_create(struct block *b)
{
    size_t total = ARENA_BYTES + 2 * PAGE_BYTES;
    char *base = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    QD_ASSERT(base != MAP_FAILED);
    b->arena = base + PAGE_BYTES;
    b->arena_used = ARENA_BYTES;
    QD_ASSERT(mprotect(b->arena, ARENA_BYTES, PROT_READ | PROT_WRITE) == 0);
}

void qd_emu_shared_destroy(struct block *b)
{
    qd_emu_show(b->arena, ARENA_BYTES);
    munmap(b->arena - PAGE_BYTES, ARENA_BYTES + 2 * PAGE_BYTES);
}

/* 64-bit stores in a loop, not memset: ThreadSanitizer would take that for an access of the scheduler's. */
static void fill_ff(char *p, size_t bytes)
{
    volatile uint64_t *words = (volatile uint64_t *)(void *)p;
    for (size_t i = 0; i < (bytes + 7) / 8; i++) words[i] = ~UINT64_C(0);
}

static struct shared_object *add_object(struct block *b, const void *key, const char *name, uint32_t offset,
                                        size_t bytes)
{
    struct shared_object *o = &b->objects[b->n_objects++];
    *o = (struct shared_object){.key = key, .name = name, .offset = offset, .bytes = (uint32_t)bytes};
    b->arena_used = offset + o->bytes + RED_BYTES;
    qd_emu_show(b->arena + offset, bytes);
    return o;
}

void qd_emu_shared_start(struct block *b, size_t dynamic_bytes)
{
#ifdef QD_EMU_TSAN
    /* Fresh pages: what an earlier block did here is forgotten. */
    mmap(b->arena, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    b->arena_used = ARENA_BYTES;
#endif
    qd_emu_show(b->arena, ARENA_BYTES);
    fill_ff(b->arena, b->arena_used);
    qd_emu_hide(b->arena, ARENA_BYTES);
    b->n_objects = 0;
    add_object(b, NULL, "dynamic shared memory", b->run->mode.shared_base_odd ? BASE_ODD : 0, dynamic_bytes);
}

void qd_emu_shared_end(struct block *b)
{
    if (b->run->failed) return;
    qd_emu_show(b->arena, ARENA_BYTES);
    const struct shared_object *before = b->objects;
    for (uint32_t i = 0, next = 0; i < b->arena_used; i++) {
        while (next < b->n_objects && i == b->objects[next].offset) {
            before = &b->objects[next++];
            i += before->bytes;
        }
        if (i < b->arena_used && (unsigned char)b->arena[i] != 0xff) {
            qd_emu_run_fail(b->run, &b->threads[0], (struct qd_emu_site){0},
                            "a thread of the block wrote past the end of %s (%u bytes)", before->name,
                            before->bytes);
            return;
        }
    }
}

void *qd_emu_shared_object(const void *key, size_t bytes, size_t align, const char *name)
{
    struct block *b = current_thread()->block;
    const size_t limit = b->run->launch->shared_limit;
    const struct qd_emu_site nowhere = {0};
    size_t all_bytes = bytes; /* static ones */
    for (unsigned i = 1; i < b->n_objects; i++) {
        if (b->objects[i].key == key) return b->arena + b->objects[i].offset;
        all_bytes += b->objects[i].bytes;
    }
    if (align < 16) align = 16;
    QD_ASSERT(align <= ALIGN_MAX && b->n_objects < MAX_SHARED_OBJECTS);
    if (all_bytes > QD_EMU_DEFAULT_SHARED_BYTES)
        qd_emu_fail(nowhere, "static shared memory beyond %d bytes with %s", QD_EMU_DEFAULT_SHARED_BYTES,
                    name);
    if (all_bytes + b->objects[0].bytes > limit)
        qd_emu_fail(nowhere, "shared memory beyond %zu bytes with %s", limit, name);
    uint32_t offset = (b->arena_used + (uint32_t)align - 1) & ~((uint32_t)align - 1);
    return b->arena + add_object(b, key, name, offset, bytes)->offset;
}

void *qd_emu_shared_dynamic(void)
{
    const struct block *b = current_thread()->block;
    return b->arena + b->objects[0].offset;
}

uint32_t qd_emu_shared_address(const void *p)
{
    const struct block *b = current_thread()->block;
    const size_t offset = (size_t)((const char *)p - b->arena);
    if (offset >= ARENA_BYTES) qd_emu_fail((struct qd_emu_site){0}, "%p is no pointer to shared memory", p);
    return ADDRESS_TAG + (uint32_t)offset;
}

void *qd_emu_shared_pointer(uint32_t address, size_t bytes, const char *what, struct qd_emu_site site)
{
    const struct block *b = current_thread()->block;
    uint32_t offset = address - ADDRESS_TAG;
    if (address % bytes != 0)
        qd_emu_fail(site, "%s: shared address %08x is not %zu-byte aligned", what, address, bytes);
    for (unsigned i = 0; i < b->n_objects; i++) {
        const struct shared_object *o = &b->objects[i];
        if (offset >= o->offset && (uint64_t)offset + bytes <= (uint64_t)o->offset + o->bytes)
            return b->arena + offset;
    }
    qd_emu_fail(
        site, "%s: %zu bytes at shared address %08x lie in no shared object (dynamic memory: %08x, %u bytes)",
        what, bytes, address, ADDRESS_TAG + b->objects[0].offset, b->objects[0].bytes);
}
