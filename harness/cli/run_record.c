#include "harness/cli/run_record.h"

#include "kernels/step_file.h"

static void take(void *arg, int replica, const struct qd_group_result *result, int64_t span_ns)
{
    struct qd_run_record *record = arg;
    qd_step_file_write(record->file.stream, replica, result->step, result->ids, span_ns,
                       record->is_measured ? QD_STEP_RECORD_MEASURED : 0);
}

qd_status qd_run_record_open(struct qd_run_record *record, const char *path,
                             struct qd_instance_options *options, char *err, size_t errlen)
{
    if (path == NULL) return QD_OK;
    QD_TRY(qd_atomic_file_open(&record->file, path, err, errlen));
    options->recorder = (struct qd_step_recorder){.take = take, .arg = record};
    return QD_OK;
}

void qd_run_record_begin(struct qd_run_record *record, const struct qd_instance_plan *plan)
{
    if (record->file.stream == NULL) return;
    const struct qd_step_file_header header = {
        .limits = plan->limits,
        .max_model_len = plan->max_model_len,
        .n_kv_blocks = plan->n_kv_blocks,
        .vocab_size = (int32_t)plan->config.vocab_size,
        .n_replicas = plan->dp,
    };
    qd_step_file_write_header(record->file.stream, &header);
}

qd_status qd_run_record_write(struct qd_run_record *record, char *err, size_t errlen)
{
    return record->file.stream != NULL ? qd_atomic_file_commit(&record->file, err, errlen) : QD_OK;
}

void qd_run_record_close(struct qd_run_record *record)
{
    qd_atomic_file_discard(&record->file);
}
