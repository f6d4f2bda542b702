#include "harness/result/cell_ledger.h"

#include <string.h>

#include "models/json.h"

static const char *const keys[] = {
    [QD_LEDGER_FLOOR] = "floor", [QD_LEDGER_KERNELS] = "kernels",           [QD_LEDGER_GAPS] = "gaps",
    [QD_LEDGER_SPAN] = "span",   [QD_LEDGER_EXPOSED_HOST] = "exposed_host", [QD_LEDGER_IDLE] = "idle",
    [QD_LEDGER_WALL] = "wall",
};
_Static_assert(sizeof keys / sizeof *keys == QD_N_LEDGER_LINES, "a key for each line");

static const cJSON *ledger_of(const cJSON *run)
{
    return cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(run, "qdyno"), "ledger");
}

/* A line of one run, ns a step; *known is false for null and for a run without a ledger or a step. */
static qd_status read_line(const cJSON *run, enum qd_ledger_line line, double *ns, bool *known, char *err,
                           size_t errlen)
{
    const cJSON *ledger = ledger_of(run);
    double n_steps;
    *known = false;
    if (ledger == NULL) return QD_OK;
    if (qd_json_get_number(ledger, "n_steps", &n_steps, err, errlen) != QD_OK)
        return qd_fail(QD_ERR_INPUT, err, errlen, "qdyno/ledger/n_steps: is no number");
    const cJSON *waterfall = cJSON_GetObjectItemCaseSensitive(ledger, "waterfall_ns");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(waterfall, keys[line]);
    if (cJSON_IsNull(value) || !(n_steps > 0)) return QD_OK;
    if (!cJSON_IsNumber(value))
        return qd_fail(QD_ERR_INPUT, err, errlen, "qdyno/ledger/waterfall_ns/%s: is no number", keys[line]);
    *ns = value->valuedouble / n_steps;
    *known = true;
    return QD_OK;
}

static void add_bound(const cJSON *run, struct qd_cell_ledger *out)
{
    const cJSON *floor = cJSON_GetObjectItemCaseSensitive(ledger_of(run), "floor");
    const char *bound = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(floor, "bound"));
    if (bound == NULL) return;
    if (strcmp(bound, "memory") == 0) out->memory_bound = true;
    if (strcmp(bound, "compute") == 0) out->compute_bound = true;
}

qd_status qd_cell_ledger_read(const cJSON *runs, struct qd_cell_ledger *out, char *err, size_t errlen)
{
    double values[QD_MAX_CELL_RUNS];
    *out = (struct qd_cell_ledger){0};
    const cJSON *run;
    for (int line = 0; line < QD_N_LEDGER_LINES; line++) {
        int n = 0;
        cJSON_ArrayForEach (run, runs) {
            bool known;
            double ns;
            QD_TRY(read_line(run, (enum qd_ledger_line)line, &ns, &known, err, errlen));
            if (known && n < QD_MAX_CELL_RUNS) values[n++] = ns * 1e-6;
        }
        out->ms[line] = qd_metric_value_of(values, n);
    }
    cJSON_ArrayForEach (run, runs) add_bound(run, out);
    return QD_OK;
}
