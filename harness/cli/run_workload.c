#include "harness/cli/run_workload.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/result/files.h"

enum {
    DEFAULT_RANDOM_PROMPTS = 16,
    DEFAULT_INPUT_LEN = 1024,
    DEFAULT_OUTPUT_LEN = 128,
    DEFAULT_CUSTOM_OUTPUT_LEN = 256
};

/* Added to the seed of warm-up ids; any constant that users do not pick by accident. */
static const uint64_t WARMUP_SEED = UINT64_C(0x77a4b0d1e5c39f26);

static bool is_dataset(const struct qd_options *options, const char *name)
{
    return strcmp(options->dataset_name, name) == 0;
}

bool qd_run_workload_needs_tokenizer(const struct qd_options *options)
{
    if (!is_dataset(options, "random") && !is_dataset(options, "trace")) return true;
    char *path = qd_path_join(options->model, "tokenizer.json");
    bool here = path != NULL && access(path, R_OK) == 0;
    free(path);
    return here;
}

/* The base vocabulary without special ids, as vLLM's random data set; *ids is freed by the caller. */
static qd_status allowed_ids(const struct qd_model_config *config, const qd_tokenizer_t *tokenizer,
                             int32_t **ids, int32_t *n, char *err, size_t errlen)
{
    int32_t size = qd_tokenizer_base_size(tokenizer);
    if (size > config->vocab_size) size = (int32_t)config->vocab_size;
    *ids = malloc((size_t)size * sizeof **ids);
    if (*ids == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "vocabulary of random prompts");
    *n = 0;
    for (int32_t id = 0; id < size; id++)
        if (!qd_tokenizer_is_special(tokenizer, id)) (*ids)[(*n)++] = id;
    return QD_OK;
}

static qd_status build_random(const struct qd_options *options, struct qd_id_set ids, struct qd_workload *out,
                              char *err, size_t errlen)
{
    struct qd_random_spec spec = {
        .n = options->num_prompts > 0 ? options->num_prompts : DEFAULT_RANDOM_PROMPTS,
        .input_len = options->input_len > 0 ? options->input_len : DEFAULT_INPUT_LEN,
        .output_len = options->output_len > 0 ? options->output_len : DEFAULT_OUTPUT_LEN,
        .prefix_len = options->random_prefix_len,
        .range_ratio = options->random_range_ratio,
        .seed = (uint64_t)options->seed,
        .ids = ids,
    };
    return qd_workload_random(&spec, out, err, errlen);
}

static qd_status build_trace(const struct qd_options *options, struct qd_id_set ids, struct qd_workload *out,
                             char *err, size_t errlen)
{
    struct qd_trace_spec spec = {
        .path = options->dataset_path,
        .columns = options->trace_columns,
        .n = options->num_prompts,
        .output_len = options->output_len,
        .speedup = options->trace_speedup,
        .seed = (uint64_t)options->seed,
        .ids = ids,
    };
    return qd_workload_trace(&spec, out, err, errlen);
}

/* Prompts of ids that are made up. */
static qd_status build_ids(const struct qd_options *options, const struct qd_model_config *config,
                           const qd_tokenizer_t *tokenizer, struct qd_workload *out, char *err, size_t errlen)
{
    int32_t *allowed = NULL, n = (int32_t)config->vocab_size;
    if (tokenizer != NULL) QD_TRY(allowed_ids(config, tokenizer, &allowed, &n, err, errlen));
    struct qd_id_set ids = {.allowed = allowed, .n = n};
    qd_status status = is_dataset(options, "trace") ? build_trace(options, ids, out, err, errlen)
                                                    : build_random(options, ids, out, err, errlen);
    free(allowed);
    return status;
}

static qd_status build_prompts(const struct qd_options *options, const qd_tokenizer_t *tokenizer,
                               struct qd_workload *out, char *err, size_t errlen)
{
    struct qd_prompts_spec spec = {
        .path = options->dataset_path,
        .n = options->num_prompts,
        .output_len = options->output_len > 0 ? options->output_len : DEFAULT_CUSTOM_OUTPUT_LEN,
        .ignore_eos = options->ignore_eos,
        .tokenizer = tokenizer,
    };
    return qd_workload_prompts(&spec, out, err, errlen);
}

