#include "harness/cli/run_ledger.h"

#include <inttypes.h>
#include <math.h>

#include "harness/result/device_use.h"

/* One line of the waterfall; `note` may be empty. */
static void print_line(FILE *out, char sign, const char *name, double ns, const struct qd_ledger *ledger,
                       const char *note)
{
    double wall =
        isnan(ledger->waterfall.span) && sign == ' ' ? 0 : ledger->waterfall.wall; /* a floor of no span */
    fprintf(out, "  %c %-20s", sign, name);
    if (isnan(ns))
        fprintf(out, " %12s %7s", "unknown", "");
    else if (wall > 0)
        fprintf(out, " %12.4f %6.1f%%", ns / 1e6 / (double)ledger->n_steps, 100 * ns / wall);
    else
        fprintf(out, " %12.4f %7s", ns / 1e6 / (double)ledger->n_steps, "");
    fprintf(out, "%s%s\n", note[0] != '\0' ? "  " : "", note);
}

/* Why the in-graph penalty is not known, or what it is. */
static void describe_penalty(const struct qd_ledger *ledger, char *out, size_t len)
{
    const struct qd_ledger_alone *alone = ledger->alone;
    if (alone == NULL)
        snprintf(out, len, "needs --kernels: the kernels timed alone");
    else if (alone->n_unknown > 0)
        snprintf(out, len, "in %" PRIu64 " of %" PRIu64 " steps not known: %s", alone->n_unknown, alone->n_rows,
                 alone->reason);
    else if (isnan(ledger->waterfall.alone))
        snprintf(out, len, "steps were dropped");
    else
        snprintf(out, len, "kernels alone: %.4f ms a step",
                 ledger->waterfall.alone / 1e6 / (double)ledger->n_steps);
}

static void print_waterfall(FILE *out, const struct qd_ledger_view *view)
{
    const struct qd_ledger *ledger = view->ledger;
    const struct qd_waterfall *w = &ledger->waterfall;
    bool is_timed = !isnan(w->kernels), has_span = !isnan(w->span), has_floor = !isnan(w->floor);
    char bound[32] = "";
    if (has_floor) snprintf(bound, sizeof bound, "bound by %s", qd_ledger_step_bound(ledger->rows));
    const char *missing = ledger->n_dropped > 0 ? "steps were dropped" : "needs --probe (cpu) or --machine";
    bool has_alone = !isnan(w->alone);
    char penalty[2 * QD_ERR_LEN];
    struct qd_waterfall_line lines[QD_WATERFALL_LINES];
    describe_penalty(ledger, penalty, sizeof penalty);
    const char *notes[QD_WATERFALL_LINES] = {
        has_floor ? bound : missing,
        has_alone ? "of the kernels alone" : is_timed ? "in-graph penalty included" : "",
        penalty,
        is_timed || !has_span ? "" : "needs --device-timing",
        "",
        has_span ? "" : "nothing executes",
        view->async_scheduling ? "what steps do not hide" : "",
        view->is_virtual ? "nothing to do, other replicas or the client" : "nothing to do",
        "",
        view->dp > 1 ? "of all replicas" : "",
    };
    qd_waterfall_lines(w, lines);
    for (int i = 0; i < QD_WATERFALL_LINES; i++)
        print_line(out, lines[i].sign, lines[i].name, lines[i].ns, ledger, notes[i]);
    if (has_floor && has_span && !is_timed)
        fprintf(out, "  the device span is %.2f times the floor\n", w->span / w->floor);
}

static double per_step_us(double ns, const struct qd_ledger *ledger)
{
    return ns / 1e3 / (double)ledger->n_steps;
}

static void print_host(FILE *out, const struct qd_ledger_view *view)
{
    const struct qd_ledger *ledger = view->ledger;
    int64_t schedule = 0, prepare = 0, launch = 0, wait = 0, output = 0;
    for (int r = 0; r < view->dp; r++) {
        const struct qd_replica_stats *s = &view->replicas[r];
        schedule += s->schedule_ns, prepare += s->prepare_ns, launch += s->launch_ns, wait += s->wait_ns;
        output += s->output_ns;
    }
    fprintf(out, "  host, us a step: schedule %.2f, prepare %.2f, launch %.2f, wait %.2f, output %.2f\n",
            per_step_us((double)schedule, ledger), per_step_us((double)prepare, ledger),
            per_step_us((double)launch, ledger), per_step_us((double)wait, ledger),
            per_step_us((double)output, ledger));
}

static void print_floor(FILE *out, const struct qd_ledger_view *view)
{
    const struct qd_ledger *ledger = view->ledger;
    const struct qd_ledger_rows *rows = ledger->rows;
    if (isnan(ledger->waterfall.floor)) return;
    fprintf(out, "  a rank's floor by segment: %s, %.1f GB/s, %.1f GFLOP/s\n", rows->limits.machine,
            rows->limits.memory_gbps, rows->limits.gflops);
    for (int i = 0; i < QD_N_SEGMENTS; i++) {
        enum qd_segment segment = (enum qd_segment)i;
        const char *bound = qd_ledger_bound(rows, segment);
        if (bound == NULL) continue;
        double measured = qd_ledger_measured_ns(view->replicas, view->dp, segment);
        fprintf(out, "    %-12s %12.4f ms a step, bound by %s", qd_segment_name(segment),
                rows->floor_ns[i] / 1e6 / (double)ledger->n_steps, bound);
        if (!isnan(measured))
            fprintf(out, "; measured %.4f, %.2f times the floor", measured / 1e6 / (double)ledger->n_steps,
                    measured / rows->floor_ns[i]);
        fputc('\n', out);
    }
}

static void print_checks(FILE *out, const struct qd_ledger *ledger)
{
    const struct qd_ledger_checks *c = &ledger->checks;
    fprintf(out, "  checks: host segments against the wall clock %.3f %%", 100 * c->host_unexplained);
    if (isnan(c->device_unexplained))
        fprintf(out, ", device segments against the span unknown");
    else
        fprintf(out, ", device segments against the span %.3f %%", 100 * c->device_unexplained);
    if (isnan(c->latency_unexplained))
        fprintf(out, "; %" PRId64 " tokens computed\n", c->n_computed_tokens);
    else
        fprintf(out, ", requests against metrics %.3f %%; %" PRId64 " tokens computed of %" PRId64 " expected\n",
                100 * c->latency_unexplained, c->n_computed_tokens, c->n_expected_tokens);
    if (ledger->n_dropped > 0)
        fprintf(out, "  %" PRIu64 " steps were dropped from the ledger: no room for their rows\n",
                ledger->n_dropped);
}

/* Inside the kernels' and the host's lines above. */
static void print_timing_cost(FILE *out, const struct qd_ledger_view *view)
{
    char text[QD_ERR_LEN];
    qd_device_use_describe_cost(&view->replicas[0].device.timing_cost, view->device, text, sizeof text);
    if (text[0] != '\0') fprintf(out, "  device timing, in all of the above: %s\n", text);
}

void qd_run_ledger_print(const struct qd_ledger_view *view, FILE *out)
{
    const struct qd_ledger *ledger = view->ledger;
    fprintf(out, "ledger: %" PRIu64 " steps\n", ledger->n_steps);
    if (ledger->n_steps == 0) return;
    fprintf(out, "  %-22s %12s %7s\n", "", "ms a step", "of wall");
    print_waterfall(out, view);
    print_host(out, view);
    print_floor(out, view);
    print_timing_cost(out, view);
    print_checks(out, ledger);
}
