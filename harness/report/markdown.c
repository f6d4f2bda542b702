#include "harness/report/report.h"

#include <string.h>

#include "harness/report/sections.h"
#include "harness/report/table.h"

struct qd_report_metrics qd_report_analysed(const struct qd_report_data *data, bool at_equal_gpus)
{
    static const enum qd_metric ALL[] = {QD_METRIC_OUTPUT_TOK_S,   QD_METRIC_TOK_S_PER_GPU,
                                         QD_METRIC_TOK_S_PER_USER, QD_METRIC_PER_REQUEST_TOK_S,
                                         QD_METRIC_TTFT_P50,       QD_METRIC_ITL_P50,
                                         QD_METRIC_E2EL_P50};
    struct qd_report_metrics found = {0};
    for (size_t i = 0; i < sizeof ALL / sizeof ALL[0]; i++) {
        if (at_equal_gpus && ALL[i] == QD_METRIC_TOK_S_PER_GPU) continue;
        if (qd_has_metric(data, ALL[i])) found.metric[found.n++] = ALL[i];
    }
    return found;
}

enum qd_metric qd_report_headline(const struct qd_report_data *data)
{
    return qd_has_metric(data, QD_METRIC_OUTPUT_TOK_S) ? QD_METRIC_OUTPUT_TOK_S : QD_METRIC_PER_REQUEST_TOK_S;
}

struct qd_text qd_format_value(const struct qd_cell *cell, enum qd_metric metric)
{
    struct qd_text text;
    const struct qd_metric_value *v = &cell->values[metric];
    if (v->n == 0)
        snprintf(text.s, sizeof text.s, "n/a");
    else
        snprintf(text.s, sizeof text.s, v->median < 1 ? "%.3f" : "%.2f", v->median);
    return text;
}

struct qd_text qd_format_cell(const struct qd_cell *cell)
{
    struct qd_text text;
    snprintf(text.s, sizeof text.s, "TP%lld DP%lld, budget %lld", (long long)cell->tp, (long long)cell->dp,
             (long long)cell->budget);
    return text;
}

const char *qd_comparison_text(enum qd_comparison comparison)
{
    static const char *const TEXTS[] = {"beyond the runs' spread", "tied: within the runs' spread",
                                        "no repeats: cannot be separated from noise"};
    return TEXTS[comparison];
}

bool qd_has_repeats(const struct qd_report_data *data)
{
    for (size_t i = 0; i < data->cells.n; i++)
        for (int m = 0; m < QD_N_METRICS; m++)
            if (data->cells.cells[i].values[m].n > 1) return true;
    return false;
}

size_t qd_count_marked(const struct qd_report_data *data, uint32_t mark)
{
    size_t n = 0;
    for (size_t i = 0; i < data->cells.n; i++)
        n += data->cells.cells[i].status == QD_CELL_OK && (data->cells.cells[i].marks & mark) != 0;
    return n;
}

static size_t count_measured(const struct qd_report_data *data)
{
    size_t n = 0;
    for (size_t i = 0; i < data->cells.n; i++) n += data->cells.cells[i].status == QD_CELL_OK;
    return n;
}

static void print_matrix_source(const struct qd_report_data *data, FILE *out)
{
    static const char *const TEXTS[] = {
        "inferred: powers of two with TP x DP up to the largest seen, times the budgets seen",
        "the one recorded in experiment.json",
        "the one given with --matrix",
    };
    fprintf(out, "The expected matrix is %s: %zu cells, of which %zu are measured and %zu are not.\n",
            TEXTS[data->matrix_source], data->n_expected, data->n_expected_ok,
            data->n_expected - data->n_expected_ok);
    size_t beyond = count_measured(data) - data->n_expected_ok;
    if (beyond > 0) fprintf(out, "%zu measured cells are outside of it.\n", beyond);
    fputc('\n', out);
}

