#include "harness/report/analysis.h"

enum qd_comparison qd_compare_values(const struct qd_metric_value *a, const struct qd_metric_value *b)
{
    if (a->median == b->median) return QD_CMP_TIED;
    if (a->n < 2 || b->n < 2) return QD_CMP_NO_REPEATS;
    return a->max < b->min || b->max < a->min ? QD_CMP_SEPARATED : QD_CMP_TIED;
}

bool qd_is_better(enum qd_metric metric, const struct qd_cell *a, const struct qd_cell *b)
{
    double x = a->values[metric].median, y = b->values[metric].median;
    return qd_metric_info(metric)->higher_is_better ? x > y : x < y;
}

bool qd_is_candidate(const struct qd_cell *cell, enum qd_metric metric)
{
    return cell->status == QD_CELL_OK && cell->values[metric].n > 0 &&
           !(cell->marks & (QD_MARKS_SHARED | QD_MARK_VIRTUAL_TIME));
}

bool qd_has_metric(const struct qd_report_data *data, enum qd_metric metric)
{
    for (size_t i = 0; i < data->cells.n; i++)
        if (data->cells.cells[i].values[metric].n > 0) return true;
    return false;
}

const struct qd_cell *qd_find_next(const struct qd_report_data *data, enum qd_metric metric,
                                   const struct qd_cell *best)
{
    const struct qd_cell *found = NULL;
    for (size_t i = 0; i < data->cells.n; i++) {
        const struct qd_cell *cell = &data->cells.cells[i];
        if (cell == best || !qd_is_candidate(cell, metric)) continue;
        if (found == NULL || qd_is_better(metric, cell, found)) found = cell;
    }
    return found;
}

const struct qd_cell *qd_find_best(const struct qd_report_data *data, enum qd_metric metric)
{
    return qd_find_next(data, metric, NULL);
}

static bool measured_all(const struct qd_cell *cell, const enum qd_metric *metrics, int n)
{
    for (int m = 0; m < n; m++)
        if (!qd_is_candidate(cell, metrics[m])) return false;
    return true;
}

/* 1 + the number of cells that are better, averaged over the metrics. */
static double mean_rank_of(const struct qd_report_data *data, const struct qd_cell *cell,
                           const enum qd_metric *metrics, int n)
{
    double sum = 0;
    for (int m = 0; m < n; m++) {
        sum += 1;
        for (size_t i = 0; i < data->cells.n; i++) {
            const struct qd_cell *other = &data->cells.cells[i];
            if (measured_all(other, metrics, n) && qd_is_better(metrics[m], other, cell)) sum += 1;
        }
    }
    return sum / n;
}

const struct qd_cell *qd_find_balanced(const struct qd_report_data *data, const enum qd_metric *metrics,
                                       int n, double *mean_rank)
{
    const struct qd_cell *best = NULL;
    size_t n_ranked = 0;
    for (size_t i = 0; i < data->cells.n; i++) {
        const struct qd_cell *cell = &data->cells.cells[i];
        if (!measured_all(cell, metrics, n)) continue;
        double rank = mean_rank_of(data, cell, metrics, n);
        n_ranked++;
        if (best != NULL && rank >= *mean_rank) continue;
        best = cell;
        *mean_rank = rank;
    }
    return n_ranked >= 2 ? best : NULL;
}

double qd_spread_percent(const struct qd_metric_value *value)
{
    return value->median > 0 ? 100 * (value->max - value->min) / value->median : 0;
}

double qd_change_percent(double a, double b)
{
    return a > 0 ? 100 * (b - a) / a : 0;
}

size_t qd_pair_end(const struct qd_report_data *data, size_t i)
{
    const struct qd_cell *cells = data->cells.cells;
    size_t end = i + 1;
    while (end < data->cells.n && cells[end].tp == cells[i].tp && cells[end].dp == cells[i].dp)
        end++;
    return end;
}

bool qd_budget_ends(const struct qd_report_data *data, size_t begin, size_t end, enum qd_metric metric,
                    const struct qd_cell **smallest, const struct qd_cell **largest)
{
    *smallest = *largest = NULL;
    for (size_t i = begin; i < end; i++) {
        const struct qd_cell *cell = &data->cells.cells[i];
        if (cell->status != QD_CELL_OK || cell->values[metric].n == 0) continue;
        if (*smallest == NULL) *smallest = cell;
        *largest = cell;
    }
    return *smallest != *largest;
}

static bool is_in_group(const struct qd_cell *cell, enum qd_metric metric, int64_t n_gpus, int64_t budget)
{
    return cell->budget == budget && cell->tp * cell->dp == n_gpus && qd_is_candidate(cell, metric);
}

bool qd_split_group_at(const struct qd_report_data *data, enum qd_metric metric, size_t i,
                       struct qd_split_group *group)
{
    const struct qd_cell *first = &data->cells.cells[i];
    int64_t n_gpus = first->tp * first->dp;
    if (!is_in_group(first, metric, n_gpus, first->budget)) return false;
    *group = (struct qd_split_group){.n_gpus = n_gpus, .budget = first->budget};
    for (size_t j = 0; j < data->cells.n; j++) {
        const struct qd_cell *cell = &data->cells.cells[j];
        if (!is_in_group(cell, metric, n_gpus, first->budget)) continue;
        if (j < i) return false;
        if (group->n_splits++ == 0) group->most_dp = cell;
        group->most_tp = cell;
    }
    return group->n_splits > 1;
}

void qd_split_group_best(const struct qd_report_data *data, enum qd_metric metric,
                         const struct qd_split_group *group, const struct qd_cell **best,
                         const struct qd_cell **next)
{
    *best = *next = NULL;
    for (size_t i = 0; i < data->cells.n; i++) {
        const struct qd_cell *cell = &data->cells.cells[i];
        if (!is_in_group(cell, metric, group->n_gpus, group->budget)) continue;
        if (*best == NULL || qd_is_better(metric, cell, *best)) {
            *next = *best;
            *best = cell;
        } else if (*next == NULL || qd_is_better(metric, cell, *next)) {
            *next = cell;
        }
    }
}
