#include "harness/cli/run_table.h"

#include <inttypes.h>
#include <string.h>

#include "harness/result/device_use.h"
#include "harness/result/marks.h"

static void print_latency(FILE *out, const char *name, const struct qd_distribution *d)
{
    if (d->n == 0)
        fprintf(out, "  %-12s        -         -         -         -         -         -\n", name);
    else
        fprintf(out, "  %-12s %8.2f %9.2f %9.2f %9.2f %9.2f %9.2f\n", name, d->mean, d->p50, d->p90, d->p95,
                d->p99, d->max);
}

static void print_marks(FILE *out, uint32_t marks)
{
    for (uint32_t mark = 1; mark != 0; mark <<= 1)
        if ((marks & mark) != 0 && qd_mark_text(mark) != NULL)
            fprintf(out, "  mark: %s\n", qd_mark_text(mark));
}

static void print_latencies(FILE *out, const struct qd_latencies *l)
{
    fprintf(out, "  latency ms       mean       p50       p90       p95       p99       max\n");
    print_latency(out, "TTFT", &l->ttft);
    print_latency(out, "ITL", &l->itl);
    print_latency(out, "TPOT", &l->tpot);
    print_latency(out, "E2EL", &l->e2el);
    print_latency(out, "queue", &l->queue);
    if (l->dispatch.n > 0) print_latency(out, "dispatch", &l->dispatch);
}

static void print_goodput(FILE *out, const struct qd_metrics *m)
{
    if (m->slo.is_given)
        fprintf(out, "  goodput        %.3f requests/s, %" PRIu64 " of %" PRIu64 "\n", m->request_goodput,
                m->n_good, m->n_completed);
    const struct qd_steady_state *s = &m->steady;
    if (s->exists)
        fprintf(out, "  steady state   %.2f output tok/s over %.3f s%s, TTFT p50 %.2f, ITL p50 %.2f ms\n",
                s->output_throughput, s->duration_s, s->is_short ? " (short)" : "", s->latency.ttft.p50,
                s->latency.itl.p50);
}

/* What the engine did: sums and the fullest pool over the replicas. */
static void print_engine(FILE *out, const struct qd_run_result *run)
{
    struct qd_replica_stats sum = {0};
    int64_t host_ns = 0;
    for (int r = 0; r < run->dp; r++) {
        const struct qd_replica_stats *s = &run->replicas[r];
        sum.n_steps += s->n_steps;
        sum.n_prefill_steps += s->n_prefill_steps;
        sum.n_prefill_requests += s->n_prefill_requests;
        sum.n_preemptions += s->n_preemptions;
        sum.n_query_tokens += s->n_query_tokens;
        sum.n_hit_tokens += s->n_hit_tokens;
        if (s->peak_kv_blocks > sum.peak_kv_blocks) sum.peak_kv_blocks = s->peak_kv_blocks;
        host_ns += s->schedule_ns + s->prepare_ns + s->launch_ns + s->output_ns;
    }
    fprintf(out, "  steps          %" PRIu64 ", %" PRIu64 " preemptions", sum.n_steps, sum.n_preemptions);
    if (sum.n_prefill_steps > 0)
        fprintf(out, ", %.2f prompts a prefill step",
                (double)sum.n_prefill_requests / (double)sum.n_prefill_steps);
    fputc('\n', out);
    if (sum.n_steps > 0)
        fprintf(out, "  host           %.2f us a step (schedule + prepare + launch + output)\n",
                (double)host_ns / 1e3 / (double)sum.n_steps);
    if (run->n_kv_blocks > 0)
        fprintf(out, "  KV pages       %.1f %% at the most (%" PRId32 " of %" PRId64 ")\n",
                100.0 * sum.peak_kv_blocks / (double)run->n_kv_blocks, sum.peak_kv_blocks, run->n_kv_blocks);
    if (run->prefix_caching)
        fprintf(out, "  prefix cache   %" PRIu64 " of %" PRIu64 " prompt tokens hit\n", sum.n_hit_tokens,
                sum.n_query_tokens);
}

/* How replicas shared the work, and waited for each other. */
static void print_replicas(FILE *out, const struct qd_run_result *run)
{
    if (run->dp > 1)
        fprintf(out, "  imbalance      %.3f (most over mean of the replicas' tokens)\n",
                qd_replica_imbalance(run->replicas, run->dp));
    if (strcmp(run->dp_coupling, "none") == 0) return;
    fprintf(out, "  coupling wait  %.3f s of all replicas, %.1f %%; by replica",
            qd_coupling_wait_s(run->replicas, run->dp),
            100 * qd_coupling_wait_share(run->replicas, run->dp, run->metrics.duration_s));
    for (int r = 0; r < run->dp; r++)
        fprintf(out, " %.1f", 100 * qd_coupling_wait_share(&run->replicas[r], 1, run->metrics.duration_s));
    fputs(" %\n", out);
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
    fprintf(out, "%s on %s, TP %d, DP %d, budget %" PRId64 ", %s workload\n", run->model_id, run->device,
            run->tp, run->dp, run->max_num_batched_tokens, run->workload);
    if (run->is_virtual)
        fputs("  clock          virtual: times and rates follow from given step times; host is measured\n", out);
    fprintf(out, "  requests       %" PRIu64 " completed, %" PRIu64 " failed in %.3f s\n", m->n_completed,
            m->n_failed, m->duration_s);
    fprintf(out, "  tokens         %" PRIu64 " in, %" PRIu64 " out\n", m->n_input_tokens, m->n_output_tokens);
    fprintf(out, "  output tok/s   %.2f (%s)\n", m->output_throughput,
            run->is_virtual ? "virtual time" : "wall");
    fprintf(out, "  tok/s/GPU      %.2f (output tok/s / (TP x DP))\n", m->per_gpu_throughput);
    fprintf(out, "  tok/s/user     %.2f (mean over requests)\n", m->per_user_throughput);
    print_latencies(out, &m->latency);
    print_goodput(out, m);
    print_engine(out, run);
    print_replicas(out, run);
    print_device(out, run);
    print_marks(out, run->marks);
}
