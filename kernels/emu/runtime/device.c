#include "kernels/emu/runtime/internal.h"

#include <stdio.h>
#include <string.h>

struct qd_emu_runtime qd_emu_runtime = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .progress = PTHREAD_COND_INITIALIZER,
    .n_devices = QD_EMU_DEFAULT_DEVICES,
};

enum { RESERVED_SHARED_BYTES = 1024 }; /* by CUDA, of what an SM has for a block */

static _Thread_local int current;

void qd_emu_lock(void)
{
    pthread_mutex_lock(&qd_emu_runtime.lock);
}

void qd_emu_unlock(void)
{
    pthread_mutex_unlock(&qd_emu_runtime.lock);
}

int qd_emu_device_index(const struct qd_emu_device *device)
{
    return (int)(device - qd_emu_runtime.devices);
}

static cudaError_t check_device(int device)
{
    if (qd_emu_runtime.n_devices == 0) return qd_emu_refuse(cudaErrorNoDevice, "there is no emulated GPU");
    if (device < 0 || device >= qd_emu_runtime.n_devices)
        return qd_emu_refuse(cudaErrorInvalidDevice, "GPU %d of %d", device, qd_emu_runtime.n_devices);
    return cudaSuccess;
}

cudaError_t qd_emu_current(struct qd_emu_device **device)
{
    cudaError_t error = check_device(current);
    if (error != cudaSuccess) return error;
    *device = &qd_emu_runtime.devices[current];
    (*device)->legacy.handle.device = current;
    return (*device)->is_failure_known ? qd_emu_device_failure(*device) : cudaSuccess;
}

cudaError_t qd_emu_device_failure(struct qd_emu_device *device)
{
    if (!device->has_failed) return cudaSuccess;
    device->is_failure_known = true;
    return qd_emu_refuse(cudaErrorLaunchFailure, "%s", device->failure);
}

size_t qd_emu_shared_limit(void)
{
    return qd_emu_runtime.shared_bytes > 0 ? qd_emu_runtime.shared_bytes : QD_EMU_MAX_SHARED_BYTES;
}

bool qd_emu_can_access(const struct qd_emu_device *device, int owner)
{
    return owner < 0 || qd_emu_device_index(device) == owner || device->peers[owner];
}

cudaError_t cudaGetDeviceCount(int *count)
{
    QD_EMU_ENTER();
    *count = qd_emu_runtime.n_devices;
    return *count == 0 ? check_device(0) : cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    QD_EMU_ENTER();
    cudaError_t error = check_device(device);
    if (error == cudaSuccess) current = device;
    return error;
}

cudaError_t cudaGetDevice(int *device)
{
    QD_EMU_ENTER();
    *device = current;
    return check_device(current);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    QD_EMU_ENTER();
    cudaError_t error = check_device(device);
    if (error == cudaSuccess) {
        *prop = (struct cudaDeviceProp){
            .name = "qdyno emulated GPU",
            .totalGlobalMem = qd_emu_memory_limit(),
            .sharedMemPerBlock = QD_EMU_DEFAULT_SHARED_BYTES,
            .regsPerBlock = 65536,
            .warpSize = QD_EMU_WARP_SIZE,
            .maxThreadsPerBlock = QD_EMU_MAX_THREADS,
            .maxThreadsDim = {1024, 1024, 64},
            .maxGridSize = {2147483647, QD_EMU_MAX_GRID_YZ, QD_EMU_MAX_GRID_YZ},
            .major = 8,
            .minor = 0,
            .multiProcessorCount = QD_EMU_N_SMS,
            .pciBusID = device,
            .memoryBusWidth = 5120,
            .l2CacheSize = 40 << 20,
            .maxThreadsPerMultiProcessor = 2048,
            .sharedMemPerMultiprocessor = qd_emu_shared_limit() + RESERVED_SHARED_BYTES,
            .regsPerMultiprocessor = 65536,
            .sharedMemPerBlockOptin = qd_emu_shared_limit(),
        };
    }
    return error;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    struct cudaDeviceProp prop;
    cudaError_t error = cudaGetDeviceProperties(&prop, device);
    if (error != cudaSuccess) return error;
    switch (attr) {
    case cudaDevAttrMaxThreadsPerBlock: *value = prop.maxThreadsPerBlock; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)prop.sharedMemPerBlock; return cudaSuccess;
    case cudaDevAttrWarpSize: *value = prop.warpSize; return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = prop.multiProcessorCount; return cudaSuccess;
    case cudaDevAttrL2CacheSize: *value = prop.l2CacheSize; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = prop.major; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = prop.minor; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)prop.sharedMemPerMultiprocessor;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)prop.sharedMemPerBlockOptin;
        return cudaSuccess;
    }
    return qd_emu_refuse(cudaErrorInvalidValue, "the emulator has no device attribute %d", (int)attr);
}

