/* The CUDA device's table: `emu` in the main binary; in libqdyno_cuda.so `cuda`, handed out by the only
 * symbol that the object exports. */
#ifndef QD_KERNELS_CUDA_DEVICE_H
#define QD_KERNELS_CUDA_DEVICE_H

#include "kernels/device.h"

extern const struct qd_device_ops qd_emu_ops;         /* in the main binary */
const struct qd_device_ops *qd_cuda_device_ops(void); /* in the shared object */

/* cuBLASLt on a context's stream, `cuda`'s rival. Not `emu`'s: the real library takes no emulated memory. */
extern const struct qd_rival_ops qd_cuda_rival;

#endif
