/* Bootstrap: how the ranks of one replica find each other before any collective exists.
 *
 * It carries small messages only (addresses, identifiers, error flags). The thread implementation serves
 * ranks of one process; an MPI one comes later behind the same struct.
 */
#ifndef QD_KERNELS_BOOTSTRAP_H
#define QD_KERNELS_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qd_bootstrap {
    int rank;  /* 0 .. world-1 */
    int world; /* ranks of the replica */
    void *ctx;
    /* Gathers `bytes` from every rank into out[world * bytes], in rank order. Collective.
     * QD_ERR_RANK when a rank has aborted: err names rank and phase. */
    qd_status (*all_gather)(void *ctx, int rank, const void *in, size_t bytes, void *out, char *err,
                            size_t errlen);
    /* Returns when every rank has arrived. Collective. Errors as above. */
    qd_status (*barrier)(void *ctx, int rank, char *err, size_t errlen);
    /* Makes every present and later wait of every rank fail with this rank, phase and reason. The first
     * failure is kept. */
    void (*abort)(void *ctx, int rank, const char *phase, const char *reason);
};

typedef struct qd_thread_bootstrap qd_thread_bootstrap_t;

/* Bootstrap among `world` threads of this process. */
qd_status qd_thread_bootstrap_create(int world, qd_thread_bootstrap_t **out, char *err, size_t errlen);
/* Lets waiting ranks spin before they sleep; to be set before the ranks start, and only when every rank has
 * cores of its own. Off at first. */
void qd_thread_bootstrap_set_spin(qd_thread_bootstrap_t *shared, bool may_spin);
void qd_thread_bootstrap_destroy(qd_thread_bootstrap_t *shared); /* accepts NULL; after all ranks ended */
struct qd_bootstrap qd_thread_bootstrap_rank(qd_thread_bootstrap_t *shared, int rank);

#ifdef __cplusplus
}
#endif

#endif
