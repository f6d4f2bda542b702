/* A thread team: the private worker threads of one rank, and the only way a CPU kernel uses several cores.
 *
 * The calling thread is member 0; members 1 .. size-1 are created once, pinned, and sleep between regions
 * (brief spin when every rank has cores of its own, futex otherwise). Threads split rows, columns, heads or
 * sequences, never a sum, so results do not depend on the team's size.
 */
#ifndef QD_KERNELS_BASE_TEAM_H
#define QD_KERNELS_BASE_TEAM_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qd_team qd_team_t;

/* Work of one member: `member` in [0, n_members). */
typedef void (*qd_team_fn)(void *arg, int member, int n_members);

struct qd_team_config {
    int n_members;     /* >= 1, the caller included */
    const int *cores;  /* [n_members] core to pin each member to; NULL: not pinned */
    bool may_spin;     /* false when ranks outnumber cores: wait in the kernel at once */
    const char *label; /* thread name prefix, at most 10 characters, e.g. "r0k1" */
};

/* Starts the workers; with cores, pins them and the caller (restored by destroy). QD_ERR_ENVIRONMENT when the
 * system refuses a thread or a core. */
qd_status qd_team_create(const struct qd_team_config *config, qd_team_t **out, char *err, size_t errlen);

/* Joins the workers; called by the creating thread. Accepts NULL. */
void qd_team_destroy(qd_team_t *team);

int qd_team_size(const qd_team_t *team);

/* Runs fn on every member and returns when all are done; writes of one region are visible to the next.
 * Called by the creating thread only; no allocation, no system call besides futex waits. */
void qd_team_run(qd_team_t *team, qd_team_fn fn, void *arg);

/* Splits [0, n) into contiguous parts whose starts are multiples of `grain`; part `member` is
 * [*begin, *end), empty when there is less work than members. */
void qd_team_split(int64_t n, int64_t grain, int member, int n_members, int64_t *begin, int64_t *end);

#ifdef __cplusplus
}
#endif

#endif
