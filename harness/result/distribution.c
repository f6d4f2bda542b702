#include "harness/result/result.h"

#include <math.h>
#include <stdlib.h>

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double qd_percentile(const double *sorted, uint64_t n, double p)
{
    if (n == 0) return 0;
    double rank = (double)(n - 1) * (p / 100);
    uint64_t below = (uint64_t)floor(rank);
    if (below + 1 >= n) return sorted[n - 1];
    double t = rank - (double)below, step = sorted[below + 1] - sorted[below];
    /* numpy approaches from the nearer end, so that t = 1 gives the upper value exactly. */
    return t < 0.5 ? sorted[below] + step * t : sorted[below + 1] - step * (1 - t);
}

struct qd_distribution qd_distribution_of(double *values, uint64_t n)
{
    struct qd_distribution d = {.n = n};
    if (n == 0) return d;
    qsort(values, n, sizeof *values, compare_doubles);
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += values[i];
    d.mean = sum / (double)n;
    for (uint64_t i = 0; i < n; i++)
        squares += (values[i] - d.mean) * (values[i] - d.mean);
    d.std = sqrt(squares / (double)n);
    d.min = values[0];
    d.max = values[n - 1];
    d.p50 = qd_percentile(values, n, 50);
    d.p90 = qd_percentile(values, n, 90);
    d.p95 = qd_percentile(values, n, 95);
    d.p99 = qd_percentile(values, n, 99);
    return d;
}
