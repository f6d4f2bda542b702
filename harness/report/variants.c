#include "harness/report/sections.h"
#include "harness/report/table.h"

const char *qd_format_variant(const struct qd_report_data *data)
{
    const char *variant = data->cells.cells[0].variant;
    return variant[0] != '\0' ? variant : "(no further option)";
}

static void add_row(struct qd_table *table, const struct qd_report_data *data, enum qd_metric headline)
{
    const enum qd_metric metrics[] = {headline, QD_METRIC_TTFT_P50, QD_METRIC_ITL_P50};
    qd_table_add(table, "%s", qd_format_variant(data));
    qd_table_add(table, "%zu of %zu", data->n_expected_ok, data->n_expected);
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        const struct qd_cell *best = qd_find_best(data, metrics[i]);
        if (best == NULL)
            qd_table_add(table, "n/a");
        else if (metrics[i] == headline)
            qd_table_add(table, "%s (%s)", qd_format_value(best, headline).s, qd_format_cell(best).s);
        else
            qd_table_add(table, "%s", qd_format_value(best, metrics[i]).s);
    }
}

qd_status qd_section_variants(const struct qd_report_data *data, FILE *out)
{
    enum qd_metric headline = qd_report_headline(data);
    struct qd_table table;
    fputs(
        "## Variants\n\nThese cells differ in more options than TP, DP and the token budget. Each variant is "
        "reported by itself below; cells of different variants are never compared.\n\n",
        out);
    qd_table_init(&table, "lrlrr");
    qd_table_add(&table, "Variant");
    qd_table_add(&table, "Measured");
    qd_table_add(&table, "Best %s", qd_metric_info(headline)->label);
    qd_table_add(&table, "Best TTFT p50 (ms)");
    qd_table_add(&table, "Best ITL p50 (ms)");
    for (size_t begin = 0; begin < data->cells.n;) {
        struct qd_report_data part = qd_report_data_of_variant(data, begin);
        add_row(&table, &part, headline);
        begin += part.cells.n;
    }
    return qd_table_print(&table, out);
}
