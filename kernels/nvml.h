/* NVML: what a GPU says about itself and who else uses it. Reads only: no clock, power, mode or persistence
 * setting is ever changed, and nothing of CUDA is started. GPUs are numbered as NVML does, all of the
 * machine: CUDA's numbers differ under CUDA_VISIBLE_DEVICES, so use qd_nvml_find to come from one to the
 * other.
 */
#ifndef QD_KERNELS_NVML_H
#define QD_KERNELS_NVML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    QD_NVML_UNKNOWN = -1, /* for every number below: this GPU, driver or user does not tell */
    QD_NVML_TEXT = 96,    /* bytes of a name */
    QD_NVML_MAX_PROCESSES = 64,
    QD_NVML_CPU_WORDS = 16, /* 64 CPUs each */
};

typedef struct qd_nvml qd_nvml_t;

struct qd_nvml_system {
    const char *library; /* the file that was opened; as long as the handle */
    char driver[QD_NVML_TEXT];
    int cuda_driver; /* the newest CUDA that the driver runs: 13000 for 13.0 */
    int n_gpus;
};

/* Why a GPU runs slower than it could; NVML's bits. */
enum qd_nvml_throttle {
    QD_NVML_IDLE = 0x1,
    QD_NVML_APPLICATION_CLOCKS = 0x2, /* somebody set them */
    QD_NVML_POWER_CAP = 0x4,
    QD_NVML_HW_SLOWDOWN = 0x8, /* one of the three hardware reasons below, or a fast trigger */
    QD_NVML_SYNC_BOOST = 0x10,
    QD_NVML_THERMAL = 0x20,
    QD_NVML_HW_THERMAL = 0x40,
    QD_NVML_HW_POWER_BRAKE = 0x80,
    QD_NVML_DISPLAY_CLOCKS = 0x100,
};

struct qd_nvml_gpu {
    char name[QD_NVML_TEXT], uuid[QD_NVML_TEXT];
    char pci_bus_id[32];              /* "00000000:3B:00.0" */
    int compute_major, compute_minor; /* compute capability */
    int64_t memory_total_bytes, memory_free_bytes;
    int sm_mhz, sm_max_mhz, memory_mhz, memory_max_mhz;
    int power_mw, power_limit_mw;
    int temperature_c;
    int64_t throttle; /* bits of enum qd_nvml_throttle */
    int ecc, mig;     /* 0 off, 1 on */
};

/* One process with a context on a GPU. */
struct qd_nvml_process {
    int64_t pid;
    int64_t memory_bytes;
};

/* How two GPUs reach each other. */
struct qd_nvml_link {
    const char *path;        /* the farthest thing between: "same board", "PCIe switch", ...; "unknown" */
    int n_nvlinks;           /* direct ones; 0 through an NVSwitch, where `nvlink` says yes */
    int nvlink;              /* peer access goes over NVLink: 0, 1 */
    int can_read, can_write; /* each other's memory: 0, 1 */
};

struct qd_nvml_affinity {
    uint64_t cpus[QD_NVML_CPU_WORDS]; /* bit c of word w: CPU 64 * w + c is near; all 0: not known */
    int numa_node;
};

/* Opens NVML. QD_ERR_NOT_FOUND: it is not installed; QD_ERR_ENVIRONMENT: it is, but there is no driver, or a
 * function is missing. err says what. Not for several threads at once, as every function here. */
qd_status qd_nvml_open(qd_nvml_t **out, char *err, size_t errlen);
void qd_nvml_close(qd_nvml_t *nvml); /* accepts NULL */

qd_status qd_nvml_system(qd_nvml_t *nvml, struct qd_nvml_system *out, char *err, size_t errlen);

/* A value that this GPU has not is QD_NVML_UNKNOWN, and no error. QD_ERR_ARGUMENT: there is no such GPU;
 * QD_ERR_ENVIRONMENT: it does not answer (it fell off the bus). */
qd_status qd_nvml_gpu(qd_nvml_t *nvml, int gpu, struct qd_nvml_gpu *out, char *err, size_t errlen);

/* The GPU with this PCI bus id, in CUDA's form (cudaDeviceGetPCIBusId) or NVML's. */
qd_status qd_nvml_find(qd_nvml_t *nvml, const char *pci_bus_id, int *gpu, char *err, size_t errlen);

/* Processes on the GPU other than this one. *n counts them all, out [QD_NVML_MAX_PROCESSES] has the first.
 * *has_own: this process uses the GPU too, and was known by its number; in a container numbers are the
 * host's, so that a process that uses the GPU and is not known is one of the others. */
qd_status qd_nvml_processes(qd_nvml_t *nvml, int gpu, struct qd_nvml_process *out, int *n, bool *has_own,
                            char *err, size_t errlen);

qd_status qd_nvml_link(qd_nvml_t *nvml, int gpu, int peer, struct qd_nvml_link *out, char *err,
                       size_t errlen);
qd_status qd_nvml_affinity(qd_nvml_t *nvml, int gpu, struct qd_nvml_affinity *out, char *err, size_t errlen);

/* "power cap, thermal slowdown"; "none"; "unknown". */
void qd_nvml_throttle_text(int64_t throttle, char *text, size_t len);
/* Whether a measurement under these reasons counts as throttled: by power, heat or hardware. */
bool qd_nvml_is_throttled(int64_t throttle);

#ifdef __cplusplus
}
#endif

#endif
