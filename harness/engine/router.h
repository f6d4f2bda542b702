/* The router: which replica a request goes to. A pure data structure without threads or clocks.
 *
 *   round-robin   by order of submission, dead replicas included, so that a run stays a function of its
 * inputs least-loaded  fewest requests in flight, as the engine counts them itself vllm          vLLM's
 * DPLBAsyncMPClient (2026): max(in flight, waiting + running), and a penalty for a full KV pool where
 * requests wait; the scan starts one further each time vllm-0.9.1    fewest waiting, then fewest running; all
 * to replica 0 until there is a snapshot
 *
 * Both of vLLM's see waiting and running requests through snapshots that a coordinator takes every 100 ms,
 * and count on from them what they place themselves. vLLM multiplies by its number of API servers; here it is
 * one.
 */
#ifndef QD_HARNESS_ENGINE_ROUTER_H
#define QD_HARNESS_ENGINE_ROUTER_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum qd_router_policy {
    QD_ROUTER_ROUND_ROBIN = 0,
    QD_ROUTER_LEAST_LOADED,
    QD_ROUTER_VLLM,
    QD_ROUTER_VLLM_0_9_1,
    QD_N_ROUTER_POLICIES
};

#define QD_ROUTER_SNAPSHOT_NS INT64_C(100000000)

/* What is known of a replica at the moment. */
struct qd_replica_load {
    int32_t n_waiting, n_running; /* in its scheduler */
    double kv_share;              /* of its pages that are in use, 0 .. 1 */
    int32_t n_in_flight;          /* submitted, end not yet read */
    bool is_dead;
};

/* What the router believes of a replica since the last snapshot. */
struct qd_router_view {
    int32_t n_waiting, n_running;
    double kv_share;
};

struct qd_router {
    enum qd_router_policy policy;
    int dp;
    uint64_t n_picked;
    struct qd_router_view *views; /* [dp] */
    int64_t snapshot_ns;
    bool has_snapshot;
};

/* As in --router; NULL for what is no policy. */
const char *qd_router_policy_name(enum qd_router_policy policy);

/* QD_ERR_NO_MEMORY; the router is empty then. */
qd_status qd_router_init(struct qd_router *router, enum qd_router_policy policy, int dp);
void qd_router_free(struct qd_router *router);

/* The replica of the next request, submitted at now_ns (never going back). Policies other than round-robin
 * pass over dead replicas while one lives. */
int qd_router_pick(struct qd_router *router, const struct qd_replica_load *loads, int64_t now_ns);

#endif
