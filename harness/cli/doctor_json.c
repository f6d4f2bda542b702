
#include "harness/cli/doctor_print.h"
#include "harness/cli/version.h"

/* A number that NVML may not tell: null. */
static void put_told(cJSON *object, const char *key, int64_t value, bool *ok)
{
    if (value == QD_NVML_UNKNOWN)
        qd_json_put_null(object, key, ok);
    else
        qd_json_put_int(object, key, value, ok);
}

/* A text that may be empty: null. */
static void put_text(cJSON *object, const char *key, const char *text, bool *ok)
{
    qd_json_put_text(object, key, text[0] != '\0' ? text : NULL, ok);
}

static void put_cuda(cJSON *out, const struct qd_doctor *doctor, bool *ok)
{
    cJSON *cuda = qd_json_put_object(out, "cuda", ok);
    qd_json_put_bool(cuda, "built", doctor->cuda != NULL, ok);
    put_text(cuda, "reason", doctor->cuda == NULL ? doctor->cuda_reason : doctor->gpus_reason, ok);
    qd_json_put_int(cuda, "gpus", doctor->cuda_memory.n_devices, ok);
    qd_json_put_int(cuda, "free_bytes", (int64_t)doctor->cuda_memory.free_bytes, ok);
    qd_json_put_int(cuda, "total_bytes", (int64_t)doctor->cuda_memory.total_bytes, ok);
    if (doctor->cuda == NULL) return;
    const struct qd_device_build *build = doctor->cuda->build;
    qd_json_put_int(cuda, "toolkit", build->cuda, ok);
    qd_json_put_text(cuda, "architectures", build->architectures, ok);
    qd_json_put_text(cuda, "driver_needed", qd_doctor_driver_for(build->cuda), ok);
}

static void put_libraries(cJSON *out, const struct qd_doctor *doctor, bool *ok)
{
    cJSON *list = qd_json_put_array(out, "libraries", ok);
    for (int i = 0; i < QD_N_LIBRARIES && *ok; i++) {
        const struct qd_doctor_library *library = &doctor->libraries[i];
        cJSON *item = cJSON_CreateObject();
        *ok = item != NULL;
        qd_json_put_text(item, "name", qd_libraries[i].name, ok);
        put_text(item, "path", library->path, ok);
        put_text(item, "version", library->version, ok);
        put_text(item, "reason", library->reason, ok);
        qd_json_put_text(item, "without_it", library->status == QD_OK ? NULL : qd_libraries[i].disables, ok);
        qd_json_append_item(list, item, ok);
    }
}

static cJSON *gpu_to_json(const struct qd_doctor_gpu *gpu, bool *ok)
{
    const struct qd_nvml_gpu *is = &gpu->is;
    cJSON *item = cJSON_CreateObject();
    *ok = *ok && item != NULL;
    put_text(item, "reason", gpu->reason, ok);
    if (gpu->reason[0] != '\0') return item;
    char throttle[256];
    qd_nvml_throttle_text(is->throttle, throttle, sizeof throttle);
    qd_json_put_text(item, "name", is->name, ok);
    qd_json_put_text(item, "uuid", is->uuid, ok);
    qd_json_put_text(item, "pci_bus_id", is->pci_bus_id, ok);
    put_told(item, "compute_major", is->compute_major, ok);
    put_told(item, "compute_minor", is->compute_minor, ok);
    put_told(item, "memory_total_bytes", is->memory_total_bytes, ok);
    put_told(item, "memory_free_bytes", is->memory_free_bytes, ok);
    put_told(item, "sm_mhz", is->sm_mhz, ok);
    put_told(item, "sm_max_mhz", is->sm_max_mhz, ok);
    put_told(item, "memory_mhz", is->memory_mhz, ok);
    put_told(item, "memory_max_mhz", is->memory_max_mhz, ok);
    put_told(item, "power_mw", is->power_mw, ok);
    put_told(item, "power_limit_mw", is->power_limit_mw, ok);
    put_told(item, "temperature_c", is->temperature_c, ok);
    qd_json_put_text(item, "throttle", throttle, ok);
    put_told(item, "ecc", is->ecc, ok);
    put_told(item, "mig", is->mig, ok);
    put_told(item, "other_processes", gpu->n_processes, ok);
    put_told(item, "numa_node", gpu->numa_node, ok);
    return item;
}

