#include "harness/report/sections.h"

/* The metrics whose best cell is recommended for something, and for what. */
static const struct {
    enum qd_metric metric;
    const char *purpose;
} PURPOSES[] = {
    {QD_METRIC_OUTPUT_TOK_S, "Most tokens from the machine"},
    {QD_METRIC_TOK_S_PER_GPU, "Most tokens per GPU"},
    {QD_METRIC_PER_REQUEST_TOK_S, "Fastest single requests, first token included"},
    {QD_METRIC_TTFT_P50, "Fastest first token"},
    {QD_METRIC_ITL_P50, "Smoothest generation"},
    {QD_METRIC_E2EL_P50, "Shortest wait for the whole answer"},
};

/* Among the cells tied with `best` (itself included), the one with the fewest GPUs, then the smallest budget.
 */
static const struct qd_cell *cheapest_tied(const struct qd_report_data *data, enum qd_metric metric,
                                           const struct qd_cell *best)
{
    const struct qd_cell *found = best;
    for (size_t i = 0; i < data->cells.n; i++) {
        const struct qd_cell *cell = &data->cells.cells[i];
        if (!qd_is_candidate(cell, metric)) continue;
        if (qd_compare_values(&best->values[metric], &cell->values[metric]) != QD_CMP_TIED) continue;
        int64_t gpus = cell->tp * cell->dp, least = found->tp * found->dp;
        if (gpus < least || (gpus == least && cell->budget < found->budget)) found = cell;
    }
    return found;
}

static void recommend(const struct qd_report_data *data, enum qd_metric metric, const char *purpose,
                      FILE *out)
{
    const struct qd_metric_info *info = qd_metric_info(metric);
    const struct qd_cell *best = qd_find_best(data, metric);
    if (best == NULL) return;
    const struct qd_cell *choice = cheapest_tied(data, metric, best),
                         *next = qd_find_next(data, metric, best);
    fprintf(out, "- **%s**: %s. Evidence: %s %s %s", purpose, qd_format_cell(choice).s, info->label,
            qd_format_value(choice, metric).s, info->unit);
    if (choice != best)
        fprintf(out,
                ", tied with the best (%s at %s), and of the tied cells this one needs the fewest GPUs, then "
                "the smallest budget",
                qd_format_value(best, metric).s, qd_format_cell(best).s);
    else if (next == NULL)
        fputs("; it is the only cell that carries a conclusion", out);
    else
        fprintf(out, "; %s against the next best (%s at %s)",
                qd_comparison_text(qd_compare_values(&best->values[metric], &next->values[metric])),
                qd_format_value(next, metric).s, qd_format_cell(next).s);
    fputs(".\n", out);
}

static void recommend_balanced(const struct qd_report_data *data, FILE *out)
{
    const enum qd_metric metrics[] = {qd_report_headline(data), QD_METRIC_TTFT_P50, QD_METRIC_ITL_P50,
                                      QD_METRIC_E2EL_P50};
    double mean_rank = 0;
    const struct qd_cell *cell = qd_find_balanced(data, metrics, 4, &mean_rank);
    if (cell == NULL) return;
    fprintf(
        out,
        "- **Balanced**: %s. Evidence: the lowest mean rank (%.2f) over %s, TTFT p50, ITL p50 and E2EL p50; "
        "ranks ignore how far values are apart.\n",
        qd_format_cell(cell).s, mean_rank, qd_metric_info(metrics[0])->label);
}

static void recommend_budget(const struct qd_report_data *data, FILE *out)
{
    enum qd_metric metric = qd_report_headline(data);
    struct qd_budget_counts c = qd_count_budget_changes(data, metric);
    if (c.n_pairs == 0) return;
    const char *label = qd_metric_info(metric)->label;
    fputs("- **Token budget**: ", out);
    if (!qd_has_repeats(data))
        fprintf(
            out,
            "%s at the largest budget is worse in %d and better in %d of %d (TP, DP) pairs; without repeats "
            "that is a hint, not a rule",
            label, c.n_worse, c.n_better, c.n_pairs);
    else if (c.n_separated == 0)
        fprintf(out,
                "choose it for the latency you need: no change of %s from the smallest to the largest budget "
                "is beyond the runs' spread",
                label);
    else
        fprintf(out,
                "%s at the largest budget is better in %d and worse in %d of %d (TP, DP) pairs, %d of the "
                "changes "
                "beyond the runs' spread",
                label, c.n_better, c.n_worse, c.n_pairs, c.n_separated);
    fputs(".\n", out);
}

