#include "harness/result/ledger.h"

#include <math.h>
#include <string.h>

#include "harness/result/device_use.h"
#include "models/step_cost.h"

static void add_floor(struct qd_ledger_rows *rows, const struct qd_step_row *row)
{
    struct qd_step_op ops[QD_MAX_STEP_OPS];
    struct qd_attention_load load = {.n_tokens = row->n_prefill_tokens + row->n_decode_tokens,
                                     .n_visible = row->n_visible,
                                     .n_kv = row->n_kv};
    int n = qd_model_step_ops(rows->config, &rows->shard, &load, row->n_logit_rows, ops);
    for (int i = 0; i < n; i++) {
        bool compute_bound;
        double ns = (double)ops[i].times * qd_traffic_floor_ns(ops[i].traffic, rows->limits.memory_gbps,
                                                               rows->limits.gflops, &compute_bound);
        rows->floor_ns[ops[i].segment] += ns;
        if (compute_bound) rows->compute_floor_ns[ops[i].segment] += ns;
    }
}

void qd_ledger_rows_take(void *arg, const struct qd_step_row *row)
{
    struct qd_ledger_rows *rows = arg;
    rows->n_rows++;
    rows->n_prefill_tokens += (uint64_t)row->n_prefill_tokens;
    rows->n_decode_tokens += (uint64_t)row->n_decode_tokens;
    rows->host_ns +=
        row->spare_ns + row->schedule_ns + row->prepare_ns + row->launch_ns + row->wait_ns + row->output_ns;
    rows->span_ns += qd_step_row_span_ns(row);
    if (rows->limits.machine != NULL) add_floor(rows, row);
}

const char *qd_ledger_bound(const struct qd_ledger_rows *rows, enum qd_segment segment)
{
    if (rows == NULL || !(rows->floor_ns[segment] > 0)) return NULL;
    return rows->compute_floor_ns[segment] * 2 > rows->floor_ns[segment] ? "compute" : "memory";
}

const char *qd_ledger_step_bound(const struct qd_ledger_rows *rows)
{
    double whole = 0, compute = 0;
    for (int i = 0; i < QD_N_SEGMENTS; i++) whole += rows->floor_ns[i], compute += rows->compute_floor_ns[i];
    if (!(whole > 0)) return NULL;
    return compute * 2 > whole ? "compute" : "memory";
}

double qd_ledger_measured_ns(const struct qd_replica_stats *replicas, int dp, enum qd_segment segment)
{
    double sum = 0;
    for (int r = 0; r < dp; r++) {
        if (replicas[r].device.n_timed_steps != replicas[r].n_steps) return NAN;
        sum += (double)replicas[r].device.segment_ns[segment];
    }
    return sum;
}

/* Schedule to output. */
static double host_ns(const struct qd_replica_stats *s)
{
    return (double)(s->schedule_ns + s->prepare_ns + s->launch_ns + s->wait_ns + s->output_ns);
}

static double floor_ns(const struct qd_ledger *ledger)
{
    const struct qd_ledger_rows *rows = ledger->rows;
    double sum = 0;
    if (rows == NULL || rows->limits.machine == NULL || rows->n_rows != ledger->n_steps) return NAN;
    for (int i = 0; i < QD_N_SEGMENTS; i++) sum += rows->floor_ns[i];
    return sum;
}

/* NAN where a step's kernels are not known alone. */
static double alone_ns(const struct qd_ledger *ledger)
{
    const struct qd_ledger_alone *alone = ledger->alone;
    bool is_known = alone != NULL && alone->n_unknown == 0 && alone->n_rows == ledger->n_steps;
    return is_known && ledger->n_steps > 0 ? alone->ns : NAN;
}

/* NAN where a replica's steps were not all timed, or nothing ran. */
static double kernels_ns(const struct qd_replica_stats *replicas, int dp, uint64_t n_steps)
{
    double sum = 0;
    for (int i = 0; i < QD_N_SEGMENTS; i++)
        if (i != QD_SEGMENT_GAP) sum += qd_ledger_measured_ns(replicas, dp, (enum qd_segment)i);
    return n_steps > 0 ? sum : NAN;
}

