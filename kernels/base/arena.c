#include "kernels/base/arena.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/base/size.h"

enum { PAGE_BYTES = 4096, HUGE_PAGE_BYTES = 2 << 20 };

qd_status qd_arena_init(struct qd_arena *arena, size_t capacity, char *err, size_t errlen)
{
    *arena = (struct qd_arena){0};
    if (capacity == 0) return QD_OK;
    if (capacity > SIZE_MAX - 2 * (size_t)HUGE_PAGE_BYTES)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "arena of %zu bytes", capacity);
    size_t body = qd_round_up(capacity, PAGE_BYTES), padded = body + HUGE_PAGE_BYTES;
    unsigned char *raw =
        mmap(NULL, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "cannot map %zu bytes: %s", padded, strerror(errno));

    /* Starting on a 2 MiB boundary, huge pages can back all but the end of it. The end is not rounded up to one:
     * ranks have a dozen small arenas each, and every one would take 2 MiB as soon as it is touched. */
    unsigned char *base = (unsigned char *)qd_round_up((uintptr_t)raw, HUGE_PAGE_BYTES);
    size_t head = (size_t)(base - raw);
    if (head > 0) munmap(raw, head);
    if (padded - head - body > 0) munmap(base + body, padded - head - body);
    madvise(base, body, MADV_HUGEPAGE);
    arena->base = base;
    arena->capacity = body;
    return QD_OK;
}

void *qd_arena_take(struct qd_arena *arena, size_t bytes, size_t align)
{
    size_t start = qd_round_up(arena->used, align), end;
    if (!qd_size_add(start, bytes, &end) || end > arena->capacity) return NULL;
    arena->used = end;
    return arena->base + start;
}

void qd_arena_free(struct qd_arena *arena)
{
    if (arena->base != NULL) munmap(arena->base, arena->capacity);
    *arena = (struct qd_arena){0};
}
