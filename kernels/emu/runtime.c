#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/emu/emu.h"
#include "kernels/emu/sanitize.h"
#include "kernels/emu/shim/cuda_runtime.h"

enum { PAGE_BYTES = 4096, MAX_KERNELS = 256, ALIGN_BYTES = 256, ERROR_BYTES = 1024 };

struct kernel {
    const void *address;
    void (*call)(void *const *args, const void *kernel);
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kernel kernels[MAX_KERNELS];
static unsigned n_kernels;
static _Thread_local char launch_error[ERROR_BYTES];
static _Thread_local cudaError_t last_error;

static cudaError_t failed(cudaError_t error)
{
    return last_error = error;
}

static const struct kernel *find_kernel(const void *address)
{
    for (unsigned i = 0; i < n_kernels; i++)
        if (kernels[i].address == address) return &kernels[i];
    return NULL;
}

void qd_emu_register_kernel(const void *kernel, void (*call)(void *const *, const void *),
                            const unsigned *arg_sizes, unsigned n_args)
{
    (void)arg_sizes, (void)n_args;
    pthread_mutex_lock(&lock);
    if (find_kernel(kernel) == NULL && n_kernels < MAX_KERNELS)
        kernels[n_kernels++] = (struct kernel){.address = kernel, .call = call};
    pthread_mutex_unlock(&lock);
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidDeviceFunction: return "invalid device function";
    case cudaErrorLaunchFailure: return launch_error;
    }
    return "unrecognized error code";
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : failed(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}

#ifdef QD_EMU_ASAN

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    size_t rounded = (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    *p = aligned_alloc(ALIGN_BYTES, rounded ? rounded : ALIGN_BYTES);
    if (*p == NULL) return failed(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    qd_emu_hide((char *)*p + bytes, rounded - bytes);
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    free(p);
    return cudaSuccess;
}

#else

/* A page that holds the mapping's size, the bytes up to a page's end, a guard page. */
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    size_t aligned = (bytes + sizeof(uint4) - 1) / sizeof(uint4) * sizeof(uint4);
    size_t pages = (aligned + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    size_t total = pages + 2 * PAGE_BYTES;
    char *base = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return failed(cudaErrorMemoryAllocation);
    memcpy(base, &total, sizeof total);
    mprotect(base + PAGE_BYTES + pages, PAGE_BYTES, PROT_NONE);
    *p = base + PAGE_BYTES + (pages - aligned);
    memset(*p, 0xff, bytes);
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    if (p == NULL) return cudaSuccess;
    char *base = (char *)((uintptr_t)p / PAGE_BYTES * PAGE_BYTES) - PAGE_BYTES;
    size_t total;
    memcpy(&total, base, sizeof total);
    munmap(base, total);
    return cudaSuccess;
}

#endif

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    (void)kind;
    memcpy(dst, src, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)stream;
    return cudaMemcpy(dst, src, bytes, kind);
}

cudaError_t cudaMemset(void *dst, int value, size_t bytes)
{
    memset(dst, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    (void)stream;
    return cudaMemset(dst, value, bytes);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    *stream = NULL;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    (void)stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void)stream;
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **args, size_t shared_bytes,
                             cudaStream_t stream)
{
    (void)stream;
    const struct kernel *k = find_kernel(kernel);
    if (k == NULL) return failed(cudaErrorInvalidDeviceFunction);
    struct qd_emu_launch launch = {
        .name = "launch",
        .call = k->call,
        .kernel = kernel,
        .args = args,
        .grid = {grid.x, grid.y, grid.z},
        .block = {block.x, block.y, block.z},
        .shared_bytes = shared_bytes,
    };
    if (qd_emu_run_grid(&launch, launch_error, sizeof launch_error) == 0) return cudaSuccess;
    return failed(cudaErrorLaunchFailure);
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attr, int value)
{
    bool fits = attr == cudaFuncAttributeMaxDynamicSharedMemorySize && value <= QD_EMU_MAX_SHARED_BYTES;
    return find_kernel(kernel) && fits ? cudaSuccess : failed(cudaErrorInvalidValue);
}
