/* qdyno doctor: what is here, whether the device that is asked for can be used, what to fix first if not; and
 * whether a model fits at a tensor-parallel size, with the arithmetic. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/cli/doctor_print.h"
#include "harness/cli/session.h"
#include "harness/result/files.h"

static double gib(size_t bytes)
{
    return (double)bytes / 1073741824.0;
}

/* What one rank takes; known whether or not it fits. */
static void print_need(const struct qd_instance_plan *plan)
{
    printf("model      %s: %" PRId32 " layers, hidden %" PRId64 ", %" PRId32 " heads, %" PRId32
           " KV heads, head_dim %" PRId32 ", ffn %" PRId64 ", vocabulary %" PRId64 "%s\n",
           plan->config.name, plan->config.n_layers, plan->config.hidden_dim, plan->config.n_heads,
           plan->config.n_kv_heads, plan->config.head_dim, plan->config.ffn_dim, plan->config.vocab_size,
           plan->config.tie_word_embeddings ? ", tied" : "");
    printf("per rank   weights %zu B (%.3f GiB), KV %zu B a token, activations %zu B at budget %" PRId32 "\n",
           plan->need.weight_bytes, gib(plan->need.weight_bytes), plan->need.kv_bytes_per_token,
           plan->need.activation_bytes, plan->limits.max_tokens);
    printf("%s embedding %zu B (%.3f GiB), once\n",
           qd_device_has_copies(plan->ops) ? "and       " : "shared    ", plan->need.embedding_bytes,
           gib(plan->need.embedding_bytes));
}

static void print_plan(const struct qd_instance_plan *plan)
{
    char where[48] = "", rest[128] = "";
    if (plan->ops->memory != NULL) {
        snprintf(where, sizeof where, ", %d on GPU %d", plan->n_sharing, plan->gpu);
        snprintf(rest, sizeof rest, " + graphs %.3f GiB + collectives %.3f GiB + taken before %.3f GiB",
                 gib(plan->graph_bytes), gib(plan->collective_bytes), gib(plan->taken_bytes));
    }
    printf(
        "together   TP %d x DP %d%s: weights %.3f GiB + activations %.3f GiB + KV pages %.3f GiB%s <= %.3f "
        "GiB\n",
        plan->tp, plan->dp, where, gib(plan->weight_bytes), gib(plan->activation_bytes), gib(plan->kv_bytes),
        rest, gib(plan->usable_bytes));
    printf("fits       max_model_len %" PRId32 "%s, %" PRId32 " KV pages of 16 tokens per replica%s, %" PRId32
           " sequences\n",
           plan->max_model_len, plan->shrunk_model_len ? " (shrunk to the pool)" : "", plan->n_kv_blocks,
           plan->shrunk_pool ? " (shrunk to the memory)" : "", plan->limits.max_seqs);
}

/* To the file of --json, or in place of the text. */
static qd_status put_json(const char *path, const struct qd_doctor *doctor, const char *fix, char *err,
                          size_t errlen)
{
    cJSON *tree = qd_doctor_to_json(doctor, fix);
    char *text = NULL;
    qd_status status = tree != NULL ? QD_OK : QD_ERR_NO_MEMORY;
    if (status == QD_OK && strcmp(path, "-") != 0) {
        status = qd_file_write_json(path, tree, err, errlen);
    } else if (status == QD_OK) {
        text = cJSON_Print(tree);
        status = text != NULL ? QD_OK : QD_ERR_NO_MEMORY;
        if (text != NULL) puts(text); /* main sees what did not arrive */
    }
    if (status == QD_ERR_NO_MEMORY) qd_fail(status, err, errlen, "no memory for JSON");
    cJSON_free(text);
    cJSON_Delete(tree);
    return status;
}

/* The arithmetic for --model; `why` says what is wrong with it. */
static qd_status plan_model(const struct qd_options *options, const char *device,
                            struct qd_instance_plan *plan, char *why, size_t why_len)
{
    struct qd_instance_options instance_options = qd_session_instance_options(options);
    instance_options.device = device;
    instance_options.load_format =
        QD_LOAD_DUMMY; /* nothing is loaded, so a preset will do as well as a folder */
    return qd_instance_plan_make(&instance_options, plan, why, why_len);
}

static int report(const struct qd_command *command, const struct qd_options *options,
                  const struct qd_doctor *doctor)
{
    char fix[QD_ERR_LEN] = "", err[QD_ERR_LEN] = "";
    struct qd_instance_plan plan;
    const bool usable = qd_doctor_judge(doctor, fix, sizeof fix);
    const bool has_plan = usable && options->model != NULL;
    qd_status planned = has_plan ? plan_model(options, doctor->device, &plan, fix, sizeof fix) : QD_OK;
    const bool is_text = options->json == NULL || strcmp(options->json, "-") != 0;
    if (options->json != NULL) {
        qd_status written =
            put_json(options->json, doctor, usable && planned == QD_OK ? NULL : fix, err, sizeof err);
        if (written != QD_OK) return qd_command_fail(command, written, err);
    }
    if (is_text) {
        qd_doctor_print(doctor, options);
        if (has_plan && (planned == QD_OK || planned == QD_ERR_DOES_NOT_FIT)) print_need(&plan);
        if (has_plan && planned == QD_OK) print_plan(&plan);
        if (!usable) printf("to fix first, for the device %s: %s\n", doctor->device, fix);
        if (usable && planned == QD_OK) printf("ok         the device %s can be used\n", doctor->device);
    }
    if (planned != QD_OK) return qd_command_fail(command, planned, fix);
    return usable ? QD_EXIT_OK : QD_EXIT_ENVIRONMENT;
}

static int run_doctor(const struct qd_command *command, const struct qd_options *options)
{
    char err[QD_ERR_LEN] = "";
    struct qd_doctor doctor;
    qd_status status = qd_doctor_look(options, &doctor, err, sizeof err);
    if (status != QD_OK) return qd_command_fail(command, status, err);
    int code = report(command, options, &doctor);
    qd_doctor_free(&doctor);
    return code;
}

const struct qd_command qd_command_doctor = {
    .name = "doctor",
    .summary = "what is here, what to fix first; whether a model fits, with the arithmetic",
    .synopsis = "[--device NAME] [--json FILE] [--model DIR|PRESET] [--tp N] [--dp N] [OPTION...]",
    .groups = QD_GROUP_MODEL | QD_GROUP_PARALLEL | QD_GROUP_ENGINE | QD_GROUP_DOCTOR,
    .run = run_doctor,
};
