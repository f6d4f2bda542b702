#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/engine/instance.h"
#include "harness/engine/kv_pool.h"
#include "kernels/base/size.h"

enum {
    MIN_MODEL_LEN = 2, /* a prompt and an answer of one token each */
    MIN_PAGES = 2,     /* one of them is the null page */
    /* a page that is only imagined: links and users, entries of three steps' tables; hash and two buckets */
    LISTED_PAGE_BYTES = 24,
    LABELLED_PAGE_BYTES = LISTED_PAGE_BYTES + 32,
};

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
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "%s is a preset, not a folder: it needs --load-format dummy", o->model);
    return QD_OK;
}

/* What no plan can be made of, whatever the model. */
static qd_status check_options(const struct qd_instance_options *o, char *err, size_t errlen)
{
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"max_num_batched_tokens", o->max_num_batched_tokens},
                   {"max_num_seqs", o->max_num_seqs},
                   {"max_model_len", o->max_model_len},
                   {"n_kv_blocks", o->n_kv_blocks},
                   {"long_prefill_token_threshold", o->long_prefill_token_threshold}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value < 0 || numbers[i].value > INT32_MAX)
            return qd_fail(QD_ERR_INPUT, err, errlen, "%s %" PRId64 ": it is 1 to %d", numbers[i].name,
                           numbers[i].value, INT32_MAX);
    if (o->dp < 1 || o->dp > INT32_MAX / QD_MAX_TP)
        return qd_fail(QD_ERR_INPUT, err, errlen, "data parallel size %d: it is 1 to %d", o->dp,
                       INT32_MAX / QD_MAX_TP);
    if (!(o->memory_utilization > 0 && o->memory_utilization <= 1))
        return qd_fail(QD_ERR_INPUT, err, errlen, "memory utilization %g: it is above 0 and at most 1",
                       o->memory_utilization);
    return QD_OK;
}

static int64_t or_default(int64_t given, int64_t otherwise)
{
    return given > 0 ? given : otherwise;
}

/* vLLM's defaults by device memory, those of its API server (vllm/engine/arg_utils.py): what `vllm bench
 * serve` measures. An A100 of 80 GB is in the last tier there. */
static const struct {
    size_t least_bytes;
    int64_t budget, seqs;
} device_defaults[] = {
    {(size_t)160 << 30, 16384, 1024}, {(size_t)70 << 30, 8192, 1024}, {0, QD_DEFAULT_BUDGET, 256}};
enum { A100_80G_TIER = 1, N_DEVICE_DEFAULTS = sizeof device_defaults / sizeof device_defaults[0] };

/* The tier of a device's memory. */
static int memory_tier(const struct qd_device_memory *device)
{
    int tier = 0;
    while (device->total_bytes < device_defaults[tier].least_bytes) tier++;
    bool is_a100 = strstr(device->name, "A100") != NULL;
    return tier == A100_80G_TIER && is_a100 ? N_DEVICE_DEFAULTS - 1 : tier;
}

/* Budget and sequences, as in vLLM: an explicit contradiction is an error, a default gives way. The length is
 * that of the model or what was asked for; a small pool may shorten it later. */
static qd_status plan_limits(const struct qd_instance_options *o, struct qd_instance_plan *plan, int tier,
                             char *err, size_t errlen)
{
    bool by_memory = tier >= 0;
    int64_t budget =
        or_default(o->max_num_batched_tokens, by_memory ? device_defaults[tier].budget : QD_DEFAULT_BUDGET);
    int64_t seqs = or_default(o->max_num_seqs, by_memory ? device_defaults[tier].seqs : QD_DEFAULT_MAX_SEQS);
    if (o->max_num_seqs > budget)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "max_num_batched_tokens %" PRId64 " is smaller than max_num_seqs %" PRId64, budget,
                       seqs);
    plan->lowered_seqs = seqs > budget;
    if (plan->lowered_seqs) seqs = budget;
    int64_t rows = o->max_logit_rows > seqs ? o->max_logit_rows : seqs;
    plan->limits = (struct qd_step_limits){
        .max_tokens = (int32_t)budget, .max_seqs = (int32_t)seqs, .max_logit_rows = (int32_t)rows};

    int64_t model_len = or_default(o->max_model_len, plan->config.max_context);
    if (model_len > plan->config.max_context)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "max_model_len %" PRId64 " is more than the model's %" PRId64, model_len,
                       plan->config.max_context);
    if (model_len < MIN_MODEL_LEN)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "max_model_len %" PRId64 " holds no prompt with an answer: %d is the least", model_len,
                       MIN_MODEL_LEN);
    plan->max_model_len = (int32_t)model_len;
    return QD_OK;
}

