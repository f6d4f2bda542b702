/* qdyno doctor: what is here, and whether a model fits at a tensor-parallel size, with the arithmetic. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/cli/session.h"
#include "harness/cli/version.h"
#include "harness/result/machine.h"
#include "kernels/cpu/host/isa.h"

static double gib(size_t bytes)
{
    return (double)bytes / 1073741824.0;
}

static void print_devices(void)
{
    for (const struct qd_device_ops *const *device = qd_device_list(); *device != NULL; device++)
        printf("device     %s: %s\n", (*device)->name,
               qd_device_has_copies(*device) ? "inference, the CUDA code on emulated GPUs"
               : (*device)->executes         ? "inference"
                                             : "scheduling only, no weights, no tokens of a model");
    const struct qd_device_ops *cuda;
    struct qd_device_memory memory;
    char why[QD_ERR_LEN] = "";
    if (qd_device_get("cuda", &cuda, why, sizeof why) == QD_OK &&
        cuda->memory(0, &memory, why, sizeof why) == QD_OK)
        printf("device     cuda: inference on %d GPUs, the first with %.2f of %.2f GiB free\n",
               memory.n_devices, gib(memory.free_bytes), gib(memory.total_bytes));
    else
        printf("device     cuda: no: %s\n", why);
}

static void print_machine(const struct qd_options *options)
{
    struct qd_machine machine;
    qd_machine_read(&machine);
    struct qd_memory_limit memory = qd_memory_available((size_t)options->memory_limit);
    printf("qdyno      %s, commit %s\n", qd_version(), qd_commit());
    printf("processor  %s, %d cores for this process (%s)\n", machine.cpu_model, machine.n_cores,
           machine.cpu_isa);
    printf("memory     %.2f GiB of %.2f GiB usable (%s)\n", gib(memory.bytes),
           (double)machine.memory_bytes / 1073741824.0, qd_memory_source_name(memory.source));
    print_devices();
    const struct qd_cpu_kernels *kernels;
    char why[QD_ERR_LEN];
    if (qd_cpu_isa_select(options->cpu_isa, &kernels, why, sizeof why) == QD_OK)
        printf("cpu isa    %s\n", kernels->isa);
    else
        printf("cpu isa    %s\n", why);
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

static int run_doctor(const struct qd_command *command, const struct qd_options *options)
{
    print_machine(options);
    if (options->model == NULL) return QD_EXIT_OK;
    char err[QD_ERR_LEN] = "";
    struct qd_instance_options instance_options = qd_session_instance_options(options);
    struct qd_instance_plan plan;
    instance_options.load_format =
        QD_LOAD_DUMMY; /* nothing is loaded, so a preset will do as well as a folder */
    qd_status status = qd_instance_plan_make(&instance_options, &plan, err, sizeof err);
    if (status == QD_OK || status == QD_ERR_DOES_NOT_FIT) print_need(&plan);
    if (status != QD_OK) return qd_command_fail(command, status, err);
    print_plan(&plan);
    return QD_EXIT_OK;
}

const struct qd_command qd_command_doctor = {
    .name = "doctor",
    .summary = "what is here; whether a model fits, with the arithmetic",
    .synopsis = "[--model DIR|PRESET] [--tp N] [--dp N] [OPTION...]",
    .groups = QD_GROUP_MODEL | QD_GROUP_PARALLEL | QD_GROUP_ENGINE | QD_GROUP_DOCTOR,
    .run = run_doctor,
};
