/* Sampling of one logit row: temperature, top-k, softmax, top-p, one uniform. */
#include <math.h>
#include <stdlib.h>

#include "kernels/base/random.h"
#include "kernels/ref/ref.h"
#include "kernels/traffic.h"

struct candidate {
    double logit; /* -inf stands for NaN too: it never wins */
    int32_t id;
};

/* Falling logits; equal ones by rising id. */
static int by_falling_logit(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static double logit_at(const float *logits, int64_t i)
{
    return isnan(logits[i]) ? -INFINITY : (double)logits[i];
}

static int32_t argmax(const float *logits, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        if (logit_at(logits, i) > logit_at(logits, best)) best = i;
    }
    return (int32_t)best;
}

/* exp((logit - largest) / temperature); an infinite largest logit leaves nothing to the finite ones. */
static double weight(double logit, double largest, double temperature)
{
    return logit == largest ? 1.0 : exp((logit - largest) / temperature);
}

/* How many of the sorted candidates top-k keeps: the k-th and all equal to it. */
static int64_t apply_top_k(const struct candidate *sorted, int64_t n, int32_t top_k)
{
    if (top_k == 0 || top_k >= n) return n;
    int64_t kept = top_k;
    while (kept < n && sorted[kept].logit == sorted[top_k - 1].logit) kept++;
    return kept;
}

int64_t qd_ref_sample_probabilities(const float *logits, int64_t n, const struct qd_sampling *sampling,
                                    double *probs)
{
    for (int64_t i = 0; i < n; i++) probs[i] = 0;
    if (sampling->temperature == 0) {
        probs[argmax(logits, n)] = 1;
        return 1;
    }
    struct candidate *sorted = malloc((size_t)n * sizeof *sorted);
    if (sorted == NULL) return -1;
    for (int64_t i = 0; i < n; i++) sorted[i] = (struct candidate){logit_at(logits, i), (int32_t)i};
    qsort(sorted, (size_t)n, sizeof *sorted, by_falling_logit);

    const double temperature = (double)sampling->temperature, largest = sorted[0].logit;
    const int64_t n_top_k = apply_top_k(sorted, n, sampling->top_k);
    double total = 0, before = 0;
    for (int64_t i = 0; i < n_top_k; i++) total += weight(sorted[i].logit, largest, temperature);

    int64_t n_kept = 0;
    while (n_kept < n_top_k &&
           (n_kept == 0 || sampling->top_p >= 1 || before < (double)sampling->top_p * total)) {
        const double w = weight(sorted[n_kept].logit, largest, temperature);
        if (!(w > 0)) break; /* -inf, or too small for a double: nothing that follows can be drawn */
        probs[sorted[n_kept++].id] = w;
        before += w;
    }
    free(sorted);
    for (int64_t i = 0; i < n; i++) probs[i] /= before;
    return n_kept;
}

int32_t qd_ref_sample_row(const float *logits, int64_t n, const struct qd_sampling *sampling)
{
    if (sampling->temperature == 0) return argmax(logits, n);
    double *probs = malloc((size_t)n * sizeof *probs);
    int32_t id = -1;
    if (probs == NULL || qd_ref_sample_probabilities(logits, n, sampling, probs) < 0) goto cleanup;

    /* The smallest id at which the running sum of probabilities passes the uniform. */
    const double u = (double)qd_uniform_open(qd_philox(sampling->seed, 0, sampling->output_index).word[0]);
    double sum = 0;
    for (int64_t i = 0; i < n && !(u < sum); i++) {
        if (!(probs[i] > 0)) continue;
        sum += probs[i];
        id = (int32_t)i;
    }
cleanup:
    free(probs);
    return id;
}

struct qd_traffic qd_traffic_sample(int64_t n_rows, int64_t n_vocab)
{
    return (struct qd_traffic){
        .bytes = (uint64_t)(n_rows * (4 * n_vocab + 4)),
        .flops = (uint64_t)(n_rows * n_vocab), /* one comparison */
    };
}
