#include "harness/cli/options_rules.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "harness/result/result.h"
#include "harness/result/variant.h"

/* Options that say something of one data set only. */
static const struct {
    const char *option, *dataset;
} dataset_options[] = {
    {"random-input-len", "random"}, {"random-prefix-len", "random"}, {"random-range-ratio", "random"},
    {"trace-columns", "trace"},     {"trace-speedup", "trace"},
};

static qd_status check_dataset(const struct qd_options *o, char *err, size_t errlen)
{
    bool is_random = strcmp(o->dataset_name, "random") == 0;
    if (!is_random && o->dataset_path == NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--dataset-name %s needs --dataset-path", o->dataset_name);
    if (is_random && o->dataset_path != NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--dataset-path is of other data sets than random");
    for (size_t i = 0; i < sizeof dataset_options / sizeof dataset_options[0]; i++) {
        const char *option = dataset_options[i].option, *dataset = dataset_options[i].dataset;
        if (qd_options_given(o, option) && strcmp(o->dataset_name, dataset) != 0)
            return qd_fail(QD_ERR_INPUT, err, errlen, "--%s is of --dataset-name %s", option, dataset);
    }
    return QD_OK;
}

/* Whether requests arrive at a rate: in a sweep's list, whatever stands there. */
static bool is_rate_given(const struct qd_options *o)
{
    for (int i = 0; i < o->n_given; i++)
        if (strcmp(o->given[i].name, "request-rate") == 0)
            return o->given[i].is_list || !isinf(o->request_rate);
    return false;
}

/* Asks which options were given, not what they hold: a sweep's lists hold nothing yet. */
static qd_status check_arrivals(const struct qd_options *o, char *err, size_t errlen)
{
    bool has_rate = is_rate_given(o), ramps = o->ramp_up_strategy != NULL;
    bool has_start = qd_options_given(o, "ramp-up-start-rps");
    bool has_end = qd_options_given(o, "ramp-up-end-rps");
    bool has_waves = qd_options_given(o, "wave-size");
    if (ramps && (has_rate || !has_start || !has_end))
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps, and no "
                       "--request-rate");
    if (!ramps && (has_start || has_end))
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--ramp-up-start-rps and --ramp-up-end-rps need --ramp-up-strategy");
    if (qd_options_given(o, "burstiness") && !has_rate && !ramps)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--burstiness needs --request-rate");
    if (has_waves && (has_rate || ramps || qd_options_given(o, "max-concurrency")))
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--wave-size excludes --request-rate and --max-concurrency");
    if (qd_options_given(o, "client-delay-ms") && !has_waves)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--client-delay-ms needs --wave-size");
    return QD_OK;
}

static qd_status check_goodput(const struct qd_options *o, char *err, size_t errlen)
{
    struct qd_slo slo;
    char reason[QD_ERR_LEN];
    qd_status status = qd_slo_parse(o->goodput.texts, o->goodput.n, &slo, reason, sizeof reason);
    return status == QD_OK ? QD_OK : qd_fail(status, err, errlen, "--goodput: %s", reason);
}

static qd_status check_device(const struct qd_options *o, char *err, size_t errlen)
{
    bool is_nccl = strcmp(o->collectives, "nccl") == 0;
    bool has_gpus = strcmp(o->device, "cuda") == 0 || strcmp(o->device, "emu") == 0;
    if (strcmp(o->collectives, "auto") != 0 && !has_gpus)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--collectives %s is of --device cuda and emu",
                       o->collectives);
    if (is_nccl && o->batch_invariant)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--collectives nccl and --batch-invariant exclude each other: NCCL's sums depend on "
                       "sizes");
    if (is_nccl && o->ranks_per_gpu > 1)
        return qd_fail(
            QD_ERR_INPUT, err, errlen,
            "--collectives nccl and --ranks-per-gpu exclude each other: NCCL takes one rank a GPU");
    if (o->ranks_per_gpu > 1 && !has_gpus)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--ranks-per-gpu is of --device cuda and emu");
    if (o->probe && strcmp(o->device, "cpu") != 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--probe is of --device cpu");
    return QD_OK;
}

bool qd_options_are_virtual(const struct qd_options *o)
{
    return qd_options_given(o, "null-step-us") || qd_options_given(o, "null-steps");
}

/* What a recorded run did not warm up, and what only real time has. */
static qd_status check_virtual_time(const struct qd_options *o, char *err, size_t errlen)
{
    bool is_coupled = strcmp(o->dp_coupling, "none") != 0;
    if (is_coupled && !qd_options_are_virtual(o))
        return qd_fail(
            QD_ERR_INPUT, err, errlen,
            "--dp-coupling %s is of --device null in virtual time (--null-step-us or --null-steps)",
            o->dp_coupling);
    if (is_coupled && o->async_scheduling)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--dp-coupling %s excludes --async-scheduling",
                       o->dp_coupling);
    if (!qd_options_are_virtual(o)) return QD_OK;
    const char *name = o->null_steps != NULL ? "null-steps" : "null-step-us";
    if (strcmp(o->device, "null") != 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--%s is of --device null", name);
    if (o->null_steps != NULL && qd_options_given(o, "null-step-us"))
        return qd_fail(QD_ERR_INPUT, err, errlen, "--null-step-us and --null-steps exclude each other");
    if (o->null_steps != NULL && o->num_warmups > 0)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--null-steps excludes --num-warmups: the file has the steps of the run alone");
    if (o->trace != NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--trace excludes --%s: its lanes are of real time", name);
    return QD_OK;
}

qd_status qd_options_check(const struct qd_command *command, const struct qd_options *o, char *err,
                           size_t errlen)
{
    if ((command->groups & (QD_GROUP_MODEL | QD_GROUP_TOKENIZE)) != 0 && o->model == NULL &&
        (command->groups & QD_GROUP_DOCTOR) == 0)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--model is missing");
    if (o->tp != 1 && o->tp != 2 && o->tp != 4 && o->tp != 8)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--tensor-parallel-size: %" PRId64 " is none of 1, 2, 4, 8",
                       o->tp);
    if (o->budget > 0 && o->max_num_seqs > o->budget)
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--max-num-batched-tokens %" PRId64 " is smaller than --max-num-seqs %" PRId64,
                       o->budget, o->max_num_seqs);
    if (qd_options_given(o, "num-gpu-blocks-override") && qd_options_given(o, "kv-cache-memory-bytes"))
        return qd_fail(QD_ERR_INPUT, err, errlen,
                       "--num-gpu-blocks-override and --kv-cache-memory-bytes both size the KV pool");
    QD_TRY(check_dataset(o, err, errlen));
    QD_TRY(check_arrivals(o, err, errlen));
    QD_TRY(check_goodput(o, err, errlen));
    QD_TRY(check_device(o, err, errlen));
    QD_TRY(check_virtual_time(o, err, errlen));
    if (o->variant != NULL) QD_TRY(qd_variant_check("--variant", o->variant, err, errlen));
    if (o->print_vllm && o->result_dir == NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--print-vllm needs --result-dir");
    if (o->resume && o->experiment == NULL)
        return qd_fail(QD_ERR_INPUT, err, errlen, "--resume needs --experiment");
    return QD_OK;
}
