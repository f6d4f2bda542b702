/* The one way a kernel is launched: checks the shape against the hardware's limits, raises the dynamic
 * shared-memory limit where needed, launches on the stream and returns the launch's error. */
#ifndef QD_KERNELS_CUDA_LAUNCH_CUH
#define QD_KERNELS_CUDA_LAUNCH_CUH

#include <type_traits>

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/kernels.h"

/* Bytes that a block may ask for on every GPU since sm_80: sm_86 and sm_89 have the least. */
constexpr size_t SHARED_OF_EVERY_GPU = 99 * 1024;

struct launch_shape {
    dim3 grid, block;
    size_t shared_bytes; /* dynamic */
    cudaStream_t stream;
};

/* QD_ERR_ARGUMENT when the shape exceeds a limit, QD_ERR_ENVIRONMENT with CUDA's text otherwise. */
qd_status launch_checked(const char *name, const void *kernel, const struct launch_shape &shape, void **args, char *err,
                         size_t errlen);

/* Launches `kernel` with arguments converted to its parameter types. */
template <class... Params>
qd_status launch(const char *name, void (*kernel)(Params...), const struct launch_shape &shape, char *err,
                 size_t errlen, std::common_type_t<Params>... args)
{
    void *pointers[] = {static_cast<void *>(const_cast<std::remove_const_t<Params> *>(&args))..., nullptr};
#ifdef QD_EMU
    qd_emu_register(kernel, name); /* teaches the emulator how to call it */
    (qd_emu_clear_padding(args), ...);
#endif
    return launch_checked(name, reinterpret_cast<const void *>(kernel), shape, pointers, err, errlen);
}

#endif
