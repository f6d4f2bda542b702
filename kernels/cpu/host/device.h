/* The table of the `cpu` device: the host side (threads, memory, plan, collectives) over the ops of the
 * instruction set that open() chose. */
#ifndef QD_KERNELS_CPU_HOST_DEVICE_H
#define QD_KERNELS_CPU_HOST_DEVICE_H

#include "kernels/device.h"

extern const struct qd_device_ops qd_cpu_ops;

#endif
