#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/engine/instance.h"
#include "harness/engine/kv_pool.h"
#include "kernels/base/size.h"

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* A folder is read; a preset's name will do where no weights are read. */
static qd_status read_config(const struct qd_instance_options *o, const struct qd_device_ops *ops,
                             struct qd_model_config *out, char *err, size_t errlen)
{
    if (is_folder(o->model)) return qd_model_config_read(o->model, out, err, errlen);
    char reason[QD_ERR_LEN];
    qd_status status = qd_model_config_preset(o->model, out, reason, sizeof reason);
    if (status != QD_OK)
        return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "%s is no folder, and %s", o->model, reason);
    if (ops->executes && o->load_format != QD_LOAD_DUMMY)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%s is a preset, not a folder: it needs --load-format dummy",
                       o->model);
    return QD_OK;
}

static int64_t or_default(int64_t given, int64_t otherwise)
{
    return given > 0 ? given : otherwise;
}

/* Budget and sequences, as in vLLM: an explicit contradiction is an error, a default gives way. */
static qd_status plan_limits(const struct qd_instance_options *o, struct qd_instance_plan *plan, char *err,
                             size_t errlen)
{
    int64_t budget = or_default(o->max_num_batched_tokens, QD_DEFAULT_BUDGET);
    int64_t seqs = or_default(o->max_num_seqs, QD_DEFAULT_MAX_SEQS);
    if (o->max_num_seqs > budget)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "max_num_batched_tokens %" PRId64 " is smaller than max_num_seqs %" PRId64, budget, seqs);
    plan->lowered_seqs = seqs > budget;
    if (plan->lowered_seqs) seqs = budget;
    int64_t rows = o->max_logit_rows > seqs ? o->max_logit_rows : seqs;
    plan->limits = (struct qd_step_limits){
        .max_tokens = (int32_t)budget, .max_seqs = (int32_t)seqs, .max_logit_rows = (int32_t)rows};
    return QD_OK;
}

static double gib(size_t bytes)
{
    return (double)bytes / 1073741824.0;
}

/* The refusal: every term of the sum, and what it is held against. The plan keeps the terms. */
static qd_status does_not_fit(struct qd_instance_plan *plan, const char *what, size_t kv_bytes,
                              double utilization, char *err, size_t errlen)
{
    plan->kv_bytes = kv_bytes;
    size_t needed = plan->weight_bytes + plan->activation_bytes + kv_bytes;
    return qd_fail(QD_ERR_DOES_NOT_FIT, err, errlen,
                   "%s does not fit: weights %.3f GiB + activations %.3f GiB + KV pages %.3f GiB = %.3f GiB > "
                   "%.3f GiB (%s %.3f GiB x utilization %.2f)",
                   what, gib(plan->weight_bytes), gib(plan->activation_bytes), gib(kv_bytes), gib(needed),
                   gib(plan->usable_bytes), qd_memory_source_name(plan->memory.source), gib(plan->memory.bytes),
                   utilization);
}

/* Bytes of the fixed parts; pages are what is left. */
static qd_status plan_fixed(const struct qd_instance_options *o, struct qd_instance_plan *plan, char *err,
                            size_t errlen)
{
    QD_TRY(qd_memory_need(&plan->config, plan->tp, plan->ops, &plan->limits, &plan->need, err, errlen));
    size_t ranks = (size_t)plan->tp * (size_t)plan->dp, weights, page;
    if (!qd_size_mul(plan->need.weight_bytes, (size_t)plan->tp, &weights) ||
        !qd_size_add(weights, plan->need.embedding_bytes, &plan->weight_bytes) ||
        !qd_size_mul(plan->need.activation_bytes, ranks, &plan->activation_bytes) ||
        !qd_size_mul(plan->need.kv_bytes_per_token, (size_t)QD_KV_BLOCK_SIZE, &page) ||
        !qd_size_mul(page, (size_t)plan->tp, &plan->kv_block_bytes))
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: sizes overflow", plan->config.name);
    plan->memory = qd_memory_available(o->memory_limit);
    plan->usable_bytes = (size_t)((double)plan->memory.bytes * o->memory_utilization);
    if (!plan->ops->executes) return QD_OK;
    if (plan->weight_bytes + plan->activation_bytes > plan->usable_bytes)
        return does_not_fit(plan, plan->config.name, 0, o->memory_utilization, err, errlen);
    return QD_OK;
}

