/* NVML of a made-up machine, for tests/kernels/nvml.c: GPU 0 tells everything, GPU 1 is a card that has no
 * ECC, MIG, NVLink nor affinity. QD_FAKE_NVML=no_driver: it does not start; =lost: GPU 0 fell off the bus. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/nvml_functions.h"

struct nvmlDevice_st {
    unsigned index;
};

enum {
    N_GPUS = 2,
    NOT_FOUND = 6,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
    INVALID_ARGUMENT = 2,
    N_GRAPHICS = 70
};

static struct nvmlDevice_st devices[N_GPUS] = {{0}, {1}};
static const char *const bus_ids[N_GPUS] = {"00000000:3B:00.0", "00000000:AF:00.0"};

#define DECLARE(result, member, symbol, args) result symbol args;
QD_NVML_FUNCTIONS(DECLARE, struct qd_nvml_memory, struct qd_nvml_pci, struct qd_nvml_process_info)

static int is_case(const char *name)
{
    const char *value = getenv("QD_FAKE_NVML");
    return value != NULL && strcmp(value, name) == 0;
}

static unsigned give(unsigned *out, unsigned value)
{
    *out = value;
    return is_case("lost") ? GPU_IS_LOST : QD_NVML_SUCCESS;
}

static unsigned give_text(char *out, unsigned len, const char *text)
{
    return (unsigned)snprintf(out, len, "%s", text) < len ? QD_NVML_SUCCESS : QD_NVML_INSUFFICIENT_SIZE;
}

/* What only GPU 0 has. */
static unsigned give_first(const struct nvmlDevice_st *device, unsigned *out, unsigned value)
{
    return device->index == 0 ? give(out, value) : QD_NVML_NOT_SUPPORTED;
}