static double gib(size_t bytes)
{
    return (double)bytes / 1073741824.0;
}

/* Bytes of `pages` pages that take page_bytes each in one memory; SIZE_MAX when they cannot be counted. */
static size_t pool_bytes(size_t page_bytes, int64_t pages)
{
    size_t bytes;
    return qd_size_mul(page_bytes, (size_t)pages, &bytes) ? bytes : SIZE_MAX;
}

/* Bytes of one page in the pools of all ranks that share a memory. */
static size_t page_bytes_of(const struct qd_instance_plan *plan)
{
    return plan->kv_block_bytes / (size_t)plan->tp * (size_t)plan->n_sharing;
}

size_t qd_instance_plan_needed(const struct qd_instance_plan *plan)
{
    const size_t terms[] = {plan->weight_bytes, plan->activation_bytes, plan->kv_bytes,
                            plan->graph_bytes,  plan->collective_bytes, plan->taken_bytes};
    size_t sum = 0;
    for (size_t i = 0; i < sizeof terms / sizeof terms[0]; i++)
        if (!qd_size_add(sum, terms[i], &sum)) return SIZE_MAX;
    return sum;
}

/* What a device takes beside what the program asks for, as more terms of the sum; "" elsewhere. */
static void describe_rest(const struct qd_instance_plan *plan, char *text, size_t len)
{
    text[0] = '\0';
    if (plan->ops->memory == NULL) return;
    snprintf(
        text, len,
        " + graphs %.3f GiB + collectives %.3f GiB + taken before %.3f GiB (CUDA's context, other processes)",
        gib(plan->graph_bytes), gib(plan->collective_bytes), gib(plan->taken_bytes));
}

/* The refusal: every term of the sum, and what it is held against. The plan keeps the terms. */
static qd_status does_not_fit(struct qd_instance_plan *plan, const char *what, size_t kv_bytes,
                              double utilization, char *err, size_t errlen)
{
    char rest[160], where[32] = "";
    plan->kv_bytes = kv_bytes;
    describe_rest(plan, rest, sizeof rest);
    if (plan->ops->memory != NULL) snprintf(where, sizeof where, "GPU %d: ", plan->gpu);
    return qd_fail(
        QD_ERR_DOES_NOT_FIT, err, errlen,
        "%s does not fit: weights %.3f GiB + activations %.3f GiB + KV pages %.3f GiB%s = %.3f GiB > "
        "%.3f GiB (%s%s %.3f GiB x utilization %.2f)",
        what, gib(plan->weight_bytes), gib(plan->activation_bytes), gib(kv_bytes), rest,
        gib(qd_instance_plan_needed(plan)), gib(plan->usable_bytes), where,
        qd_memory_source_name(plan->memory.source), gib(plan->memory.bytes), utilization);
}

struct qd_device_config qd_instance_device(const struct qd_instance_options *options,
                                           const struct qd_instance_plan *plan, int replica)
{
    return (struct qd_device_config){
        .replica = replica,
        .first_rank = replica * plan->tp,
        .n_ranks = plan->dp * plan->tp,
        .n_threads = options->n_threads,
        .cpu_isa = options->cpu_isa,
        .numerics = options->numerics,
        .shape = plan->shape,
        .limits = plan->limits,
        .max_model_len = plan->max_model_len,
        .enforce_eager = options->enforce_eager,
        .batch_invariant = options->batch_invariant,
        .device_timing = options->device_timing,
        .collectives = options->collectives,
        .ranks_per_gpu = options->ranks_per_gpu,
    };
}

/* The share of the memory that may be used; a machine that tells no limit has none. */
static size_t usable_of(size_t bytes, double utilization)
{
    double usable = (double)bytes * utilization;
    return usable < 0x1p63 ? (size_t)usable : bytes;
}

/* The fullest of the GPUs in use, and the tier of the smallest. As in vLLM the utilization is of all memory,
 * and what others have taken of it counts; --memory-limit is about what this process takes. */
