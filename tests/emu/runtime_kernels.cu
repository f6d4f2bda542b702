#include "tests/emu/runtime_kernels.h"

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/ptx.cuh"

namespace runtime_kernels {

__global__ void fill(int *out, int n, int value)
{
    for (int i = 0; i < n; i++) out[i] = value;
}

__global__ void twice(const int *in, int *out, int n)
{
    for (int i = 0; i < n; i++) out[i] = 2 * in[i];
}

__global__ void hold(const uint32_t *flag)
{
    while (ptx::load_acquire_sys(flag) == 0) {
    }
}

__global__ void meet(uint32_t *mine, const uint32_t *other)
{
    ptx::store_release_sys(mine, 1);
    while (ptx::load_acquire_sys(other) != 1) {
    }
}

__global__ void write_at(int *p, uint64_t index, int value)
{
    p[index] = value;
}

__global__ void sum(runtime_peers peers, int *out)
{
    int total = 0;
    for (int i = 0; i < peers.n; i++) total += *peers.values[i];
    *out = total;
}

__global__ void shared(int *out, uint64_t bytes)
{
    QD_DYN_SHARED(unsigned char, memory);
    memory[bytes - 1] = 42;
    *out = memory[bytes - 1];
}

__global__ void shared_beside(int *out, uint64_t bytes)
{
    QD_SHARED(int, beside, [1024]);
    QD_DYN_SHARED(unsigned char, memory);
    memory[bytes - 1] = 40;
    beside[1023] = 2;
    *out = memory[bytes - 1] + beside[1023];
}

template <class... Params> const void *known(const char *name, void (*kernel)(Params...))
{
    qd_emu_register(kernel, name);
    return reinterpret_cast<const void *>(kernel);
}

} // namespace runtime_kernels

const void *runtime_kernel(enum runtime_kernel which)
{
    using namespace runtime_kernels;
    switch (which) {
    case RUNTIME_FILL: return known("fill", fill);
    case RUNTIME_TWICE: return known("twice", twice);
    case RUNTIME_HOLD: return known("hold", hold);
    case RUNTIME_MEET: return known("meet", meet);
    case RUNTIME_WRITE_AT: return known("write_at", write_at);
    case RUNTIME_SUM: return known("sum", sum);
    case RUNTIME_SHARED: return known("shared", shared);
    case RUNTIME_SHARED_BESIDE: return known("shared_beside", shared_beside);
    }
    return nullptr;
}
