#include "harness/engine/instance.h"

#include <stdlib.h>
#include <unistd.h>

enum { MAX_READERS = 16 };

struct qd_instance {
    struct qd_instance_plan plan;
    qd_model_t *model;
    struct qd_program *programs; /* [dp]; user NULL: not made */
    qd_group_t **groups;         /* [dp] */
    qd_engine_t *engine;
};

static qd_status load_model(const struct qd_instance_options *o, qd_instance_t *instance, char *err,
                            size_t errlen)
{
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
    int n_readers = o->n_threads > 0 ? o->n_threads : n_cores > 0 ? (int)n_cores : 1;
    struct qd_model_options options = {
        .dir = o->load_format == QD_LOAD_DUMMY || !instance->plan.ops->executes ? NULL : o->model,
        .config = &instance->plan.config,
        .load_format = o->load_format,
        .dummy_seed = o->seed,
        .ops = instance->plan.ops,
        .tp = o->tp,
        .dp = o->dp,
        .ranks_per_gpu = o->ranks_per_gpu,
        .n_threads = n_readers < MAX_READERS ? n_readers : MAX_READERS,
        .progress = o->progress,
        .progress_arg = o->progress_arg,
    };
    return qd_model_load(&options, &instance->model, err, errlen);
}

static qd_status open_group(const struct qd_instance_options *o, qd_instance_t *instance, int replica,
                            char *err, size_t errlen)
{
    const struct qd_instance_plan *plan = &instance->plan;
    struct qd_program *program = &instance->programs[replica];
    if (plan->ops->executes) {
        struct qd_program_options program_options = {.first_rank = replica * o->tp,
                                                     .n_kv_blocks = plan->n_kv_blocks,
                                                     .limits = plan->limits,
                                                     .numerics = o->numerics,
                                                     .no_logits = o->max_logit_rows == 0};
        QD_TRY(qd_model_program(instance->model, &program_options, program, err, errlen));
    }
    struct qd_group_config config = {
        .ops = plan->ops,
        .tp = o->tp,
        .device = qd_instance_device(o, plan, replica),
        .vocab_size = (int32_t)plan->config.vocab_size,
        .program = *program,
        .null_step_ns = o->null_step_ns,
        .null_steps = o->null_steps != NULL ? o->null_steps[replica] : (struct qd_null_steps){0},
        .watchdog_ns = o->watchdog_ns,
    };
    return qd_group_open(&config, &instance->groups[replica], err, errlen);
}

static qd_status open_engine(const struct qd_instance_options *o, qd_instance_t *instance, char *err,
                             size_t errlen)
{
    const struct qd_instance_plan *plan = &instance->plan;
    struct qd_engine_config config = {
        .dp = o->dp,
        .groups = instance->groups,
        .max_num_batched_tokens = plan->limits.max_tokens,
        .max_num_seqs = plan->limits.max_seqs,
        .max_model_len = plan->max_model_len,
        .n_kv_blocks = plan->n_kv_blocks,
        .vocab_size = (int32_t)plan->config.vocab_size,
        .long_prefill_token_threshold = (int32_t)o->long_prefill_token_threshold,
        .prefix_caching = o->prefix_caching,
        .async_scheduling = o->async_scheduling,
        .n_eos = plan->config.n_eos,
        .eos_ids = plan->config.eos_ids,
        .router = o->router,
        .executes = plan->ops->executes,
        .is_stepped = o->is_stepped,
        .is_virtual = o->is_virtual,
        .coupling = o->coupling,
        .max_requests = o->max_requests,
        .n_step_rows = o->n_step_rows,
        .recorder = o->recorder,
    };
    return qd_engine_open(&config, &instance->engine, err, errlen);
}

qd_status qd_instance_open(const struct qd_instance_options *options, qd_instance_t **out, char *err,
                           size_t errlen)
{
    *out = NULL;
    qd_instance_t *instance = calloc(1, sizeof *instance);
    if (instance == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "instance");
    qd_status status;
    QD_TRY_GOTO(qd_instance_plan_make(options, &instance->plan, err, errlen), status, cleanup);
    instance->programs = calloc((size_t)options->dp, sizeof *instance->programs);
    instance->groups = calloc((size_t)options->dp, sizeof *instance->groups);
    if (instance->programs == NULL || instance->groups == NULL) {
        status = qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%d replicas", options->dp);
        goto cleanup;
    }
    QD_TRY_GOTO(load_model(options, instance, err, errlen), status, cleanup);
    for (int replica = 0; replica < options->dp; replica++)
        QD_TRY_GOTO(open_group(options, instance, replica, err, errlen), status, cleanup);
    QD_TRY_GOTO(open_engine(options, instance, err, errlen), status, cleanup);
    *out = instance;
    return QD_OK;

cleanup:
    if (status != QD_ERR_TIMEOUT) qd_instance_close(instance);
    return status;
}

qd_status qd_instance_end(qd_instance_t *instance, char *err, size_t errlen)
{
    qd_engine_close(instance->engine);
    instance->engine = NULL;
    for (int replica = 0; replica < instance->plan.dp && instance->groups != NULL; replica++)
        if (instance->groups[replica] != NULL) QD_TRY(qd_group_end(instance->groups[replica], err, errlen));
    return QD_OK;
}

void qd_instance_close(qd_instance_t *instance)
{
    if (instance == NULL) return;
    char unused[QD_ERR_LEN];
    if (qd_instance_end(instance, unused, sizeof unused) != QD_OK) return;
    for (int replica = 0; replica < instance->plan.dp; replica++) {
        if (instance->groups != NULL) qd_group_close(instance->groups[replica]);
        if (instance->programs != NULL && instance->programs[replica].user != NULL)
            qd_model_program_free(&instance->programs[replica]);
    }
    free(instance->groups);
    free(instance->programs);
    qd_model_free(instance->model);
    free(instance);
}

qd_engine_t *qd_instance_engine(qd_instance_t *instance)
{
    return instance->engine;
}

qd_group_t *qd_instance_group(qd_instance_t *instance, int replica)
{
    return instance->groups[replica];
}

const struct qd_instance_plan *qd_instance_get_plan(const qd_instance_t *instance)
{
    return &instance->plan;
}

const struct qd_model_config *qd_instance_config(const qd_instance_t *instance)
{
    return &instance->plan.config;
}

const char *qd_instance_note(const qd_instance_t *instance, int replica)
{
    return qd_group_note(instance->groups[replica]);
}

const char *qd_instance_collectives(const qd_instance_t *instance, int replica)
{
    return qd_group_collectives(instance->groups[replica]);
}

struct qd_load_stats qd_instance_load_stats(const qd_instance_t *instance)
{
    return qd_model_load_stats(instance->model);
}
