#include "kernels/cuda/launch.cuh"

#include <stdio.h>

#include "kernels/cuda/check.h"

/* Limits of every GPU since sm_80; the shared memory a kernel may ask for is the device's own business. */
static const unsigned MAX_THREADS = 1024, MAX_GRID_YZ = 65535;
static const size_t SHARED_WITHOUT_ASKING = 48 * 1024;

/* A failed launch names the kernel, but it may tell of an earlier one's fault: qd_cuda_check knows. */
static qd_status cuda_failed(const char *name, const char *what, cudaError_t error, char *err, size_t errlen)
{
    char statement[96];
    snprintf(statement, sizeof statement, "%s: %s", name, what);
    return qd_cuda_check(error, statement, __FILE__, __LINE__, err, errlen);
}

qd_status launch_checked(const char *name, const void *kernel, const struct launch_shape &shape, void **args, char *err,
                         size_t errlen)
{
    const dim3 &grid = shape.grid, &block = shape.block;
    unsigned long long threads = 1ull * block.x * block.y * block.z;
    if (grid.x == 0 || grid.x > 0x7fffffffu || grid.y == 0 || grid.y > MAX_GRID_YZ || grid.z == 0 ||
        grid.z > MAX_GRID_YZ)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "%s: a grid of %u x %u x %u", name, grid.x, grid.y, grid.z);
    if (threads == 0 || threads > MAX_THREADS)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "%s: blocks of %llu threads", name, threads);
    if (shape.shared_bytes > SHARED_WITHOUT_ASKING) {
        cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(shape.shared_bytes));
        if (error != cudaSuccess) return cuda_failed(name, "shared memory", error, err, errlen);
    }
    if (shape.stream == QD_CUDA_LOAD_ONLY) {
        cudaFuncAttributes loaded;
        cudaError_t error = cudaFuncGetAttributes(&loaded, kernel);
        return error == cudaSuccess ? QD_OK : cuda_failed(name, "load", error, err, errlen);
    }
    cudaError_t error = cudaLaunchKernel(kernel, grid, block, args, shape.shared_bytes, shape.stream);
    return error == cudaSuccess ? QD_OK : cuda_failed(name, "launch", error, err, errlen);
}
