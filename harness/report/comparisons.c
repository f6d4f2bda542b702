#include "harness/report/sections.h"
#include "harness/report/table.h"

struct qd_split_counts qd_count_splits(const struct qd_report_data *data, enum qd_metric metric)
{
    struct qd_split_counts counts = {0};
    for (size_t i = 0; i < data->cells.n; i++) {
        struct qd_split_group group;
        const struct qd_cell *best, *next;
        if (!qd_split_group_at(data, metric, i, &group)) continue;
        qd_split_group_best(data, metric, &group, &best, &next);
        counts.n_groups++;
        if (qd_compare_values(&best->values[metric], &next->values[metric]) == QD_CMP_TIED)
            counts.n_unclear++;
        else if (best == group.most_dp)
            counts.n_most_dp++;
        else if (best == group.most_tp)
            counts.n_most_tp++;
        else
            counts.n_between++;
    }
    return counts;
}

struct qd_budget_counts qd_count_budget_changes(const struct qd_report_data *data, enum qd_metric metric)
{
    struct qd_budget_counts counts = {0};
    for (size_t i = 0, end; i < data->cells.n; i = end) {
        const struct qd_cell *smallest, *largest;
        end = qd_pair_end(data, i);
        if (!qd_budget_ends(data, i, end, metric, &smallest, &largest)) continue;
        const struct qd_metric_value *a = &smallest->values[metric], *b = &largest->values[metric];
        double percent = qd_change_percent(a->median, b->median);
        if (counts.n_pairs == 0 || percent < counts.lowest_percent) counts.lowest_percent = percent;
        if (counts.n_pairs == 0 || percent > counts.highest_percent) counts.highest_percent = percent;
        counts.n_pairs++;
        counts.n_better += qd_is_better(metric, largest, smallest);
        counts.n_worse += qd_is_better(metric, smallest, largest);
        counts.n_separated += qd_compare_values(a, b) == QD_CMP_SEPARATED;
    }
    return counts;
}

/* The header of a table about groups of cells: three names, then the metrics. */
static void add_header(struct qd_table *table, const char *const names[3],
                       const struct qd_report_metrics *metrics)
{
    for (int i = 0; i < 3; i++) qd_table_add(table, "%s", names[i]);
    for (int i = 0; i < metrics->n; i++) qd_table_add(table, "%s", qd_metric_info(metrics->metric[i])->label);
}

static void add_split_row(struct qd_table *table, const struct qd_report_data *data,
                          const struct qd_report_metrics *metrics, const struct qd_split_group *group)
{
    qd_table_add(table, "%lld", (long long)group->n_gpus);
    qd_table_add(table, "%lld", (long long)group->budget);
    qd_table_add(table, "%d", group->n_splits);
    for (int i = 0; i < metrics->n; i++) {
        const struct qd_cell *best, *next;
        enum qd_metric m = metrics->metric[i];
        qd_split_group_best(data, m, group, &best, &next);
        if (best == NULL) {
            qd_table_add(table, "n/a");
            continue;
        }
        bool tied = next != NULL && qd_compare_values(&best->values[m], &next->values[m]) == QD_CMP_TIED;
        qd_table_add(table, "TP%lld DP%lld %s%s", (long long)best->tp, (long long)best->dp,
                     qd_format_value(best, m).s, tied ? " (tie)" : "");
    }
}

static void print_split_counts(const struct qd_report_data *data, enum qd_metric metric, FILE *out)
{
    struct qd_split_counts c = qd_count_splits(data, metric);
    fprintf(
        out,
        "- %s, %d comparisons: the split with the most data parallelism leads in %d, with the most tensor "
        "parallelism in %d, one between in %d, tied in %d.\n",
        qd_metric_info(metric)->label, c.n_groups, c.n_most_dp, c.n_most_tp, c.n_between, c.n_unclear);
}

