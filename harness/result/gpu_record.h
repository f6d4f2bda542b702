/* The GPUs of a run before and after it, as NVML tells: clocks, power, heat, what held them down, who else
 * used them. Read, never set (kernels/nvml.h).
 */
#ifndef QD_HARNESS_RESULT_GPU_RECORD_H
#define QD_HARNESS_RESULT_GPU_RECORD_H

#include "harness/result/json_put.h"
#include "kernels/device.h"
#include "kernels/nvml.h"

/* Numbers are QD_NVML_UNKNOWN where they are not told. */
struct qd_gpu_reading {
    int sm_mhz, memory_mhz, power_mw, temperature_c;
    int64_t throttle; /* bits of enum qd_nvml_throttle */
    int n_others;     /* processes on it beside this one */
};

struct qd_gpu_record {
    char name[QD_NVML_TEXT], pci_bus_id[32];
    int index; /* NVML's */
    struct qd_gpu_reading before, after;
};

/* Of all GPUs of a run. No record: its device has none, or NVML cannot be read, and `reason` says why. */
struct qd_gpu_records {
    int n;
    struct qd_gpu_record *of; /* [n] */
    char reason[QD_ERR_LEN];  /* "" for a device without GPUs, and where there are records */
    qd_nvml_t *nvml;          /* NULL: no records */
};

/* Of the GPUs that n_ranks ranks are on, ranks_per_gpu (0: 1) on each. */
void qd_gpu_records_open(const struct qd_device_ops *ops, int n_ranks, int ranks_per_gpu,
                         struct qd_gpu_records *out);
/* The same of GPUs by their PCI bus ids, in CUDA's form. */
void qd_gpu_records_open_ids(const char *const *bus_ids, int n, struct qd_gpu_records *out);
/* While this process uses the GPUs: where NVML does not know its number, as in a container, it is one of the
 * others and taken off. */
void qd_gpu_records_read(struct qd_gpu_records *records, bool after);
void qd_gpu_records_close(struct qd_gpu_records *records); /* also of a zeroed one */

/* QD_MARK_THROTTLED_GPU, QD_MARK_FOREIGN_GPU. */
uint32_t qd_gpu_records_marks(const struct qd_gpu_records *records);

/* [{"name", "pci_bus_id", "before": {...}, "after": {...}}, ...], {"reason": text}, or null for a device
 * without GPUs, as a new item; NULL when out of memory. */
cJSON *qd_gpu_records_to_json(const struct qd_gpu_records *records);

#endif
