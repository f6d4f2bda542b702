/* The functions of kernels/cuda/ptx.cuh in the emulator: same names and signatures, plus the place of the
 * call. They are the models in instructions.c and its neighbours, or call them. C++ only; documented in
 * ptx.cuh. */
#ifndef QD_KERNELS_EMU_INSTRUCTIONS_H
#define QD_KERNELS_EMU_INSTRUCTIONS_H

#include "kernels/emu/emu.h"
#include "kernels/emu/shim/device_side.h"

namespace ptx {

uint32_t shared_address(const void *p) QD_EMU_IS("shared_address");
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], QD_EMU_HERE)
    QD_EMU_IS("mma_m16n8k16_bf16");
void cp_async_16(uint32_t dst, const void *src, uint32_t src_bytes = 16, QD_EMU_HERE) QD_EMU_IS("async_copy");
void cp_async_commit() QD_EMU_IS("async_commit");
void bar_sync(uint32_t id, uint32_t n_threads, QD_EMU_HERE) QD_EMU_IS("barrier_sync");
void bar_arrive(uint32_t id, uint32_t n_threads, QD_EMU_HERE) QD_EMU_IS("barrier_arrive");
float exp2_approx(float x) QD_EMU_IS("exp2_approx");
uint32_t pack_bf16(float low, float high) QD_EMU_IS("pack_bf16");
uint4 load_weight_16(const void *p, QD_EMU_HERE) QD_EMU_IS("load_weight_16");
void store_release_sys(uint32_t *p, uint32_t value) QD_EMU_IS("store_release");
uint32_t load_acquire_sys(const uint32_t *p, QD_EMU_HERE) QD_EMU_IS("load_acquire");

template <int pending> inline void cp_async_wait()
{
    qd_emu_async_wait(pending);
}
#define QD_EMU_LDMATRIX(name, n, transposed)                                                                 \
    inline void name(uint32_t(&r)[n], uint32_t row, QD_EMU_HERE)                                             \
    {                                                                                                        \
        qd_emu_ldmatrix(r, n, transposed, row, site);                                                        \
    }
QD_EMU_LDMATRIX(ldmatrix_x1, 1, false)
QD_EMU_LDMATRIX(ldmatrix_x2, 2, false)
QD_EMU_LDMATRIX(ldmatrix_x4, 4, false)
QD_EMU_LDMATRIX(ldmatrix_x4_trans, 4, true)

} // namespace ptx

#endif
