#include "tests/support/recording.h"

#include "kernels/step_file.h"
#include "tests/support/test.h"
#include "tests/support/tiny.h"

static void take(void *arg, int replica, const struct qd_group_result *result, int64_t span_ns)
{
    struct recording *recording = arg;
    qd_step_file_write(recording->stream, replica, result->step, result->ids, span_ns,
                       QD_STEP_RECORD_MEASURED);
}

void recording_begin(struct recording *recording, struct qd_instance_options *options)
{
    struct qd_instance_plan plan;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(options->dp, 1);
    ASSERT_OK(qd_instance_plan_make(options, &plan, err, sizeof err), err);
    *recording = (struct recording){0};
    recording->stream = open_memstream(&recording->bytes, &recording->n_bytes);
    assert_non_null(recording->stream);
    const struct qd_step_file_header header = {.limits = plan.limits,
                                               .max_model_len = plan.max_model_len,
                                               .n_kv_blocks = plan.n_kv_blocks,
                                               .vocab_size = (int32_t)plan.config.vocab_size,
                                               .n_replicas = 1};
    qd_step_file_write_header(recording->stream, &header);
    options->recorder = (struct qd_step_recorder){.take = take, .arg = recording};
}

void recording_replay(struct recording *recording, const struct qd_instance_options *options,
                      void (*row)(void *arg, const struct qd_sampling *sampling, const float *logits,
                                  int32_t vocab_size),
                      void *arg)
{
    struct qd_instance_options again = *options;
    struct qd_step_file file;
    struct qd_recorded_step recorded;
    struct qd_group_result result;
    char err[QD_ERR_LEN] = "";
    assert_int_equal(fclose(recording->stream), 0);
    ASSERT_OK(qd_step_file_parse("recording", recording->bytes, recording->n_bytes, &file, err, sizeof err),
              err);
    again.recorder = (struct qd_step_recorder){0};
    again.max_logit_rows = file.header.limits.max_logit_rows;
    qd_instance_t *instance = open_instance(&again);
    qd_group_t *group = qd_instance_group(instance, 0);
    struct qd_step *step = malloc(qd_step_capacity(&file.header.limits));
    assert_non_null(step);
    for (;;) {
        ASSERT_OK(qd_step_file_next(&file, &recorded, err, sizeof err), err);
        if (recorded.step == NULL) break;
        memcpy(step, recorded.step, recorded.step->used_bytes);
        step->flags |= QD_STEP_WANT_LOGITS;
        ASSERT_OK(qd_group_launch(group, step, err, sizeof err), err);
        ASSERT_OK(qd_group_wait(group, &result, err, sizeof err), err);
        assert_int_equal(result.n_ids, recorded.n_ids);
        for (int32_t i = 0; i < result.n_ids; i++) {
            assert_int_equal(result.ids[i], recorded.ids[i]);
            row(arg, &qd_step_sampling(step)[i], result.logits + (size_t)i * (size_t)result.vocab_size,
                result.vocab_size);
        }
    }
    free(step);
    qd_instance_close(instance);
    qd_step_file_close(&file);
    free(recording->bytes);
    *recording = (struct recording){0};
}
