#include "harness/ops/rival.h"

#include <stdlib.h>

#include "harness/ops/check.h"

enum { N_TRIALS = 3 }; /* samples of each algorithm, to find the fastest */

struct contest {
    const struct qd_op_timing *ours;
    struct qd_op_rival *out;
    qd_status status; /* why there is no result; a step that has run is no failure of the group */
    char text[QD_ERR_LEN];
};

static qd_status run_batch(struct qd_op_rank *r, int i, int n, char *err, size_t errlen)
{
    const struct qd_rival_ops *rival = r->device.ops->rival;
    for (int call = 0; call < n; call++) {
        int copy = call % r->operands.n_copies;
        QD_TRY(rival->run(r->device.ctx, i, qd_op_at(&r->operands, QD_OP_A, copy),
                          qd_op_at(&r->operands, QD_OP_W, copy), qd_op_at(&r->operands, QD_OP_RIVAL, copy),
                          err, errlen));
    }
    return QD_OK;
}

/* The median of n samples of algorithm i, a call, in microseconds. */
static qd_status time_algorithm(struct qd_op_rank *r, int i, int batch, int n, double *samples, double *us,
                                char *err, size_t errlen)
{
    QD_TRY(run_batch(r, i, 1, err, errlen)); /* loads it */
    for (int s = 0; s < n; s++) {
        int64_t ns;
        QD_TRY(qd_device_time_begin(r->device));
        QD_TRY(run_batch(r, i, batch, err, errlen));
        QD_TRY(qd_device_time_end(r->device, &ns));
        samples[s] = (double)ns * 1e-3 / batch;
    }
    *us = qd_op_median(samples, n);
    return QD_OK;
}

static qd_status find_fastest(struct qd_op_rank *r, const struct contest *contest, double *samples, int *best,
                              char *err, size_t errlen)
{
    double best_us = 0;
    *best = 0;
    for (int i = 0; i < contest->out->n_algorithms; i++) {
        double us;
        QD_TRY(time_algorithm(r, i, contest->ours->batch, N_TRIALS, samples, &us, err, errlen));
        if (i == 0) contest->out->first_us = us;
        if (i > 0 && us >= best_us) continue;
        best_us = us;
        *best = i;
    }
    return QD_OK;
}

/* The product as it lies on the device now. */
static qd_status check_product(struct qd_op_rank *r, int32_t *ids, char *err, size_t errlen)
{
    const struct qd_op_operand *product = &r->operands.of[QD_OP_RIVAL];
    struct qd_op_error error = {.output = NULL};
    qd_bf16 *host = malloc(product->bytes);
    if (host == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a product");
    const struct qd_copy_to_host_args args = {.host = host,
                                              .data = product->device,
                                              .n_rows = 1,
                                              .row_bytes = product->bytes,
                                              .host_stride = product->bytes,
                                              .stride = product->bytes};
    qd_status st = qd_device_copy_to_host(r->device, &args);
    if (st == QD_OK) st = qd_op_end(r, ids);
    if (st == QD_OK) st = qd_op_check_product(r, host, &error, err, errlen);
    free(host);
    if (st == QD_OK && !qd_op_error_passed(&error, err, errlen)) st = QD_ERR_INTERNAL;
    return st;
}

static qd_status compete(struct qd_op_rank *r, const struct qd_step *step, const struct contest *contest,
                         int32_t *ids, double *samples, char *err, size_t errlen)
{
    const struct qd_rival_ops *rival = r->device.ops->rival;
    const struct qd_step *launched;
    struct qd_op_gemm gemm = qd_op_gemm(&r->c);
    int best;
    if (gemm.lda != gemm.k || r->operands.of[QD_OP_W].n_cols % 64 != 0)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: the operands have gaps between their rows",
                       rival->name);
    QD_TRY(rival->prepare(r->device.ctx, r->c.n_tokens, gemm.n, gemm.k, &contest->out->n_algorithms, err,
                          errlen));
    QD_TRY(qd_op_begin(r, step, &launched, err, errlen));
    QD_TRY(find_fastest(r, contest, samples, &best, err, errlen));
    QD_TRY(time_algorithm(r, best, contest->ours->batch, contest->ours->n_samples, samples,
                          &contest->out->median_us, err, errlen));
    contest->out->algorithm = rival->algorithm(r->device.ctx, best);
    return check_product(r, ids, err, errlen);
}

static qd_status contest_rank(void *arg, struct qd_op_rank *r, const struct qd_step *step, int32_t *ids,
                              char *err, size_t errlen)
{
    struct contest *contest = arg;
    (void)err, (void)errlen;
    int n = contest->ours->n_samples > N_TRIALS ? contest->ours->n_samples : N_TRIALS;
    double *samples = malloc((size_t)n * sizeof *samples);
    contest->status =
        samples != NULL
            ? compete(r, step, contest, ids, samples, contest->text, sizeof contest->text)
            : qd_fail(QD_ERR_NO_MEMORY, contest->text, sizeof contest->text, "no memory for samples");
    free(samples);
    return QD_OK;
}

qd_status qd_op_time_rival(qd_op_session_t *session, const struct qd_op_timing *ours, struct qd_op_rival *out,
                           char *err, size_t errlen)
{
    struct contest contest = {.ours = ours, .out = out};
    *out = (struct qd_op_rival){.n_algorithms = 0};
    if (qd_op_session_ops(session)->rival == NULL)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "the device has no other library to compare with");
    QD_TRY(qd_op_session_run(session, contest_rank, &contest, 0, true, err, errlen));
    return contest.status == QD_OK ? QD_OK : qd_fail(contest.status, err, errlen, "%s", contest.text);
}
