#include "harness/ops/clocks.h"

#include <stdlib.h>

#include "kernels/nvml.h"

struct qd_op_clocks {
    qd_nvml_t *nvml;
    int gpu;
};

qd_status qd_op_clocks_open(const struct qd_device_ops *ops, qd_op_clocks_t **out, char *err, size_t errlen)
{
    char bus_id[32];
    *out = NULL;
    if (ops->pci_bus_id == NULL)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "the device %s has no GPU", ops->name);
    QD_TRY(ops->pci_bus_id(0, bus_id, sizeof bus_id, err, errlen));
    qd_op_clocks_t *clocks = calloc(1, sizeof *clocks);
    if (clocks == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for clocks");
    qd_status st = qd_nvml_open(&clocks->nvml, err, errlen);
    if (st == QD_OK) st = qd_nvml_find(clocks->nvml, bus_id, &clocks->gpu, err, errlen);
    if (st != QD_OK) {
        qd_op_clocks_close(clocks);
        return st;
    }
    *out = clocks;
    return QD_OK;
}

qd_status qd_op_clocks_read(qd_op_clocks_t *clocks, struct qd_op_clock *out, char *err, size_t errlen)
{
    struct qd_nvml_gpu gpu;
    QD_TRY(qd_nvml_gpu(clocks->nvml, clocks->gpu, &gpu, err, errlen));
    *out = (struct qd_op_clock){.sm_mhz = gpu.sm_mhz, .throttle = gpu.throttle};
    return QD_OK;
}

void qd_op_clocks_close(qd_op_clocks_t *clocks)
{
    if (clocks == NULL) return;
    qd_nvml_close(clocks->nvml);
    free(clocks);
}
