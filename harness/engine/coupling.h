/* Data parallelism as vLLM 0.9.1 had it, dense models included: every forward pass begins with a small
 * all-reduce over all replicas, so they go in lock-step rounds, and one without work runs a dummy batch for
 * the others.
 *
 * A replica decides (real batch or dummy) when its host is free: when its real step has ended, or
 * QD_COUPLING_DUMMY_NS after the round began if it ran a dummy. The round begins when all have decided. A
 * request that comes after its replica has decided waits for the round after. Where nobody has requests there
 * are no rounds; the next request makes all of them decide at once. (0.9.1 itself noticed that only every few
 * dozen rounds, which is not modelled.) Source: the published report's runs, replayed; vllm/v1/engine/core.py
 * of 0.9.1.
 *
 * Plain logic over times: who steps the replicas tells it what happens, in the order of time.
 */
#ifndef QD_HARNESS_ENGINE_COUPLING_H
#define QD_HARNESS_ENGINE_COUPLING_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum qd_dp_coupling { QD_COUPLING_NONE = 0, QD_COUPLING_VLLM_0_9_1 };

/* From the beginning of a round until the host of a replica that runs a dummy is free again: as fitted to the
 * published report's 36 cells (L40S, eager, 36 layers). */
#define QD_COUPLING_DUMMY_NS INT64_C(12000000)

struct qd_coupled_replica {
    int64_t free_ns; /* its host decides from then on; INT64_MAX while it runs a real step */
    bool has_decided, is_real;
    bool has_requests;
    int64_t since_ns; /* of a replica with requests that runs none of them: since when */
    int64_t wait_ns;  /* sum of such times */
    uint64_t n_dummies;
};

struct qd_coupling {
    int dp;
    struct qd_coupled_replica *replicas; /* [dp] owned */
    bool is_running;                     /* rounds follow each other */
};

/* QD_ERR_NO_MEMORY; empty then. */
qd_status qd_coupling_init(struct qd_coupling *coupling, int dp);
void qd_coupling_free(struct qd_coupling *coupling); /* harmless on a zeroed struct */

/* The replica has requests, perhaps for long. */
void qd_coupling_arrive(struct qd_coupling *coupling, int replica, int64_t now_ns);

/* Whether it has to decide now. */
bool qd_coupling_may_decide(const struct qd_coupling *coupling, int replica, int64_t now_ns);
/* It has; not for a real batch: it has no requests. */
void qd_coupling_decide(struct qd_coupling *coupling, int replica, bool is_real);

/* Once all have decided a round begins: true, and every real step begins now. Or there are no more rounds. */
bool qd_coupling_begin_round(struct qd_coupling *coupling, int64_t now_ns);

/* Its real step has ended. */
void qd_coupling_end(struct qd_coupling *coupling, int replica, bool has_requests, int64_t now_ns);

/* When the next replica that ran a dummy decides; INT64_MAX: none does. */
int64_t qd_coupling_next_ns(const struct qd_coupling *coupling);

/* Forgets waits and dummies so far. */
void qd_coupling_reset(struct qd_coupling *coupling);

#endif
