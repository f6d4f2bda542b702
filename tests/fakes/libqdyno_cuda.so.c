/* The device cuda of a machine with two GPUs, for what is asked before anything runs on one.
 * QD_FAKE_GPUS=none: there is none that it can use. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/device.h"

static qd_status memory(const struct qd_device_config *config, struct qd_device_memory *out, char *err,
                        size_t errlen)
{
    (void)config;
    if (getenv("QD_FAKE_GPUS") != NULL) {
        snprintf(err, errlen, "there is no GPU that CUDA can use: none is visible");
        return QD_ERR_ENVIRONMENT;
    }
    *out = (struct qd_device_memory){.free_bytes = 64ull << 30, .total_bytes = 80ull << 30, .n_devices = 2};
    return QD_OK;
}

static const struct qd_device_build build = {.cuda = 13000, .architectures = "80 90"};

static const struct qd_device_ops ops = {
    .abi_version = QD_DEVICE_ABI_VERSION,
    .name = "cuda",
    .build = &build,
    .memory = memory,
};

const struct qd_device_ops *qd_cuda_device_ops(void)
{
    return &ops;
}
