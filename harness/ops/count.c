#include "harness/ops/count.h"

#include "kernels/emu/mode.h"

/* A step with so many calls, and nothing else that differs. */
static qd_status call_rank(void *arg, struct qd_op_rank *r, const struct qd_step *step, int32_t *ids,
                           char *err, size_t errlen)
{
    const struct qd_step *launched;
    QD_TRY(qd_op_begin(r, step, &launched, err, errlen));
    qd_status st = QD_OK;
    for (int i = 0; i < *(const int *)arg && st == QD_OK; i++) st = qd_op_call(r, launched, 0, ids);
    if (st == QD_OK) st = qd_op_end(r, ids);
    return st == QD_OK ? QD_OK : qd_fail(st, err, errlen, "%s", qd_device_error_text(r->device));
}

static qd_status count_calls(qd_op_session_t *session, int n_calls, struct qd_emu_counters *out, char *err,
                             size_t errlen)
{
    qd_emu_reset_counters();
    QD_TRY(qd_op_session_run(session, call_rank, &n_calls, 0, true, err, errlen));
    *out = qd_emu_read_counters();
    return QD_OK;
}

/* The difference of two steps: what plan and end launch is in both. */
qd_status qd_op_count(qd_op_session_t *session, struct qd_op_counters *out, char *err, size_t errlen)
{
    struct qd_emu_counters one, two;
    QD_TRY(count_calls(session, 1, &one, err, errlen));
    QD_TRY(count_calls(session, 2, &two, err, errlen));
    *out = (struct qd_op_counters){
        .launches = two.launches - one.launches,
        .blocks = two.blocks - one.blocks,
        .mma = two.mma - one.mma,
        .ldmatrix = two.ldmatrix - one.ldmatrix,
        .loaded_bytes = two.loaded_bytes - one.loaded_bytes,
        .shared_wavefronts = two.shared_wavefronts - one.shared_wavefronts,
        .shared_conflicts = two.shared_conflicts - one.shared_conflicts,
        .async_copy_bytes = two.async_copy_bytes - one.async_copy_bytes,
        .barriers = two.barriers - one.barriers,
    };
    return QD_OK;
}
