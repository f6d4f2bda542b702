#include "kernels/emu/runtime/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/size.h"

static qd_emu_replace *replace_launch;

/* ---- the registry ---- */

static struct qd_emu_kernel *find_kernel(const void *symbol)
{
    struct qd_emu_kernel *kernel = qd_emu_runtime.kernels;
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
    struct qd_emu_kernel *kernel = calloc(1, sizeof *kernel);
    QD_ASSERT(kernel != NULL);
    kernel->symbol = symbol;
    kernel->call = call;
    snprintf(kernel->name, sizeof kernel->name, "%s", name);
    kernel->n_args = n_args;
    for (unsigned i = 0; i < n_args; i++) {
        kernel->arg_sizes[i] = arg_sizes[i];
        kernel->arg_places[i] = kernel->args_bytes;
        kernel->args_bytes += qd_round_up(arg_sizes[i], QD_EMU_ARG_ALIGN);
    }
    kernel->next = qd_emu_runtime.kernels;
    qd_emu_runtime.kernels = kernel;
}

void qd_emu_forget_kernels(void)
{
    for (struct qd_emu_kernel *k = qd_emu_runtime.kernels; k != NULL; k = k->next) {
        memset(k->dynamic_limit, 0, sizeof k->dynamic_limit);
        memset(k->is_loaded, 0, sizeof k->is_loaded);
    }
}

/* The current GPU and a registered kernel. */
static cudaError_t find_function(const void *symbol, struct qd_emu_device **device,
                                 struct qd_emu_kernel **kernel)
{
    QD_EMU_TRY(qd_emu_current(device));
    *kernel = find_kernel(symbol);
    if (*kernel != NULL) return cudaSuccess;
    return qd_emu_refuse(cudaErrorInvalidDeviceFunction, "no kernel is known at %p", symbol);
}

cudaError_t cudaFuncSetAttribute(const void *symbol, enum cudaFuncAttribute attr, int value)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    struct qd_emu_kernel *kernel;
    QD_EMU_TRY(find_function(symbol, &device, &kernel));
    QD_ASSERT(attr == cudaFuncAttributeMaxDynamicSharedMemorySize);
    if (value < 0 || (size_t)value > qd_emu_runtime.gpus.shared_bytes)
        return qd_emu_refuse(cudaErrorInvalidValue, "%d bytes of dynamic shared memory, at most %zu", value,
                             qd_emu_runtime.gpus.shared_bytes);
    kernel->dynamic_limit[qd_emu_index(device)] = (size_t)value;
    return cudaSuccess;
}

/* Loads the kernel; tells nothing of it. */
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *symbol)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    struct qd_emu_kernel *kernel;
    QD_EMU_TRY(find_function(symbol, &device, &kernel));
    kernel->is_loaded[qd_emu_index(device)] = true;
    *attributes = (struct cudaFuncAttributes){.maxThreadsPerBlock = QD_EMU_MAX_THREADS};
    return cudaSuccess;
}

/* ---- launches ---- */

void qd_emu_set_replace(qd_emu_replace *replace)
{
    replace_launch = replace;
}

int qd_emu_run_launch(const struct qd_emu_work *work, char *err, size_t errlen)
{
    const struct qd_emu_kernel *kernel = work->as.launch.kernel;
    struct qd_emu_launch launch = work->as.launch.shape;
    void *args[QD_EMU_MAX_ARGS];
    for (unsigned i = 0; i < kernel->n_args; i++) args[i] = (void *)(work->payload + kernel->arg_places[i]);
    launch.args = args;
    if (replace_launch != NULL &&
        replace_launch(&launch, kernel->arg_sizes, kernel->n_args, err, errlen) != 0)
        return -1;
    return qd_emu_run_grid(&launch, err, errlen);
}

static cudaError_t check_limits(const struct qd_emu_kernel *kernel, const struct qd_emu_launch *launch)
{
    /* What was asked for under a larger limit of the GPU does not count. */
    size_t limit = kernel->dynamic_limit[launch->device];
    if (limit < QD_EMU_DEFAULT_SHARED_BYTES) limit = QD_EMU_DEFAULT_SHARED_BYTES;
    if (limit > launch->shared_limit) limit = launch->shared_limit;
    if (launch->shared_bytes > limit)
        return qd_emu_refuse(cudaErrorInvalidValue, "%zu bytes of dynamic shared memory, %zu are allowed",
                             launch->shared_bytes, limit);
    char text[QD_ERR_LEN];
    if (qd_emu_shape_fits(launch, text, sizeof text)) return cudaSuccess;
    return qd_emu_refuse(cudaErrorInvalidConfiguration, "%s", text);
}

/* Any aligned word may be an address, in structures too: what a structure does not use of its pointers must
 * be NULL, not some old address. */
static cudaError_t check_arguments(const struct qd_emu_device *device, const struct qd_emu_work *work)
{
    for (size_t at = 0; at < work->payload_bytes; at += sizeof(void *)) {
        const void *word;
        memcpy(&word, work->payload + at, sizeof word);
        const struct qd_emu_allocation *a = qd_emu_find_allocation(word);
        if (a != NULL) QD_EMU_TRY(qd_emu_check_access(device, a, "cudaLaunchKernel", "an argument"));
    }
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *symbol, dim3 grid, dim3 block, void **args, size_t shared_bytes,
                             cudaStream_t handle)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    struct qd_emu_kernel *kernel;
    struct CUstream_st *stream;
    QD_EMU_TRY(find_function(symbol, &device, &kernel));
    QD_EMU_TRY(qd_emu_find_stream(handle, "cudaLaunchKernel", &stream));
    if (stream->device != device)
        return qd_emu_refuse(cudaErrorInvalidResourceHandle,
                             "a launch on a stream of GPU %d while GPU %d is current",
                             qd_emu_index(stream->device), qd_emu_index(device));
    const struct qd_emu_launch shape = {
        .name = kernel->name,
        .call = kernel->call,
        .kernel = symbol,
        .grid = {grid.x, grid.y, grid.z},
        .block = {block.x, block.y, block.z},
        .shared_bytes = shared_bytes,
        .shared_limit = qd_emu_runtime.gpus.shared_bytes,
        .device = qd_emu_index(device),
        .spins = qd_emu_device_spins,
        .spins_arg = device,
    };
    QD_EMU_TRY(check_limits(kernel, &shape));
    /* A GPU loads a kernel when it is first launched, which may allocate and wait. */
    if (!kernel->is_loaded[shape.device]) QD_EMU_TRY(qd_emu_forbid(stream, "the first launch of a kernel"));
    kernel->is_loaded[shape.device] = true;
    struct qd_emu_work *work = qd_emu_work_create(QD_EMU_WORK_KERNEL, kernel->args_bytes);
    work->as.launch.kernel = kernel;
    work->as.launch.shape = shape;
    for (unsigned i = 0; i < kernel->n_args; i++)
        memcpy(work->payload + kernel->arg_places[i], args[i], kernel->arg_sizes[i]);
    cudaError_t error = check_arguments(device, work);
    if (error == cudaSuccess)
        qd_emu_issue(stream, work);
    else
        free(work);
    return error;
}
