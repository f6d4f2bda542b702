/* The functions of kernels/cuda/ptx.cuh in the emulator: same names and signatures, plus the place of the
 * call, over the models in instructions.c. C++ only; documented in ptx.cuh. */
#ifndef QD_KERNELS_EMU_INSTRUCTIONS_H
#define QD_KERNELS_EMU_INSTRUCTIONS_H

#include "kernels/emu/emu.h"
#include "kernels/emu/shim/device_side.h"

namespace ptx {

inline uint32_t shared_address(const void *p)
{
    return qd_emu_shared_address(p);
}

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], QD_EMU_HERE)
{
    qd_emu_mma_m16n8k16_bf16(d, a, b, site);
}

inline void ldmatrix_x1(uint32_t (&r)[1], uint32_t row, QD_EMU_HERE)
{
    qd_emu_ldmatrix(r, 1, false, row, site);
}
inline void ldmatrix_x2(uint32_t (&r)[2], uint32_t row, QD_EMU_HERE)
{
    qd_emu_ldmatrix(r, 2, false, row, site);
}
inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t row, QD_EMU_HERE)
{
    qd_emu_ldmatrix(r, 4, false, row, site);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row, QD_EMU_HERE)
{
    qd_emu_ldmatrix(r, 4, true, row, site);
}

inline void cp_async_16(uint32_t dst, const void *src, uint32_t src_bytes = 16, QD_EMU_HERE)
{
    qd_emu_async_copy(dst, src, src_bytes, site);
}
inline void cp_async_commit(QD_EMU_HERE)
{
    qd_emu_async_commit(site);
}
template <int pending> inline void cp_async_wait()
{
    qd_emu_async_wait(pending);
}

inline void bar_sync(uint32_t id, uint32_t n_threads, QD_EMU_HERE)
{
    qd_emu_barrier_sync(id, n_threads, site);
}
inline void bar_arrive(uint32_t id, uint32_t n_threads, QD_EMU_HERE)
{
    qd_emu_barrier_arrive(id, n_threads, site);
}

inline float exp2_approx(float x)
{
    return qd_emu_exp2_approx(x);
}

inline uint32_t pack_bf16(float low, float high)
{
    return qd_emu_pack_bf16(low, high);
}

inline uint4 load_weight_16(const void *p, QD_EMU_HERE)
{
    return qd_emu_load_weight_16(p, site);
}

inline void store_release_sys(uint32_t *p, uint32_t value)
{
    qd_emu_store_release(p, value);
}
inline uint32_t load_acquire_sys(const uint32_t *p, QD_EMU_HERE)
{
    return qd_emu_load_acquire(p, site);
}

} // namespace ptx

#endif