qd_status qd_section_splits(const struct qd_report_data *data, FILE *out)
{
    struct qd_report_metrics metrics = qd_report_analysed(data, true);
    enum qd_metric headline = qd_report_headline(data);
    fputs("## Data parallelism against tensor parallelism\n\n", out);
    if (qd_count_splits(data, headline).n_groups == 0) {
        fputs("No two unmarked cells share the number of GPUs (TP x DP) and the budget with another split: "
              "nothing "
              "can be said.\n\n",
              out);
        return QD_OK;
    }
    fputs("Best split at the same number of GPUs (TP x DP) and the same budget:\n\n", out);
    char align[QD_N_METRICS + 4];
    snprintf(align, sizeof align, "rrr%.*s", metrics.n, "llllllllll");
    struct qd_table table;
    qd_table_init(&table, align);
    add_header(&table, (const char *const[]){"GPUs", "Budget", "Splits"}, &metrics);
    for (size_t i = 0; i < data->cells.n; i++) {
        struct qd_split_group group;
        if (qd_split_group_at(data, headline, i, &group)) add_split_row(&table, data, &metrics, &group);
    }
    QD_TRY(qd_table_print(&table, out));
    for (int i = 0; i < metrics.n; i++) print_split_counts(data, metrics.metric[i], out);
    if (!qd_has_repeats(data))
        fputs("\nWithout repeats, single comparisons cannot be separated from noise; only how often one side "
              "leads carries weight.\n",
              out);
    fputs("\nThis holds for this machine's links between ranks and for this load; both decide it.\n\n", out);
    return QD_OK;
}

static void add_budget_row(struct qd_table *table, const struct qd_report_data *data,
                           const struct qd_report_metrics *metrics, size_t begin, size_t end)
{
    enum qd_metric headline = qd_report_headline(data);
    const struct qd_cell *smallest, *largest;
    if (!qd_budget_ends(data, begin, end, headline, &smallest, &largest)) return;
    qd_table_add(table, "%lld", (long long)smallest->tp);
    qd_table_add(table, "%lld", (long long)smallest->dp);
    qd_table_add(table, "%lld to %lld", (long long)smallest->budget, (long long)largest->budget);
    for (int i = 0; i < metrics->n; i++) {
        const struct qd_metric_value *a = &smallest->values[metrics->metric[i]];
        const struct qd_metric_value *b = &largest->values[metrics->metric[i]];
        if (a->n > 0 && b->n > 0)
            qd_table_add(table, "%+.2f %%", qd_change_percent(a->median, b->median));
        else
            qd_table_add(table, "n/a");
    }
    enum qd_comparison c = qd_compare_values(&smallest->values[headline], &largest->values[headline]);
    qd_table_add(table, "%s",
                 c == QD_CMP_SEPARATED ? "beyond spread"
                 : c == QD_CMP_TIED    ? "within spread"
                                       : "no repeats");
}

qd_status qd_section_budgets(const struct qd_report_data *data, FILE *out)
{
    struct qd_report_metrics metrics = qd_report_analysed(data, true);
    enum qd_metric headline = qd_report_headline(data);
    fputs("## Effect of the token budget (max_num_batched_tokens)\n\n", out);
    struct qd_budget_counts counts = qd_count_budget_changes(data, headline);
    if (counts.n_pairs == 0) {
        fputs("No (TP, DP) pair was measured with two budgets: nothing can be said.\n\n", out);
        return QD_OK;
    }
    fputs("Change from the smallest to the largest budget measured, per (TP, DP):\n\n", out);
    char align[QD_N_METRICS + 5];
    snprintf(align, sizeof align, "rrl%.*sl", metrics.n, "rrrrrrrrrr");
    struct qd_table table;
    qd_table_init(&table, align);
    add_header(&table, (const char *const[]){"TP", "DP", "Budget"}, &metrics);
    qd_table_add(&table, "%s is", qd_metric_info(headline)->label);
    for (size_t i = 0, end; i < data->cells.n; i = end) {
        end = qd_pair_end(data, i);
        add_budget_row(&table, data, &metrics, i, end);
    }
    QD_TRY(qd_table_print(&table, out));
    for (int i = 0; i < metrics.n; i++) {
        struct qd_budget_counts c = qd_count_budget_changes(data, metrics.metric[i]);
        fprintf(out,
                "- %s: better with the largest budget in %d of %d pairs, worse in %d (%+.2f %% to %+.2f %%)",
                qd_metric_info(metrics.metric[i])->label, c.n_better, c.n_pairs, c.n_worse, c.lowest_percent,
                c.highest_percent);
        if (qd_has_repeats(data))
            fprintf(out, "; %d of the changes are beyond the runs' spread", c.n_separated);
        fputs(".\n", out);
    }
    fputc('\n', out);
    return QD_OK;
}
