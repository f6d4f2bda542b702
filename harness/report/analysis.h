/* What the numbers allow to be said: best cells, ties, comparisons at equal GPUs, the budget's effect. */
#ifndef QD_HARNESS_REPORT_ANALYSIS_H
#define QD_HARNESS_REPORT_ANALYSIS_H

#include "harness/report/data.h"

enum qd_comparison {
    QD_CMP_SEPARATED = 0, /* both have repeats, and the ranges of their runs do not touch */
    QD_CMP_TIED,          /* equal, or both have repeats and the ranges overlap */
    QD_CMP_NO_REPEATS,    /* different, but noise is unknown */
};

enum qd_comparison qd_compare_values(const struct qd_metric_value *a, const struct qd_metric_value *b);

/* Whether a's median is better than b's. */
bool qd_is_better(enum qd_metric metric, const struct qd_cell *a, const struct qd_cell *b);

/* Ranks took turns on a core or a GPU. */
enum { QD_MARKS_SHARED = QD_MARK_MORE_RANKS_THAN_CORES | QD_MARK_SHARED_GPUS };

/* Measured, and allowed to carry a TP or DP conclusion (no shared cores or GPUs, no virtual time). */
bool qd_is_candidate(const struct qd_cell *cell, enum qd_metric metric);

/* Whether any cell measured the metric. */
bool qd_has_metric(const struct qd_report_data *data, enum qd_metric metric);

/* The best candidate, the first by TP, DP, budget among equals; NULL when there is none. */
const struct qd_cell *qd_find_best(const struct qd_report_data *data, enum qd_metric metric);

/* The best candidate besides `best`, or NULL. */
const struct qd_cell *qd_find_next(const struct qd_report_data *data, enum qd_metric metric,
                                   const struct qd_cell *best);

/* The candidate with the lowest mean rank over metrics[0..n) among those that measured all of them; NULL when
 * there are fewer than two. */
const struct qd_cell *qd_find_balanced(const struct qd_report_data *data, const enum qd_metric *metrics,
                                       int n, double *mean_rank);

/* (max - min) / median of the runs in percent; 0 with one run. */
double qd_spread_percent(const struct qd_metric_value *value);

/* Change from a to b in percent of a. */
double qd_change_percent(double a, double b);

/* Index of the next (TP, DP) pair's first cell at or behind `i`; data->cells.n at the end. */
size_t qd_pair_end(const struct qd_report_data *data, size_t i);

/* Measured cells with the smallest and largest budget of the pair whose cells are [begin, end); false when
 * fewer than two budgets are measured. */
bool qd_budget_ends(const struct qd_report_data *data, size_t begin, size_t end, enum qd_metric metric,
                    const struct qd_cell **smallest, const struct qd_cell **largest);

/* Cells with the same number of GPUs and the same budget, but other splits into TP and DP. */
struct qd_split_group {
    int64_t n_gpus, budget;
    int n_splits;
    const struct qd_cell *most_dp, *most_tp; /* smallest and largest TP */
};

/* The group whose first candidate is cell i; false when cell i is not the first of its group or is alone. */
bool qd_split_group_at(const struct qd_report_data *data, enum qd_metric metric, size_t i,
                       struct qd_split_group *group);

/* Best and next best of a group. */
void qd_split_group_best(const struct qd_report_data *data, enum qd_metric metric,
                         const struct qd_split_group *group, const struct qd_cell **best,
                         const struct qd_cell **next);

#endif
