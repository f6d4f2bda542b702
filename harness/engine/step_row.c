#include "harness/engine/step_row.h"

#include <string.h>

void qd_step_row_note_device(struct qd_step_row *row, const struct qd_group_result *result,
                             struct qd_device_stats *device)
{
    row->n_ranks = result->n_ranks < QD_MAX_TP ? result->n_ranks : QD_MAX_TP;
    if (row->n_ranks == 0) return;
    memcpy(row->ranks, result->spans, (size_t)row->n_ranks * sizeof *row->ranks);
    struct qd_device_stats since = qd_device_stats_since(result->device, device);
    *device = *result->device;
    row->is_timed = since.n_timed_steps == 1;
    if (row->is_timed) memcpy(row->segment_ns, since.segment_ns, sizeof row->segment_ns);
}