static qd_status plan_device_memory(const struct qd_instance_options *o, struct qd_instance_plan *plan,
                                    int *tier, char *err, size_t errlen)
{
    int n_ranks = plan->tp * plan->dp, per_gpu = o->ranks_per_gpu > 1 ? o->ranks_per_gpu : 1;
    size_t least = SIZE_MAX;
    struct qd_device_config config = qd_instance_device(o, plan, 0);
    for (; config.first_rank < n_ranks; config.first_rank += per_gpu) {
        struct qd_device_memory device;
        QD_TRY(plan->ops->memory(&config, &device, err, errlen));
        size_t usable = usable_of(device.total_bytes, o->memory_utilization);
        size_t taken = device.total_bytes - device.free_bytes, rest = usable > taken ? usable - taken : 0;
        if (memory_tier(&device) > *tier) *tier = memory_tier(&device);
        if (config.first_rank > 0 && rest >= least) continue;
        least = rest;
        plan->gpu = config.first_rank / per_gpu;
        plan->taken_bytes = taken;
        plan->memory = (struct qd_memory_limit){device.total_bytes, QD_MEMORY_DEVICE};
    }
    if (o->memory_limit > 0 && usable_of(o->memory_limit, o->memory_utilization) < least) {
        plan->taken_bytes = 0;
        plan->memory = (struct qd_memory_limit){o->memory_limit, QD_MEMORY_OPTION};
    }
    plan->n_sharing = n_ranks < per_gpu ? n_ranks : per_gpu;
    return QD_OK;
}

void qd_instance_plan_describe_use(const struct qd_instance_options *options,
                                   const struct qd_instance_plan *plan, char *text, size_t len)
{
    struct qd_device_memory device;
    struct qd_device_config config = qd_instance_device(options, plan, 0);
    int per_gpu = options->ranks_per_gpu > 1 ? options->ranks_per_gpu : 1;
    config.first_rank = plan->gpu * per_gpu;
    text[0] = '\0';
    if (plan->ops->memory == NULL || plan->memory.source != QD_MEMORY_DEVICE) return;
    qd_status st = plan->ops->memory(&config, &device, text, len);
    if (st != QD_OK) return; /* the text says why */
    size_t used = device.total_bytes - device.free_bytes, needed = qd_instance_plan_needed(plan);
    size_t rest = plan->graph_bytes + plan->collective_bytes;
    snprintf(text, len,
             "GPU %d: %.3f GiB in use, %.3f planned; of it beside weights, activations, KV pages and what was "
             "taken before %.3f, planned %.3f (graphs %.3f, collectives %.3f)",
             plan->gpu, gib(used), gib(needed), gib(used) - gib(needed - rest), gib(rest),
             gib(plan->graph_bytes), gib(plan->collective_bytes));
}

/* The memory that ranks share: the host's, or a GPU's. *tier: of its defaults, or -1. */
static qd_status plan_memory(const struct qd_instance_options *o, struct qd_instance_plan *plan, int *tier,
                             char *err, size_t errlen)
{
    *tier = -1;
    plan->n_sharing = plan->tp * plan->dp;
    plan->memory = qd_memory_available(o->memory_limit);
    if (plan->ops->memory != NULL) QD_TRY(plan_device_memory(o, plan, tier, err, errlen));
    plan->usable_bytes = usable_of(plan->memory.bytes, o->memory_utilization);
    return QD_OK;
}

/* Allowances for what a device takes beside what it is asked for. */
static void plan_reserve(const struct qd_instance_options *o, struct qd_instance_plan *plan)
{
    if (plan->ops->memory == NULL) return;
    struct qd_device_config device = qd_instance_device(o, plan, 0);
    struct qd_device_reserve reserve;
    plan->ops->reserve(&device, plan->tp, &reserve);
    plan->graph_bytes = reserve.graph_bytes * (size_t)plan->n_sharing;
    plan->collective_bytes = reserve.collective_bytes * (size_t)plan->n_sharing;
}

/* What the devices of the ranks that share a memory take for themselves: ranks may have unequal numbers of
 * threads. */