static void add_best_row(struct qd_table *table, const struct qd_report_data *data, enum qd_metric metric)
{
    const struct qd_metric_info *info = qd_metric_info(metric);
    const struct qd_cell *best = qd_find_best(data, metric);
    if (best == NULL) return;
    const struct qd_metric_value *v = &best->values[metric];
    qd_table_add(table, "%s (%s)", info->label, info->higher_is_better ? "higher" : "lower");
    qd_table_add(table, "%s", qd_format_value(best, metric).s);
    qd_table_add(table, "%s", info->unit);
    qd_table_add(table, "%lld", (long long)best->tp);
    qd_table_add(table, "%lld", (long long)best->dp);
    qd_table_add(table, "%lld", (long long)best->budget);
    qd_table_add(table, "%d", best->n_runs);
    if (v->n > 1)
        qd_table_add(table, "%.1f %%", qd_spread_percent(v));
    else
        qd_table_add(table, "n/a");
}

/* Without repeats, what is closer than this to the best is named beside it. */
static const double CLOSE_PERCENT = 2;

/* Whether `cell` is to be named beside the best: tied, or too close to call without repeats. */
static bool is_close(enum qd_metric metric, const struct qd_cell *best, const struct qd_cell *cell)
{
    const struct qd_metric_value *a = &best->values[metric], *b = &cell->values[metric];
    enum qd_comparison c = qd_compare_values(a, b);
    double percent = qd_change_percent(a->median, b->median);
    return c == QD_CMP_TIED ||
           (c == QD_CMP_NO_REPEATS && percent < CLOSE_PERCENT && percent > -CLOSE_PERCENT);
}

static void print_close(const struct qd_report_data *data, enum qd_metric metric, const struct qd_cell *best,
                        const char *lead, FILE *out)
{
    int n = 0;
    for (size_t i = 0; i < data->cells.n; i++) {
        const struct qd_cell *cell = &data->cells.cells[i];
        if (cell == best || !qd_is_candidate(cell, metric) || !is_close(metric, best, cell)) continue;
        fprintf(out, "%s%s (%s)", n++ == 0 ? lead : "; ", qd_format_cell(cell).s,
                qd_format_value(cell, metric).s);
    }
}

/* How far the best is from the rest: every tie by name, else the next best and the distance. */
static void print_certainty(const struct qd_report_data *data, enum qd_metric metric, FILE *out)
{
    const struct qd_cell *best = qd_find_best(data, metric);
    const struct qd_cell *next = best != NULL ? qd_find_next(data, metric, best) : NULL;
    if (next == NULL) return;
    enum qd_comparison c = qd_compare_values(&best->values[metric], &next->values[metric]);
    fprintf(out, "- %s: ", qd_metric_info(metric)->label);
    if (c == QD_CMP_TIED) {
        print_close(data, metric, best, "tied within the runs' spread with ", out);
    } else {
        double percent = qd_change_percent(best->values[metric].median, next->values[metric].median);
        fprintf(out, "next is %s with %s (%+.1f %%); %s", qd_format_cell(next).s,
                qd_format_value(next, metric).s, percent, qd_comparison_text(c));
        print_close(data, metric, best,
                    c == QD_CMP_NO_REPEATS ? ". Within 2 %, too close to call: " : ". Tied: ", out);
    }
    fputs(".\n", out);
}

static void print_marked_note(const struct qd_report_data *data, FILE *out)
{
    size_t n = qd_count_marked(data, QD_MARKS_SHARED);
    size_t n_virtual = qd_count_marked(data, QD_MARK_VIRTUAL_TIME);
    if (n_virtual > 0)
        fprintf(out,
                "%zu %s of virtual time, in which steps take what they are told to: times and rates are "
                "computed, not measured, and left out of every conclusion.\n\n",
                n_virtual, n_virtual == 1 ? "cell is" : "cells are");
    if (n == 0) return;
    fprintf(out,
            "%zu measured %s more ranks than cores or GPUs: shown in the results, but left out of the best "
            "configurations, of the comparison of DP with TP and of the recommendations.\n\n",
            n, n == 1 ? "cell has" : "cells have");
}

