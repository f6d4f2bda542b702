/* The cells of an experiment: every variant x TP x DP x token-budget combination with the values of its runs,
 * or with the reason why it has none. Readers of results directories make them for reports and summaries.
 */
#ifndef QD_HARNESS_RESULT_CELLS_H
#define QD_HARNESS_RESULT_CELLS_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "harness/result/marks.h"
#include "harness/result/variant.h"
#include "kernels/base/status.h"

enum { QD_MAX_CELL_RUNS = 1000 };

enum qd_metric {
    QD_METRIC_OUTPUT_TOK_S = 0,
    QD_METRIC_TOK_S_PER_GPU,
    QD_METRIC_TOK_S_PER_USER,
    QD_METRIC_PER_REQUEST_TOK_S,
    QD_METRIC_TTFT_P50,
    QD_METRIC_TTFT_P99,
    QD_METRIC_ITL_P50,
    QD_METRIC_ITL_P99,
    QD_METRIC_E2EL_P50,
    QD_METRIC_E2EL_P99,
    QD_N_METRICS
};

struct qd_metric_info {
    const char *label; /* "TTFT p50" */
    const char *unit;  /* "ms" */
    bool higher_is_better;
    const char *csv_column; /* in summary.csv; the published report's name where it has the column */
    const char *json_path;  /* members of a run's JSON, separated by '/' */
    const char *definition; /* one sentence */
};

const struct qd_metric_info *qd_metric_info(enum qd_metric metric);

/* One metric over the runs of a cell. */
struct qd_metric_value {
    int n;                              /* runs that measured it; 0: not measured, the rest is 0 */
    double median, mean, std, min, max; /* std: sample (n - 1), 0 when n < 2 */
};

/* Lines of the ledger's waterfall. */
enum qd_ledger_line {
    QD_LEDGER_FLOOR = 0,
    QD_LEDGER_KERNELS,
    QD_LEDGER_GAPS,
    QD_LEDGER_SPAN,
    QD_LEDGER_EXPOSED_HOST,
    QD_LEDGER_IDLE,
    QD_LEDGER_WALL,
    QD_N_LEDGER_LINES
};

/* The ledgers of a cell's runs; all zeros where none has one. */
struct qd_cell_ledger {
    struct qd_metric_value ms[QD_N_LEDGER_LINES]; /* milliseconds a step */
    bool memory_bound, compute_bound;             /* what a run's floor is bound by */
};

enum qd_cell_status {
    QD_CELL_OK = 0,  /* at least one run measured something */
    QD_CELL_REFUSED, /* as in failed.json */
    QD_CELL_CRASHED,
    QD_CELL_TIMEOUT,
    QD_CELL_EMPTY,   /* runs exist, but none completed a request: its zeros are no measurement */
    QD_CELL_MISSING, /* expected, and nothing is recorded */
};

/* "ok", "refused", "crashed", "timeout", "empty", "missing". */
const char *qd_cell_status_name(enum qd_cell_status status);

struct qd_cell {
    char variant[QD_VARIANT_LEN];
    int64_t tp, dp, budget;
    bool is_expected; /* part of the matrix that was to be measured; set by who knows it */
    enum qd_cell_status status;
    int n_runs;            /* runs that measured something */
    int n_empty_runs;      /* runs without a completed request */
    uint64_t n_failed;     /* failed requests over all runs */
    int64_t n_preemptions; /* most in one run; -1: not known */
    uint32_t marks;        /* of any run */
    char reason[512];      /* why it failed, or why not all runs are there; "" when there is none */
    struct qd_metric_value values[QD_N_METRICS];
    struct qd_cell_ledger ledger;
};

/* What every run measures or counts anew. */
struct qd_extent {
    int n; /* runs that have it */
    double min, max;
};

/* Where the runs of one variant come from, for the head of a report. Texts that differ between runs are
 * joined by "; ", and what has no room is said to be left out; "" is not known. */
struct qd_origin {
    char variant[QD_VARIANT_LEN];
    char model[1024], device[512], host[768], commit[256], workload[512], dates[64], warmup[128], load[128];
    struct qd_extent read_gbps;                   /* probed, 1e9 B/s */
    struct qd_extent input_tokens, output_tokens; /* of completed requests */
    struct qd_extent load_s, load_gbps;           /* 1e9 B/s */
};

struct qd_origin_list {
    struct qd_origin *origins; /* [n], by variant in the order met */
    size_t n;
};

struct qd_cell_list {
    struct qd_cell *cells; /* [n], by variant, TP, DP, budget once sorted */
    size_t n, room;
};

/* Describes values[0..n) (sorted in place). */
struct qd_metric_value qd_metric_value_of(double *values, int n);

/* Reads the runs of one cell's folder, by run number, each with "run_number" added, into an array that the
 * caller deletes; an empty array when there is none. QD_ERR_INPUT (file, field, reason) for a run that is not
 * ours, is cut off, or is of another cell than the runs before it. */
qd_status qd_cell_read_runs(const char *folder, cJSON **runs, char *err, size_t errlen);

/* Reads every cell below an experiment's folder, from its runs and failed.json. origins NULL: not wanted.
 * QD_ERR_NOT_FOUND when there is no cell; QD_ERR_INPUT, also for two folders with the same cell. */
qd_status qd_cells_read(const char *folder, struct qd_cell_list *cells, struct qd_origin_list *origins,
                        char *err, size_t errlen);

/* Reads the cell in parent/name; *found is false when that is no folder, or one with neither runs nor
 * failed.json. */
qd_status qd_cell_read(const char *parent, const char *name, struct qd_cell *out,
                       struct qd_origin_list *origins, bool *found, char *err, size_t errlen);

/* The origin of a variant, or NULL. */
const struct qd_origin *qd_origin_list_find(const struct qd_origin_list *list, const char *variant);
/* Harmless on an empty (zeroed) list. */
void qd_origin_list_free(struct qd_origin_list *list);

/* Makes room for one more cell and returns it zeroed, or NULL. */
struct qd_cell *qd_cell_list_add(struct qd_cell_list *list);
void qd_cell_list_sort(struct qd_cell_list *list);
/* The order of a sorted list; 0: the same cell. */
int qd_cell_compare(const struct qd_cell *a, const struct qd_cell *b);
/* The cell of a sorted list, or NULL. */
struct qd_cell *qd_cell_list_find(const struct qd_cell_list *list, const char *variant, int64_t tp,
                                  int64_t dp, int64_t budget);
/* Harmless on an empty (zeroed) list. */
void qd_cell_list_free(struct qd_cell_list *list);

/* Writes summary.json of every cell below `folder` and summary.csv of all of them, from the runs. */
qd_status qd_summary_write(const char *folder, char *err, size_t errlen);

/* The same for an experiment that grows: a long one has thousands of files, and only one cell changes at a
 * time. */
struct qd_summary {
    const char *folder; /* borrowed */
    struct qd_axes axes;
    struct qd_cell_list cells; /* sorted */
};

/* Reads what is there already, which may be nothing; writes nothing. Errors of qd_cells_read. */
qd_status qd_summary_open(struct qd_summary *out, const char *folder, char *err, size_t errlen);
/* Reads the folder of one cell again, which must hold runs or failed.json, and writes its summary.json and
 * summary.csv. */
qd_status qd_summary_update(struct qd_summary *summary, const char *cell_name, char *err, size_t errlen);
/* Harmless on a zeroed one. */
void qd_summary_close(struct qd_summary *summary);

#endif
