#include "tests/support/tiny.h"

#include "harness/engine/forward_once.h"
#include "tests/support/test.h"

struct qd_instance_options tiny_options(const char *isa)
{
    return (struct qd_instance_options){
        .model = TINY_DIR,
        .device = "cpu",
        .cpu_isa = isa,
        .tp = 1,
        .dp = 1,
        .n_kv_blocks = 1025,
        .memory_utilization = 1.0,
        .max_requests = 4096,
    };
}

qd_instance_t *open_instance(const struct qd_instance_options *options)
{
    char err[QD_ERR_LEN] = "";
    qd_instance_t *instance;
    ASSERT_OK(qd_instance_open(options, &instance, err, sizeof err), err);
    return instance;
}

cJSON *tiny_eval(void)
{
    char err[QD_ERR_LEN] = "";
    cJSON *eval;
    ASSERT_OK(qd_json_read_file(TINY_DIR "/eval.json", 1 << 20, &eval, err, sizeof err), err);
    return eval;
}

double number_of(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item)) fail_msg("no number \"%s\"", key);
    return item->valuedouble;
}

void forward_tokens(qd_instance_t *instance, const struct qd_forward *forward)
{
    char err[QD_ERR_LEN] = "";
    const struct qd_instance_plan *plan = qd_instance_get_plan(instance);
    ASSERT_OK(qd_forward_once(qd_instance_group(instance, 0), &plan->limits, forward, err, sizeof err), err);
}
