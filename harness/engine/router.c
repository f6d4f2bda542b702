#include "harness/engine/router.h"

#include <stdlib.h>

static const char *const policy_names[QD_N_ROUTER_POLICIES] = {"round-robin", "least-loaded", "vllm",
                                                               "vllm-0.9.1"};

const char *qd_router_policy_name(enum qd_router_policy policy)
{
    return (unsigned)policy < QD_N_ROUTER_POLICIES ? policy_names[policy] : NULL;
}

qd_status qd_router_init(struct qd_router *router, enum qd_router_policy policy, int dp)
{
    *router = (struct qd_router){.policy = policy, .dp = dp};
    router->views = calloc((size_t)dp, sizeof *router->views);
    return router->views != NULL ? QD_OK : QD_ERR_NO_MEMORY;
}

void qd_router_free(struct qd_router *router)
{
    free(router->views);
    *router = (struct qd_router){0};
}

/* The coordinator publishes when something changed: a snapshot that says what is believed anyway is none. */
static void take_snapshot(struct qd_router *router, const struct qd_replica_load *loads, int64_t now_ns)
{
    if (router->n_picked == 0) router->snapshot_ns = now_ns;
    if (now_ns - router->snapshot_ns < QD_ROUTER_SNAPSHOT_NS) return;
    router->snapshot_ns += (now_ns - router->snapshot_ns) / QD_ROUTER_SNAPSHOT_NS * QD_ROUTER_SNAPSHOT_NS;
    router->has_snapshot = true;
    for (int i = 0; i < router->dp; i++)
        router->views[i] = (struct qd_router_view){
            .n_waiting = loads[i].n_waiting, .n_running = loads[i].n_running, .kv_share = loads[i].kv_share};
}

static double least_loaded_cost(const struct qd_router_view *view, const struct qd_replica_load *load)
{
    (void)view;
    return load->n_in_flight;
}

/* core_client.py, get_core_engine_for_request. */
static double vllm_cost(const struct qd_router_view *view, const struct qd_replica_load *load)
{
    const double weight = 6, full = 0.5;
    double queued = view->n_waiting + view->n_running;
    double cost = load->n_in_flight > queued ? load->n_in_flight : queued;
    if (view->n_waiting > 0 && view->kv_share > full)
        cost += view->n_waiting * weight * (view->kv_share - full);
    return cost;
}

/* [waiting, running] in lexicographic order. */
static double vllm_0_9_1_cost(const struct qd_router_view *view, const struct qd_replica_load *load)
{
    (void)load;
    return (double)view->n_waiting * 0x1p31 + view->n_running;
}

/* The cheapest living replica, the first of them from `start` on; `start` when none lives. */
static int cheapest(const struct qd_router *router, const struct qd_replica_load *loads, int start,
                    double (*cost)(const struct qd_router_view *view, const struct qd_replica_load *load))
{
    int best = -1;
    double best_cost = 0;
    for (int k = 0; k < router->dp; k++) {
        int i = (start + k) % router->dp;
        if (loads[i].is_dead) continue;
        double c = cost(&router->views[i], &loads[i]);
        if (best >= 0 && c >= best_cost) continue;
        best = i;
        best_cost = c;
    }
    return best >= 0 ? best : start;
}

static int pick_vllm(struct qd_router *router, const struct qd_replica_load *loads)
{
    int best = cheapest(router, loads, (int)(router->n_picked % (uint64_t)router->dp), vllm_cost);
    router->views[best].n_waiting++;
    return best;
}

static int pick_vllm_0_9_1(struct qd_router *router, const struct qd_replica_load *loads)
{
    if (!router->has_snapshot && !loads[0].is_dead) return 0;
    int best = cheapest(router, loads, 0, vllm_0_9_1_cost);
    struct qd_router_view *view = &router->views[best];
    if (view->n_waiting > 0)
        view->n_waiting++;
    else
        view->n_running++;
    return best;
}

int qd_router_pick(struct qd_router *router, const struct qd_replica_load *loads, int64_t now_ns)
{
    int picked = (int)(router->n_picked % (uint64_t)router->dp);
    take_snapshot(router, loads, now_ns);
    switch (router->policy) {
    case QD_ROUTER_ROUND_ROBIN:
    case QD_N_ROUTER_POLICIES: break;
    case QD_ROUTER_LEAST_LOADED: picked = cheapest(router, loads, 0, least_loaded_cost); break;
    case QD_ROUTER_VLLM: picked = pick_vllm(router, loads); break;
    case QD_ROUTER_VLLM_0_9_1: picked = pick_vllm_0_9_1(router, loads); break;
    }
    router->n_picked++;
    return picked;
}
