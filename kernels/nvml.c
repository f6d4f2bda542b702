#include "kernels/nvml.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/library.h"
#include "kernels/nvml_functions.h"

struct functions {
    QD_NVML_FUNCTIONS(QD_LIBRARY_MEMBER, struct qd_nvml_memory, struct qd_nvml_pci,
                      struct qd_nvml_process_info)
};

#define SYMBOL(result, member, symbol, args) QD_LIBRARY_SYMBOL(struct functions, member, symbol)
static const struct qd_library_symbol symbols[] = {QD_NVML_FUNCTIONS(SYMBOL, void, void, void)};

struct qd_nvml {
    struct functions call;
    char path[PATH_MAX];
};

typedef struct nvmlDevice_st *device_t;

static qd_status check(const struct qd_nvml *nvml, unsigned result, const char *what, char *err,
                       size_t errlen)
{
    if (result == QD_NVML_SUCCESS) return QD_OK;
    return qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "NVML: %s: %s", what, nvml->call.error_string(result));
}

/* Whether a value is just not to be had, which is no failure of the GPU. */
static bool is_untold(unsigned result)
{
    return result == QD_NVML_NOT_SUPPORTED || result == QD_NVML_NO_PERMISSION ||
           result == QD_NVML_FUNCTION_NOT_FOUND;
}

/* ---- opening ---- */

qd_status qd_nvml_open(qd_nvml_t **out, char *err, size_t errlen)
{
    *out = NULL;
    struct qd_nvml *nvml = calloc(1, sizeof *nvml);
    if (nvml == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for NVML");
    qd_status st =
        qd_library_open(&qd_libraries[QD_LIBRARY_NVML], symbols, sizeof symbols / sizeof symbols[0],
                        &nvml->call, nvml->path, sizeof nvml->path, err, errlen);
    if (st == QD_OK) st = check(nvml, nvml->call.init(), "starting it", err, errlen);
    if (st != QD_OK) {
        free(nvml);
        return st;
    }
    *out = nvml;
    return QD_OK;
}

void qd_nvml_close(qd_nvml_t *nvml)
{
    if (nvml == NULL) return;
    nvml->call.shutdown();
    free(nvml);
}

qd_status qd_nvml_system(qd_nvml_t *nvml, struct qd_nvml_system *out, char *err, size_t errlen)
{
    unsigned n_gpus = 0;
    *out = (struct qd_nvml_system){.library = nvml->path};
    QD_TRY(check(nvml, nvml->call.driver_version(out->driver, sizeof out->driver), "driver version", err,
                 errlen));
    QD_TRY(
        check(nvml, nvml->call.cuda_version(&out->cuda_driver), "CUDA version of the driver", err, errlen));
    QD_TRY(check(nvml, nvml->call.count(&n_gpus), "number of GPUs", err, errlen));
    out->n_gpus = (int)n_gpus;
    return QD_OK;
}

static qd_status find_device(qd_nvml_t *nvml, int gpu, device_t *out, char *err, size_t errlen)
{
    unsigned n_gpus = 0;
    char what[64];
    QD_TRY(check(nvml, nvml->call.count(&n_gpus), "number of GPUs", err, errlen));
    if (gpu < 0 || (unsigned)gpu >= n_gpus)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "NVML: GPU %d of %u", gpu, n_gpus);
    snprintf(what, sizeof what, "GPU %d", gpu);
    return check(nvml, nvml->call.by_index((unsigned)gpu, out), what, err, errlen);
}

qd_status qd_nvml_find(qd_nvml_t *nvml, const char *pci_bus_id, int *gpu, char *err, size_t errlen)
{
    device_t device;
    unsigned index = 0;
    QD_TRY(check(nvml, nvml->call.by_bus_id(pci_bus_id, &device), pci_bus_id, err, errlen));
    QD_TRY(check(nvml, nvml->call.index(device, &index), pci_bus_id, err, errlen));
    *gpu = (int)index;
    return QD_OK;
}

/* ---- one GPU ---- */

/* A failure to read `what`, unless the value is just untold. */
static qd_status check_value(const struct qd_nvml *nvml, unsigned result, int gpu, const char *what,
                             char *err, size_t errlen)
{
    char place[64];
    if (is_untold(result)) return QD_OK;
    snprintf(place, sizeof place, "GPU %d: %s", gpu, what);
    return check(nvml, result, place, err, errlen);
}

