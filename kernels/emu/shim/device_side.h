/* CUDA C as far as the kernels use it, for a C++17 compiler: a kernel is an ordinary function that reads its
 * thread from qd_emu_self. Warp and block operations take the place of their call as a last argument nobody
 * writes. */
#ifndef QD_KERNELS_EMU_SHIM_DEVICE_SIDE_H
#define QD_KERNELS_EMU_SHIM_DEVICE_SIDE_H

#include <math.h>
#include <string.h>
#include <type_traits>
#include <utility>

#include "kernels/emu/emu.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __grid_constant__

#define threadIdx (qd_emu_self->index)
#define blockIdx  (qd_emu_self->place->block_index)
#define blockDim  (qd_emu_self->place->block_dim)
#define gridDim   (qd_emu_self->place->grid_dim)

#define QD_EMU_HERE struct qd_emu_site site = {__builtin_FILE(), __builtin_LINE()}

/* The address of a static names the object; each instantiation of a template has its own, as in CUDA. */
#define QD_SHARED(type, name, dims)                                                                          \
    typedef type name##_shared_type dims;                                                                    \
    static const char name##_shared_key = 0;                                                                 \
    auto &name = *static_cast<name##_shared_type *>(qd_emu_shared_object(                                    \
        &name##_shared_key, sizeof(name##_shared_type), alignof(name##_shared_type), #name))
#define QD_DYN_SHARED(type, name) type *name = static_cast<type *>(qd_emu_shared_dynamic())

/* ---- how the registry calls a kernel ---- */

template <class... Params> struct qd_emu_caller {
    typedef void (*kernel_type)(Params...);

    template <size_t... I>
    static void call_with(kernel_type kernel, void *const *args, std::index_sequence<I...>)
    {
        kernel(*static_cast<std::remove_const_t<Params> *>(args[I])...);
    }
    static void call(void *const *args, const void *kernel)
    {
        call_with(reinterpret_cast<kernel_type>(const_cast<void *>(kernel)), args,
                  std::index_sequence_for<Params...>());
    }
};

template <class... Params> void qd_emu_register(void (*kernel)(Params...), const char *name)
{
    static const unsigned sizes[] = {sizeof(Params)..., 0};
    qd_emu_register_kernel(reinterpret_cast<const void *>(kernel), name, qd_emu_caller<Params...>::call,
                           sizes, sizeof...(Params));
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
inline void __syncwarp(uint32_t mask = ~0u, QD_EMU_HERE)
{
    qd_emu_syncwarp(mask, site);
}

template <class T>
inline T qd_emu_shuffle_value(uint32_t mask, enum qd_emu_shuffle_mode mode, T value, uint32_t lane, int width,
                              struct qd_emu_site site)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = qd_emu_shuffle(mask, mode, bits, lane, static_cast<uint32_t>(width), site);
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T> inline T __shfl_sync(uint32_t mask, T value, int lane, int width = 32, QD_EMU_HERE)
{
    return qd_emu_shuffle_value(mask, QD_EMU_SHUFFLE_INDEX, value, static_cast<uint32_t>(lane), width, site);
}
template <class T> inline T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32, QD_EMU_HERE)
{
    return qd_emu_shuffle_value(mask, QD_EMU_SHUFFLE_UP, value, by, width, site);
}
template <class T> inline T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32, QD_EMU_HERE)
{
    return qd_emu_shuffle_value(mask, QD_EMU_SHUFFLE_DOWN, value, by, width, site);
}
template <class T> inline T __shfl_xor_sync(uint32_t mask, T value, int by, int width = 32, QD_EMU_HERE)
{
    return qd_emu_shuffle_value(mask, QD_EMU_SHUFFLE_XOR, value, static_cast<uint32_t>(by), width, site);
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate, QD_EMU_HERE)
{
    return qd_emu_ballot(mask, predicate != 0, site);
}
inline int __any_sync(uint32_t mask, int predicate, QD_EMU_HERE)
{
    return qd_emu_ballot(mask, predicate != 0, site) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, QD_EMU_HERE)
{
    return qd_emu_ballot(mask, predicate == 0, site) == 0;
}

inline void __threadfence()
{
    qd_emu_fence();
}

/* ---- atomics on integers: relaxed, as the hardware's ---- */

template <class T>
using qd_emu_same = std::common_type_t<T>; /* not deduced: the value converts to the target's type */

/* An operation that changes nothing may be a poll in a loop. */
template <class T, class Op> inline T qd_emu_atomic(T *p, Op op, struct qd_emu_site site)
{
    static_assert(std::is_integral_v<T>, "sums of floating point would depend on the schedule");
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(p, &old, op(old), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    if (op(old) != old)
        qd_emu_note_progress();
    else
        qd_emu_spin(site);
    return old;
}
template <class T> inline T atomicAdd(T *p, qd_emu_same<T> v, QD_EMU_HERE)
{
    return qd_emu_atomic(
        p, [v](T old) { return static_cast<T>(old + v); }, site);
}
template <class T> inline T atomicCAS(T *p, qd_emu_same<T> expected, qd_emu_same<T> v, QD_EMU_HERE)
{
    return qd_emu_atomic(
        p, [expected, v](T old) { return old == expected ? v : old; }, site);
}

/* ---- arithmetic ---- */

inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
inline float __fsub_rn(float a, float b)
{
    return a - b;
}
inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
/* By macro: newer C libraries declare a rsqrtf of their own. */
inline float qd_emu_rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
#define rsqrtf qd_emu_rsqrtf

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
/* Of a number and NaN the number, as on the GPU. */
inline float max(float a, float b)
{
    return fmaxf(a, b);
}
inline float min(float a, float b)
{
    return fminf(a, b);
}

/* ---- bits ---- */

template <class To, class From> inline To qd_emu_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "a reinterpretation of the same bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x)
{
    return qd_emu_bits<unsigned>(x);
}
inline float __uint_as_float(unsigned x)
{
    return qd_emu_bits<float>(x);
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

/* ---- vectors ---- */

inline float2 make_float2(float x, float y)
{
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

#endif
