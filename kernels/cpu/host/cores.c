#include "kernels/cpu/host/cores.h"

/* Core number of the index-th core in the set. */
static int core_at(const cpu_set_t *set, int index)
{
    int core = 0;
    for (int n = -1;; core++) {
        if (CPU_ISSET((size_t)core, set)) n++;
        if (n == index) return core;
    }
}

qd_status qd_cpu_cores_share(const cpu_set_t *available, int n_threads, int rank, int n_ranks,
                             struct qd_cpu_cores *out, char *err, size_t errlen)
{
    int n_cores = CPU_COUNT(available);
    if (n_cores < 1) return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "no core is available");
    if (n_ranks < 1 || n_ranks > CPU_SETSIZE || rank < 0 || rank >= n_ranks)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "rank %d of %d (at most %d)", rank, n_ranks,
                       CPU_SETSIZE);
    if (n_threads < 0 || n_threads > CPU_SETSIZE)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "%d threads (0 for all cores, at most %d)", n_threads,
                       CPU_SETSIZE);

    int total = n_threads > 0 ? n_threads : n_cores;
    if (total < n_ranks) total = n_ranks;
    int begin = total * rank / n_ranks, end = total * (rank + 1) / n_ranks;
    out->n_threads = end - begin;
    out->own_cores = total <= n_cores;
    for (int i = 0; i < out->n_threads && out->own_cores; i++) out->cores[i] = core_at(available, begin + i);
    return QD_OK;
}
