#include "tests/emu/planted.cuh"

#include "kernels/cuda/launch.cuh"

namespace planted {

static int run(void (*kernel)(struct planted_args), unsigned blocks, unsigned threads,
               const struct planted_args *args, char *err, size_t errlen)
{
    const struct launch_shape shape = {dim3(blocks), dim3(threads), 0, NULL};
    if (launch("planted", kernel, shape, err, errlen, *args) != QD_OK) return -1;
    const cudaError_t error = cudaDeviceSynchronize();
    if (error != cudaSuccess) qd_fail(QD_ERR_ENVIRONMENT, err, errlen, "%s", cudaGetErrorString(error));
    return error == cudaSuccess ? 0 : -1;
}

} // namespace planted

int planted_run_pipeline(enum planted_bug bug, const struct planted_args *args, char *err, size_t errlen)
{
    void (*kernel)(struct planted_args) = nullptr;
    switch (bug) {
    case PLANTED_NONE: kernel = planted::pipeline<PLANTED_NONE>; break;
    case PLANTED_NO_BARRIER_AFTER_WAIT: kernel = planted::pipeline<PLANTED_NO_BARRIER_AFTER_WAIT>; break;
    case PLANTED_LATE_REFILL: kernel = planted::pipeline<PLANTED_LATE_REFILL>; break;
    case PLANTED_LAX_WAIT: kernel = planted::pipeline<PLANTED_LAX_WAIT>; break;
    default: QD_ASSERT(!"a bug of this kernel");
    }
    return planted::run(kernel, 1, PLANTED_PIPELINE_THREADS, args, err, errlen);
}

int planted_run_total(enum planted_bug bug, unsigned blocks, const struct planted_args *args, char *err,
                      size_t errlen)
{
    void (*kernel)(struct planted_args) = nullptr;
    switch (bug) {
    case PLANTED_NONE: kernel = planted::total<PLANTED_NONE>; break;
    case PLANTED_NO_BARRIER: kernel = planted::total<PLANTED_NO_BARRIER>; break;
    case PLANTED_SHARED_PAST_END: kernel = planted::total<PLANTED_SHARED_PAST_END>; break;
    case PLANTED_GLOBAL_PAST_END: kernel = planted::total<PLANTED_GLOBAL_PAST_END>; break;
    case PLANTED_MISALIGNED: kernel = planted::total<PLANTED_MISALIGNED>; break;
    case PLANTED_DIVERGENT_SHUFFLE: kernel = planted::total<PLANTED_DIVERGENT_SHUFFLE>; break;
    case PLANTED_NO_FENCE: kernel = planted::total<PLANTED_NO_FENCE>; break;
    case PLANTED_UNWRITTEN: kernel = planted::total<PLANTED_UNWRITTEN>; break;
    case PLANTED_DOUBLE_WRITE: kernel = planted::total<PLANTED_DOUBLE_WRITE>; break;
    case PLANTED_SECOND_WRITE: kernel = planted::total<PLANTED_SECOND_WRITE>; break;
    default: QD_ASSERT(!"a bug of this kernel");
    }
    return planted::run(kernel, blocks, PLANTED_TOTAL_THREADS, args, err, errlen);
}