qd_status qd_section_summary(const struct qd_report_data *data, FILE *out)
{
    struct qd_report_metrics metrics = qd_report_analysed(data, false);
    fputs("## Summary\n\n", out);
    print_matrix_source(data, out);
    print_marked_note(data, out);
    if (metrics.n == 0 || qd_find_best(data, metrics.metric[0]) == NULL) {
        fputs("No cell carries a conclusion, so there is no best configuration.\n\n", out);
        return QD_OK;
    }
    struct qd_table table;
    qd_table_init(&table, "lrlrrrrr");
    static const char *const HEADER[] = {"Best (by)", "Value",  "Unit", "TP",
                                         "DP",        "Budget", "Runs", "Spread"};
    for (int i = 0; i < 8; i++) qd_table_add(&table, "%s", HEADER[i]);
    for (int i = 0; i < metrics.n; i++) add_best_row(&table, data, metrics.metric[i]);
    QD_TRY(qd_table_print(&table, out));
    for (int i = 0; i < metrics.n; i++) print_certainty(data, metrics.metric[i], out);
    fputs("\nValues are medians over runs. Spread is (largest - smallest run) / median. Two cells are tied "
          "when "
          "the ranges of their runs overlap.\n\n",
          out);
    return QD_OK;
}

/* What each column means, beside the numbers it explains. */
static void print_definitions(const struct qd_report_data *data, FILE *out)
{
    fputs("What the columns mean:\n\n", out);
    for (int m = 0; m < QD_N_METRICS; m++) {
        const struct qd_metric_info *info = qd_metric_info((enum qd_metric)m);
        if (qd_has_metric(data, (enum qd_metric)m))
            fprintf(out, "- %s: %s.\n", info->label, info->definition);
    }
    if (data->source == QD_REPORT_CSV && qd_has_metric(data, QD_METRIC_PER_REQUEST_TOK_S))
        fputs("- The file calls per-request tok/s \"overall_throughput_tokens_per_sec\". It is no "
              "throughput: it "
              "says how fast one user is served, not how many tokens the machine makes.\n",
              out);
    if (!qd_has_metric(data, QD_METRIC_OUTPUT_TOK_S))
        fputs(
            "- output tok/s, tok/s/GPU and tok/s/user are not in the file and cannot be computed from it, so "
            "nothing is said about how much the machine produces per GPU.\n",
            out);
    fputs("- TP: tensor-parallel ranks per replica; DP: replicas; budget: max_num_batched_tokens, the most "
          "tokens a step computes per replica. Requests that failed count in no other number.\n\n",
          out);
}

static bool has_details(const struct qd_report_data *data)
{
    return data->source == QD_REPORT_DIRECTORY;
}

static void add_result_header(struct qd_table *table, const struct qd_report_data *data)
{
    qd_table_add(table, "TP");
    qd_table_add(table, "DP");
    qd_table_add(table, "Budget");
    for (int m = 0; m < QD_N_METRICS; m++)
        if (qd_has_metric(data, (enum qd_metric)m))
            qd_table_add(table, "%s", qd_metric_info((enum qd_metric)m)->label);
    if (!has_details(data)) return;
    qd_table_add(table, "Runs");
    qd_table_add(table, "Spread");
    qd_table_add(table, "Failed");
    qd_table_add(table, "Preempt.");
    qd_table_add(table, "Marks");
}

/* Bits as letters: "a c", explained below the table. */
static struct qd_text format_marks(uint32_t marks)
{
    struct qd_text text = {""};
    size_t used = 0;
    for (int bit = 0; bit < 26; bit++) {
        if (!(marks & (1u << bit))) continue;
        if (used > 0) text.s[used++] = ' ';
        text.s[used++] = (char)('a' + bit);
        text.s[used] = '\0';
    }
    return text;
}

static void add_result_row(struct qd_table *table, const struct qd_report_data *data,
                           const struct qd_cell *cell)
{
    qd_table_add(table, "%lld", (long long)cell->tp);
    qd_table_add(table, "%lld", (long long)cell->dp);
    qd_table_add(table, "%lld", (long long)cell->budget);
    for (int m = 0; m < QD_N_METRICS; m++)
        if (qd_has_metric(data, (enum qd_metric)m))
            qd_table_add(table, "%s", qd_format_value(cell, (enum qd_metric)m).s);
    if (!has_details(data)) return;
    const struct qd_metric_value *v = &cell->values[qd_report_headline(data)];
    qd_table_add(table, "%d", cell->n_runs);
    if (v->n > 1)
        qd_table_add(table, "%.1f %%", qd_spread_percent(v));
    else
        qd_table_add(table, "n/a");
    qd_table_add(table, "%llu", (unsigned long long)cell->n_failed);
    qd_table_add(table, "%lld", (long long)cell->n_preemptions);
    qd_table_add(table, "%s", format_marks(cell->marks).s);
}

