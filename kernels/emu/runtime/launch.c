#include "kernels/emu/runtime/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

/* ---- the registry ---- */

static struct qd_emu_kernel **bucket_of(const void *kernel)
{
    return &qd_emu_runtime.kernels[((uintptr_t)kernel >> 4) % QD_EMU_KERNEL_BUCKETS];
}

static struct qd_emu_kernel *find_kernel(const void *symbol)
{
    struct qd_emu_kernel *kernel = *bucket_of(symbol);
    while (kernel != NULL && kernel->symbol != symbol) kernel = kernel->next;
    return kernel;
}

/* Kernels stay registered to the end of the process, as the code that they are does. */
void qd_emu_register_kernel(const void *symbol, const char *name, void (*call)(void *const *, const void *),
                            const unsigned *arg_sizes, unsigned n_args)
{
    QD_ASSERT(n_args <= QD_EMU_MAX_ARGS);
    QD_EMU_ENTER();
    if (find_kernel(symbol) != NULL) return;
    struct qd_emu_kernel *kernel = calloc(1, sizeof *kernel), **bucket = bucket_of(symbol);
    QD_ASSERT(kernel != NULL);
    kernel->symbol = symbol;
    kernel->call = call;
    snprintf(kernel->name, sizeof kernel->name, "%s", name);
    kernel->n_args = n_args;
    if (n_args > 0) memcpy(kernel->arg_sizes, arg_sizes, n_args * sizeof *arg_sizes);
    kernel->next = *bucket;
    *bucket = kernel;
}

/* ---- arguments ---- */

static size_t place_of_next(const struct qd_emu_kernel *kernel, unsigned argument, size_t place)
{
    return place + qd_round_up(kernel->arg_sizes[argument], QD_EMU_ARG_ALIGN);
}

static struct qd_emu_work *create_launch(struct qd_emu_kernel *kernel, void *const *args)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < kernel->n_args; i++) bytes = place_of_next(kernel, i, bytes);
    struct qd_emu_work *work = qd_emu_work_create(QD_EMU_WORK_KERNEL, bytes);
    if (work == NULL) return NULL;
    work->as.launch.kernel = kernel;
    size_t place = 0;
    for (unsigned i = 0; i < kernel->n_args; i++) {
        memcpy(work->payload + place, args[i], kernel->arg_sizes[i]);
        place = place_of_next(kernel, i, place);
    }
    return work;
}

/* Any aligned word may be an address, in structures too: what a structure does not use of its pointers must
 * be NULL, not some old address. */
cudaError_t qd_emu_visit_arguments(const struct qd_emu_work *launch,
                                   cudaError_t (*visit)(void *context, const struct qd_emu_allocation *),
                                   void *context)
{
    const struct qd_emu_kernel *kernel = launch->as.launch.kernel;
    size_t place = 0;
    for (unsigned i = 0; i < kernel->n_args; i++) {
        for (size_t at = 0; at + sizeof(void *) <= kernel->arg_sizes[i]; at += sizeof(void *)) {
            const void *word;
            memcpy(&word, launch->payload + place + at, sizeof word);
            const struct qd_emu_allocation *allocation = qd_emu_find_allocation(word);
            cudaError_t error = allocation != NULL ? visit(context, allocation) : cudaSuccess;
            if (error != cudaSuccess) return error;
        }
        place = place_of_next(kernel, i, place);
    }
    return cudaSuccess;
}

static cudaError_t check_peer(void *context, const struct qd_emu_allocation *allocation)
{
    const struct qd_emu_device *device = context;
    if (qd_emu_can_access(device, allocation->device)) return cudaSuccess;
    return qd_emu_refuse(cudaErrorPeerAccessNotEnabled,
                         "an argument points to memory of GPU %d, to which GPU %d has no access enabled",
                         allocation->device, qd_emu_device_index(device));
}

static qd_emu_replace *replace_launch;

void qd_emu_set_replace(qd_emu_replace *replace)
{
    replace_launch = replace;
}

int qd_emu_run_launch(const struct qd_emu_work *work, int device, char *err, size_t errlen)
{
    const struct qd_emu_kernel *kernel = work->as.launch.kernel;
    void *args[QD_EMU_MAX_ARGS + 1] = {NULL};
    size_t place = 0;
    for (unsigned i = 0; i < kernel->n_args; i++) {
        args[i] = (void *)(work->payload + place);
        place = place_of_next(kernel, i, place);
    }
    struct qd_emu_launch launch = {
        .name = kernel->name,
        .call = kernel->call,
        .kernel = kernel->symbol,
        .args = args,
        .shared_bytes = work->as.launch.shared_bytes,
        .shared_limit = qd_emu_shared_limit(),
        .device = device,
        .spins = qd_emu_worker_spins,
        .spins_arg = &qd_emu_runtime.devices[device],
    };
    memcpy(launch.grid, work->as.launch.grid, sizeof launch.grid);
    memcpy(launch.block, work->as.launch.block, sizeof launch.block);
    if (replace_launch != NULL &&
        replace_launch(&launch, kernel->arg_sizes, kernel->n_args, err, errlen) != 0)
        return -1;
    return qd_emu_run_grid(&launch, err, errlen);
}

/* ---- limits ---- */

