/* The functions of NVML that kernels/nvml.c calls, declared without nvml.h: X(result, member, symbol,
 * arguments). tests/kernels/library_real.c holds the lists to nvml.h where that is installed; `memory`,
 * `pci` and `process` are the names of three structures, ours or nvml.h's. Not one of them changes a setting.
 */
#ifndef QD_KERNELS_NVML_FUNCTIONS_H
#define QD_KERNELS_NVML_FUNCTIONS_H

struct nvmlDevice_st; /* nvmlDevice_t is a pointer to it */

enum {
    QD_NVML_SUCCESS = 0,
    QD_NVML_NOT_SUPPORTED = 3,
    QD_NVML_NO_PERMISSION = 4,
    QD_NVML_INSUFFICIENT_SIZE = 7,
    QD_NVML_FUNCTION_NOT_FOUND = 13,
    QD_NVML_CLOCK_SM = 1,
    QD_NVML_CLOCK_MEM = 2,
    QD_NVML_TEMPERATURE_GPU = 0,
    QD_NVML_AFFINITY_NODE = 0,
    QD_NVML_P2P_OK = 0,
    QD_NVML_P2P_READ = 0,
    QD_NVML_P2P_WRITE = 1,
    QD_NVML_P2P_NVLINK = 2,
    QD_NVML_MAX_LINKS = 18,
};

struct qd_nvml_memory {
    unsigned long long total, free, used; /* bytes */
};

struct qd_nvml_pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

struct qd_nvml_process_info {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned gpu_instance, compute_instance; /* MIG */
};

#define QD_NVML_FUNCTIONS(X, memory, pci, process)                                                           \
    X(unsigned, init, nvmlInit_v2, (void))                                                                   \
    X(unsigned, shutdown, nvmlShutdown, (void))                                                              \
    X(const char *, error_string, nvmlErrorString, (unsigned))                                               \
    X(unsigned, driver_version, nvmlSystemGetDriverVersion, (char *, unsigned))                              \
    X(unsigned, cuda_version, nvmlSystemGetCudaDriverVersion_v2, (int *))                                    \
    X(unsigned, count, nvmlDeviceGetCount_v2, (unsigned *))                                                  \
    X(unsigned, by_index, nvmlDeviceGetHandleByIndex_v2, (unsigned, struct nvmlDevice_st **))                \
    X(unsigned, by_bus_id, nvmlDeviceGetHandleByPciBusId_v2, (const char *, struct nvmlDevice_st **))        \
    X(unsigned, index, nvmlDeviceGetIndex, (struct nvmlDevice_st *, unsigned *))                             \
    X(unsigned, name, nvmlDeviceGetName, (struct nvmlDevice_st *, char *, unsigned))                         \
    X(unsigned, uuid, nvmlDeviceGetUUID, (struct nvmlDevice_st *, char *, unsigned))                         \
    X(unsigned, pci_info, nvmlDeviceGetPciInfo_v3, (struct nvmlDevice_st *, pci *))                          \
    X(unsigned, capability, nvmlDeviceGetCudaComputeCapability, (struct nvmlDevice_st *, int *, int *))      \
    X(unsigned, memory_info, nvmlDeviceGetMemoryInfo, (struct nvmlDevice_st *, memory *))                    \
    X(unsigned, clock, nvmlDeviceGetClockInfo, (struct nvmlDevice_st *, unsigned, unsigned *))               \
    X(unsigned, max_clock, nvmlDeviceGetMaxClockInfo, (struct nvmlDevice_st *, unsigned, unsigned *))        \
    X(unsigned, power, nvmlDeviceGetPowerUsage, (struct nvmlDevice_st *, unsigned *))                        \
    X(unsigned, power_limit, nvmlDeviceGetEnforcedPowerLimit, (struct nvmlDevice_st *, unsigned *))          \
    X(unsigned, temperature, nvmlDeviceGetTemperature, (struct nvmlDevice_st *, unsigned, unsigned *))       \
    X(unsigned, throttle, nvmlDeviceGetCurrentClocksThrottleReasons,                                         \
      (struct nvmlDevice_st *, unsigned long long *))                                                        \
    X(unsigned, ecc, nvmlDeviceGetEccMode, (struct nvmlDevice_st *, unsigned *, unsigned *))                 \
    X(unsigned, mig, nvmlDeviceGetMigMode, (struct nvmlDevice_st *, unsigned *, unsigned *))                 \
    X(unsigned, compute_processes, nvmlDeviceGetComputeRunningProcesses_v3,                                  \
      (struct nvmlDevice_st *, unsigned *, process *))                                                       \
    X(unsigned, graphics_processes, nvmlDeviceGetGraphicsRunningProcesses_v3,                                \
      (struct nvmlDevice_st *, unsigned *, process *))                                                       \
    X(unsigned, common_ancestor, nvmlDeviceGetTopologyCommonAncestor,                                        \
      (struct nvmlDevice_st *, struct nvmlDevice_st *, unsigned *))                                          \
    X(unsigned, p2p_status, nvmlDeviceGetP2PStatus,                                                          \
      (struct nvmlDevice_st *, struct nvmlDevice_st *, unsigned, unsigned *))                                \
    X(unsigned, nvlink_state, nvmlDeviceGetNvLinkState, (struct nvmlDevice_st *, unsigned, unsigned *))      \
    X(unsigned, nvlink_remote, nvmlDeviceGetNvLinkRemotePciInfo_v2,                                          \
      (struct nvmlDevice_st *, unsigned, pci *))                                                             \
    X(unsigned, cpu_affinity, nvmlDeviceGetCpuAffinity, (struct nvmlDevice_st *, unsigned, unsigned long *)) \
    X(unsigned, memory_affinity, nvmlDeviceGetMemoryAffinity,                                                \
      (struct nvmlDevice_st *, unsigned, unsigned long *, unsigned))

#endif
