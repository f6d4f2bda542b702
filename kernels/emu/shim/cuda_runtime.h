/* <cuda_runtime.h> of the emulator: found by include path in place of CUDA's. The host API for C11 and C++17;
 * in C++ also what a kernel's source may use. */
#ifndef QD_KERNELS_EMU_SHIM_CUDA_RUNTIME_H
#define QD_KERNELS_EMU_SHIM_CUDA_RUNTIME_H

#include "kernels/emu/shim/types.h"
#include "kernels/emu/shim/host_api.h"
#ifdef __cplusplus
#include "kernels/emu/shim/device_side.h"
#endif

#endif