static qd_status plan_working(const struct qd_instance_options *o, struct qd_instance_plan *plan, char *err,
                              size_t errlen)
{
    struct qd_device_config device = qd_instance_device(o, plan, 0);
    for (; device.first_rank < plan->n_sharing; device.first_rank++) {
        size_t bytes;
        QD_TRY(qd_device_working_bytes(plan->ops, &device, &bytes, err, errlen));
        if (!qd_size_add(plan->working_bytes, bytes, &plan->working_bytes))
            return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: sizes overflow", plan->config.name);
    }
    return QD_OK;
}

/* Weights of the ranks that share a memory: one copy of all on the host, or a store for each rank of a
 * replica with a rank there. */
static bool count_weights(const struct qd_instance_plan *plan, size_t *out)
{
    if (!qd_device_has_copies(plan->ops))
        return qd_size_mul(plan->need.weight_bytes, (size_t)plan->tp, out) &&
               qd_size_add(*out, plan->need.embedding_bytes, out);
    int n_stores = plan->tp * plan->dp; /* emulated GPUs are all in the host's memory */
    if (plan->ops->memory != NULL) n_stores = plan->n_sharing < plan->tp ? plan->n_sharing : plan->tp;
    size_t of_rank;
    return qd_size_add(plan->need.weight_bytes, plan->need.embedding_bytes, &of_rank) &&
           qd_size_mul(of_rank, (size_t)n_stores, out);
}

/* Bytes of the fixed parts; pages are what is left. */
static qd_status plan_fixed(const struct qd_instance_options *o, struct qd_instance_plan *plan, char *err,
                            size_t errlen)
{
    QD_TRY(qd_memory_need(&plan->config, plan->tp, plan->ops, &plan->limits, &plan->need, err, errlen));
    if (plan->ops->executes) QD_TRY(plan_working(o, plan, err, errlen));
    size_t activations, page, pages, fixed;
    size_t logits = o->max_logit_rows > 0 ? plan->need.logit_bytes : 0;
    if (!count_weights(plan, &plan->weight_bytes) ||
        !qd_size_add(plan->need.activation_bytes, logits, &activations) ||
        !qd_size_mul(activations, (size_t)plan->n_sharing, &activations) ||
        !qd_size_add(activations, plan->working_bytes, &plan->activation_bytes) ||
        !qd_size_mul(plan->need.kv_bytes_per_token, (size_t)QD_KV_BLOCK_SIZE, &page) ||
        !qd_size_mul(page, (size_t)plan->tp, &plan->kv_block_bytes) ||
        !qd_size_mul(page, (size_t)plan->n_sharing, &pages) ||
        !qd_size_add(plan->weight_bytes, plan->activation_bytes, &fixed))
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: sizes overflow", plan->config.name);
    plan_reserve(o, plan);
    if (qd_instance_plan_needed(plan) > plan->usable_bytes)
        return does_not_fit(plan, plan->config.name, 0, o->memory_utilization, err, errlen);
    return QD_OK;
}

/* Pages of one sequence of `len` tokens, and the null page. */
static int64_t pages_for(int64_t len)
{
    return qd_div_up(len, QD_KV_BLOCK_SIZE) + 1;
}

/* Entries of all block tables of a step together. Without prefix caching no page is shared, so they name at
 * most all of them. */
static int32_t table_entries(const struct qd_instance_options *o, const struct qd_instance_plan *plan,
                             int32_t n_kv_blocks)
{
    int64_t tables = (pages_for(plan->max_model_len) - 1) * plan->limits.max_seqs;
    int64_t most = o->prefix_caching ? INT32_MAX : n_kv_blocks;
    return (int32_t)(tables < most ? tables : most);
}

/* Pages per replica that were asked for; 0: none were. */
static qd_status pages_asked(const struct qd_instance_options *o, const struct qd_instance_plan *plan,
                             int64_t *out, char *err, size_t errlen)
{
    bool given = o->n_kv_blocks > 0 || o->kv_cache_bytes > 0;
    size_t page_of_rank = plan->kv_block_bytes / (size_t)plan->tp, pages = (size_t)o->n_kv_blocks;
    if (o->kv_cache_bytes > 0) pages = o->kv_cache_bytes / page_of_rank;
    if (given && pages < MIN_PAGES)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "a pool of %zu KV pages of %zu bytes: %d are the least, the first is never used",
                       pages, page_of_rank, MIN_PAGES);
    *out = pages < INT32_MAX ? (int64_t)pages : INT32_MAX;
    return QD_OK;
}

