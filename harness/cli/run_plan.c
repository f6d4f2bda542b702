#include "harness/cli/run_plan.h"

#include <inttypes.h>
#include <string.h>

#include "models/json.h"

void qd_run_plan_print(const struct qd_instance_plan *plan, FILE *out)
{
    fprintf(out,
            "{\"tensor_parallel_size\": %d, \"data_parallel_size\": %d, \"max_num_batched_tokens\": %" PRId32
            ", \"max_num_seqs\": %" PRId32 ", \"max_model_len\": %" PRId32 ", \"n_kv_blocks\": %" PRId32
            ", \"weight_bytes\": %zu, \"activation_bytes\": %zu, \"kv_bytes\": %zu, \"graph_bytes\": %zu, "
            "\"collective_bytes\": %zu, \"taken_bytes\": %zu, \"usable_bytes\": %zu}\n",
            plan->tp, plan->dp, plan->limits.max_tokens, plan->limits.max_seqs, plan->max_model_len,
            plan->n_kv_blocks, plan->weight_bytes, plan->activation_bytes, plan->kv_bytes, plan->graph_bytes,
            plan->collective_bytes, plan->taken_bytes, plan->usable_bytes);
}

void qd_run_plan_print_refused(const struct qd_instance_plan *plan, FILE *out)
{
    fprintf(out,
            "{\"max_num_batched_tokens\": %" PRId32 ", \"needed_bytes\": %zu, \"available_bytes\": %zu}\n",
            plan->limits.max_tokens, qd_instance_plan_needed(plan), plan->usable_bytes);
}

/* A whole number that JSON holds exactly, or -1. */
static int64_t number_of(const cJSON *object, const char *key)
{
    int64_t value;
    char reason[QD_ERR_LEN];
    if (qd_json_get_int(object, key, 0, INT64_C(1) << 53, &value, reason, sizeof reason) != QD_OK) return -1;
    return value;
}

static cJSON *parse(const char *text)
{
    cJSON *object = NULL;
    char reason[QD_ERR_LEN];
    return qd_json_parse(text, strlen(text), NULL, &object, reason, sizeof reason) == QD_OK ? object : NULL;
}

void qd_run_plan_read_refused(const char *text, int64_t *needed_bytes, int64_t *available_bytes)
{
    cJSON *object = parse(text);
    *needed_bytes = *available_bytes = -1;
    if (object == NULL) return;
    *needed_bytes = number_of(object, "needed_bytes");
    *available_bytes = number_of(object, "available_bytes");
    cJSON_Delete(object);
}

int64_t qd_run_plan_read_budget(const char *text)
{
    cJSON *object = parse(text);
    int64_t budget = object != NULL ? number_of(object, "max_num_batched_tokens") : -1;
    cJSON_Delete(object);
    return budget;
}
