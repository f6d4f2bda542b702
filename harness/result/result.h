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

/* Whether the request was handed over: others have no times. */
static inline bool qd_request_submitted(const struct qd_request_record *record)
{
    return record->submit_ns != 0 || record->success;
}

/* mean, p50, p90, p95, p99 (numpy's linear interpolation), std (population), min, max of one latency. */
struct qd_distribution {
    uint64_t n;
    double mean, std, min, max, p50, p90, p95, p99; /* ms; 0 when n is 0 (as vLLM), `null` in our own keys */
};

/* Of completed requests; bench/METRICS.md says which have a sample. */
struct qd_latencies {
    struct qd_distribution ttft, tpot, itl, e2el;
    struct qd_distribution queue;    /* submit -> first scheduled */
    struct qd_distribution dispatch; /* intended -> submit */
};

/* Service levels of --goodput, all of which a good request keeps. */
struct qd_slo {
    bool is_given;
    double ttft_ms, tpot_ms, e2el_ms; /* INFINITY: any */
};

/* Reads the words of --goodput, "ttft:200": ttft, tpot or e2el and a number of ms >= 0. QD_ERR_INPUT names
 * the word. */
qd_status qd_slo_parse(const char *const *words, int n, struct qd_slo *out, char *err, size_t errlen);

/* Completed requests that keep `slo`; tpot of a single token is 0, as in vLLM. */
uint64_t qd_slo_count_good(const struct qd_slo *slo, const struct qd_request_record *records, uint64_t n);

/* What bounds the part of a run that counts as its steady state. */
enum qd_steady_rule {
    QD_STEADY_NONE = 0,
    QD_STEADY_CONCURRENCY, /* closed loops: first time that 95 % of max_concurrency are in flight .. last time
                            * that they cease to be */
    QD_STEADY_ARRIVALS,    /* open loops: first intended arrival .. last */
};

/* Measures inside a window; only of completed requests. */
struct qd_steady_state {
    bool exists;              /* else everything is 0: no rule, never so many in flight, or one arrival */
    bool is_short;            /* below 10 s or a tenth of the run */
    int64_t start_ns, end_ns; /* since the earliest submission */
    int64_t threshold;        /* requests; 0 without max_concurrency */
    uint64_t peak_in_flight;  /* of the whole run */
    /* submissions, ends and tokens in the window, its ends included */
    uint64_t n_started, n_completed, n_output_tokens;
    double duration_s, request_throughput, output_throughput;
    struct qd_latencies latency; /* of requests submitted and ended in the window */
};

qd_status qd_steady_state_find(const struct qd_request_record *records, uint64_t n, enum qd_steady_rule rule,
                               int64_t max_concurrency, double run_duration_s, struct qd_steady_state *out);

/* Latencies of the completed requests with start_ns <= submission and last token <= end_ns (the records'
 * clock). */
qd_status qd_latencies_compute(const struct qd_request_record *records, uint64_t n, int64_t start_ns,
                               int64_t end_ns, struct qd_latencies *out);

/* What metrics need to know beside the requests. */
struct qd_metrics_options {
    double duration_s;
    int n_gpus;        /* tp * dp */
    bool has_arrivals; /* the workload meant every hand-over to have its time */
    struct qd_slo slo;
    enum qd_steady_rule steady_rule;
    int64_t max_concurrency; /* 0: no limit */
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
    struct qd_latencies latency; /* dispatch has no samples without arrivals */
    struct qd_slo slo;
    uint64_t n_good;        /* of slo; 0 when none is given */
    double request_goodput; /* n_good / duration */
    struct qd_steady_state steady;
};

/* Computes every metric. Sorts copies; QD_ERR_NO_MEMORY. */
qd_status qd_metrics_compute(const struct qd_request_record *records, uint64_t n,
                             const struct qd_metrics_options *options, struct qd_metrics *out);

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

/* When a completed request ended. */
static inline int64_t qd_request_last_token_ns(const struct qd_request_record *record)
{
    return record->token_ns[record->output_len - 1];
}

#endif
