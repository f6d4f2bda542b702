#include "kernels/bootstrap.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/futex.h"
#include "kernels/base/size.h"

enum failure_state { FAILURE_NONE, FAILURE_BEING_WRITTEN, FAILURE_KNOWN };

struct qd_thread_bootstrap {
    int world;
    bool may_spin;
    _Atomic int n_arrived;      /* ranks inside the present barrier */
    struct qd_futex generation; /* barriers passed; an abort counts one more, to wake everybody */
    _Atomic int failure;        /* enum failure_state; the text below is constant once it is KNOWN */
    char text[QD_ERR_LEN];      /* "rank 1: step 7: reason" */
    const void *inputs[];       /* [world] of the present all_gather */
};

static qd_status barrier(void *ctx, int rank, char *err, size_t errlen)
{
    (void)rank;
    struct qd_thread_bootstrap *shared = ctx;
    /* The generation is read before the failure is looked for, and abort writes them in the other order: a
     * failure that is not seen here changes the generation that is waited for. */
    uint32_t generation = atomic_load(&shared->generation.word);
    if (atomic_load(&shared->failure) == FAILURE_NONE) {
        if (atomic_fetch_add(&shared->n_arrived, 1) == shared->world - 1) {
            atomic_store(&shared->n_arrived, 0);
            atomic_fetch_add(&shared->generation.word, 1);
            qd_futex_wake_all(&shared->generation);
        } else {
            qd_futex_wait_change(&shared->generation, generation, shared->may_spin);
        }
    }
    if (atomic_load(&shared->failure) == FAILURE_NONE) return QD_OK;
    while (atomic_load(&shared->failure) != FAILURE_KNOWN) qd_futex_pause();
    return qd_fail(QD_ERR_RANK, err, errlen, "%s", shared->text);
}

static qd_status all_gather(void *ctx, int rank, const void *in, size_t bytes, void *out, char *err,
                            size_t errlen)
{
    struct qd_thread_bootstrap *shared = ctx;
    shared->inputs[rank] = in;
    QD_TRY(barrier(ctx, rank, err, errlen));
    for (int r = 0; r < shared->world; r++)
        memcpy((unsigned char *)out + (size_t)r * bytes, shared->inputs[r], bytes);
    /* Nobody may change its input, nor name the next one, before all have copied. */
    return barrier(ctx, rank, err, errlen);
}

static void abort_all(void *ctx, int rank, const char *phase, const char *reason)
{
    struct qd_thread_bootstrap *shared = ctx;
    int none = FAILURE_NONE;
    if (!atomic_compare_exchange_strong(&shared->failure, &none, FAILURE_BEING_WRITTEN)) return;
    snprintf(shared->text, sizeof shared->text, "rank %d: %s: %s", rank, phase, reason);
    atomic_store(&shared->failure, FAILURE_KNOWN);
    atomic_fetch_add(&shared->generation.word, 1);
    qd_futex_wake_all(&shared->generation);
}

qd_status qd_thread_bootstrap_create(int world, qd_thread_bootstrap_t **out, char *err, size_t errlen)
{
    *out = NULL;
    if (world < 1) return qd_fail(QD_ERR_ARGUMENT, err, errlen, "a world of %d ranks", world);
    size_t bytes;
    struct qd_thread_bootstrap *shared = NULL;
    if (qd_size_mul((size_t)world, sizeof shared->inputs[0], &bytes) &&
        qd_size_add(bytes, sizeof *shared, &bytes))
        shared = calloc(1, bytes);
    if (shared == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a world of %d ranks", world);
    shared->world = world;
    *out = shared;
    return QD_OK;
}

void qd_thread_bootstrap_set_spin(qd_thread_bootstrap_t *shared, bool may_spin)
{
    shared->may_spin = may_spin;
}

void qd_thread_bootstrap_destroy(qd_thread_bootstrap_t *shared)
{
    free(shared);
}

struct qd_bootstrap qd_thread_bootstrap_rank(qd_thread_bootstrap_t *shared, int rank)
{
    return (struct qd_bootstrap){
        .rank = rank,
        .world = shared->world,
        .ctx = shared,
        .all_gather = all_gather,
        .barrier = barrier,
        .abort = abort_all,
    };
}
