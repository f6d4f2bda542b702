#include "kernels/null/device.h"

static qd_status null_open(const struct qd_device_config *config, const struct qd_bootstrap *bootstrap,
                           void **ctx, char *err, size_t errlen)
{
    (void)config, (void)bootstrap, (void)err, (void)errlen;
    *ctx = NULL;
    return QD_OK;
}

static void null_close(void *ctx)
{
    (void)ctx;
}

static bool null_supports(const struct qd_model_shape *shape, int tp, enum qd_numerics numerics, char *why,
                          size_t why_len)
{
    (void)shape, (void)tp, (void)numerics, (void)why, (void)why_len;
    return true;
}

static size_t null_weight_bytes(int64_t n_rows, int64_t n_cols, enum qd_weight_layout layout)
{
    (void)n_rows, (void)n_cols, (void)layout;
    return 0;
}

const struct qd_device_ops qd_null_ops = {
    .abi_version = QD_DEVICE_ABI_VERSION,
    .name = "null",
    .executes = false,
    .open = null_open,
    .close = null_close,
    .supports = null_supports,
    .weight_bytes = null_weight_bytes,
};
