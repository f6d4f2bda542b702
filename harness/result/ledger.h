/* The step ledger of a run: what its steps' rows add up to, the floor under them, the waterfall from that
 * floor to the wall clock, and checks that do not trust the stamps. bench/METRICS.md defines every figure.
 */
#ifndef QD_HARNESS_RESULT_LEDGER_H
#define QD_HARNESS_RESULT_LEDGER_H

#include <cjson/cJSON.h>

#include "harness/engine/engine.h"
#include "harness/result/result.h"
#include "models/shard.h"

/* What one rank could reach. */
struct qd_ledger_limits {
    const char *machine;        /* borrowed; NULL: not known, and so is every floor */
    double memory_gbps, gflops; /* GB/s and GFLOP/s (1e9) */
};

/* Sums over the rows of all replicas; zeroed and given the first three by its owner. */
struct qd_ledger_rows {
    const struct qd_model_config *config; /* borrowed */
    struct qd_shard shard;                /* of rank 0 */
    struct qd_ledger_limits limits;
    uint64_t n_rows;
    uint64_t n_prefill_tokens, n_decode_tokens;
    int64_t host_ns;                        /* schedule to output, with what launched nothing */
    int64_t span_ns;                        /* of rank 0 */
    double floor_ns[QD_N_SEGMENTS];         /* of rank 0's ops by segment; nothing without limits */
    double compute_floor_ns[QD_N_SEGMENTS]; /* the part of it that is bound by compute */
};

/* Adds one row: a sink (step_log.h). */
void qd_ledger_rows_take(void *rows, const struct qd_step_row *row);

/* The kernels of the rows' steps as they were timed alone; summed by its owner (harness/ops/alone.h). */
struct qd_ledger_alone {
    const char *file;          /* borrowed: where the times are from */
    double ns;                 /* of rank 0's ops, of the steps whose time is known */
    uint64_t n_rows, n_unknown; /* of them: a kernel's time is not known */
    char reason[QD_ERR_LEN];   /* of the first such step */
};

/* From the floor to the wall clock, ns over all steps and replicas, so that each total is the sum of the
 * lines above it. What is not known is NAN. */
struct qd_waterfall {
    double floor;        /* every op at the machine's limits */
    double inefficiency; /* kernels alone beyond it; where those are not known, with the in-graph penalty */
    double alone;        /* the same kernels, each alone: floor + inefficiency */
    double in_graph;     /* what kernels lose inside a step against alone; below 0 what they gain */
    double kernels;      /* alone + in_graph: the device's segments */
    double gaps;         /* the span beyond the kernels */
    double above_floor;  /* inefficiency and gaps together: known where kernels are not told from gaps */
    double span;         /* of the device */
    double exposed_host; /* the replica at work while its device is not */
    double idle;         /* nothing to do */
    double unexplained;  /* of the wall clock, by no segment */
    double wall;         /* read apart from the segments */
};

/* One line of a waterfall from top to bottom. */
struct qd_waterfall_line {
    char sign; /* '+': a term; '=' or ' ': what the terms above add up to */
    const char *name;
    double ns; /* NAN: not known */
};

enum { QD_WATERFALL_LINES = 10 };

void qd_waterfall_lines(const struct qd_waterfall *waterfall, struct qd_waterfall_line lines[QD_WATERFALL_LINES]);

/* Checks that do not trust the stamps. */
struct qd_ledger_checks {
    double host_unexplained;    /* largest over replicas of abs(wall - segments) / wall */
    double device_unexplained;  /* abs(timed spans - segments) / timed spans; NAN: not timed */
    double latency_unexplained; /* abs(sum over requests - metrics) / metrics of E2EL; 0 where none completed,
                                 * NAN without metrics */
    int64_t n_expected_tokens;  /* that completed requests must have had computed or found in the prefix
                                 * cache; -1 without metrics */
    int64_t n_computed_tokens; /* computed for the first time or found there, by the replicas' counts */
};

struct qd_ledger {
    const struct qd_ledger_rows *rows;   /* NULL: none were kept */
    const struct qd_ledger_alone *alone; /* NULL: nobody timed them */
    uint64_t n_dropped;                /* steps without a row */
    uint64_t n_steps;
    struct qd_waterfall waterfall;
    struct qd_ledger_checks checks;
};

/* rows and alone may be NULL; so may records and metrics, of a replay. The floor is only known when no row was dropped, the kernels when every step was timed.
 */
struct qd_ledger qd_ledger_make(const struct qd_replica_stats *replicas, int dp,
                                const struct qd_request_record *records, uint64_t n_records,
                                const struct qd_metrics *metrics, const struct qd_ledger_rows *rows,
                                const struct qd_ledger_alone *alone, uint64_t n_dropped);

/* "memory" or "compute": what the larger part of a segment's floor is bound by; NULL without a floor. */
const char *qd_ledger_bound(const struct qd_ledger_rows *rows, enum qd_segment segment);

/* The same of the whole floor. */
const char *qd_ledger_step_bound(const struct qd_ledger_rows *rows);

/* Time of a segment that was measured on the device, ns over all steps; NAN where it was not. */
double qd_ledger_measured_ns(const struct qd_replica_stats *replicas, int dp, enum qd_segment segment);

/* `ledger` of result.json. */
void qd_ledger_put(cJSON *object, const struct qd_ledger *ledger, const struct qd_replica_stats *replicas,
                   int dp, bool *ok);

#endif