static void print_mark_legend(const struct qd_report_data *data, FILE *out)
{
    bool any = false;
    for (int bit = 0; qd_mark_text(1u << bit) != NULL; bit++) {
        size_t n = qd_count_marked(data, 1u << bit);
        if (n == 0) continue;
        fprintf(out, "- mark %c, %zu cells: %s\n", 'a' + bit, n, qd_mark_text(1u << bit));
        any = true;
    }
    if (any) fputc('\n', out);
}

qd_status qd_section_results(const struct qd_report_data *data, FILE *out)
{
    char align[QD_N_METRICS + 10];
    int n_columns = has_details(data) ? 8 : 3;
    for (int m = 0; m < QD_N_METRICS; m++) n_columns += qd_has_metric(data, (enum qd_metric)m);
    for (int i = 0; i < n_columns; i++) align[i] = 'r';
    align[n_columns] = '\0';
    fputs("## Results\n\n", out);
    struct qd_table table;
    qd_table_init(&table, align);
    add_result_header(&table, data);
    for (size_t i = 0; i < data->cells.n; i++)
        if (data->cells.cells[i].status == QD_CELL_OK) add_result_row(&table, data, &data->cells.cells[i]);
    QD_TRY(qd_table_print(&table, out));
    fprintf(out, "Rates in tok/s, latencies in ms%s.\n\n",
            has_details(data) ? "; medians over runs; the spread is that of the output tok/s" : "");
    print_mark_legend(data, out);
    print_definitions(data, out);
    return QD_OK;
}

static void add_setting(struct qd_table *table, const char *name, const char *value)
{
    qd_table_add(table, "%s", name);
    qd_table_add(table, "%s", value[0] != '\0' ? value : "not recorded");
}

/* Room for the texts of an origin that numbers are added to. */
enum { SETTING_LEN = 768 };

/* Appends ", 28.2 to 32.6 unit", or one number where all runs agree in the digits shown; to a known text
 * only. */
static void append_extent(char text[SETTING_LEN], const struct qd_extent *extent, int digits,
                          const char *unit)
{
    char smallest[32], largest[32];
    size_t used = strlen(text);
    if (used == 0 || extent->n == 0) return;
    snprintf(smallest, sizeof smallest, "%.*f", digits, extent->min);
    snprintf(largest, sizeof largest, "%.*f", digits, extent->max);
    bool same = strcmp(smallest, largest) == 0;
    snprintf(text + used, SETTING_LEN - used, ", %s%s%s %s", smallest, same ? "" : " to ",
             same ? "" : largest, unit);
}

static void add_numbered_settings(struct qd_table *table, const struct qd_origin *o)
{
    char device[SETTING_LEN], workload[SETTING_LEN], load[SETTING_LEN];
    snprintf(device, sizeof device, "%s", o->device);
    append_extent(device, &o->read_gbps, 1, "GB/s probed read bandwidth");
    snprintf(workload, sizeof workload, "%s", o->workload);
    append_extent(workload, &o->input_tokens, 0, "tokens in");
    append_extent(workload, &o->output_tokens, 0, "tokens out");
    snprintf(load, sizeof load, "%s", o->load);
    append_extent(load, &o->load_s, 2, "s");
    append_extent(load, &o->load_gbps, 2, "GB/s, not counted");
    add_setting(table, "Device", device);
    add_setting(table, "Workload", workload);
    add_setting(table, "Weights", load);
}

