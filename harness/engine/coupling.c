#include "harness/engine/coupling.h"

#include <stdlib.h>

qd_status qd_coupling_init(struct qd_coupling *coupling, int dp)
{
    *coupling = (struct qd_coupling){.dp = dp, .replicas = calloc((size_t)dp, sizeof *coupling->replicas)};
    if (coupling->replicas != NULL) return QD_OK;
    coupling->dp = 0;
    return QD_ERR_NO_MEMORY;
}

void qd_coupling_free(struct qd_coupling *coupling)
{
    free(coupling->replicas);
    *coupling = (struct qd_coupling){0};
}

void qd_coupling_arrive(struct qd_coupling *coupling, int replica, int64_t now_ns)
{
    struct qd_coupled_replica *r = &coupling->replicas[replica];
    if (r->has_requests) return;
    r->has_requests = true;
    r->since_ns = now_ns;
    if (coupling->is_running) return;
    coupling->is_running = true;
    for (int i = 0; i < coupling->dp; i++) coupling->replicas[i].free_ns = now_ns;
}

bool qd_coupling_may_decide(const struct qd_coupling *coupling, int replica, int64_t now_ns)
{
    const struct qd_coupled_replica *r = &coupling->replicas[replica];
    return coupling->is_running && !r->has_decided && r->free_ns <= now_ns;
}

void qd_coupling_decide(struct qd_coupling *coupling, int replica, bool is_real)
{
    struct qd_coupled_replica *r = &coupling->replicas[replica];
    r->has_decided = true;
    r->is_real = is_real;
    if (!is_real) r->has_requests = false;
}

bool qd_coupling_begin_round(struct qd_coupling *coupling, int64_t now_ns)
{
    bool has_work = false;
    for (int i = 0; i < coupling->dp; i++) {
        if (!coupling->replicas[i].has_decided) return false;
        has_work = has_work || coupling->replicas[i].has_requests;
    }
    coupling->is_running = has_work;
    for (int i = 0; i < coupling->dp; i++) {
        struct qd_coupled_replica *r = &coupling->replicas[i];
        r->has_decided = false;
        if (!has_work) continue;
        r->free_ns = r->is_real ? INT64_MAX : now_ns + QD_COUPLING_DUMMY_NS;
        if (r->is_real)
            r->wait_ns += now_ns - r->since_ns;
        else
            r->n_dummies++;
    }
    return has_work;
}

void qd_coupling_end(struct qd_coupling *coupling, int replica, bool has_requests, int64_t now_ns)
{
    struct qd_coupled_replica *r = &coupling->replicas[replica];
    r->free_ns = r->since_ns = now_ns;
    r->has_requests = has_requests;
}

int64_t qd_coupling_next_ns(const struct qd_coupling *coupling)
{
    int64_t next_ns = INT64_MAX;
    for (int i = 0; i < coupling->dp && coupling->is_running; i++) {
        const struct qd_coupled_replica *r = &coupling->replicas[i];
        if (!r->has_decided && r->free_ns < next_ns) next_ns = r->free_ns;
    }
    return next_ns;
}

void qd_coupling_reset(struct qd_coupling *coupling)
{
    for (int i = 0; i < coupling->dp; i++)
        coupling->replicas[i].wait_ns = 0, coupling->replicas[i].n_dummies = 0;
}
