/* Rows of logits for the sampling tests, and the judge of a sampled id: the reference's, unless the uniform
 * lies within rounding of a boundary of the reference's running sum, or the top-p cut within rounding of an
 * id.
 */
#ifndef QD_TESTS_GPU_SAMPLE_ROWS_H
#define QD_TESTS_GPU_SAMPLE_ROWS_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/random.h"
#include "kernels/ref/ref.h"
#include "tests/gpu/runner.h"

enum sample_logits {
    SAMPLE_SPREAD,   /* a sum of uniforms: a few ids hold most of the mass */
    SAMPLE_COARSE,   /* multiples of 0.5: many ties */
    SAMPLE_EQUAL,    /* all the same */
    SAMPLE_CLOSE,    /* apart by units in the last place of 8: more keys in one bin than a list holds */
    SAMPLE_WIDE,     /* up to 3e38 either way: differences overflow */
    SAMPLE_ZEROS,    /* 0 and -0 */
    SAMPLE_SOME_NAN, /* every third NaN, the first too */
    SAMPLE_ALL_NAN,
    SAMPLE_NAN_AND_MINUS_INF, /* in turns */
    SAMPLE_MOSTLY_MINUS_INF,
    SAMPLE_ALL_MINUS_INF,
    SAMPLE_TWO_PLUS_INF, /* or one, in a row of one */
    SAMPLE_N_KINDS,
};

static inline float sample_logit(enum sample_logits kind, int64_t n, int64_t i, float random, uint32_t word)
{
    switch (kind) {
    case SAMPLE_COARSE: return floorf(random * 2.0f) * 0.5f;
    case SAMPLE_EQUAL: return -3.25f;
    case SAMPLE_CLOSE: return 8.0f + (float)(word % 4096) * 0x1p-20f;
    case SAMPLE_WIDE: return (word & 1) != 0 ? 3e38f * random / 8.0f : -3e38f * random / 8.0f;
    case SAMPLE_ZEROS: return (word & 1) != 0 ? 0.0f : -0.0f;
    case SAMPLE_SOME_NAN: return i % 3 == 0 ? NAN : random;
    case SAMPLE_ALL_NAN: return NAN;
    case SAMPLE_NAN_AND_MINUS_INF: return i % 2 == 0 ? NAN : -INFINITY;
    case SAMPLE_MOSTLY_MINUS_INF: return i % 7 == 3 || i == n - 1 ? random : -INFINITY;
    case SAMPLE_ALL_MINUS_INF: return -INFINITY;
    case SAMPLE_TWO_PLUS_INF: return i == n / 3 || i == n - 1 ? INFINITY : random;
    default: return random;
    }
}

/* A row of n logits, the same for the same seed. */
static inline void sample_fill(float *row, int64_t n, enum sample_logits kind, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        const struct qd_philox_block block = qd_philox(seed, 7, (uint64_t)i);
        float random = 0; /* -8 .. 8, mostly near 0 */
        for (int j = 0; j < 4; j++) random += 4.0f * qd_uniform_open(block.word[j]) - 2.0f;
        row[i] = sample_logit(kind, n, i, random, block.word[0]);
    }
}

/* How far a running sum of probabilities may be from the reference's: an exponent x rounds in its difference,
 * in log2(e) / T, in that quotient's and in the product (4 * 2^-24 of it, times ln 2 in the weight), a weight
 * by 2^-22, and fixed point drops less than 2^-42 of the largest; a share of the total doubles it. */
static inline double sample_tolerance(const double *probs, int64_t n)
{
    double largest = 0, error = 0;
    for (int64_t i = 0; i < n; i++) largest = probs[i] > largest ? probs[i] : largest;
    for (int64_t i = 0; i < n; i++) {
        if (!(probs[i] > 0)) continue;
        const double nats = log(largest / probs[i]);
        error += probs[i] * (nats * 0x1p-22 + 0x1p-22) + largest * 0x1p-42;
    }
    return 2 * error;
}

/* Whether the uniform lies within the tolerance of id's part of the running sum. */
static inline bool sample_is_drawn(const float *logits, int64_t n, const struct qd_sampling *sampling,
                                   int32_t id)
{
    double *probs = malloc((size_t)n * sizeof *probs);
    GPU_EXPECT(probs != NULL && qd_ref_sample_probabilities(logits, n, sampling, probs) > 0, "no memory");
    const double u = (double)qd_uniform_open(qd_philox(sampling->seed, 0, sampling->output_index).word[0]);
    const double tolerance = sample_tolerance(probs, n);
    double before = 0;
    for (int32_t i = 0; i < id; i++) before += probs[i];
    const bool drawn = probs[id] > 0 && u >= before - tolerance && u < before + probs[id] + tolerance;
    free(probs);
    return drawn;
}

/* Ends the test unless `id` may be drawn from the row; true when it is not the reference's own id. */
static inline bool sample_check_row(const char *what, int64_t row, const float *logits, int64_t n,
                                    const struct qd_sampling *sampling, int32_t id)
{
    const int32_t want = qd_ref_sample_row(logits, n, sampling);
    if (id == want) return false;
    GPU_EXPECT(id >= 0 && id < n, "%s: row %lld: id %d of %lld", what, (long long)row, id, (long long)n);
    bool drawn = false;
    for (int nudge = -1; nudge <= 1 && !drawn && sampling->temperature > 0; nudge++) {
        struct qd_sampling nudged = *sampling; /* its sums are off by the same tolerance, a few 2^-22 */
        if (nudged.top_p < 1) nudged.top_p *= 1.0f + (float)nudge * 0x1p-19f;
        drawn = sample_is_drawn(logits, n, &nudged, id);
    }
    GPU_EXPECT(drawn, "%s: row %lld (temperature %g, top-k %d, top-p %g): got %d (%g), want %d (%g)", what,
               (long long)row, (double)sampling->temperature, sampling->top_k, (double)sampling->top_p, id,
               (double)logits[id], want, (double)logits[want]);
    return true;
}

#endif