static void put_gpus(cJSON *out, const struct qd_doctor *doctor, bool *ok)
{
    cJSON *gpus = qd_json_put_array(out, "gpus", ok), *peers = qd_json_put_array(out, "peers", ok);
    for (int i = 0; i < doctor->n_gpus && *ok; i++) {
        qd_json_append_item(gpus, gpu_to_json(&doctor->gpus[i], ok), ok);
        for (int j = i + 1; j < doctor->n_gpus && *ok; j++) {
            const struct qd_nvml_link *link = &doctor->links[i * doctor->n_gpus + j];
            cJSON *item = cJSON_CreateObject();
            *ok = item != NULL;
            qd_json_put_int(item, "a", i, ok);
            qd_json_put_int(item, "b", j, ok);
            qd_json_put_text(item, "path", link->path, ok);
            put_told(item, "nvlink", link->nvlink, ok);
            put_told(item, "direct_nvlinks", link->n_nvlinks, ok);
            put_told(item, "reads", link->can_read, ok);
            put_told(item, "writes", link->can_write, ok);
            qd_json_append_item(peers, item, ok);
        }
    }
}

static void put_tests(cJSON *out, const struct qd_doctor *doctor, bool *ok)
{
    cJSON *list = qd_json_put_array(out, "self_test", ok);
    for (int op = 0; op < QD_N_OPS && *ok; op++) {
        const struct qd_doctor_test *test = &doctor->tests[op];
        if (test->n_cases == 0) continue;
        cJSON *item = cJSON_CreateObject();
        *ok = item != NULL;
        qd_json_put_text(item, "op", qd_op_name((enum qd_op)op), ok);
        qd_json_put_int(item, "cases", test->n_cases, ok);
        qd_json_put_int(item, "passed", test->n_passed, ok);
        qd_json_put_int(item, "refused", test->n_refused, ok);
        qd_json_put_number(item, "worst_share_of_tolerance", test->worst, ok);
        put_text(item, "failure", test->failure, ok);
        qd_json_append_item(list, item, ok);
    }
    put_text(out, "self_test_reason", doctor->test_reason, ok);
}

cJSON *qd_doctor_to_json(const struct qd_doctor *doctor, const char *fix)
{
    cJSON *out = cJSON_CreateObject();
    bool ok = out != NULL;
    qd_json_put_text(out, "version", qd_version(), &ok);
    qd_json_put_text(out, "commit", qd_commit(), &ok);
    qd_json_put_text(out, "device", doctor->device, &ok);
    qd_json_put_bool(out, "ok", fix == NULL, &ok);
    qd_json_put_text(out, "fix", fix, &ok);
    qd_json_put_item(out, "machine", qd_machine_to_json(&doctor->machine), &ok);
    qd_json_put_int(out, "usable_memory_bytes", (int64_t)doctor->memory.bytes, &ok);
    qd_json_put_text(out, "usable_memory_is", qd_memory_source_name(doctor->memory.source), &ok);
    put_told(out, "memlock_bytes", doctor->memlock_bytes, &ok);
    qd_json_put_int(out, "numa_nodes", doctor->n_numa_nodes, &ok);
    put_cuda(out, doctor, &ok);
    put_text(out, "driver", doctor->driver, &ok);
    put_told(out, "driver_cuda", doctor->driver_cuda > 0 ? doctor->driver_cuda : QD_NVML_UNKNOWN, &ok);
    put_libraries(out, doctor, &ok);
    put_gpus(out, doctor, &ok);
    put_tests(out, doctor, &ok);
    if (ok) return out;
    cJSON_Delete(out);
    return NULL;
}
