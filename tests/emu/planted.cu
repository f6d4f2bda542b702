#include "tests/emu/planted.cuh"

#include "kernels/base/status.h"

template <void (*kernel)(struct planted_args)> static void call(void *const *args, const void *)
{
    kernel(*static_cast<const struct planted_args *>(args[0]));
}

static int run(void (*body)(void *const *, const void *), unsigned blocks, unsigned threads,
               const struct planted_args *args, char *err, size_t errlen)
{
    void *pointers[] = {const_cast<struct planted_args *>(args)};
    struct qd_emu_launch launch = {};
    launch.name = "planted";
    launch.call = body;
    launch.args = pointers;
    launch.grid[0] = blocks, launch.grid[1] = launch.grid[2] = 1;
    launch.block[0] = threads, launch.block[1] = launch.block[2] = 1;
    return qd_emu_run_grid(&launch, err, errlen);
}

int planted_run_pipeline(enum planted_bug bug, const struct planted_args *args, char *err, size_t errlen)
{
    void (*body)(void *const *, const void *) = nullptr;
    switch (bug) {
    case PLANTED_NONE: body = call<planted::pipeline<PLANTED_NONE>>; break;
    case PLANTED_NO_BARRIER_AFTER_WAIT: body = call<planted::pipeline<PLANTED_NO_BARRIER_AFTER_WAIT>>; break;
    case PLANTED_LATE_REFILL: body = call<planted::pipeline<PLANTED_LATE_REFILL>>; break;
    case PLANTED_LAX_WAIT: body = call<planted::pipeline<PLANTED_LAX_WAIT>>; break;
    default: QD_ASSERT(!"a bug of this kernel");
    }
    return run(body, 1, PLANTED_PIPELINE_THREADS, args, err, errlen);
}

int planted_run_total(enum planted_bug bug, unsigned blocks, const struct planted_args *args, char *err,
                      size_t errlen)
{
    void (*body)(void *const *, const void *) = nullptr;
    switch (bug) {
    case PLANTED_NONE: body = call<planted::total<PLANTED_NONE>>; break;
    case PLANTED_NO_BARRIER: body = call<planted::total<PLANTED_NO_BARRIER>>; break;
    case PLANTED_SHARED_PAST_END: body = call<planted::total<PLANTED_SHARED_PAST_END>>; break;
    case PLANTED_GLOBAL_PAST_END: body = call<planted::total<PLANTED_GLOBAL_PAST_END>>; break;
    case PLANTED_MISALIGNED: body = call<planted::total<PLANTED_MISALIGNED>>; break;
    case PLANTED_DIVERGENT_SHUFFLE: body = call<planted::total<PLANTED_DIVERGENT_SHUFFLE>>; break;
    case PLANTED_NO_FENCE: body = call<planted::total<PLANTED_NO_FENCE>>; break;
    case PLANTED_UNWRITTEN: body = call<planted::total<PLANTED_UNWRITTEN>>; break;
    case PLANTED_DOUBLE_WRITE: body = call<planted::total<PLANTED_DOUBLE_WRITE>>; break;
    default: QD_ASSERT(!"a bug of this kernel");
    }
    return run(body, blocks, PLANTED_TOTAL_THREADS, args, err, errlen);
}
