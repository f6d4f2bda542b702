/* CUDA C as far as the kernels use it, for a C++17 compiler: a kernel is an ordinary function that reads its
 * thread from qd_emu_self. Warp and block operations take the place of their call as a last argument nobody
 * writes. */
#ifndef QD_KERNELS_EMU_SHIM_DEVICE_SIDE_H
#define QD_KERNELS_EMU_SHIM_DEVICE_SIDE_H

#include <math.h>
#include <string.h>
#include <tuple>
#include <type_traits>

#include "kernels/emu/emu.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __grid_constant__

#define threadIdx (qd_emu_self->index)
#define blockIdx  (*qd_emu_self->block_index)
#define blockDim  (qd_emu_self->launch->block)
#define gridDim   (qd_emu_self->launch->grid)

/* The declared function is the model of this name (emu.h). */
#define QD_EMU_IS(name) __asm__("qd_emu_" name)
#define QD_EMU_HERE     struct qd_emu_site site = {__builtin_FILE(), __builtin_LINE()}

/* The address of a static names the object; each instantiation of a template has its own, as in CUDA. */
#define QD_SHARED(type, name, dims)                                                                          \
    typedef type name##_shared_type dims;                                                                    \
    static const char name##_shared_key = 0;                                                                 \
    auto &name = *static_cast<name##_shared_type *>(qd_emu_shared_object(                                    \
        &name##_shared_key, sizeof(name##_shared_type), alignof(name##_shared_type), #name))
#define QD_DYN_SHARED(type, name) type *name = static_cast<type *>(qd_emu_shared_dynamic())

/* ---- how the registry calls a kernel ---- */

template <class T> T &qd_emu_next(void *const *&args)
{
    return *static_cast<T *>(*args++);
}
template <class... Params> void qd_emu_call(void *const *args, const void *kernel)
{
    const auto function = reinterpret_cast<void (*)(Params...)>(const_cast<void *>(kernel));
    std::apply(function, std::tuple<Params &...>{qd_emu_next<Params>(args)...});
}

template <class... Params> void qd_emu_register(void (*kernel)(Params...), const char *name)
{
    static const unsigned sizes[] = {sizeof(Params)..., 0};
    qd_emu_register_kernel(reinterpret_cast<const void *>(kernel), name, qd_emu_call<Params...>, sizes,
                           sizeof...(Params));
}

/* The runtime looks for addresses in every aligned word of an argument: what a structure holds between its
 * members must not look like one. */
template <class Argument> void qd_emu_clear_padding(Argument &argument)
{
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(const_cast<std::remove_const_t<Argument> *>(&argument));
#endif
#endif
    (void)argument;
}

/* ---- block and warp ---- */

inline void __syncthreads(QD_EMU_HERE)
{
    qd_emu_barrier_sync(0, 0, site);
}
void __syncwarp(uint32_t mask = ~0u, QD_EMU_HERE) QD_EMU_IS("syncwarp");
uint32_t __ballot_sync(uint32_t mask, bool predicate, QD_EMU_HERE) QD_EMU_IS("ballot");
void __threadfence() QD_EMU_IS("fence");

template <class T>
inline T qd_emu_shuffle_value(enum qd_emu_shuffle_mode mode, uint32_t mask, T value, int by, QD_EMU_HERE)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = qd_emu_shuffle(mask, mode, bits, static_cast<uint32_t>(by), site);
    memcpy(&value, &bits, sizeof value);
    return value;
}
#define __shfl_sync(...)     qd_emu_shuffle_value(QD_EMU_SHUFFLE_INDEX, __VA_ARGS__)
#define __shfl_up_sync(...)  qd_emu_shuffle_value(QD_EMU_SHUFFLE_UP, __VA_ARGS__)
#define __shfl_xor_sync(...) qd_emu_shuffle_value(QD_EMU_SHUFFLE_XOR, __VA_ARGS__)

/* ---- integers: no sums of floats, which would depend on the schedule; relaxed, as the hardware's ---- */

/* An operation that changes nothing may be a poll in a loop. */
inline uint32_t atomicAdd(uint32_t *p, uint32_t v, QD_EMU_HERE)
{
    const uint32_t old = __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
    if (v != 0)
        qd_emu_note_progress();
    else
        qd_emu_spin(site);
    return old;
}

/* ---- arithmetic ---- */

#define __fmul_rn(a, b) (static_cast<float>(a) * static_cast<float>(b))
#define __fadd_rn(a, b) (static_cast<float>(a) + static_cast<float>(b))
#define __fsub_rn(a, b) (static_cast<float>(a) - static_cast<float>(b))
#define __fdiv_rn(a, b) (static_cast<float>(a) / static_cast<float>(b))
#define __fmaf_rn       fmaf
#define rsqrtf(x)       (1.0f / sqrtf(x)) /* newer C libraries have a function of that name */

template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b)
{
    typedef std::common_type_t<A, B> T;
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b)
{
    typedef std::common_type_t<A, B> T;
    return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
}

/* ---- bits and vectors ---- */

#define __float_as_uint(x) __builtin_bit_cast(unsigned, static_cast<float>(x))
#define __uint_as_float(x) __builtin_bit_cast(float, static_cast<unsigned>(x))
#define __ffs(x)           __builtin_ffs(static_cast<int>(x))
#define make_float2(...)   (float2{__VA_ARGS__})
#define make_float4(...)   (float4{__VA_ARGS__})
#define make_uint2(...)    (uint2{__VA_ARGS__})
#define make_uint4(...)    (uint4{__VA_ARGS__})

#endif
