#include "tests/gpu/philox_kernel.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/philox.cuh"

namespace philox_test {

__global__ void philox_kernel(const __grid_constant__ struct philox_test_args args)
{
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= args.n) return;
    const struct philox_block block =
        philox(args.key, args.counter_hi, args.counter_lo + static_cast<uint64_t>(i));
    for (int j = 0; j < 4; j++) args.out[4 * i + j] = block.word[j];
}

} // namespace philox_test

extern "C" qd_status philox_test_launch(const struct philox_test_args *args, struct CUstream_st *stream,
                                        char *err, size_t errlen)
{
    const struct launch_shape shape = {dim3(static_cast<unsigned>(args->n + 63) / 64), dim3(64), 0, stream};
    return launch("philox", philox_test::philox_kernel, shape, err, errlen, *args);
}
