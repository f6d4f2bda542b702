#include "kernels/device.h"

#include <string.h>

#include "kernels/cpu/host/device.h"
#include "kernels/null/device.h"

static const struct qd_device_ops *const devices[] = {&qd_cpu_ops, &qd_null_ops, NULL};

const struct qd_device_ops *qd_device_find(const char *name)
{
    for (int i = 0; devices[i] != NULL; i++)
        if (strcmp(devices[i]->name, name) == 0) return devices[i];
    return NULL;
}

const struct qd_device_ops *const *qd_device_list(void)
{
    return devices;
}