qd_status qd_section_setting(const struct qd_report_data *data, FILE *out)
{
    const struct qd_origin *o = &data->origin;
    struct qd_table table;
    fputs("## Setting\n\n", out);
    qd_table_init(&table, "ll");
    add_setting(&table, "What", "Value");
    add_setting(&table, "Source", data->path);
    add_setting(&table, "Model", o->model);
    add_setting(&table, "Host", o->host);
    add_numbered_settings(&table, o);
    add_setting(&table, "Commit", o->commit);
    add_setting(&table, "Warm-ups", o->warmup);
    add_setting(&table, "Dates", o->dates);
    char repeats[32] = "";
    if (data->n_repeats > 0) snprintf(repeats, sizeof repeats, "%d", data->n_repeats);
    add_setting(&table, "Repeats", repeats[0] == '\0' && !qd_has_repeats(data) ? "none recorded" : repeats);
    return qd_table_print(&table, out);
}

static bool lacks_runs(const struct qd_cell *cell)
{
    return cell->status != QD_CELL_OK || cell->reason[0] != '\0';
}

static void add_missing_row(struct qd_table *table, const struct qd_cell *cell)
{
    qd_table_add(table, "%lld", (long long)cell->tp);
    qd_table_add(table, "%lld", (long long)cell->dp);
    qd_table_add(table, "%lld", (long long)cell->budget);
    qd_table_add(table, "%s", cell->status == QD_CELL_OK ? "some runs" : qd_cell_status_name(cell->status));
    qd_table_add(table, "%s", cell->reason[0] != '\0' ? cell->reason : "not recorded");
}

qd_status qd_section_missing(const struct qd_report_data *data, FILE *out)
{
    size_t n = 0;
    for (size_t i = 0; i < data->cells.n; i++) n += lacks_runs(&data->cells.cells[i]);
    fputs("## Missing configurations\n\n", out);
    fprintf(out, "%zu of %zu expected cells are missing.\n\n", data->n_expected - data->n_expected_ok,
            data->n_expected);
    if (n == 0) return QD_OK;
    struct qd_table table;
    qd_table_init(&table, "rrrll");
    static const char *const HEADER[] = {"TP", "DP", "Budget", "Status", "Reason"};
    for (int i = 0; i < 5; i++) qd_table_add(&table, "%s", HEADER[i]);
    for (size_t i = 0; i < data->cells.n; i++)
        if (lacks_runs(&data->cells.cells[i])) add_missing_row(&table, &data->cells.cells[i]);
    return qd_table_print(&table, out);
}

static qd_status write_sections(const struct qd_report_data *data, FILE *out)
{
    QD_TRY(qd_section_summary(data, out));
    QD_TRY(qd_section_setting(data, out));
    QD_TRY(qd_section_results(data, out));
    QD_TRY(qd_section_ledger(data, out));
    QD_TRY(qd_section_missing(data, out));
    QD_TRY(qd_section_splits(data, out));
    QD_TRY(qd_section_budgets(data, out));
    QD_TRY(qd_section_recommendations(data, out));
    return qd_section_conclusion(data, out);
}

qd_status qd_report_markdown(const struct qd_report_data *data, FILE *out)
{
    bool has_variants = false;
    fprintf(out, "# qdyno report: TP x DP x token budget\n\n");
    for (size_t begin = 0; begin < data->cells.n;) {
        struct qd_report_data part = qd_report_data_of_variant(data, begin);
        if (begin == 0) has_variants = part.cells.n < data->cells.n;
        if (begin == 0 && has_variants) QD_TRY(qd_section_variants(data, out));
        if (has_variants)
            fprintf(out, "%s# Variant: %s\n\n", begin > 0 ? "\n" : "", qd_format_variant(&part));
        QD_TRY(write_sections(&part, out));
        begin += part.cells.n;
    }
    return ferror(out) ? QD_ERR_IO : QD_OK;
}

qd_status qd_report_write(const char *path, const char *matrix, FILE *out, char *err, size_t errlen)
{
    struct qd_report_data data;
    QD_TRY(qd_report_data_load(path, matrix, &data, err, errlen));
    qd_status st = qd_report_markdown(&data, out);
    if (st != QD_OK)
        qd_fail(st, err, errlen, "%s: the report cannot be written: %s", path, qd_status_str(st));
    qd_report_data_free(&data);
    return st;
}