/* *out = value, if reading it went well. */
static qd_status take(const struct qd_nvml *nvml, unsigned result, unsigned value, int gpu, const char *what,
                      int *out, char *err, size_t errlen)
{
    if (result == QD_NVML_SUCCESS) *out = (int)value;
    return check_value(nvml, result, gpu, what, err, errlen);
}

static qd_status read_identity(const struct qd_nvml *nvml, device_t device, int gpu, struct qd_nvml_gpu *out,
                               char *err, size_t errlen)
{
    const struct functions *call = &nvml->call;
    struct qd_nvml_pci pci = {0};
    struct qd_nvml_memory memory = {0};
    QD_TRY(check_value(nvml, call->name(device, out->name, sizeof out->name), gpu, "name", err, errlen));
    QD_TRY(check_value(nvml, call->uuid(device, out->uuid, sizeof out->uuid), gpu, "UUID", err, errlen));
    QD_TRY(check_value(nvml, call->pci_info(device, &pci), gpu, "PCI bus id", err, errlen));
    snprintf(out->pci_bus_id, sizeof out->pci_bus_id, "%.*s", (int)sizeof pci.bus_id - 1, pci.bus_id);
    QD_TRY(check_value(nvml, call->capability(device, &out->compute_major, &out->compute_minor), gpu,
                       "compute capability", err, errlen));
    unsigned result = call->memory_info(device, &memory);
    if (result == QD_NVML_SUCCESS) {
        out->memory_total_bytes = (int64_t)memory.total;
        out->memory_free_bytes = (int64_t)memory.free;
    }
    return check_value(nvml, result, gpu, "memory", err, errlen);
}

static qd_status read_clocks(const struct qd_nvml *nvml, device_t device, int gpu, struct qd_nvml_gpu *out,
                             char *err, size_t errlen)
{
    const struct functions *call = &nvml->call;
    unsigned v = 0;
    unsigned result = call->clock(device, QD_NVML_CLOCK_SM, &v);
    QD_TRY(take(nvml, result, v, gpu, "SM clock", &out->sm_mhz, err, errlen));
    result = call->max_clock(device, QD_NVML_CLOCK_SM, &v);
    QD_TRY(take(nvml, result, v, gpu, "largest SM clock", &out->sm_max_mhz, err, errlen));
    result = call->clock(device, QD_NVML_CLOCK_MEM, &v);
    QD_TRY(take(nvml, result, v, gpu, "memory clock", &out->memory_mhz, err, errlen));
    result = call->max_clock(device, QD_NVML_CLOCK_MEM, &v);
    QD_TRY(take(nvml, result, v, gpu, "largest memory clock", &out->memory_max_mhz, err, errlen));
    unsigned long long throttle = 0;
    result = call->throttle(device, &throttle);
    if (result == QD_NVML_SUCCESS) out->throttle = (int64_t)throttle;
    return check_value(nvml, result, gpu, "throttle reasons", err, errlen);
}

static qd_status read_power_and_modes(const struct qd_nvml *nvml, device_t device, int gpu,
                                      struct qd_nvml_gpu *out, char *err, size_t errlen)
{
    const struct functions *call = &nvml->call;
    unsigned v = 0, pending = 0;
    unsigned result = call->power(device, &v);
    QD_TRY(take(nvml, result, v, gpu, "power", &out->power_mw, err, errlen));
    result = call->power_limit(device, &v);
    QD_TRY(take(nvml, result, v, gpu, "power limit", &out->power_limit_mw, err, errlen));
    result = call->temperature(device, QD_NVML_TEMPERATURE_GPU, &v);
    QD_TRY(take(nvml, result, v, gpu, "temperature", &out->temperature_c, err, errlen));
    result = call->ecc(device, &v, &pending);
    QD_TRY(take(nvml, result, v, gpu, "ECC mode", &out->ecc, err, errlen));
    result = call->mig(device, &v, &pending);
    return take(nvml, result, v, gpu, "MIG mode", &out->mig, err, errlen);
}

