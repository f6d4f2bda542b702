/* vLLM's rule for closed loops (rust/src/bench/src/metrics/steady_state.rs), and ours for open ones. */
#include <stdlib.h>

#include "harness/result/result.h"

static const double SHARE_IN_FLIGHT = 0.95, LEAST_S = 10, LEAST_SHARE = 0.1;

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Where the number in flight first reaches the threshold and last falls below it; false: it never does. At
 * equal times submissions come before ends. `starts` and `ends` are sorted. */
static bool find_crossings(const int64_t *starts, const int64_t *ends, uint64_t n,
                           struct qd_steady_state *out)
{
    uint64_t in_flight = 0, threshold = (uint64_t)out->threshold;
    bool has_risen = false;
    for (uint64_t s = 0, e = 0; e < n;) {
        if (s < n && starts[s] <= ends[e]) {
            in_flight++;
            if (in_flight > out->peak_in_flight) out->peak_in_flight = in_flight;
            if (in_flight == threshold && !has_risen) {
                out->start_ns = starts[s];
                has_risen = true;
            }
            s++;
        } else {
            if (in_flight == threshold) out->end_ns = ends[e];
            in_flight--;
            e++;
        }
    }
    return has_risen;
}

static qd_status find_concurrency(const struct qd_request_record *records, uint64_t n,
                                  struct qd_steady_state *out)
{
    int64_t *starts = calloc(n + 1, sizeof *starts), *ends = calloc(n + 1, sizeof *ends);
    uint64_t n_completed = 0;
    qd_status status = starts != NULL && ends != NULL ? QD_OK : QD_ERR_NO_MEMORY;
    for (uint64_t i = 0; status == QD_OK && i < n; i++) {
        if (!qd_request_completed(&records[i])) continue;
        starts[n_completed] = records[i].submit_ns;
        ends[n_completed++] = qd_request_last_token_ns(&records[i]);
    }
    if (status == QD_OK) {
        qsort(starts, n_completed, sizeof *starts, compare_times);
        qsort(ends, n_completed, sizeof *ends, compare_times);
        out->exists = find_crossings(starts, ends, n_completed, out);
    }
    free(starts);
    free(ends);
    return status;
}

static void find_arrivals(const struct qd_request_record *records, uint64_t n, struct qd_steady_state *out)
{
    for (uint64_t i = 0; i < n; i++) {
        if (!qd_request_completed(&records[i])) continue;
        int64_t arrival = records[i].intended_ns;
        if (!out->exists || arrival < out->start_ns) out->start_ns = arrival;
        if (!out->exists || arrival > out->end_ns) out->end_ns = arrival;
        out->exists = true;
    }
}

static void count_inside(const struct qd_request_record *records, uint64_t n, struct qd_steady_state *out)
{
    for (uint64_t i = 0; i < n; i++) {
        const struct qd_request_record *r = &records[i];
        if (!qd_request_completed(r)) continue;
        out->n_started += r->submit_ns >= out->start_ns && r->submit_ns <= out->end_ns;
        int64_t end_ns = qd_request_last_token_ns(r);
        out->n_completed += end_ns >= out->start_ns && end_ns <= out->end_ns;
        for (int32_t k = 0; k < r->output_len; k++)
            out->n_output_tokens += r->token_ns[k] >= out->start_ns && r->token_ns[k] <= out->end_ns;
    }
    out->duration_s = (double)(out->end_ns - out->start_ns) / 1e9;
    out->request_throughput = (double)out->n_completed / out->duration_s;
    out->output_throughput = (double)out->n_output_tokens / out->duration_s;
}

/* Smallest whole number not below 95 % of max_concurrency, in integers: 0.95 * 20 is no whole double. */
static int64_t threshold_of(int64_t max_concurrency)
{
    int64_t percent = (int64_t)(SHARE_IN_FLIGHT * 100 + 0.5);
    return (max_concurrency * percent + 99) / 100;
}

qd_status qd_steady_state_find(const struct qd_request_record *records, uint64_t n, enum qd_steady_rule rule,
                               int64_t max_concurrency, double run_duration_s, struct qd_steady_state *out)
{
    struct qd_steady_state found = {0};
    *out = found;
    if (rule == QD_STEADY_CONCURRENCY) {
        found.threshold = threshold_of(max_concurrency);
        qd_status status = find_concurrency(records, n, &found);
        if (status != QD_OK) return status;
    } else if (rule == QD_STEADY_ARRIVALS) {
        find_arrivals(records, n, &found);
    }
    if (!found.exists || found.end_ns <= found.start_ns) return QD_OK;
    count_inside(records, n, &found);
    qd_status status = qd_latencies_compute(records, n, found.start_ns, found.end_ns, &found.latency);
    if (status != QD_OK) return status;
    double least_s = LEAST_SHARE * run_duration_s > LEAST_S ? LEAST_SHARE * run_duration_s : LEAST_S;
    found.is_short = found.duration_s < least_s;
    int64_t origin = INT64_MAX;
    for (uint64_t i = 0; i < n; i++)
        if (qd_request_submitted(&records[i]) && records[i].submit_ns < origin) origin = records[i].submit_ns;
    found.start_ns -= origin;
    found.end_ns -= origin;
    *out = found;
    return QD_OK;
}
