/* The sections of the Markdown report; shared by the files that write them. But for qd_section_variants they
 * take the data of one variant. */
#ifndef QD_HARNESS_REPORT_SECTIONS_H
#define QD_HARNESS_REPORT_SECTIONS_H

#include <stdio.h>

#include "harness/report/analysis.h"

/* Metrics the analysis is about, in the order of the report; those nobody measured are left out, and at equal
 * GPUs tok/s/GPU too, which then ranks as output tok/s does. */
struct qd_report_metrics {
    int n;
    enum qd_metric metric[QD_N_METRICS];
};
struct qd_report_metrics qd_report_analysed(const struct qd_report_data *data, bool at_equal_gpus);

/* Output tok/s where it is measured, else per-request tok/s: what "faster" means in a sentence. */
enum qd_metric qd_report_headline(const struct qd_report_data *data);

/* Room for a formatted value or configuration. */
enum { QD_TEXT_LEN = 64 };
struct qd_text {
    char s[QD_TEXT_LEN];
};

/* "29.90", "0.254", "n/a". */
struct qd_text qd_format_value(const struct qd_cell *cell, enum qd_metric metric);
/* "TP2 DP4, budget 4096". */
struct qd_text qd_format_cell(const struct qd_cell *cell);

/* "no repeats: cannot be separated from noise" and the like. */
const char *qd_comparison_text(enum qd_comparison comparison);

/* The variant of the data, by name. */
const char *qd_format_variant(const struct qd_report_data *data);

/* What each variant measured and its best, for data of more than one; nothing is said across them. */
qd_status qd_section_variants(const struct qd_report_data *data, FILE *out);
qd_status qd_section_summary(const struct qd_report_data *data, FILE *out);
qd_status qd_section_setting(const struct qd_report_data *data, FILE *out);
qd_status qd_section_results(const struct qd_report_data *data, FILE *out);
/* The waterfall of each cell; nothing where no run has one. */
qd_status qd_section_ledger(const struct qd_report_data *data, FILE *out);
qd_status qd_section_missing(const struct qd_report_data *data, FILE *out);
qd_status qd_section_splits(const struct qd_report_data *data, FILE *out);
qd_status qd_section_budgets(const struct qd_report_data *data, FILE *out);
qd_status qd_section_recommendations(const struct qd_report_data *data, FILE *out);
qd_status qd_section_conclusion(const struct qd_report_data *data, FILE *out);

/* How often the largest budget is better or worse than the smallest, over the (TP, DP) pairs. */
struct qd_budget_counts {
    int n_pairs, n_better, n_worse, n_separated; /* n_separated: changes beyond the runs' ranges */
    double lowest_percent, highest_percent;
};
struct qd_budget_counts qd_count_budget_changes(const struct qd_report_data *data, enum qd_metric metric);

/* Who is best at equal GPUs and budget. */
struct qd_split_counts {
    int n_groups, n_most_dp, n_most_tp, n_between, n_unclear; /* n_unclear: best and next best are tied */
};
struct qd_split_counts qd_count_splits(const struct qd_report_data *data, enum qd_metric metric);

/* Whether any value has been measured twice. */
bool qd_has_repeats(const struct qd_report_data *data);
/* Number of measured cells with a mark. */
size_t qd_count_marked(const struct qd_report_data *data, uint32_t mark);

#endif