cudaError_t cudaDeviceCanAccessPeer(int *can_access, int device, int peer)
{
    QD_EMU_ENTER();
    cudaError_t error = check_device(device);
    if (error == cudaSuccess) error = check_device(peer);
    if (error == cudaSuccess) *can_access = device != peer && !qd_emu_runtime.lacks_peers;
    return error;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    cudaError_t error = qd_emu_current(&device);
    if (error == cudaSuccess) error = check_device(peer);
    if (error != cudaSuccess) return error;
    if (flags != 0) return qd_emu_refuse(cudaErrorInvalidValue, "peer access with flags %u", flags);
    if (peer == current) return qd_emu_refuse(cudaErrorInvalidDevice, "GPU %d as its own peer", peer);
    if (qd_emu_runtime.lacks_peers)
        return qd_emu_refuse(cudaErrorPeerAccessUnsupported, "GPU %d cannot reach GPU %d", current, peer);
    if (device->peers[peer])
        return qd_emu_refuse(cudaErrorPeerAccessAlreadyEnabled, "GPU %d already has access to GPU %d",
                             current, peer);
    device->peers[peer] = true;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    struct qd_emu_device *device;
    QD_EMU_ENTER();
    cudaError_t error = qd_emu_current(&device);
    if (error == cudaSuccess) error = qd_emu_forbid_in_capture("cudaDeviceSynchronize");
    for (struct CUstream_st *s = error == cudaSuccess ? &device->legacy : NULL; s != NULL; s = s->next)
        if (s->capture != NULL) error = qd_emu_forbid_on_capturing(s, "cudaDeviceSynchronize");
    if (error == cudaSuccess) error = qd_emu_wait_device(device);
    return error;
}

/* ---- handles ---- */

void qd_emu_handle_add(struct qd_emu_handle *handle, enum qd_emu_handle_kind kind, int device)
{
    handle->kind = kind;
    handle->device = device;
    handle->next = qd_emu_runtime.handles;
    qd_emu_runtime.handles = handle;
}

void qd_emu_handle_remove(struct qd_emu_handle *handle)
{
    struct qd_emu_handle **link = &qd_emu_runtime.handles;
    while (*link != handle) link = &(*link)->next;
    *link = handle->next;
}

bool qd_emu_handle_is(const void *handle, enum qd_emu_handle_kind kind)
{
    for (const struct qd_emu_handle *h = qd_emu_runtime.handles; h != NULL; h = h->next)
        if (h == handle) return h->kind == kind;
    return false;
}

/* ---- the whole ---- */

static bool is_used(void)
{
    if (qd_emu_runtime.handles != NULL || qd_emu_runtime.n_allocations > 0) return true;
    for (int d = 0; d < QD_EMU_MAX_DEVICES; d++)
        if (qd_emu_runtime.devices[d].n_threads > 0) return true;
    return false;
}

int qd_emu_set_device_count(int n)
{
    QD_EMU_ENTER();
    if (n < 0 || n > QD_EMU_MAX_DEVICES || is_used()) return -1;
    qd_emu_runtime.n_devices = n;
    return 0;
}

int qd_emu_set_shared_limit(size_t bytes)
{
    QD_EMU_ENTER();
    if (bytes == 0) bytes = QD_EMU_MAX_SHARED_BYTES;
    if (bytes < QD_EMU_DEFAULT_SHARED_BYTES || bytes > QD_EMU_MAX_SHARED_BYTES || is_used()) return -1;
    qd_emu_runtime.shared_bytes = bytes;
    return 0;
}