qd_status qd_nvml_gpu(qd_nvml_t *nvml, int gpu, struct qd_nvml_gpu *out, char *err, size_t errlen)
{
    device_t device;
    enum { U = QD_NVML_UNKNOWN };
    *out = (struct qd_nvml_gpu){.compute_major = U,
                                .compute_minor = U,
                                .memory_total_bytes = U,
                                .memory_free_bytes = U,
                                .sm_mhz = U,
                                .sm_max_mhz = U,
                                .memory_mhz = U,
                                .memory_max_mhz = U,
                                .power_mw = U,
                                .power_limit_mw = U,
                                .temperature_c = U,
                                .throttle = U,
                                .ecc = U,
                                .mig = U};
    QD_TRY(find_device(nvml, gpu, &device, err, errlen));
    QD_TRY(read_identity(nvml, device, gpu, out, err, errlen));
    QD_TRY(read_clocks(nvml, device, gpu, out, err, errlen));
    return read_power_and_modes(nvml, device, gpu, out, err, errlen);
}

/* ---- who else ---- */

typedef unsigned (*list_processes)(device_t, unsigned *, struct qd_nvml_process_info *);

/* Adds one of NVML's two lists. A longer list than there is room for is counted all the same. */
static qd_status add_processes(const struct qd_nvml *nvml, list_processes list, device_t device, int gpu,
                               struct qd_nvml_process *out, int *n, bool *has_own, char *err, size_t errlen)
{
    struct qd_nvml_process_info found[QD_NVML_MAX_PROCESSES];
    unsigned n_found = QD_NVML_MAX_PROCESSES;
    unsigned result = list(device, &n_found, found);
    bool is_cut = result == QD_NVML_INSUFFICIENT_SIZE;
    if (!is_cut && result != QD_NVML_SUCCESS) return check_value(nvml, result, gpu, "processes", err, errlen);
    unsigned n_told = is_cut ? 0 : n_found;
    for (unsigned i = 0; i < n_told; i++) {
        if ((int64_t)found[i].pid == (int64_t)getpid()) {
            *has_own = true;
            continue;
        }
        if (*n < QD_NVML_MAX_PROCESSES)
            out[*n] = (struct qd_nvml_process){(int64_t)found[i].pid, (int64_t)found[i].used_bytes};
        ++*n;
    }
    if (is_cut) *n += (int)n_found;
    return QD_OK;
}

qd_status qd_nvml_processes(qd_nvml_t *nvml, int gpu, struct qd_nvml_process *out, int *n, bool *has_own,
                            char *err, size_t errlen)
{
    device_t device;
    *n = 0;
    *has_own = false;
    memset(out, 0, QD_NVML_MAX_PROCESSES * sizeof *out);
    QD_TRY(find_device(nvml, gpu, &device, err, errlen));
    QD_TRY(add_processes(nvml, nvml->call.compute_processes, device, gpu, out, n, has_own, err, errlen));
    return add_processes(nvml, nvml->call.graphics_processes, device, gpu, out, n, has_own, err, errlen);
}

/* ---- where it is ---- */

static const char *path_name(unsigned level)
{
    switch (level) {
    case 0: return "same board";
    case 10: return "PCIe switch";
    case 20: return "PCIe switches";
    case 30: return "PCIe host bridge";
    case 40: return "NUMA node";
    case 50: return "between NUMA nodes";
    }
    return "unknown";
}

static qd_status read_p2p(const struct qd_nvml *nvml, device_t a, device_t b, int gpu, unsigned capability,
                          int *out, char *err, size_t errlen)
{
    unsigned status = 0;
    unsigned result = nvml->call.p2p_status(a, b, capability, &status);
    return take(nvml, result, status == QD_NVML_P2P_OK, gpu, "peer access", out, err, errlen);
}

/* Links whose other end is the peer itself. */
static int count_nvlinks(const struct qd_nvml *nvml, device_t device, const char *peer_bus_id)
{
    int n = 0;
    for (unsigned link = 0; link < QD_NVML_MAX_LINKS; link++) {
        unsigned is_active = 0;
        struct qd_nvml_pci remote = {0};
        if (nvml->call.nvlink_state(device, link, &is_active) != QD_NVML_SUCCESS || is_active == 0) continue;
        if (nvml->call.nvlink_remote(device, link, &remote) != QD_NVML_SUCCESS) continue;
        n += strncmp(remote.bus_id, peer_bus_id, sizeof remote.bus_id) == 0;
    }
    return n;
}