/* What to do about what weakens the data. */
static void recommend_measurement(const struct qd_report_data *data, FILE *out)
{
    size_t n_ranks = qd_count_marked(data, QD_MARKS_SHARED);
    size_t n_shared = qd_count_marked(data, QD_MARK_SHARED_MACHINE | QD_MARK_STEAL_TIME);
    size_t n_missing = data->n_expected - data->n_expected_ok;
    if (!qd_has_repeats(data))
        fputs("- **Measure again**: nothing was measured twice. Three runs a cell show which of these "
              "differences "
              "are real.\n",
              out);
    if (n_shared > 0)
        fprintf(out, "- **Measure on a quiet machine**: %zu cells ran while others used the cores.\n",
                n_shared);
    if (n_ranks > 0)
        fprintf(out,
                "- **Nothing is recommended about %zu cells with more ranks than cores or GPUs**: their "
                "ranks took turns on the same ones, so they say nothing about TP or DP.\n",
                n_ranks);
    if (n_missing > 0)
        fprintf(out, "- **Nothing is recommended about the %zu missing cells**: they were not measured.\n",
                n_missing);
}

qd_status qd_section_recommendations(const struct qd_report_data *data, FILE *out)
{
    fputs("## Recommendations\n\nFor this machine and this workload only.\n\n", out);
    for (size_t i = 0; i < sizeof PURPOSES / sizeof PURPOSES[0]; i++)
        recommend(data, PURPOSES[i].metric, PURPOSES[i].purpose, out);
    recommend_balanced(data, out);
    recommend_budget(data, out);
    recommend_measurement(data, out);
    fputc('\n', out);
    return QD_OK;
}

static bool is_tied(const struct qd_report_data *data, enum qd_metric metric, const struct qd_cell *best)
{
    const struct qd_cell *next = qd_find_next(data, metric, best);
    return next != NULL && qd_compare_values(&best->values[metric], &next->values[metric]) == QD_CMP_TIED;
}

static void conclude_splits(const struct qd_report_data *data, enum qd_metric metric, FILE *out)
{
    struct qd_split_counts c = qd_count_splits(data, metric);
    const char *label = qd_metric_info(metric)->label;
    if (c.n_groups == 0) {
        fputs("DP and TP were not measured against each other at equal GPUs without marks. ", out);
        return;
    }
    int n_clear = c.n_groups - c.n_unclear;
    if (n_clear == 0)
        fprintf(out, "At equal GPUs and budget no split into TP and DP is ahead in %s. ", label);
    else
        fprintf(
            out,
            "At equal GPUs and budget, %s is best with the most data parallelism in %d, with the most tensor "
            "parallelism in %d and with a mixture in %d of %d comparisons (%d tied). ",
            label, c.n_most_dp, c.n_most_tp, c.n_between, c.n_groups, c.n_unclear);
}

qd_status qd_section_conclusion(const struct qd_report_data *data, FILE *out)
{
    enum qd_metric metric = qd_report_headline(data);
    const struct qd_cell *best = qd_find_best(data, metric), *ttft = qd_find_best(data, QD_METRIC_TTFT_P50);
    fputs("## Conclusion\n\n", out);
    if (best == NULL) {
        fputs("No cell carries a conclusion.\n", out);
        return QD_OK;
    }
    const char *label = qd_metric_info(metric)->label;
    fprintf(out, "%s is highest at %s (%s)%s. ", label, qd_format_cell(best).s,
            qd_format_value(best, metric).s, is_tied(data, metric, best) ? ", tied with others" : "");
    if (ttft != NULL)
        fprintf(out, "The first token comes soonest at %s (%s ms)%s. ", qd_format_cell(ttft).s,
                qd_format_value(ttft, QD_METRIC_TTFT_P50).s,
                is_tied(data, QD_METRIC_TTFT_P50, ttft) ? ", tied with others" : "");
    conclude_splits(data, metric, out);
    struct qd_budget_counts c = qd_count_budget_changes(data, metric);
    if (c.n_pairs > 0)
        fprintf(out, "From the smallest to the largest token budget %s changes by %+.2f %% to %+.2f %%. ",
                label, c.lowest_percent, c.highest_percent);
    if (!qd_has_repeats(data))
        fputs("Nothing was measured twice, so none of this is separated from noise. ", out);
    size_t n_missing = data->n_expected - data->n_expected_ok;
    if (n_missing > 0)
        fprintf(out, "%zu of %zu expected cells are missing; nothing is concluded about them. ", n_missing,
                data->n_expected);
    fputs("All of it holds for the machine and the workload named above, and for no other.\n", out);
    return QD_OK;
}