unsigned nvmlInit_v2(void)
{
    return is_case("no_driver") ? DRIVER_NOT_LOADED : QD_NVML_SUCCESS;
}
unsigned nvmlShutdown(void)
{
    return QD_NVML_SUCCESS;
}
const char *nvmlErrorString(unsigned result)
{
    return result == DRIVER_NOT_LOADED ? "Driver Not Loaded"
           : result == GPU_IS_LOST     ? "GPU is lost"
                                       : "Other";
}
unsigned nvmlSystemGetDriverVersion(char *out, unsigned len)
{
    return give_text(out, len, "580.65.06");
}
unsigned nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    *out = 13000;
    return QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetCount_v2(unsigned *out)
{
    *out = N_GPUS;
    return QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetHandleByIndex_v2(unsigned index, struct nvmlDevice_st **out)
{
    if (index >= N_GPUS) return INVALID_ARGUMENT;
    *out = &devices[index];
    return QD_NVML_SUCCESS;
}
/* CUDA writes the domain with four digits, NVML with eight. */
unsigned nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, struct nvmlDevice_st **out)
{
    for (unsigned i = 0; i < N_GPUS; i++) {
        *out = &devices[i];
        if (strcmp(bus_id, bus_ids[i]) == 0 || strcmp(bus_id, bus_ids[i] + 4) == 0) return QD_NVML_SUCCESS;
    }
    return NOT_FOUND;
}
unsigned nvmlDeviceGetIndex(struct nvmlDevice_st *device, unsigned *out)
{
    *out = device->index;
    return QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetName(struct nvmlDevice_st *device, char *out, unsigned len)
{
    return give_text(out, len, device->index == 0 ? "NVIDIA Fake 80GB" : "NVIDIA Fake RTX");
}
unsigned nvmlDeviceGetUUID(struct nvmlDevice_st *device, char *out, unsigned len)
{
    return give_text(out, len, device->index == 0 ? "GPU-0000" : "GPU-1111");
}
unsigned nvmlDeviceGetPciInfo_v3(struct nvmlDevice_st *device, struct qd_nvml_pci *out)
{
    *out = (struct qd_nvml_pci){.bus = device->index};
    return give_text(out->bus_id, sizeof out->bus_id, bus_ids[device->index]);
}
unsigned nvmlDeviceGetCudaComputeCapability(struct nvmlDevice_st *device, int *major, int *minor)
{
    *major = device->index == 0 ? 9 : 8;
    *minor = device->index == 0 ? 0 : 9;
    return QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetMemoryInfo(struct nvmlDevice_st *device, struct qd_nvml_memory *out)
{
    *out = (struct qd_nvml_memory){.total = 85899345920ull, .free = 85000000000ull, .used = 899345920ull};
    return device->index == 0 && is_case("lost") ? GPU_IS_LOST : QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetClockInfo(struct nvmlDevice_st *device, unsigned type, unsigned *out)
{
    (void)device;
    return give(out, type == QD_NVML_CLOCK_SM ? 1410 : 2600);
}
unsigned nvmlDeviceGetMaxClockInfo(struct nvmlDevice_st *device, unsigned type, unsigned *out)
{
    (void)device;
    return give(out, type == QD_NVML_CLOCK_SM ? 1980 : 2619);
}
unsigned nvmlDeviceGetPowerUsage(struct nvmlDevice_st *device, unsigned *out)
{
    (void)device;
    return give(out, 312345);
}
unsigned nvmlDeviceGetEnforcedPowerLimit(struct nvmlDevice_st *device, unsigned *out)
{
    (void)device;
    return give(out, 700000);
}
unsigned nvmlDeviceGetTemperature(struct nvmlDevice_st *device, unsigned sensor, unsigned *out)
{
    (void)device;
    return sensor == QD_NVML_TEMPERATURE_GPU ? give(out, 61) : INVALID_ARGUMENT;
}
unsigned nvmlDeviceGetCurrentClocksThrottleReasons(struct nvmlDevice_st *device, unsigned long long *out)
{
    *out = device->index == 0 ? 0x24 : 0x1;
    return QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetEccMode(struct nvmlDevice_st *device, unsigned *out, unsigned *pending)
{
    *pending = 0; /* ECC goes off with the next start: only what is so now counts */
    return give_first(device, out, 1);
}
unsigned nvmlDeviceGetMigMode(struct nvmlDevice_st *device, unsigned *out, unsigned *pending)
{
    *pending = 1;
    return give_first(device, out, 0);
}

/* This process and another one on GPU 0; GPU 1 has more than fit the caller's room. */
unsigned nvmlDeviceGetComputeRunningProcesses_v3(struct nvmlDevice_st *device, unsigned *n,
                                                 struct qd_nvml_process_info *out)
{
    if (device->index == 1) {
        *n = 0;
        return QD_NVML_SUCCESS;
    }
    if (*n < 2) return INVALID_ARGUMENT;
    out[0] = (struct qd_nvml_process_info){.pid = (unsigned)getpid(), .used_bytes = 1};
    out[1] = (struct qd_nvml_process_info){.pid = 4242, .used_bytes = 123456789};
    *n = 2;
    return QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetGraphicsRunningProcesses_v3(struct nvmlDevice_st *device, unsigned *n,
                                                  struct qd_nvml_process_info *out)
{
    (void)out;
    unsigned room = *n, has = device->index == 0 ? 0 : N_GRAPHICS;
    *n = has;
    return has > room ? QD_NVML_INSUFFICIENT_SIZE : QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetTopologyCommonAncestor(struct nvmlDevice_st *a, struct nvmlDevice_st *b, unsigned *out)
{
    *out = a == b ? 0 : 30;
    return QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetP2PStatus(struct nvmlDevice_st *a, struct nvmlDevice_st *b, unsigned capability,
                                unsigned *out)
{
    (void)b;
    if (a->index == 1 && capability == QD_NVML_P2P_NVLINK) return QD_NVML_NOT_SUPPORTED;
    *out = capability == QD_NVML_P2P_WRITE ? 5 : QD_NVML_P2P_OK;
    return QD_NVML_SUCCESS;
}
/* Links 0 and 1 of GPU 0 lead to GPU 1, link 2 elsewhere, link 3 is down. */
unsigned nvmlDeviceGetNvLinkState(struct nvmlDevice_st *device, unsigned link, unsigned *out)
{
    return link < 4 ? give_first(device, out, link < 3) : INVALID_ARGUMENT;
}
unsigned nvmlDeviceGetNvLinkRemotePciInfo_v2(struct nvmlDevice_st *device, unsigned link,
                                             struct qd_nvml_pci *out)
{
    if (device->index != 0) return QD_NVML_NOT_SUPPORTED;
    return give_text(out->bus_id, sizeof out->bus_id, link == 2 ? "00000000:99:00.0" : bus_ids[1]);
}
unsigned nvmlDeviceGetCpuAffinity(struct nvmlDevice_st *device, unsigned n_words, unsigned long *out)
{
    if (device->index != 0) return QD_NVML_NOT_SUPPORTED;
    memset(out, 0, n_words * sizeof *out);
    out[1] = 0xff00;
    return QD_NVML_SUCCESS;
}
unsigned nvmlDeviceGetMemoryAffinity(struct nvmlDevice_st *device, unsigned n_words, unsigned long *out,
                                     unsigned scope)
{
    if (device->index != 0) return QD_NVML_NOT_SUPPORTED;
    if (n_words < 1 || scope != QD_NVML_AFFINITY_NODE) return INVALID_ARGUMENT;
    out[0] = 1ul << 3;
    return QD_NVML_SUCCESS;
}