qd_status qd_nvml_link(qd_nvml_t *nvml, int gpu, int peer, struct qd_nvml_link *out, char *err, size_t errlen)
{
    device_t a, b;
    unsigned level = UINT_MAX;
    struct qd_nvml_pci pci = {0};
    *out = (struct qd_nvml_link){
        .nvlink = QD_NVML_UNKNOWN, .can_read = QD_NVML_UNKNOWN, .can_write = QD_NVML_UNKNOWN};
    QD_TRY(find_device(nvml, gpu, &a, err, errlen));
    QD_TRY(find_device(nvml, peer, &b, err, errlen));
    QD_TRY(check_value(nvml, nvml->call.common_ancestor(a, b, &level), gpu, "topology", err, errlen));
    out->path = path_name(level);
    QD_TRY(read_p2p(nvml, a, b, gpu, QD_NVML_P2P_READ, &out->can_read, err, errlen));
    QD_TRY(read_p2p(nvml, a, b, gpu, QD_NVML_P2P_WRITE, &out->can_write, err, errlen));
    QD_TRY(read_p2p(nvml, a, b, gpu, QD_NVML_P2P_NVLINK, &out->nvlink, err, errlen));
    QD_TRY(check_value(nvml, nvml->call.pci_info(b, &pci), peer, "PCI bus id", err, errlen));
    out->n_nvlinks = count_nvlinks(nvml, a, pci.bus_id);
    return QD_OK;
}

qd_status qd_nvml_affinity(qd_nvml_t *nvml, int gpu, struct qd_nvml_affinity *out, char *err, size_t errlen)
{
    _Static_assert(sizeof(unsigned long) == sizeof(uint64_t), "NVML's words of CPUs and nodes");
    device_t device;
    unsigned long cpus[QD_NVML_CPU_WORDS] = {0}, nodes[1] = {0};
    *out = (struct qd_nvml_affinity){.numa_node = QD_NVML_UNKNOWN};
    QD_TRY(find_device(nvml, gpu, &device, err, errlen));
    unsigned result = nvml->call.cpu_affinity(device, QD_NVML_CPU_WORDS, cpus);
    QD_TRY(check_value(nvml, result, gpu, "near CPUs", err, errlen));
    if (result == QD_NVML_SUCCESS) memcpy(out->cpus, cpus, sizeof cpus);
    result = nvml->call.memory_affinity(device, 1, nodes, QD_NVML_AFFINITY_NODE);
    QD_TRY(check_value(nvml, result, gpu, "near memory", err, errlen));
    if (result == QD_NVML_SUCCESS && nodes[0] != 0) out->numa_node = __builtin_ctzl(nodes[0]);
    return QD_OK;
}

/* ---- throttling ---- */

void qd_nvml_throttle_text(int64_t throttle, char *text, size_t len)
{
    static const struct {
        int64_t bit;
        const char *name;
    } reasons[] = {
        {QD_NVML_IDLE, "idle"},
        {QD_NVML_APPLICATION_CLOCKS, "application clocks"},
        {QD_NVML_POWER_CAP, "power cap"},
        {QD_NVML_HW_SLOWDOWN, "hardware slowdown"},
        {QD_NVML_SYNC_BOOST, "sync boost"},
        {QD_NVML_THERMAL, "thermal slowdown"},
        {QD_NVML_HW_THERMAL, "hardware thermal slowdown"},
        {QD_NVML_HW_POWER_BRAKE, "hardware power brake"},
        {QD_NVML_DISPLAY_CLOCKS, "display clocks"},
    };
    snprintf(text, len, "%s", throttle == QD_NVML_UNKNOWN ? "unknown" : throttle == 0 ? "none" : "");
    if (throttle <= 0) return;
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        size_t n = strlen(text);
        if ((throttle & reasons[i].bit) == 0) continue;
        snprintf(text + n, len - n, "%s%s", n > 0 ? ", " : "", reasons[i].name);
        throttle &= ~reasons[i].bit;
    }
    size_t n = strlen(text);
    if (throttle != 0)
        snprintf(text + n, len - n, "%sreason %#llx", n > 0 ? ", " : "", (unsigned long long)throttle);
}

bool qd_nvml_is_throttled(int64_t throttle)
{
    const int64_t slow = QD_NVML_POWER_CAP | QD_NVML_HW_SLOWDOWN | QD_NVML_THERMAL | QD_NVML_HW_THERMAL |
                         QD_NVML_HW_POWER_BRAKE;
    return throttle != QD_NVML_UNKNOWN && (throttle & slow) != 0;
}
