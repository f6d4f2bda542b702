#include "harness/ops/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void compare_one(struct qd_op_error *error, const char *output, struct qd_op_tolerance tolerance,
                        int64_t row, int64_t column, double got, double want)
{
    double off = fabs(got - want), allowed = tolerance.atol + tolerance.rtol * fabs(want), ratio;
    if (got == want || (isnan(got) && isnan(want))) return;
    if (!isfinite(got) || !isfinite(want) || allowed == 0)
        ratio = INFINITY;
    else
        ratio = off / allowed;
    error->n_bad += !(ratio <= 1);
    if (ratio <= error->worst) return;
    error->output = output;
    error->worst = ratio;
    error->abs = off;
    error->rel = want != 0 ? off / fabs(want) : INFINITY;
    error->got = got;
    error->want = want;
    error->row = row;
    error->column = column;
}

void qd_op_compare_bf16(struct qd_op_error *error, const char *output, struct qd_op_tolerance tolerance,
                        int64_t row, const qd_bf16 *got, const qd_bf16 *want, int64_t n)
{
    int64_t n_bad = error->n_bad, n_other = 0;
    for (int64_t i = 0; i < n; i++) {
        n_other += got[i] != want[i];
        compare_one(error, output, tolerance, row, i, (double)qd_bf16_to_f32(got[i]),
                    (double)qd_bf16_to_f32(want[i]));
    }
    error->n_checked += n;
    if (tolerance.moved >= 1) return;
    error->n_moved += n_other - (error->n_bad - n_bad);
    error->n_limited += n;
    error->moved_limit = tolerance.moved;
}

void qd_op_compare_f32(struct qd_op_error *error, const char *output, struct qd_op_tolerance tolerance,
                       int64_t row, const float *got, const float *want, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        compare_one(error, output, tolerance, row, i, (double)got[i], (double)want[i]);
    error->n_checked += n;
}

void qd_op_error_merge(struct qd_op_error *error, const struct qd_op_error *other)
{
    struct qd_op_error sum = other->worst > error->worst ? *other : *error;
    sum.n_checked = error->n_checked + other->n_checked;
    sum.n_bad = error->n_bad + other->n_bad;
    sum.n_moved = error->n_moved + other->n_moved;
    sum.n_limited = error->n_limited + other->n_limited;
    sum.moved_limit = fmax(error->moved_limit, other->moved_limit);
    *error = sum;
}

bool qd_op_error_passed(const struct qd_op_error *e, char *why, size_t why_len)
{
    enum { ALWAYS_MAY_MOVE = 2 };
    if (e->n_bad > 0) {
        snprintf(why, why_len, "%s[%lld][%lld]: got %.9g, want %.9g; %lld of %lld elements are wrong",
                 e->output, (long long)e->row, (long long)e->column, e->got, e->want, (long long)e->n_bad,
                 (long long)e->n_checked);
        return false;
    }
    if (e->n_moved > ALWAYS_MAY_MOVE && (double)e->n_moved > e->moved_limit * (double)e->n_limited) {
        snprintf(why, why_len, "%lld of %lld elements are rounded otherwise: a share of %g is what may be",
                 (long long)e->n_moved, (long long)e->n_limited, e->moved_limit);
        return false;
    }
    return true;
}