void qd_emu_set_links(bool peers, bool nccl)
{
    QD_EMU_ENTER();
    qd_emu_runtime.lacks_peers = !peers;
    qd_emu_runtime.lacks_nccl = !nccl;
}

bool qd_emu_has_nccl(void)
{
    QD_EMU_ENTER();
    return !qd_emu_runtime.lacks_nccl;
}

void qd_emu_set_device_memory(size_t bytes)
{
    QD_EMU_ENTER();
    qd_emu_runtime.memory_bytes = bytes;
}

static void append_line(char *text, size_t text_len, size_t *used, const char *what, int device, size_t bytes)
{
    char line[128];
    int length = device < 0  ? snprintf(line, sizeof line, "%s of %zu bytes\n", what, bytes)
                 : bytes > 0 ? snprintf(line, sizeof line, "%s of %zu bytes on GPU %d\n", what, bytes, device)
                             : snprintf(line, sizeof line, "%s on GPU %d\n", what, device);
    if (*used + (size_t)length >= text_len) return; /* the count still tells */
    memcpy(text + *used, line, (size_t)length + 1);
    *used += (size_t)length;
}

size_t qd_emu_leaks(char *text, size_t text_len)
{
    static const char *const kinds[] = {"stream", "event", "graph", "executable graph"};
    size_t used = 0;
    if (text_len > 0) text[0] = '\0';
    QD_EMU_ENTER();
    size_t n = qd_emu_runtime.n_allocations;
    for (size_t i = 0; i < n; i++) {
        const struct qd_emu_allocation *a = &qd_emu_runtime.allocations[i];
        append_line(text, text_len, &used, a->device < 0 ? "host memory" : "memory", a->device, a->bytes);
    }
    for (const struct qd_emu_handle *h = qd_emu_runtime.handles; h != NULL; h = h->next, n++)
        append_line(text, text_len, &used, kinds[h->kind], h->device, 0);
    return n;
}

/* All work is done and no thread runs: what is left is the caller's. */
static void release_handles(void)
{
    while (qd_emu_runtime.handles != NULL) {
        struct qd_emu_handle *handle = qd_emu_runtime.handles;
        qd_emu_handle_remove(handle);
        switch (handle->kind) {
        case QD_EMU_STREAM: qd_emu_stream_release((struct CUstream_st *)handle); break;
        case QD_EMU_EVENT: qd_emu_event_release((struct CUevent_st *)handle); break;
        case QD_EMU_GRAPH:
        case QD_EMU_EXEC: qd_emu_graph_release((struct CUgraph_st *)handle); break;
        }
    }
}

void qd_emu_shutdown(void)
{
    struct qd_emu_runtime *runtime = &qd_emu_runtime;
    qd_emu_lock();
    for (int d = 0; d < QD_EMU_MAX_DEVICES; d++) {
        struct qd_emu_device *device = &runtime->devices[d];
        device->is_stopping = true;
        if (device->n_threads > 0) pthread_cond_broadcast(&device->has_work);
    }
    qd_emu_unlock();
    for (int d = 0; d < QD_EMU_MAX_DEVICES; d++)
        for (int t = 0; t < runtime->devices[d].n_threads; t++)
            pthread_join(runtime->devices[d].threads[t], NULL);
    qd_emu_lock();
    release_handles();
    qd_emu_free_all_memory();
    for (int d = 0; d < QD_EMU_MAX_DEVICES; d++) {
        if (runtime->devices[d].n_threads > 0) pthread_cond_destroy(&runtime->devices[d].has_work);
        runtime->devices[d] = (struct qd_emu_device){0};
    }
    for (int bucket = 0; bucket < QD_EMU_KERNEL_BUCKETS; bucket++)
        for (struct qd_emu_kernel *k = runtime->kernels[bucket]; k != NULL; k = k->next) {
            memset(k->shared_limit, 0, sizeof k->shared_limit);
            memset(k->is_loaded, 0, sizeof k->is_loaded);
        }
    current = 0;
    qd_emu_forget_errors();
    qd_emu_unlock();
}
