#include "harness/report/sections.h"
#include "harness/report/table.h"

static bool has_ledger(const struct qd_cell *cell)
{
    return cell->status == QD_CELL_OK && cell->ledger.ms[QD_LEDGER_WALL].n > 0;
}

/* Milliseconds with what digits small steps need. */
static void add_ms(struct qd_table *table, const struct qd_metric_value *value)
{
    if (value->n == 0)
        qd_table_add(table, "n/a");
    else
        qd_table_add(table, value->median < 10 ? "%.4f" : "%.2f", value->median);
}

static void add_bound(struct qd_table *table, const struct qd_cell_ledger *ledger)
{
    const char *bound = ledger->memory_bound ? "memory" : "compute";
    if (!ledger->memory_bound && !ledger->compute_bound) bound = "n/a";
    if (ledger->memory_bound && ledger->compute_bound) bound = "either";
    qd_table_add(table, "%s", bound);
}

/* part / whole, or n/a where one is not known. */
static void add_ratio(struct qd_table *table, const struct qd_metric_value *part, double whole, double scale,
                      const char *format)
{
    if (part->n == 0 || !(whole > 0))
        qd_table_add(table, "n/a");
    else
        qd_table_add(table, format, scale * part->median / whole);
}

static void add_row(struct qd_table *table, const struct qd_cell *cell)
{
    const struct qd_metric_value *ms = cell->ledger.ms;
    double busy = ms[QD_LEDGER_WALL].median - ms[QD_LEDGER_IDLE].median;
    qd_table_add(table, "%lld", (long long)cell->tp);
    qd_table_add(table, "%lld", (long long)cell->dp);
    qd_table_add(table, "%lld", (long long)cell->budget);
    add_ms(table, &ms[QD_LEDGER_FLOOR]);
    add_bound(table, &cell->ledger);
    add_ms(table, &ms[QD_LEDGER_KERNELS]);
    add_ms(table, &ms[QD_LEDGER_GAPS]);
    add_ms(table, &ms[QD_LEDGER_SPAN]);
    add_ratio(table, &ms[QD_LEDGER_SPAN], ms[QD_LEDGER_FLOOR].median, 1, "%.2f");
    add_ms(table, &ms[QD_LEDGER_EXPOSED_HOST]);
    add_ms(table, &ms[QD_LEDGER_IDLE]);
    add_ms(table, &ms[QD_LEDGER_WALL]);
    add_ratio(table, &ms[QD_LEDGER_SPAN], busy, 100, "%.1f %%");
}

qd_status qd_section_ledger(const struct qd_report_data *data, FILE *out)
{
    static const char *const HEADER[] = {"TP",      "DP",   "Budget", "Floor",   "Bound",
                                         "Kernels", "Gaps", "Span",   "x floor", "Exposed host",
                                         "Idle",    "Wall", "Device"};
    size_t n = 0;
    for (size_t i = 0; i < data->cells.n; i++) n += has_ledger(&data->cells.cells[i]);
    if (n == 0) return QD_OK;
    struct qd_table table;
    fputs("## Where the time went\n\n", out);
    qd_table_init(&table, "rrrrlrrrrrrrr");
    for (size_t i = 0; i < sizeof HEADER / sizeof *HEADER; i++) qd_table_add(&table, "%s", HEADER[i]);
    for (size_t i = 0; i < data->cells.n; i++)
        if (has_ledger(&data->cells.cells[i])) add_row(&table, &data->cells.cells[i]);
    QD_TRY(qd_table_print(&table, out));
    fputs("Milliseconds a step of one replica, medians over runs. Floor: every op at the machine's limits, "
          "and which of "
          "them binds the larger part; kernels + gaps = span, the device's time; span + exposed host + idle "
          "= wall but "
          "for what is unexplained. Device: span / (wall - idle). n/a: not known in this mode.\n\n",
          out);
    return QD_OK;
}
