/* The CUDA device's table: `emu` in the main binary; in libqdyno_cuda.so `cuda`, handed out by the only
 * symbol that the object exports. */
#ifndef QD_KERNELS_CUDA_DEVICE_H
#define QD_KERNELS_CUDA_DEVICE_H

#include "kernels/device.h"

#ifdef QD_EMU
extern const struct qd_device_ops qd_emu_ops;
#else
const struct qd_device_ops *qd_cuda_device_ops(void);
#endif

#endif
