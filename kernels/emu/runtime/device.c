#include "kernels/emu/runtime/internal.h"

#include <stdarg.h>
#include <stdio.h>

struct qd_emu_runtime qd_emu_runtime = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .gpus = {.n = QD_EMU_DEFAULT_DEVICES, .shared_bytes = QD_EMU_MAX_SHARED_BYTES},
};

enum { L2_BYTES = 40 << 20, RESERVED_SHARED_BYTES = 1024 /* by CUDA, of what an SM has for a block */ };

static _Thread_local int current;
/* `last` is what cudaGetLastError gives; the text stays with its error after that was read. */
static _Thread_local cudaError_t last, explained;
static _Thread_local char explanation[QD_ERR_LEN];

/* ---- errors ---- */

cudaError_t qd_emu_refuse(cudaError_t error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(explanation, sizeof explanation, format, arguments);
    va_end(arguments);
    last = explained = error;
    return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error != cudaSuccess && error == explained ? explanation : "no error of this thread";
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last;
    last = cudaSuccess;
    return error;
}

/* ---- GPUs ---- */

int qd_emu_index(const struct qd_emu_device *device)
{
    return (int)(device - qd_emu_runtime.devices);
}

static cudaError_t check_device(int device)
{
    if (qd_emu_runtime.gpus.n < 0) return qd_emu_refuse(cudaErrorNoDevice, "there is no emulated GPU");
    if (device < 0 || device >= qd_emu_runtime.gpus.n)
        return qd_emu_refuse(cudaErrorInvalidDevice, "GPU %d of %d", device, qd_emu_runtime.gpus.n);
    return cudaSuccess;
}

cudaError_t qd_emu_current(struct qd_emu_device **device)
{
    QD_EMU_TRY(check_device(current));
    *device = &qd_emu_runtime.devices[current];
    (*device)->legacy.device = *device;
    return qd_emu_failure(*device);
}

cudaError_t qd_emu_failure(const struct qd_emu_device *device)
{
    return device->has_failed ? qd_emu_refuse(cudaErrorLaunchFailure, "%s", device->failure) : cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    QD_EMU_ENTER();
    *count = qd_emu_runtime.gpus.n < 0 ? 0 : qd_emu_runtime.gpus.n;
    return *count == 0 ? check_device(0) : cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    QD_EMU_ENTER();
    QD_EMU_TRY(check_device(device));
    current = device;
    return cudaSuccess;
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
    QD_EMU_TRY(check_device(device));
    *prop = (struct cudaDeviceProp){
        .name = "qdyno emulated GPU",
        .totalGlobalMem = qd_emu_memory_limit(),
        .sharedMemPerBlock = QD_EMU_DEFAULT_SHARED_BYTES,
        .major = 8,
        .multiProcessorCount = QD_EMU_N_SMS,
        .pciBusID = device,
        .l2CacheSize = L2_BYTES,
        .sharedMemPerMultiprocessor = qd_emu_runtime.gpus.shared_bytes + RESERVED_SHARED_BYTES,
        .sharedMemPerBlockOptin = qd_emu_runtime.gpus.shared_bytes,
    };
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    struct cudaDeviceProp prop;
    QD_EMU_TRY(cudaGetDeviceProperties(&prop, device));
    switch (attr) {
    case cudaDevAttrMultiProcessorCount: *value = prop.multiProcessorCount; break;
    case cudaDevAttrL2CacheSize: *value = prop.l2CacheSize; break;
    case cudaDevAttrComputeCapabilityMajor: *value = prop.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = prop.minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)prop.sharedMemPerBlockOptin; break;
    default:
        return qd_emu_refuse(cudaErrorInvalidValue, "the emulator has no device attribute %d", (int)attr);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can_access, int device, int peer)
{
    QD_EMU_ENTER();
    QD_EMU_TRY(check_device(device));
    QD_EMU_TRY(check_device(peer));
    *can_access = device != peer && !qd_emu_runtime.gpus.lacks_peers;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    QD_EMU_TRY(qd_emu_current(&device));
    QD_EMU_TRY(check_device(peer));
    if (flags != 0 || peer == current)
        return qd_emu_refuse(cudaErrorInvalidDevice, "GPU %d as its own peer, or flags", peer);
    if (qd_emu_runtime.gpus.lacks_peers)
        return qd_emu_refuse(cudaErrorPeerAccessUnsupported, "GPU %d cannot reach GPU %d", current, peer);
    if (device->peers[peer])
        return qd_emu_refuse(cudaErrorPeerAccessAlreadyEnabled, "GPU %d already has access to GPU %d",
                             current, peer);
    device->peers[peer] = true;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    QD_EMU_TRY(qd_emu_current(&device));
    QD_EMU_TRY(qd_emu_forbid(qd_emu_own_capture, "cudaDeviceSynchronize"));
    for (struct CUstream_st *s = &device->legacy; s != NULL; s = s->next)
        QD_EMU_TRY(qd_emu_forbid(s, "cudaDeviceSynchronize"));
    return qd_emu_wait_for(device, NULL);
}

/* ---- the whole ---- */

int qd_emu_set_gpus(struct qd_emu_gpus gpus)
{
    QD_EMU_ENTER();
    if (gpus.n == 0) gpus.n = QD_EMU_DEFAULT_DEVICES;
    if (gpus.shared_bytes == 0) gpus.shared_bytes = QD_EMU_MAX_SHARED_BYTES;
    if (gpus.n < -1 || gpus.n > QD_EMU_MAX_DEVICES || gpus.shared_bytes < QD_EMU_DEFAULT_SHARED_BYTES ||
        gpus.shared_bytes > QD_EMU_MAX_SHARED_BYTES)
        return -1;
    qd_emu_runtime.gpus = gpus;
    return 0;
}

size_t qd_emu_leaks(char *text, size_t text_len)
{
    QD_EMU_ENTER();
    size_t n_allocations = 0, n_streams = 0;
    for (const struct qd_emu_allocation *a = qd_emu_runtime.allocations; a != NULL; a = a->next)
        n_allocations++;
    for (int d = 0; d < QD_EMU_MAX_DEVICES; d++)
        for (const struct CUstream_st *s = qd_emu_runtime.devices[d].legacy.next; s != NULL; s = s->next)
            n_streams++;
    snprintf(text, text_len, "%zu allocations, %zu streams", n_allocations, n_streams);
    return n_allocations + n_streams;
}

static void stop_workers(struct qd_emu_device *device)
{
    if (device->n_threads == 0) return;
    pthread_mutex_lock(&qd_emu_runtime.lock);
    device->is_stopping = true;
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&qd_emu_runtime.lock);
    for (int t = 0; t < device->n_threads; t++) pthread_join(device->threads[t], NULL);
    pthread_cond_destroy(&device->changed);
}

void qd_emu_shutdown(void)
{
    for (int d = 0; d < QD_EMU_MAX_DEVICES; d++) stop_workers(&qd_emu_runtime.devices[d]);
    QD_EMU_ENTER();
    qd_emu_free_all_memory();
    for (int d = 0; d < QD_EMU_MAX_DEVICES; d++) {
        struct qd_emu_device *device = &qd_emu_runtime.devices[d];
        while (device->legacy.next != NULL) qd_emu_stream_release(device->legacy.next);
        *device = (struct qd_emu_device){0};
    }
    qd_emu_forget_kernels();
    qd_emu_own_capture = NULL;
    current = 0;
    last = explained = cudaSuccess;
}
