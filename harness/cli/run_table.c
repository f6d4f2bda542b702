#include "harness/cli/run_table.h"

#include <inttypes.h>

#include "harness/result/device_use.h"
#include "harness/result/marks.h"

static void print_latency(FILE *out, const char *name, const struct qd_distribution *d)
{
    if (d->n == 0)
        fprintf(out, "  %-6s         -         -         -         -         -\n", name);
    else
        fprintf(out, "  %-6s %9.2f %9.2f %9.2f %9.2f %9.2f\n", name, d->mean, d->p50, d->p90, d->p95, d->p99);
}

static void print_marks(FILE *out, uint32_t marks)
{
    for (uint32_t mark = 1; mark != 0; mark <<= 1)
        if ((marks & mark) != 0 && qd_mark_text(mark) != NULL) fprintf(out, "  mark: %s\n", qd_mark_text(mark));
}

/* Nothing for a device that has no graphs and measures no time. */
static void print_device(FILE *out, const struct qd_run_result *run)
{
    struct qd_device_use use = qd_device_use_of(run->replicas, run->dp);
    const struct qd_device_stats *total = &use.total;
    if (total->n_graphs > 0)
        fprintf(out,
                "  graphs         %.1f %% of steps replayed, %.1f %% of tokens; padding %.1f %% of what they "
                "computed\n",
                100 * use.hit_rate_steps, 100 * use.hit_rate_tokens, 100 * use.padding_share);
    if (total->span_ns > 0)
        fprintf(out, "  device         %.3f s of steps%s\n", (double)total->span_ns / 1e9 / run->dp,
                run->dp > 1 ? " (mean over replicas)" : "");
    if (total->n_timed_steps == 0) return;
    fprintf(out, "  device time   ");
    for (int i = 0; i < QD_N_SEGMENTS; i++)
        fprintf(out, "%s %s %.1f %%", i > 0 ? "," : "", qd_segment_name((enum qd_segment)i),
                100 * (double)total->segment_ns[i] / (double)total->timed_span_ns);
    fprintf(out, "; unexplained %.2f %%\n", 100 * use.unexplained_share);
}

void qd_run_table_print(const struct qd_run_result *run, FILE *out)
{
    const struct qd_metrics *m = &run->metrics;
    fprintf(out, "%s on %s, TP %d, DP %d, budget %" PRId64 ", %s workload\n", run->model_id, run->device, run->tp,
            run->dp, run->max_num_batched_tokens, run->workload);
    fprintf(out, "  requests       %" PRIu64 " completed, %" PRIu64 " failed in %.3f s\n", m->n_completed,
            m->n_failed, m->duration_s);
    fprintf(out, "  tokens         %" PRIu64 " in, %" PRIu64 " out\n", m->n_input_tokens, m->n_output_tokens);
    fprintf(out, "  output tok/s   %.2f (wall)\n", m->output_throughput);
    fprintf(out, "  tok/s/GPU      %.2f (output tok/s / (TP x DP))\n", m->per_gpu_throughput);
    fprintf(out, "  tok/s/user     %.2f (mean over requests)\n", m->per_user_throughput);
    fprintf(out, "  latency ms       mean       p50       p90       p95       p99\n");
    print_latency(out, "TTFT", &m->ttft);
    print_latency(out, "ITL", &m->itl);
    print_latency(out, "TPOT", &m->tpot);
    print_latency(out, "E2EL", &m->e2el);
    print_latency(out, "queue", &m->queue);
    uint64_t n_steps = 0, n_preemptions = 0, n_query = 0, n_hit = 0;
    for (int r = 0; r < run->dp; r++) {
        n_steps += run->replicas[r].n_steps;
        n_preemptions += run->replicas[r].n_preemptions;
        n_query += run->replicas[r].n_query_tokens;
        n_hit += run->replicas[r].n_hit_tokens;
    }
    fprintf(out, "  steps          %" PRIu64 ", %" PRIu64 " preemptions\n", n_steps, n_preemptions);
    if (run->prefix_caching)
        fprintf(out, "  prefix cache   %" PRIu64 " of %" PRIu64 " prompt tokens hit\n", n_hit, n_query);
    print_device(out, run);
    print_marks(out, run->marks);
}
