#include "harness/cli/run_plan.h"

#include <inttypes.h>
#include <string.h>

#include "models/json.h"

void qd_run_plan_print(const struct qd_instance_plan *plan, FILE *out)
{
    fprintf(out,
            "{\"tensor_parallel_size\": %d, \"data_parallel_size\": %d, \"max_num_batched_tokens\": %" PRId32
            ", \"max_num_seqs\": %" PRId32 ", \"max_model_len\": %" PRId32 ", \"n_kv_blocks\": %" PRId32
            ", \"weight_bytes\": %zu, \"activation_bytes\": %zu, \"kv_bytes\": %zu, \"usable_bytes\": %zu}\n",
            plan->tp, plan->dp, plan->limits.max_tokens, plan->limits.max_seqs, plan->max_model_len,
            plan->n_kv_blocks, plan->weight_bytes, plan->activation_bytes, plan->kv_bytes, plan->usable_bytes);
}

void qd_run_plan_print_refused(const struct qd_instance_plan *plan, FILE *out)
{
    fprintf(out, "{\"needed_bytes\": %zu, \"available_bytes\": %zu}\n",
            plan->weight_bytes + plan->activation_bytes + plan->kv_bytes, plan->usable_bytes);
}

/* A number of bytes that JSON holds exactly, or -1. */
static int64_t bytes_of(const cJSON *object, const char *key)
{
    int64_t value;
    char reason[QD_ERR_LEN];
    if (qd_json_get_int(object, key, 0, INT64_C(1) << 53, &value, reason, sizeof reason) != QD_OK) return -1;
    return value;
}

void qd_run_plan_read_refused(const char *text, int64_t *needed_bytes, int64_t *available_bytes)
{
    cJSON *object = NULL;
    char reason[QD_ERR_LEN];
    *needed_bytes = *available_bytes = -1;
    if (qd_json_parse(text, strlen(text), NULL, &object, reason, sizeof reason) != QD_OK) return;
    *needed_bytes = bytes_of(object, "needed_bytes");
    *available_bytes = bytes_of(object, "available_bytes");
    cJSON_Delete(object);
}