static qd_status build_sharegpt(const struct qd_options *options, const qd_tokenizer_t *tokenizer,
                                struct qd_workload *out, char *err, size_t errlen)
{
    struct qd_sharegpt_spec spec = {
        .path = options->dataset_path,
        .n = options->num_prompts,
        .output_len = options->output_len,
        .ignore_eos = options->ignore_eos,
        .seed = (uint64_t)options->seed,
        .tokenizer = tokenizer,
    };
    return qd_workload_sharegpt(&spec, out, err, errlen);
}

static qd_status build_custom(const struct qd_options *options, const qd_tokenizer_t *tokenizer,
                              struct qd_workload *out, char *err, size_t errlen)
{
    struct qd_custom_spec spec = {
        .path = options->dataset_path,
        .n = options->num_prompts,
        .output_len = options->output_len,
        .default_output_len = DEFAULT_CUSTOM_OUTPUT_LEN,
        .ignore_eos = options->ignore_eos,
        .tokenizer = tokenizer,
    };
    return qd_workload_custom(&spec, out, err, errlen);
}

static bool has_arrival_process(const struct qd_options *options)
{
    return !isinf(options->request_rate) || options->ramp_up_strategy != NULL;
}

static qd_status set_arrivals(const struct qd_options *options, struct qd_workload *workload, char *err,
                              size_t errlen)
{
    const char *ramp = options->ramp_up_strategy;
    struct qd_arrivals_spec spec = {
        .rate = options->request_rate,
        .burstiness = options->burstiness,
        .ramp = ramp == NULL                  ? QD_RAMP_NONE
                : strcmp(ramp, "linear") == 0 ? QD_RAMP_LINEAR
                                              : QD_RAMP_EXPONENTIAL,
        .start_rate = options->ramp_up_start_rps,
        .end_rate = options->ramp_up_end_rps,
        .seed = (uint64_t)options->seed,
    };
    return qd_workload_set_arrivals(&spec, workload, err, errlen);
}

qd_status qd_run_workload_build(const struct qd_options *options, const struct qd_model_config *config,
                                const qd_tokenizer_t *tokenizer, struct qd_workload *out, char *err,
                                size_t errlen)
{
    qd_status status;
    if (is_dataset(options, "custom"))
        status = build_custom(options, tokenizer, out, err, errlen);
    else if (is_dataset(options, "prompts"))
        status = build_prompts(options, tokenizer, out, err, errlen);
    else if (is_dataset(options, "sharegpt"))
        status = build_sharegpt(options, tokenizer, out, err, errlen);
    else
        status = build_ids(options, config, tokenizer, out, err, errlen);
    if (status != QD_OK || !has_arrival_process(options)) return status;
    status = set_arrivals(options, out, err, errlen);
    if (status != QD_OK) qd_workload_free(out);
    return status;
}

struct qd_run_pacing qd_run_workload_pacing(const struct qd_options *options,
                                            const struct qd_workload *workload)
{
    if (options->wave_size > 0) return (struct qd_run_pacing){"waves", QD_PACING_WAVES};
    if (options->ramp_up_strategy != NULL) return (struct qd_run_pacing){"ramp", QD_PACING_OPEN};
    if (has_arrival_process(options)) {
        const char *kind = isinf(options->burstiness) ? "constant"
                           : options->burstiness == 1 ? "poisson"
                                                      : "gamma";
        return (struct qd_run_pacing){kind, QD_PACING_OPEN};
    }
    if (workload->has_arrivals) return (struct qd_run_pacing){"trace", QD_PACING_OPEN};
    if (options->max_concurrency > 0) return (struct qd_run_pacing){"closed", QD_PACING_CLOSED};
    return (struct qd_run_pacing){"burst", QD_PACING_BURST};
}

qd_status qd_run_workload_warmup(const struct qd_options *options, const struct qd_model_config *config,
                                 const struct qd_workload *run, struct qd_workload *out, char *err,
                                 size_t errlen)
{
    int64_t input_len = 1, output_len = 1;
    size_t n = (size_t)options->num_warmups;
    for (size_t i = 0; i < n && i < run->n; i++) {
        if (run->requests[i].n_prompt > input_len) input_len = run->requests[i].n_prompt;
        if (run->requests[i].max_tokens > output_len) output_len = run->requests[i].max_tokens;
    }
    struct qd_random_spec spec = {
        .n = options->num_warmups,
        .input_len = input_len,
        .output_len = output_len,
        .seed = (uint64_t)options->seed ^ WARMUP_SEED,
        .ids = {.n = (int32_t)config->vocab_size},
    };
    return qd_workload_random(&spec, out, err, errlen);
}
