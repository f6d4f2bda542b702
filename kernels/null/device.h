/* The `null` device executes nothing: a group on it makes up token ids at once, so a run measures scheduling
 * alone. */
#ifndef QD_KERNELS_NULL_DEVICE_H
#define QD_KERNELS_NULL_DEVICE_H

#include "kernels/device.h"

extern const struct qd_device_ops qd_null_ops;

#endif
