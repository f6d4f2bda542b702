#include "harness/engine/replay.h"

#include "kernels/base/clock.h"

enum { MAX_FLIGHTS = 2 };

struct replay {
    qd_group_t *group;
    struct qd_replay_result *out;
    struct qd_recorded_step flights[MAX_FLIGHTS]; /* launched, the oldest first */
    int n_flights, max_flights;
    int64_t begin_ns; /* the first measured step was launched; 0: not yet */
};

static qd_status check_all(struct qd_step_file *file, char *err, size_t errlen)
{
    struct qd_recorded_step step;
    uint64_t n_measured = 0;
    do {
        QD_TRY(qd_step_file_next(file, &step, err, errlen));
        n_measured += step.step != NULL && step.is_measured;
    } while (step.step != NULL);
    qd_step_file_rewind(file);
    return n_measured > 0 ? QD_OK
                          : qd_fail(QD_ERR_INPUT, err, errlen, "%s: no step was measured", file->path);
}

static qd_status end_oldest(struct replay *r, char *err, size_t errlen)
{
    struct qd_recorded_step step = r->flights[0];
    struct qd_group_result result;
    int64_t before_ns = qd_clock_now_ns();
    QD_TRY(qd_group_wait(r->group, &result, err, errlen));
    int64_t now_ns = qd_clock_now_ns();
    r->flights[0] = r->flights[1];
    r->n_flights--;
    for (int32_t i = 0; i < step.n_ids; i++) r->out->n_different_ids += result.ids[i] != step.ids[i];
    r->out->n_ids += (uint64_t)step.n_ids;
    if (!step.is_measured) {
        r->out->n_warmup_steps++;
        return QD_OK;
    }
    r->out->n_steps++;
    r->out->wait_ns += now_ns - before_ns;
    r->out->wall_ns = now_ns - r->begin_ns;
    r->out->recorded_span_ns += step.span_ns;
    if (result.n_ranks > 0) r->out->span_ns += result.spans[0].end_ns - result.spans[0].begin_ns;
    return QD_OK;
}

static qd_status launch(struct replay *r, const struct qd_recorded_step *step, char *err, size_t errlen)
{
    int64_t before_ns = qd_clock_now_ns();
    QD_TRY(qd_group_launch(r->group, step->step, err, errlen));
    r->flights[r->n_flights++] = *step;
    if (!step->is_measured) return QD_OK;
    if (r->begin_ns == 0) r->begin_ns = before_ns;
    r->out->launch_ns += qd_clock_now_ns() - before_ns;
    return QD_OK;
}

qd_status qd_replay_run(qd_group_t *group, struct qd_step_file *file, bool async,
                        struct qd_replay_result *out, char *err, size_t errlen)
{
    struct replay r = {.group = group, .out = out, .max_flights = async ? MAX_FLIGHTS : 1};
    *out = (struct qd_replay_result){0};
    QD_TRY(check_all(file, err, errlen));
    for (;;) {
        struct qd_recorded_step step;
        QD_TRY(qd_step_file_next(file, &step, err, errlen));
        if (step.step == NULL) break;
        QD_TRY(launch(&r, &step, err, errlen));
        if (r.n_flights == r.max_flights) QD_TRY(end_oldest(&r, err, errlen));
    }
    while (r.n_flights > 0) QD_TRY(end_oldest(&r, err, errlen));
    return QD_OK;
}