/* Every NAN makes what is derived from it NAN too. */
static struct qd_waterfall make_waterfall(const struct qd_ledger *ledger,
                                          const struct qd_replica_stats *replicas, int dp)
{
    struct qd_waterfall w = {
        .floor = floor_ns(ledger), .alone = alone_ns(ledger), .kernels = kernels_ns(replicas, dp, ledger->n_steps)};
    double busy = 0;
    for (int r = 0; r < dp; r++) {
        busy += host_ns(&replicas[r]);
        w.span += (double)replicas[r].span_ns;
        w.idle += (double)replicas[r].idle_ns;
        w.wall += (double)replicas[r].wall_ns;
    }
    w.exposed_host = busy - w.span;
    w.unexplained = w.wall - busy - w.idle;
    if (w.span == 0) w.span = NAN; /* nothing executes: the host is all there is */
    w.inefficiency = (isnan(w.alone) ? w.kernels : w.alone) - w.floor;
    w.in_graph = w.kernels - w.alone;
    w.gaps = w.span - w.kernels;
    w.above_floor = w.span - w.floor;
    return w;
}

void qd_waterfall_lines(const struct qd_waterfall *w, struct qd_waterfall_line lines[QD_WATERFALL_LINES])
{
    const struct qd_waterfall_line all[QD_WATERFALL_LINES] = {
        {' ', "roofline floor", w->floor},       {'+', "kernel inefficiency", w->inefficiency},
        {'+', "in-graph penalty", w->in_graph},  {'=', "kernels", w->kernels},
        {'+', "gaps", w->gaps},                  {'=', "device span", w->span},
        {'+', "exposed host time", w->exposed_host}, {'+', "idle", w->idle},
        {'+', "unexplained", w->unexplained},    {'=', "wall", w->wall},
    };
    memcpy(lines, all, sizeof all);
}

static double share(double part, double whole)
{
    return whole > 0 ? fabs(part) / whole : 0;
}

static double host_unexplained(const struct qd_replica_stats *replicas, int dp)
{
    double most = 0;
    for (int r = 0; r < dp; r++) {
        double wall = (double)replicas[r].wall_ns;
        most = fmax(most, share(wall - host_ns(&replicas[r]) - (double)replicas[r].idle_ns, wall));
    }
    return most;
}

static struct qd_ledger_checks make_checks(const struct qd_replica_stats *replicas, int dp,
                                           const struct qd_request_record *records, uint64_t n_records,
                                           const struct qd_metrics *metrics)
{
    struct qd_device_use use = qd_device_use_of(replicas, dp);
    struct qd_ledger_checks checks = {
        .host_unexplained = host_unexplained(replicas, dp),
        .device_unexplained = use.total.n_timed_steps > 0 ? use.unexplained_share : NAN,
        .latency_unexplained = NAN,
        .n_expected_tokens = -1,
    };
    for (int r = 0; r < dp; r++)
        checks.n_computed_tokens += (int64_t)(replicas[r].n_prefill_tokens + replicas[r].n_decode_tokens -
                                              replicas[r].n_recomputed_tokens + replicas[r].n_hit_tokens);
    if (metrics == NULL) return checks;
    int64_t latency_ns = 0;
    checks.n_expected_tokens = 0;
    for (uint64_t i = 0; i < n_records; i++) {
        const struct qd_request_record *r = &records[i];
        if (!qd_request_completed(r)) continue;
        latency_ns += qd_request_last_token_ns(r) - r->submit_ns;
        checks.n_expected_tokens += r->prompt_len + r->output_len - 1; /* the last token is never computed */
    }
    double measured_ns = metrics->latency.e2el.mean * 1e6 * (double)metrics->latency.e2el.n;
    checks.latency_unexplained = share((double)latency_ns - measured_ns, measured_ns);
    return checks;
}

struct qd_ledger qd_ledger_make(const struct qd_replica_stats *replicas, int dp,
                                const struct qd_request_record *records, uint64_t n_records,
                                const struct qd_metrics *metrics, const struct qd_ledger_rows *rows,
                                const struct qd_ledger_alone *alone, uint64_t n_dropped)
{
    struct qd_ledger ledger = {.rows = rows, .alone = alone, .n_dropped = n_dropped};
    for (int r = 0; r < dp; r++) ledger.n_steps += replicas[r].n_steps;
    ledger.waterfall = make_waterfall(&ledger, replicas, dp);
    ledger.checks = make_checks(replicas, dp, records, n_records, metrics);
    return ledger;
}
