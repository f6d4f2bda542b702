#include "harness/result/result.h"

#include <math.h>
#include <stdlib.h>

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* vLLM's peaks: 1 s buckets from the earliest submission of a completed request; a request is concurrent in
 * every bucket it touches, both ends included, so n short requests within a second give n. */
static qd_status find_peaks(const struct qd_request_record *records, uint64_t n, struct qd_metrics *out)
{
    int64_t start = INT64_MAX, end = INT64_MIN;
    for (uint64_t i = 0; i < n; i++) {
        if (!qd_request_completed(&records[i])) continue;
        if (records[i].submit_ns < start) start = records[i].submit_ns;
        if (qd_request_last_token_ns(&records[i]) > end) end = qd_request_last_token_ns(&records[i]);
    }
    if (start > end) return QD_OK;
    size_t n_buckets = (size_t)ceil(seconds(end - start)) + 1;
    uint64_t *tokens = calloc(n_buckets, sizeof *tokens), *touching = calloc(n_buckets, sizeof *touching);
    qd_status st = tokens != NULL && touching != NULL ? QD_OK : QD_ERR_NO_MEMORY;
    for (uint64_t i = 0; st == QD_OK && i < n; i++) {
        const struct qd_request_record *r = &records[i];
        if (!qd_request_completed(r)) continue;
        for (int32_t k = 0; k < r->output_len; k++)
            tokens[(r->token_ns[k] - start) / 1000000000]++;
        size_t last = (size_t)((qd_request_last_token_ns(r) - start) / 1000000000);
        for (size_t b = (size_t)((r->submit_ns - start) / 1000000000); b <= last; b++)
            touching[b]++;
    }
    for (size_t b = 0; st == QD_OK && b < n_buckets; b++) {
        if ((double)tokens[b] > out->max_output_tokens_per_s)
            out->max_output_tokens_per_s = (double)tokens[b];
        if ((double)touching[b] > out->max_concurrent_requests)
            out->max_concurrent_requests = (double)touching[b];
    }
    free(tokens);
    free(touching);
    return st;
}

static void count_requests(const struct qd_request_record *records, uint64_t n, struct qd_metrics *out)
{
    for (uint64_t i = 0; i < n; i++) {
        if (!qd_request_completed(&records[i])) {
            out->n_failed++;
            continue;
        }
        out->n_completed++;
        out->n_input_tokens += (uint64_t)records[i].prompt_len;
        out->n_output_tokens += (uint64_t)records[i].output_len;
    }
}

static void find_throughputs(const struct qd_request_record *records, uint64_t n,
                             const struct qd_metrics_options *options, struct qd_metrics *out)
{
    double latency_s = 0, user_rates = 0;
    for (uint64_t i = 0; i < n; i++) {
        const struct qd_request_record *r = &records[i];
        if (!qd_request_completed(r)) continue;
        double e2el_s = seconds(qd_request_last_token_ns(r) - r->submit_ns);
        latency_s += e2el_s;
        user_rates += ratio((double)r->output_len, e2el_s);
    }
    double n_output = (double)out->n_output_tokens;
    out->request_throughput = ratio((double)out->n_completed, out->duration_s);
    out->output_throughput = ratio(n_output, out->duration_s);
    out->total_token_throughput = ratio((double)out->n_input_tokens + n_output, out->duration_s);
    out->per_gpu_throughput = ratio(out->output_throughput, options->n_gpus);
    out->per_user_throughput = ratio(user_rates, (double)out->n_completed);
    out->per_request_tok_s = ratio(n_output, latency_s);
    out->mean_concurrency = ratio(latency_s, out->duration_s);
}

qd_status qd_metrics_compute(const struct qd_request_record *records, uint64_t n,
                             const struct qd_metrics_options *options, struct qd_metrics *out)
{
    *out = (struct qd_metrics){.duration_s = options->duration_s, .slo = options->slo};
    count_requests(records, n, out);
    QD_TRY(qd_latencies_compute(records, n, INT64_MIN, INT64_MAX, &out->latency));
    find_throughputs(records, n, options, out);
    if (options->slo.is_given) out->n_good = qd_slo_count_good(&options->slo, records, n);
    out->request_goodput = ratio((double)out->n_good, out->duration_s);
    QD_TRY(qd_steady_state_find(records, n, options->steady_rule, options->max_concurrency,
                                options->duration_s, &out->steady));
    if (!options->has_arrivals)
        out->latency.dispatch = out->steady.latency.dispatch = (struct qd_distribution){0};
    return find_peaks(records, n, out);
}
