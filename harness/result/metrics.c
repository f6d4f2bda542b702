#include "harness/result/result.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

static double ms(int64_t ns)
{
    return (double)ns / 1e6;
}

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

static int64_t last_token_ns(const struct qd_request_record *r)
{
    return r->token_ns[r->output_len - 1];
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* One value per request (or gap) of each latency, in ms; one allocation, cut in five. */
struct samples {
    double *block;
    double *ttft, *tpot, *e2el, *queue, *itl;
    uint64_t n_ttft, n_tpot, n_e2el, n_queue, n_itl;
};

static bool samples_init(struct samples *s, uint64_t n_completed, uint64_t n_tokens)
{
    *s = (struct samples){0};
    size_t n_requests, n_values, bytes;
    if (!qd_size_mul(n_completed, 4, &n_requests) || !qd_size_add(n_requests, n_tokens, &n_values))
        return false;
    if (!qd_size_mul(n_values > 0 ? n_values : 1, sizeof(double), &bytes)) return false;
    s->block = malloc(bytes);
    if (s->block == NULL) return false;
    s->ttft = s->block;
    s->tpot = s->ttft + n_completed;
    s->e2el = s->tpot + n_completed;
    s->queue = s->e2el + n_completed;
    s->itl = s->queue + n_completed;
    return true;
}

static void add_request(struct samples *s, const struct qd_request_record *r)
{
    int64_t ttft = r->token_ns[0] - r->submit_ns, latency = last_token_ns(r) - r->submit_ns;
    s->ttft[s->n_ttft++] = ms(ttft);
    s->e2el[s->n_e2el++] = ms(latency);
    if (r->output_len > 1) s->tpot[s->n_tpot++] = ms(latency - ttft) / (r->output_len - 1);
    if (r->scheduled_ns != 0) s->queue[s->n_queue++] = ms(r->scheduled_ns - r->submit_ns);
    for (int32_t i = 1; i < r->output_len; i++)
        s->itl[s->n_itl++] = ms(r->token_ns[i] - r->token_ns[i - 1]);
}

/* vLLM's peaks: 1 s buckets from the earliest submission of a completed request; a request is concurrent in
 * every bucket it touches, both ends included, so n short requests within a second give n. */
static qd_status find_peaks(const struct qd_request_record *records, uint64_t n, struct qd_metrics *out)
{
    int64_t start = INT64_MAX, end = INT64_MIN;
    for (uint64_t i = 0; i < n; i++) {
        if (!qd_request_completed(&records[i])) continue;
        if (records[i].submit_ns < start) start = records[i].submit_ns;
        if (last_token_ns(&records[i]) > end) end = last_token_ns(&records[i]);
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
        size_t last = (size_t)((last_token_ns(r) - start) / 1000000000);
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

static void find_throughputs(const struct qd_request_record *records, uint64_t n, int n_gpus,
                             struct qd_metrics *out)
{
    double latency_s = 0, user_rates = 0;
    for (uint64_t i = 0; i < n; i++) {
        const struct qd_request_record *r = &records[i];
        if (!qd_request_completed(r)) continue;
        double e2el_s = seconds(last_token_ns(r) - r->submit_ns);
        latency_s += e2el_s;
        user_rates += ratio((double)r->output_len, e2el_s);
    }
    double n_output = (double)out->n_output_tokens;
    out->request_throughput = ratio((double)out->n_completed, out->duration_s);
    out->output_throughput = ratio(n_output, out->duration_s);
    out->total_token_throughput = ratio((double)out->n_input_tokens + n_output, out->duration_s);
    out->per_gpu_throughput = ratio(out->output_throughput, n_gpus);
    out->per_user_throughput = ratio(user_rates, (double)out->n_completed);
    out->per_request_tok_s = ratio(n_output, latency_s);
    out->mean_concurrency = ratio(latency_s, out->duration_s);
}

qd_status qd_metrics_compute(const struct qd_request_record *records, uint64_t n, double duration_s,
                             int n_gpus, struct qd_metrics *out)
{
    struct samples s;
    *out = (struct qd_metrics){.duration_s = duration_s};
    count_requests(records, n, out);
    if (!samples_init(&s, out->n_completed, out->n_output_tokens)) return QD_ERR_NO_MEMORY;
    for (uint64_t i = 0; i < n; i++)
        if (qd_request_completed(&records[i])) add_request(&s, &records[i]);
    out->ttft = qd_distribution_of(s.ttft, s.n_ttft);
    out->tpot = qd_distribution_of(s.tpot, s.n_tpot);
    out->itl = qd_distribution_of(s.itl, s.n_itl);
    out->e2el = qd_distribution_of(s.e2el, s.n_e2el);
    out->queue = qd_distribution_of(s.queue, s.n_queue);
    free(s.block);
    find_throughputs(records, n, n_gpus, out);
    return find_peaks(records, n, out);
}
