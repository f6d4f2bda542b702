/* What device_timing costs: when the context is opened, the same decode of one sequence is run with the
 * events of its ops and without, by turns. Where steps are recorded, that takes one graph more, without
 * events, which goes again. Contexts that time no ops do none of this. */
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "kernels/cuda/host.h"

enum {
    N_WARM_UP = 2, /* a step of each kind, not counted */
    N_MEASURED = 2 * QD_CUDA_OVERHEAD_STEPS,
};

/* Neither kind comes first more often than the other, whatever drifts meanwhile: without, with, with,
 * without. */
static bool is_without(int i)
{
    return i % 4 == 0 || i % 4 == 3;
}

/* From the planning of the step that has just ended until now. */
static void keep_last(struct qd_cuda *cuda)
{
    struct qd_cuda_overhead *o = &cuda->overhead;
    const struct qd_cuda_timing *timing = &cuda->timing;
    int kind = timing->is_off ? QD_WITHOUT_TIMING : QD_WITH_TIMING;
    QD_ASSERT(o->n[kind] < QD_CUDA_OVERHEAD_STEPS);
    o->wall_ns[kind][o->n[kind]] = qd_clock_now_ns() - o->begin_ns;
    o->span_ns[kind][o->n[kind]++] = cuda->stats.last_span_ns;
    if (timing->is_off) return;
    int n_ops = cuda->graphs.mode == QD_CUDA_REPLAY ? timing->n_recorded_ops : timing->n_ops;
    o->n_events = 2 * n_ops;
}

bool qd_cuda_overhead_step(struct qd_cuda *cuda, int index)
{
    struct qd_cuda_overhead *o = &cuda->overhead;
    int n_recordings = cuda->graphs.n > 0 ? 1 : 0, i = index - n_recordings - N_WARM_UP;
    if (cuda->timing.max_ops == 0) return false;
    if (i > 0) keep_last(cuda);
    cuda->timing.is_off = index < n_recordings || is_without(i + 4);
    if (index < n_recordings) cuda->graphs.planned = QD_CUDA_RECORD;
    if (i < N_MEASURED) {
        o->begin_ns = qd_clock_now_ns();
        return true;
    }
    cuda->timing.is_off = false;
    return false;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t median(int64_t *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

void qd_cuda_overhead_end(struct qd_cuda *cuda, struct qd_timing_cost *out)
{
    struct qd_cuda_overhead *o = &cuda->overhead;
    *out = (struct qd_timing_cost){.n_steps = o->n[QD_WITH_TIMING], .n_events = o->n_events};
    for (int kind = 0; kind < QD_N_TIMING_KINDS && out->n_steps > 0; kind++) {
        out->span_ns[kind] = median(o->span_ns[kind], o->n[kind]);
        out->wall_ns[kind] = median(o->wall_ns[kind], o->n[kind]);
    }
}