static cudaError_t check_shape(const dim3 *grid, const dim3 *block)
{
    unsigned long long threads = 1ull * block->x * block->y * block->z;
    if (threads == 0 || threads > QD_EMU_MAX_THREADS || block->x > QD_EMU_MAX_THREADS ||
        block->y > QD_EMU_MAX_THREADS || block->z > 64)
        return qd_emu_refuse(cudaErrorInvalidConfiguration, "blocks of %u x %u x %u threads", block->x,
                             block->y, block->z);
    if (grid->x == 0 || grid->x > 0x7fffffffu || grid->y == 0 || grid->y > QD_EMU_MAX_GRID_YZ ||
        grid->z == 0 || grid->z > QD_EMU_MAX_GRID_YZ)
        return qd_emu_refuse(cudaErrorInvalidConfiguration, "a grid of %u x %u x %u blocks", grid->x, grid->y,
                             grid->z);
    return cudaSuccess;
}

/* Dynamic; what was asked for under a larger limit of the GPU does not count. */
static size_t shared_limit(const struct qd_emu_kernel *kernel, int device)
{
    size_t set = kernel->shared_limit[device], most = qd_emu_shared_limit();
    if (set < QD_EMU_DEFAULT_SHARED_BYTES) return QD_EMU_DEFAULT_SHARED_BYTES;
    return set < most ? set : most;
}

/* The current GPU and a registered kernel. */
static cudaError_t find_function(const void *symbol, struct qd_emu_device **device,
                                 struct qd_emu_kernel **kernel)
{
    cudaError_t error = qd_emu_current(device);
    if (error != cudaSuccess) return error;
    *kernel = find_kernel(symbol);
    if (*kernel == NULL)
        return qd_emu_refuse(cudaErrorInvalidDeviceFunction, "no kernel is known at %p", symbol);
    return cudaSuccess;
}

/* A GPU loads a kernel when it is first launched, which may allocate and wait. */
static cudaError_t load(struct qd_emu_kernel *kernel, struct CUstream_st *stream)
{
    bool *is_loaded = &kernel->is_loaded[stream->handle.device];
    if (stream->capture != NULL && !*is_loaded) {
        char call[sizeof kernel->name + 32];
        snprintf(call, sizeof call, "the first launch of %s", kernel->name);
        return qd_emu_forbid_on_capturing(stream, call);
    }
    *is_loaded = true;
    return cudaSuccess;
}

/* ---- the API ---- */

cudaError_t cudaLaunchKernel(const void *symbol, dim3 grid, dim3 block, void **args, size_t shared_bytes,
                             cudaStream_t handle)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    struct qd_emu_kernel *kernel;
    struct CUstream_st *stream;
    cudaError_t error = find_function(symbol, &device, &kernel);
    if (error == cudaSuccess) error = check_shape(&grid, &block);
    if (error == cudaSuccess) error = qd_emu_find_work_stream(handle, "cudaLaunchKernel", &stream);
    if (error != cudaSuccess) return error;
    if (qd_emu_stream_device(stream) != device)
        return qd_emu_refuse(cudaErrorInvalidResourceHandle,
                             "a launch on a stream of GPU %d while GPU %d is current", stream->handle.device,
                             qd_emu_device_index(device));
    error = load(kernel, stream);
    if (error != cudaSuccess) return error;
    size_t limit = shared_limit(kernel, qd_emu_device_index(device));
    if (shared_bytes > limit)
        return qd_emu_refuse(cudaErrorInvalidValue, "%zu bytes of dynamic shared memory, %zu are allowed",
                             shared_bytes, limit);
    struct qd_emu_work *work = create_launch(kernel, args);
    error = work != NULL ? qd_emu_visit_arguments(work, check_peer, device) : cudaSuccess;
    if (error != cudaSuccess) {
        qd_emu_work_destroy(work);
        return error;
    }
    if (work != NULL) {
        memcpy(work->as.launch.grid, (unsigned[]){grid.x, grid.y, grid.z}, sizeof work->as.launch.grid);
        memcpy(work->as.launch.block, (unsigned[]){block.x, block.y, block.z}, sizeof work->as.launch.block);
        work->as.launch.shared_bytes = shared_bytes;
    }
    return qd_emu_issue(stream, work);
}

cudaError_t cudaFuncSetAttribute(const void *symbol, enum cudaFuncAttribute attr, int value)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    struct qd_emu_kernel *kernel;
    cudaError_t error = find_function(symbol, &device, &kernel);
    if (error != cudaSuccess) return error;
    switch (attr) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
        if (value < 0 || (size_t)value > qd_emu_shared_limit())
            return qd_emu_refuse(cudaErrorInvalidValue, "%d bytes of dynamic shared memory, at most %zu",
                                 value, qd_emu_shared_limit());
        kernel->shared_limit[qd_emu_device_index(device)] = (size_t)value;
        return cudaSuccess;
    case cudaFuncAttributePreferredSharedMemoryCarveout: /* a hint about speed */
        if (value < -1 || value > 100)
            return qd_emu_refuse(cudaErrorInvalidValue, "a carveout of %d percent", value);
        return cudaSuccess;
    }
    return qd_emu_refuse(cudaErrorInvalidValue, "the emulator has no kernel attribute %d", (int)attr);
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attr, const void *symbol)
{
    struct qd_emu_device *device;
    struct qd_emu_kernel *kernel;
    QD_EMU_ENTER();
    cudaError_t error = find_function(symbol, &device, &kernel);
    if (error != cudaSuccess) return error;
    *attr = (struct cudaFuncAttributes){
        .maxThreadsPerBlock = QD_EMU_MAX_THREADS,
        .ptxVersion = 80,
        .binaryVersion = 80,
        .maxDynamicSharedSizeBytes = (int)shared_limit(kernel, qd_emu_device_index(device)),
    };
    kernel->is_loaded[qd_emu_device_index(device)] = true;
    return cudaSuccess;
}
