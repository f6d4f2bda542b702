#include "tests/support/compare.h"

#include <math.h>

#include "tests/support/test.h"

/* Whether an element with a NaN or an infinity is as wanted: NaN for NaN, the same infinity. */
static bool same_class(float got, float want)
{
    if (isnan(want)) return isnan(got);
    if (isinf(want) || isinf(got) || isnan(got)) return got == want;
    return true;
}

static bool close_enough(float got, float want, struct tolerance t)
{
    if (!same_class(got, want)) return false;
    if (!isfinite(want)) return true;
    return fabs((double)got - (double)want) <= t.abs + t.rel * fabs((double)want);
}

static struct deviation measure(const float *got, const float *want, size_t n)
{
    double largest = 0, error = 0, energy = 0;
    size_t n_same = 0;
    struct deviation d = {0};
    for (size_t i = 0; i < n; i++) {
        if (isfinite(want[i])) largest = fmax(largest, fabs((double)want[i]));
    }
    for (size_t i = 0; i < n; i++) {
        n_same += got[i] == want[i] || (isnan(got[i]) && isnan(want[i]));
        if (!isfinite(want[i]) || !isfinite(got[i])) continue;
        const double w = (double)want[i], e = fabs((double)got[i] - w);
        d.max_abs = fmax(d.max_abs, e);
        if (fabs(w) > 1e-3 * largest) d.max_rel = fmax(d.max_rel, e / fabs(w));
        error += e * e;
        energy += w * w;
    }
    d.nmse = energy > 0 ? error / energy : error;
    d.same = n > 0 ? (double)n_same / (double)n : 1;
    return d;
}

void compare_f32(const char *what, const float *got, const float *want, size_t n, struct tolerance tolerance,
                 struct deviation *observed)
{
    const struct deviation d = measure(got, want, n);
    size_t n_bad = 0, first = 0;
    for (size_t i = 0; i < n; i++) {
        if (close_enough(got[i], want[i], tolerance)) continue;
        if (n_bad++ == 0) first = i;
    }
    if (observed != NULL) {
        observed->max_abs = fmax(observed->max_abs, d.max_abs);
        observed->max_rel = fmax(observed->max_rel, d.max_rel);
        observed->nmse = fmax(observed->nmse, d.nmse);
        observed->same = fmin(observed->same, d.same);
    }
    if (n_bad > 0)
        fail_msg("%s: %zu of %zu elements differ, first [%zu]: got %.9g, want %.9g (max abs %.3g, rel %.3g, "
                 "nmse %.3g)",
                 what, n_bad, n, first, (double)got[first], (double)want[first], d.max_abs, d.max_rel,
                 d.nmse);
    if (!(d.nmse <= tolerance.nmse))
        fail_msg("%s: nmse %.3g above %.3g (max abs %.3g, rel %.3g)", what, d.nmse, tolerance.nmse, d.max_abs,
                 d.max_rel);
    if (!(d.same >= tolerance.same))
        fail_msg("%s: %.6g of the elements are equal, expected %.6g (max abs %.3g, rel %.3g, nmse %.3g)",
                 what, d.same, tolerance.same, d.max_abs, d.max_rel, d.nmse);
}

void deviation_print(const char *what, const struct deviation *d)
{
    printf("%s: observed max abs %.2g, rel %.2g, nmse %.2g, equal %.6g\n", what, d->max_abs, d->max_rel,
           d->nmse, d->same);
}

static float *widen(const qd_bf16 *x, size_t n)
{
    float *wide = malloc((n + 1) * sizeof *wide);
    assert_non_null(wide);
    for (size_t i = 0; i < n; i++) wide[i] = qd_bf16_to_f32(x[i]);
    return wide;
}

void compare_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n,
                  struct tolerance tolerance, struct deviation *observed)
{
    float *wide_got = widen(got, n), *wide_want = widen(want, n);
    compare_f32(what, wide_got, wide_want, n, tolerance, observed);
    free(wide_got);
    free(wide_want);
}

void compare_same_bf16(const char *what, const qd_bf16 *got, const qd_bf16 *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (got[i] != want[i])
            fail_msg("%s: [%zu] of %zu: got %#x (%.9g), want %#x (%.9g)", what, i, n, got[i],
                     (double)qd_bf16_to_f32(got[i]), want[i], (double)qd_bf16_to_f32(want[i]));
    }
}

void compare_same_f32(const char *what, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s: [%zu] of %zu: got %.9g, want %.9g", what, i, n, (double)got[i], (double)want[i]);
    }
}
