/* steps.jsonl and trace.json, row by row (bench/METRICS.md). Both are sinks of a step log; a file is there
 * whole or not at all.
 */
#ifndef QD_HARNESS_RESULT_STEPS_FILE_H
#define QD_HARNESS_RESULT_STEPS_FILE_H

#include "harness/engine/step_row.h"
#include "harness/result/files.h"

/* One JSON line a step. */
struct qd_steps_file {
    struct qd_atomic_file file;
    int64_t origin_ns;         /* times are written since then */
    int64_t virtual_origin_ns; /* likewise of virtual times; 0: the run is one in real time */
};

/* Errors of qd_atomic_file_open and _commit. */
qd_status qd_steps_file_open(struct qd_steps_file *steps, const char *path, int64_t origin_ns,
                             int64_t virtual_origin_ns, char *err, size_t errlen);
void qd_steps_file_take(void *steps, const struct qd_step_row *row); /* a sink */
qd_status qd_steps_file_commit(struct qd_steps_file *steps, char *err, size_t errlen);

/* Chrome's trace events: per replica a lane of host segments, one for each rank's spans, counters. */
struct qd_trace_file {
    struct qd_atomic_file file;
    int64_t origin_ns;
    int n_events;
    int dp;
    int64_t (*rank_end_ns)[QD_MAX_TP]; /* [dp]: spans of a lane never overlap */
};

/* Names the lanes of dp replicas with n_ranks each; n_ranks 0: nothing executes. QD_ERR_NO_MEMORY, else as
 * above. */
qd_status qd_trace_file_open(struct qd_trace_file *trace, const char *path, int64_t origin_ns, int dp,
                             int n_ranks, char *err, size_t errlen);
void qd_trace_file_take(void *trace, const struct qd_step_row *row); /* a sink */
qd_status qd_trace_file_commit(struct qd_trace_file *trace, char *err, size_t errlen);
/* Leaves no file; harmless after commit. */
void qd_trace_file_discard(struct qd_trace_file *trace);

#endif
