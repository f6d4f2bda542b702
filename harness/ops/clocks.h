/* A GPU's clocks and what holds them down, before and after a measurement; read, never set (kernels/nvml.h).
 */
#ifndef QD_HARNESS_OPS_CLOCKS_H
#define QD_HARNESS_OPS_CLOCKS_H

#include "kernels/device.h"

typedef struct qd_op_clocks qd_op_clocks_t;

struct qd_op_clock {
    int sm_mhz;       /* QD_NVML_UNKNOWN: not told */
    int64_t throttle; /* bits of enum qd_nvml_throttle, or QD_NVML_UNKNOWN */
};

/* Of the GPU of rank 0. QD_ERR_UNSUPPORTED for a device without GPUs; otherwise as qd_nvml_open: it may well
 * be that there is no NVML, which takes the clocks away and nothing else. */
qd_status qd_op_clocks_open(const struct qd_device_ops *ops, qd_op_clocks_t **out, char *err, size_t errlen);
qd_status qd_op_clocks_read(qd_op_clocks_t *clocks, struct qd_op_clock *out, char *err, size_t errlen);
void qd_op_clocks_close(qd_op_clocks_t *clocks); /* accepts NULL */

#endif