/* The pages where no number was asked for: what max_num_seqs sequences of the full length could use, cut to
 * what fits. */
static qd_status choose_pages(const struct qd_instance_options *o, struct qd_instance_plan *plan, int64_t fit,
                              size_t page_bytes, int64_t *out, char *err, size_t errlen)
{
    int64_t one = pages_for(plan->max_model_len), useful = 1 + (one - 1) * plan->limits.max_seqs;
    int64_t least = o->max_model_len > 0 ? one : MIN_PAGES;
    if (fit < least)
        return does_not_fit(plan, o->max_model_len > 0 ? "one sequence of max_model_len" : "one KV page",
                            pool_bytes(page_bytes, least), o->memory_utilization, err, errlen);
    plan->shrunk_pool = fit < useful;
    *out = plan->shrunk_pool ? fit : useful;
    return QD_OK;
}

static qd_status plan_pool(const struct qd_instance_options *o, struct qd_instance_plan *plan, char *err,
                           size_t errlen)
{
    size_t listed = o->prefix_caching ? LABELLED_PAGE_BYTES : LISTED_PAGE_BYTES;
    size_t page_bytes = plan->ops->executes ? page_bytes_of(plan) : listed * (size_t)plan->dp;
    size_t rest = plan->usable_bytes - qd_instance_plan_needed(plan);
    size_t fitting = rest / page_bytes;
    int64_t fit = fitting < INT32_MAX ? (int64_t)fitting : INT32_MAX, pages = 0;
    QD_TRY(pages_asked(o, plan, &pages, err, errlen));
    if (pages == 0)
        QD_TRY(choose_pages(o, plan, fit, page_bytes, &pages, err, errlen));
    else if (pages > fit)
        return does_not_fit(plan, "the KV pool", pool_bytes(page_bytes, pages), o->memory_utilization, err,
                            errlen);
    plan->shrunk_model_len = pages < pages_for(plan->max_model_len);
    if (plan->shrunk_model_len && o->max_model_len > 0)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "max_model_len %" PRId64 " needs %" PRId64 " KV pages, the pool has %" PRId64,
                       o->max_model_len, pages_for(plan->max_model_len), pages);
    if (plan->shrunk_model_len) plan->max_model_len = (int32_t)((pages - 1) * QD_KV_BLOCK_SIZE);
    plan->n_kv_blocks = (int32_t)pages;
    plan->kv_bytes = pool_bytes(page_bytes_of(plan), pages);
    return QD_OK;
}

qd_status qd_instance_plan_check(const struct qd_instance_options *options, struct qd_instance_plan *out,
                                 char *err, size_t errlen)
{
    *out = (struct qd_instance_plan){.tp = options->tp, .dp = options->dp, .n_threads = options->n_threads};
    out->ops = options->ops;
    if (out->ops == NULL) QD_TRY(qd_device_get(options->device, &out->ops, err, errlen));
    QD_TRY(check_options(options, err, errlen));
    QD_TRY(read_config(options, out->ops, &out->config, err, errlen));
    struct qd_shard shard;
    QD_TRY(qd_shard_make(&out->config, options->tp, 0, &shard, err, errlen));
    out->shape = qd_shard_shape(&out->config, &shard);
    char why[QD_ERR_LEN] = "";
    if (!out->ops->supports(&out->shape, options->tp, options->numerics, why, sizeof why))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s on %s: %s", out->config.name, out->ops->name,
                       why);
    return QD_OK;
}

qd_status qd_instance_plan_make(const struct qd_instance_options *options, struct qd_instance_plan *out,
                                char *err, size_t errlen)
{
    int tier;
    QD_TRY(qd_instance_plan_check(options, out, err, errlen));
    QD_TRY(plan_memory(options, out, &tier, err, errlen));
    QD_TRY(plan_limits(options, out, tier, err, errlen));
    out->limits.max_blocks = table_entries(options, out, INT32_MAX);
    QD_TRY(plan_fixed(options, out, err, errlen));
    QD_TRY(plan_pool(options, out, err, errlen));
    out->limits.max_blocks = table_entries(options, out, out->n_kv_blocks);
    return QD_OK;
}
