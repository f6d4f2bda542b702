/* Step rows on their way from a replica's thread to one reader. The writer never waits and never allocates: a
 * row that finds no room is counted instead.
 */
#ifndef QD_HARNESS_ENGINE_STEP_RING_H
#define QD_HARNESS_ENGINE_STEP_RING_H

#include <stdatomic.h>

#include "harness/engine/step_row.h"

struct qd_step_ring {
    struct qd_step_row *rows; /* [n_rows] owned; NULL: nobody wants them */
    size_t n_rows;            /* a power of two, or 0 */
    atomic_size_t n_pushed, n_taken;
    atomic_uint_fast64_t n_dropped;
};

/* Room for at least n_rows rows, all touched; with 0 rows pushing does nothing. QD_ERR_NO_MEMORY. */
qd_status qd_step_ring_init(struct qd_step_ring *ring, size_t n_rows, char *err, size_t errlen);
void qd_step_ring_free(struct qd_step_ring *ring);

void qd_step_ring_push(struct qd_step_ring *ring, const struct qd_step_row *row);

/* Up to max of the oldest rows; returns their number. */
size_t qd_step_ring_take(struct qd_step_ring *ring, struct qd_step_row *rows, size_t max);

/* Empties it and forgets what was dropped; nobody may push or take meanwhile. */
void qd_step_ring_clear(struct qd_step_ring *ring);

#endif