/* Pages of one sequence of `len` tokens, and the null page. */
static int64_t pages_for(int64_t len)
{
    return qd_div_up(len, QD_KV_BLOCK_SIZE) + 1;
}

/* Pages per replica that the rest of the memory holds; INT32_MAX where pages are only imagined. */
static int64_t pages_that_fit(const struct qd_instance_plan *plan)
{
    if (!plan->ops->executes) return INT32_MAX;
    size_t rest = plan->usable_bytes - plan->weight_bytes - plan->activation_bytes;
    size_t pages = rest / ((size_t)plan->dp * plan->kv_block_bytes);
    return pages < INT32_MAX ? (int64_t)pages : INT32_MAX;
}

/* The pool: what was asked for, or what max_num_seqs sequences of max_model_len could use, cut to what fits. */
static qd_status plan_pool(const struct qd_instance_options *o, struct qd_instance_plan *plan, char *err,
                           size_t errlen)
{
    int64_t fit = pages_that_fit(plan);
    int64_t model_len = or_default(o->max_model_len, plan->config.max_context);
    if (model_len > plan->config.max_context)
        return qd_fail(QD_ERR_INPUT, err, errlen, "max_model_len %" PRId64 " is more than the model's %" PRId64,
                       model_len, plan->config.max_context);
    int64_t asked = o->n_kv_blocks;
    if (o->kv_cache_bytes > 0)
        asked = (int64_t)(o->kv_cache_bytes / (plan->kv_block_bytes / (size_t)plan->tp));
    int64_t pages = asked;
    if (asked == 0) {
        int64_t useful = pages_for(0) + (pages_for(model_len) - 1) * plan->limits.max_seqs;
        pages = useful < fit ? useful : fit;
        plan->shrunk_pool = pages < useful;
    }
    if (pages > fit || (o->max_model_len > 0 && pages < pages_for(model_len) && asked == 0)) {
        int64_t needed = asked > 0 ? asked : pages_for(model_len);
        return does_not_fit(plan, asked > 0 ? "the KV pool" : "one sequence of max_model_len",
                            (size_t)needed * plan->kv_block_bytes * (size_t)plan->dp, o->memory_utilization, err,
                            errlen);
    }
    if (pages < pages_for(model_len)) {
        if (o->max_model_len > 0)
            return qd_fail(QD_ERR_INPUT, err, errlen,
                           "max_model_len %" PRId64 " needs %" PRId64 " KV pages, the pool has %" PRId64, model_len,
                           pages_for(model_len), pages);
        model_len = (pages - 1) * QD_KV_BLOCK_SIZE;
        plan->shrunk_model_len = true;
    }
    if (model_len < 2)
        return qd_fail(QD_ERR_INPUT, err, errlen, "%" PRId64 " KV pages hold no sequence", pages);
    plan->max_model_len = (int32_t)model_len;
    plan->n_kv_blocks = (int32_t)pages;
    plan->kv_bytes = (size_t)pages * plan->kv_block_bytes * (size_t)plan->dp;
    return QD_OK;
}

qd_status qd_instance_plan_make(const struct qd_instance_options *options, struct qd_instance_plan *out,
                                char *err, size_t errlen)
{
    *out = (struct qd_instance_plan){.ops = qd_device_find(options->device),
                                     .tp = options->tp,
                                     .dp = options->dp,
                                     .n_threads = options->n_threads};
    if (out->ops == NULL)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "this build has no device \"%s\"", options->device);
    QD_TRY(read_config(options, out->ops, &out->config, err, errlen));
    struct qd_shard shard;
    QD_TRY(qd_shard_make(&out->config, options->tp, 0, &shard, err, errlen));
    struct qd_model_shape shape = qd_shard_shape(&out->config, &shard);
    char why[QD_ERR_LEN] = "";
    if (!out->ops->supports(&shape, options->tp, options->numerics, why, sizeof why))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s on %s: %s", out->config.name, out->ops->name, why);
    QD_TRY(plan_limits(options, out, err, errlen));
    QD_TRY(plan_fixed(options, out, err, errlen));
    QD_TRY(plan_pool(options, out, err, errlen));
    /* Pages are never shared, so a step's tables together name at most all of them. */
    int64_t tables = (pages_for(out->max_model_len) - 1) * out->limits.max_seqs;
    out->limits.max_blocks = (int32_t)(tables < out->n_kv_blocks ? tables : out->n_kv_blocks);
    return QD_OK;
}
