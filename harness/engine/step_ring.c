#include "harness/engine/step_ring.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

qd_status qd_step_ring_init(struct qd_step_ring *ring, size_t n_rows, char *err, size_t errlen)
{
    size_t room = 1, n_bytes;
    memset(ring, 0, sizeof *ring);
    if (n_rows == 0) return QD_OK;
    while (room < n_rows && room <= SIZE_MAX / 2) room *= 2;
    if (qd_size_mul(room, sizeof *ring->rows, &n_bytes)) ring->rows = malloc(n_bytes);
    if (ring->rows == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for %zu step rows", n_rows);
    memset(ring->rows, 0, n_bytes); /* pages are there before anything is timed */
    ring->n_rows = room;
    return QD_OK;
}

void qd_step_ring_free(struct qd_step_ring *ring)
{
    free(ring->rows);
    ring->rows = NULL;
    ring->n_rows = 0;
}

void qd_step_ring_push(struct qd_step_ring *ring, const struct qd_step_row *row)
{
    if (ring->n_rows == 0) return;
    size_t n_pushed = atomic_load_explicit(&ring->n_pushed, memory_order_relaxed);
    if (n_pushed - atomic_load_explicit(&ring->n_taken, memory_order_acquire) == ring->n_rows) {
        atomic_fetch_add_explicit(&ring->n_dropped, 1, memory_order_relaxed);
        return;
    }
    ring->rows[n_pushed & (ring->n_rows - 1)] = *row;
    atomic_store_explicit(&ring->n_pushed, n_pushed + 1, memory_order_release);
}

size_t qd_step_ring_take(struct qd_step_ring *ring, struct qd_step_row *rows, size_t max)
{
    size_t n_taken = atomic_load_explicit(&ring->n_taken, memory_order_relaxed);
    size_t n = atomic_load_explicit(&ring->n_pushed, memory_order_acquire) - n_taken;
    if (n > max) n = max;
    for (size_t i = 0; i < n; i++) rows[i] = ring->rows[(n_taken + i) & (ring->n_rows - 1)];
    atomic_store_explicit(&ring->n_taken, n_taken + n, memory_order_release);
    return n;
}

void qd_step_ring_clear(struct qd_step_ring *ring)
{
    atomic_store(&ring->n_taken, atomic_load(&ring->n_pushed));
    atomic_store(&ring->n_dropped, 0);
}
