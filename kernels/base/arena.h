/* Arenas: one large mapping, handed out in aligned pieces, released as a whole.
 *
 * Weights, activations and the KV pool of a rank live in arenas that are reserved before any timing starts;
 * nothing inside a step allocates. The mapping asks for 2 MiB pages; what it takes is its capacity, rounded up
 * to 4 KiB.
 */
#ifndef QD_KERNELS_BASE_ARENA_H
#define QD_KERNELS_BASE_ARENA_H

#include <stddef.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qd_arena {
    unsigned char *base; /* start of the mapping, 2 MiB aligned; NULL when empty */
    size_t capacity;     /* bytes mapped */
    size_t used;         /* bytes handed out, alignment included */
};

/* Maps `capacity` zeroed bytes (lazily backed). QD_ERR_NO_MEMORY when the kernel refuses. */
qd_status qd_arena_init(struct qd_arena *arena, size_t capacity, char *err, size_t errlen);

/* Hands out `bytes`, aligned to `align` (a power of two, at most 2 MiB). NULL when it does not fit: the
 * caller computed the capacity, so that is a bug or a refused configuration, never a reason to grow. */
void *qd_arena_take(struct qd_arena *arena, size_t bytes, size_t align);

/* Unmaps; the arena is empty afterwards. Harmless on an empty arena. */
void qd_arena_free(struct qd_arena *arena);

#ifdef __cplusplus
}
#endif

#endif
