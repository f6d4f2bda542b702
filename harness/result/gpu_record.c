#include "harness/result/gpu_record.h"

#include <stdio.h>
#include <stdlib.h>

#include "harness/result/marks.h"
#include "kernels/base/size.h"

/* Fills records->of by the bus ids; the reason when one is not to be found. */
static qd_status find_gpus(const char *const *bus_ids, struct qd_gpu_records *out)
{
    QD_TRY(qd_nvml_open(&out->nvml, out->reason, sizeof out->reason));
    for (int i = 0; i < out->n; i++) {
        struct qd_gpu_record *record = &out->of[i];
        struct qd_nvml_gpu gpu;
        QD_TRY(qd_nvml_find(out->nvml, bus_ids[i], &record->index, out->reason, sizeof out->reason));
        QD_TRY(qd_nvml_gpu(out->nvml, record->index, &gpu, out->reason, sizeof out->reason));
        snprintf(record->name, sizeof record->name, "%s", gpu.name);
        snprintf(record->pci_bus_id, sizeof record->pci_bus_id, "%s", gpu.pci_bus_id);
    }
    return QD_OK;
}

void qd_gpu_records_open_ids(const char *const *bus_ids, int n, struct qd_gpu_records *out)
{
    *out = (struct qd_gpu_records){.n = n, .of = calloc((size_t)n + 1, sizeof *out->of)};
    if (out->of != NULL && find_gpus(bus_ids, out) == QD_OK) {
        out->reason[0] = '\0';
        return;
    }
    if (out->of == NULL) snprintf(out->reason, sizeof out->reason, "no memory for %d records", n);
    qd_nvml_close(out->nvml);
    out->nvml = NULL;
    out->n = 0;
}

void qd_gpu_records_open(const struct qd_device_ops *ops, int n_ranks, int ranks_per_gpu,
                         struct qd_gpu_records *out)
{
    enum { ID = sizeof(((struct qd_gpu_record *)NULL)->pci_bus_id) };
    *out = (struct qd_gpu_records){0};
    if (ops->pci_bus_id == NULL) return;
    int n = (int)qd_div_up(n_ranks, ranks_per_gpu > 1 ? ranks_per_gpu : 1);
    char(*ids)[ID] = calloc((size_t)n, ID);
    const char **list = calloc((size_t)n, sizeof *list);
    qd_status st = ids != NULL && list != NULL ? QD_OK : QD_ERR_NO_MEMORY;
    for (int i = 0; i < n && st == QD_OK; i++) { /* a rank of its own is on the GPU of its number */
        list[i] = ids[i];
        st = ops->pci_bus_id(i, ids[i], ID, out->reason, sizeof out->reason);
    }
    if (st == QD_OK) qd_gpu_records_open_ids(list, n, out);
    if (st == QD_ERR_NO_MEMORY)
        snprintf(out->reason, sizeof out->reason, "no memory for the names of %d GPUs", n);
    free(list);
    free(ids);
}

static struct qd_gpu_reading read_gpu(struct qd_gpu_records *records, int index)
{
    struct qd_gpu_reading reading = {.sm_mhz = QD_NVML_UNKNOWN,
                                     .memory_mhz = QD_NVML_UNKNOWN,
                                     .power_mw = QD_NVML_UNKNOWN,
                                     .temperature_c = QD_NVML_UNKNOWN,
                                     .throttle = QD_NVML_UNKNOWN,
                                     .n_others = QD_NVML_UNKNOWN};
    struct qd_nvml_process processes[QD_NVML_MAX_PROCESSES];
    struct qd_nvml_gpu gpu;
    char err[QD_ERR_LEN];
    bool has_own;
    int n;
    if (qd_nvml_gpu(records->nvml, index, &gpu, err, sizeof err) == QD_OK) {
        reading.sm_mhz = gpu.sm_mhz;
        reading.memory_mhz = gpu.memory_mhz;
        reading.power_mw = gpu.power_mw;
        reading.temperature_c = gpu.temperature_c;
        reading.throttle = gpu.throttle;
    }
    if (qd_nvml_processes(records->nvml, index, processes, &n, &has_own, err, sizeof err) == QD_OK)
        reading.n_others = n > 0 && !has_own ? n - 1 : n;
    return reading;
}

void qd_gpu_records_read(struct qd_gpu_records *records, bool after)
{
    for (int i = 0; i < records->n; i++) {
        struct qd_gpu_record *record = &records->of[i];
        *(after ? &record->after : &record->before) = read_gpu(records, record->index);
    }
}

void qd_gpu_records_close(struct qd_gpu_records *records)
{
    qd_nvml_close(records->nvml);
    free(records->of);
    *records = (struct qd_gpu_records){0};
}

uint32_t qd_gpu_records_marks(const struct qd_gpu_records *records)
{
    uint32_t marks = 0;
    for (int i = 0; i < records->n; i++) {
        const struct qd_gpu_record *record = &records->of[i];
        /* Afterwards, not before: an idle GPU that waits for work in a hot room is none of the run's. */
        if (record->after.throttle != QD_NVML_UNKNOWN && qd_nvml_is_throttled(record->after.throttle))
            marks |= QD_MARK_THROTTLED_GPU;
        if (record->before.n_others > 0 || record->after.n_others > 0) marks |= QD_MARK_FOREIGN_GPU;
    }
    return marks;
}

static void put_reading(cJSON *o, const char *key, const struct qd_gpu_reading *r, bool *ok)
{
    char throttle[256];
    cJSON *item = qd_json_put_object(o, key, ok);
    qd_nvml_throttle_text(r->throttle, throttle, sizeof throttle);
    qd_json_put_known(item, "sm_mhz", r->sm_mhz, r->sm_mhz != QD_NVML_UNKNOWN, ok);
    qd_json_put_known(item, "memory_mhz", r->memory_mhz, r->memory_mhz != QD_NVML_UNKNOWN, ok);
    qd_json_put_known(item, "power_w", r->power_mw / 1e3, r->power_mw != QD_NVML_UNKNOWN, ok);
    qd_json_put_known(item, "temperature_c", r->temperature_c, r->temperature_c != QD_NVML_UNKNOWN, ok);
    qd_json_put_text(item, "throttle", throttle, ok);
    qd_json_put_known(item, "other_processes", r->n_others, r->n_others != QD_NVML_UNKNOWN, ok);
}

static cJSON *list_of(const struct qd_gpu_records *records, bool *ok)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < records->n; i++) {
        const struct qd_gpu_record *record = &records->of[i];
        cJSON *o = cJSON_CreateObject();
        qd_json_append_item(list, o, ok);
        qd_json_put_text(o, "name", record->name, ok);
        qd_json_put_text(o, "pci_bus_id", record->pci_bus_id, ok);
        put_reading(o, "before", &record->before, ok);
        put_reading(o, "after", &record->after, ok);
    }
    return list;
}

cJSON *qd_gpu_records_to_json(const struct qd_gpu_records *records)
{
    bool ok = true;
    cJSON *item;
    if (records->n > 0) {
        item = list_of(records, &ok);
    } else if (records->reason[0] != '\0') {
        item = cJSON_CreateObject();
        qd_json_put_text(item, "reason", records->reason, &ok);
    } else {
        item = cJSON_CreateNull();
    }
    if (ok) return item;
    cJSON_Delete(item);
    return NULL;
}
