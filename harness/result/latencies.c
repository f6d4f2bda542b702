#include <stdlib.h>

#include "harness/result/result.h"
#include "kernels/base/size.h"

static double ms(int64_t ns)
{
    return (double)ns / 1e6;
}

/* One value per request (or gap) of each latency, in ms; one allocation, cut in six. */
struct samples {
    double *block;
    double *ttft, *tpot, *e2el, *queue, *dispatch, *itl;
    uint64_t n_requests, n_tpot, n_queue, n_itl;
};

static bool samples_init(struct samples *s, uint64_t n_requests, uint64_t n_tokens)
{
    *s = (struct samples){0};
    size_t n_per_request, n_values, bytes;
    if (!qd_size_mul(n_requests, 5, &n_per_request) || !qd_size_add(n_per_request, n_tokens, &n_values))
        return false;
    if (!qd_size_mul(n_values > 0 ? n_values : 1, sizeof(double), &bytes)) return false;
    s->block = malloc(bytes);
    if (s->block == NULL) return false;
    s->ttft = s->block;
    s->tpot = s->ttft + n_requests;
    s->e2el = s->tpot + n_requests;
    s->queue = s->e2el + n_requests;
    s->dispatch = s->queue + n_requests;
    s->itl = s->dispatch + n_requests;
    return true;
}

static void add_request(struct samples *s, const struct qd_request_record *r)
{
    int64_t ttft = r->token_ns[0] - r->submit_ns, latency = qd_request_last_token_ns(r) - r->submit_ns;
    s->ttft[s->n_requests] = ms(ttft);
    s->e2el[s->n_requests] = ms(latency);
    s->dispatch[s->n_requests] = ms(r->submit_ns - r->intended_ns);
    s->n_requests++;
    if (r->output_len > 1) s->tpot[s->n_tpot++] = ms(latency - ttft) / (r->output_len - 1);
    if (r->scheduled_ns != 0) s->queue[s->n_queue++] = ms(r->scheduled_ns - r->submit_ns);
    for (int32_t i = 1; i < r->output_len; i++) s->itl[s->n_itl++] = ms(r->token_ns[i] - r->token_ns[i - 1]);
}

static bool is_inside(const struct qd_request_record *r, int64_t start_ns, int64_t end_ns)
{
    return qd_request_completed(r) && r->submit_ns >= start_ns && qd_request_last_token_ns(r) <= end_ns;
}

qd_status qd_latencies_compute(const struct qd_request_record *records, uint64_t n, int64_t start_ns,
                               int64_t end_ns, struct qd_latencies *out)
{
    struct samples s;
    uint64_t n_requests = 0, n_tokens = 0;
    *out = (struct qd_latencies){0};
    for (uint64_t i = 0; i < n; i++) {
        if (!is_inside(&records[i], start_ns, end_ns)) continue;
        n_requests++;
        n_tokens += (uint64_t)records[i].output_len;
    }
    if (!samples_init(&s, n_requests, n_tokens)) return QD_ERR_NO_MEMORY;
    for (uint64_t i = 0; i < n; i++)
        if (is_inside(&records[i], start_ns, end_ns)) add_request(&s, &records[i]);
    out->ttft = qd_distribution_of(s.ttft, s.n_requests);
    out->tpot = qd_distribution_of(s.tpot, s.n_tpot);
    out->itl = qd_distribution_of(s.itl, s.n_itl);
    out->e2el = qd_distribution_of(s.e2el, s.n_requests);
    out->queue = qd_distribution_of(s.queue, s.n_queue);
    out->dispatch = qd_distribution_of(s.dispatch, s.n_requests);
    free(s.block);
    return QD_OK;
}
