#include "harness/cli/run_steps.h"

#include <string.h>

#include "harness/cli/session.h"
#include "harness/result/machine.h"
#include "kernels/base/clock.h"

bool qd_run_steps_wanted(const struct qd_options *options)
{
    return options->ledger || options->ledger_svg != NULL || options->save_steps || options->trace != NULL;
}

const struct qd_ledger_rows *qd_run_steps_rows(const struct qd_run_steps *steps)
{
    return steps->rows.config != NULL ? &steps->rows : NULL;
}

const struct qd_ledger_alone *qd_run_steps_alone(const struct qd_run_steps *steps)
{
    return steps->alone.sums.file != NULL ? &steps->alone.sums : NULL;
}

qd_status qd_run_steps_read_kernels(struct qd_run_steps *steps, const struct qd_options *o,
                                    const struct qd_instance_options *instance_options, char *err,
                                    size_t errlen)
{
    struct qd_instance_plan plan;
    struct qd_machine machine;
    if (o->kernels == NULL) return QD_OK;
    if (!o->ledger && o->ledger_svg == NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--kernels needs --ledger");
    if (strcmp(o->device, "cpu") != 0 && strcmp(o->device, "cuda") != 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--kernels: times of the device %s mean nothing", o->device);
    QD_TRY(qd_instance_plan_check(instance_options, &plan, err, errlen));
    qd_machine_read(&machine);
    int n_threads = (int)(o->threads > 0 ? o->threads : machine.n_cores) / (plan.tp * plan.dp);
    const struct qd_alone_run run = {.ops = plan.ops,
                                     .config = &plan.config,
                                     .numerics = instance_options->numerics,
                                     .tp = plan.tp,
                                     .isa = qd_session_isa(o),
                                     .n_threads_per_rank = qd_session_isa(o) == NULL ? 0 : n_threads > 1 ? n_threads : 1};
    return qd_alone_read(o->kernels, &run, &steps->alone, err, errlen);
}

static qd_status open_files(struct qd_run_steps *steps, const struct qd_options *options,
                            const struct qd_instance_plan *plan, const char *steps_path, int64_t virtual_ns,
                            char *err, size_t errlen)
{
    int64_t origin_ns = qd_clock_now_ns();
    if (options->save_steps)
        QD_TRY(qd_steps_file_open(&steps->steps, steps_path, origin_ns, virtual_ns, err, errlen));
    if (options->trace == NULL) return QD_OK;
    return qd_trace_file_open(&steps->trace, options->trace, origin_ns, plan->dp,
                              plan->ops->executes ? plan->tp : 0, err, errlen);
}

qd_status qd_run_steps_open(struct qd_run_steps *steps, const struct qd_options *options,
                            const struct qd_instance_plan *plan, const struct qd_ledger_limits *limits,
                            const char *steps_path, int64_t virtual_ns, char *err, size_t errlen)
{
    if (!qd_run_steps_wanted(options)) return QD_OK;
    QD_TRY(open_files(steps, options, plan, steps_path, virtual_ns, err, errlen));
    QD_TRY(qd_shard_make(&plan->config, plan->tp, 0, &steps->rows.shard, err, errlen));
    steps->rows.config = &plan->config;
    steps->rows.limits = *limits;
    return QD_OK;
}

void qd_run_steps_take(void *arg, const struct qd_step_row *row)
{
    struct qd_run_steps *steps = arg;
    qd_ledger_rows_take(&steps->rows, row);
    if (qd_run_steps_alone(steps) != NULL) qd_alone_take(&steps->alone, row);
    if (steps->steps.file.stream != NULL) qd_steps_file_take(&steps->steps, row);
    if (steps->trace.file.stream != NULL) qd_trace_file_take(&steps->trace, row);
}

qd_status qd_run_steps_begin(struct qd_run_steps *steps, const struct qd_options *options,
                             qd_instance_t *instance, const struct qd_ledger_limits *limits,
                             const char *steps_path, char *err, size_t errlen)
{
    if (!qd_run_steps_wanted(options)) return QD_OK;
    const struct qd_instance_plan *plan = qd_instance_get_plan(instance);
    qd_engine_t *engine = qd_instance_engine(instance);
    const struct qd_step_sink sink = {.take = qd_run_steps_take, .arg = steps};
    int64_t virtual_ns = qd_options_are_virtual(options) ? qd_engine_now_ns(engine) : 0;
    QD_TRY(qd_run_steps_open(steps, options, plan, limits, steps_path, virtual_ns, err, errlen));
    return qd_step_log_start(engine, plan->dp, &sink, 1, &steps->log, err, errlen);
}

void qd_run_steps_end(struct qd_run_steps *steps, qd_instance_t *instance)
{
    qd_step_log_stop(steps->log);
    steps->log = NULL;
    for (int r = 0; r < qd_instance_get_plan(instance)->dp; r++)
        steps->n_dropped += qd_engine_n_dropped_steps(qd_instance_engine(instance), r);
}

qd_status qd_run_steps_write(struct qd_run_steps *steps, char *err, size_t errlen)
{
    char unused[QD_ERR_LEN];
    qd_status st = QD_OK;
    if (steps->steps.file.stream != NULL) st = qd_steps_file_commit(&steps->steps, err, errlen);
    if (steps->trace.file.stream == NULL) return st;
    qd_status traced = qd_trace_file_commit(&steps->trace, st == QD_OK ? err : unused, errlen);
    return st == QD_OK ? traced : st;
}

void qd_run_steps_close(struct qd_run_steps *steps)
{
    qd_step_log_stop(steps->log);
    steps->log = NULL;
    qd_alone_free(&steps->alone);
    qd_atomic_file_discard(&steps->steps.file);
    qd_trace_file_discard(&steps->trace);
}
