/* What a run measured: one record per request, totals of the run, and the metrics computed from them.
 *
 * Definitions are vLLM's (bench/METRICS.md). Recording allocates nothing while the run is timed: room is
 * reserved for every request and token first.
 */
#ifndef QD_HARNESS_RESULT_RESULT_H
#define QD_HARNESS_RESULT_RESULT_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

/* A request as it was measured; times on the monotonic clock. */
struct qd_request_record {
    int32_t prompt_len;    /* tokens that ran */
    int32_t max_tokens;    /* asked for */
    int32_t output_len;    /* tokens handed out */
    int32_t replica;
    int32_t preemptions;
    int32_t hit_tokens; /* of the prompt, found in the prefix cache */
    bool success;          /* ended by length or stop with at least one token */
    const char *finish;    /* "length", "stop", "abort", "error", "refused" */
    const char *error;     /* NULL, or the reason; owned by the run */
    int64_t intended_ns;   /* when the workload meant to hand it over */
    int64_t submit_ns;     /* when it did: the start of TTFT and E2EL */
    int64_t scheduled_ns;  /* first scheduled; 0: never */
    int64_t *token_ns;     /* [output_len] when the engine handed out each token */
};

/* mean, p50, p90, p95, p99 (numpy's linear interpolation), std (population), min, max of one latency. */
struct qd_distribution {
    uint64_t n;
    double mean, std, min, max, p50, p90, p95, p99; /* ms; 0 when n is 0 (as vLLM), `null` in our own keys */
};

struct qd_metrics {
    uint64_t n_completed, n_failed;
    uint64_t n_input_tokens, n_output_tokens; /* of completed requests */
    double duration_s;           /* first submission begins .. last event */
    double request_throughput;   /* completed / duration */
    double output_throughput;    /* output tok/s, wall */
    double total_token_throughput;
    double per_gpu_throughput;   /* output tok/s / (tp * dp): tok/s/GPU */
    double per_user_throughput;  /* mean over requests of output_len / e2el: tok/s/user */
    double per_request_tok_s;    /* sum of output tokens / sum of latencies: the published report's column */
    double max_output_tokens_per_s;  /* fullest of the 1 s buckets, as vLLM */
    double max_concurrent_requests;  /* as vLLM: requests touching a bucket */
    double mean_concurrency;     /* sum of latencies / duration */
    struct qd_distribution ttft, tpot, itl, e2el, queue; /* queue: submit -> first scheduled */
};

/* Computes every metric. `n_gpus` = tp * dp. Sorts copies; QD_ERR_NO_MEMORY. */
qd_status qd_metrics_compute(const struct qd_request_record *records, uint64_t n, double duration_s,
                             int n_gpus, struct qd_metrics *out);

/* numpy.percentile(values, p) with linear interpolation over values sorted ascending; 0 when n is 0. */
double qd_percentile(const double *sorted, uint64_t n, double p);

/* Sorts values[0..n) in place and describes them; everything is 0 when n is 0. */
struct qd_distribution qd_distribution_of(double *values, uint64_t n);

/* Whether a request counts as completed: it succeeded and handed out at least one token. A failed or empty
 * request contributes to the number of failures and to nothing else. */
static inline bool qd_request_completed(const struct qd_request_record *record)
{
    return record->success && record->output_len > 0;
}

#endif
