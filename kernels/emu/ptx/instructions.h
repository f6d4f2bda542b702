/* The PTX instructions that the front end knows: nothing that neither the kernels' PTX has nor the source
 * front end offers (shim/device_side.h). Here is the list of those that compute a value; it makes the
 * decoder's table and the executor's cases. In names, `_` stands for `.`.
 *
 *     X(name, result, a, value)          types as in PTX; `value` is written in C with a, b, c, d of those
 *     X(name, result, a, b, value)       types, and is truncated to the result's
 *     ...
 */
#ifndef QD_KERNELS_EMU_PTX_INSTRUCTIONS_H
#define QD_KERNELS_EMU_PTX_INSTRUCTIONS_H

/* ---- one source ---- */

#define QD_PTX_MOVE(X, type) X(mov_##type, type, type, a)
#define QD_PTX_UNARY(X)                                                                                      \
    QD_PTX_MOVE(X, pred)                                                                                     \
    QD_PTX_MOVE(X, b16)                                                                                      \
    QD_PTX_MOVE(X, u16)                                                                                      \
    QD_PTX_MOVE(X, s16)                                                                                      \
    QD_PTX_MOVE(X, b32)                                                                                      \
    QD_PTX_MOVE(X, u32)                                                                                      \
    QD_PTX_MOVE(X, s32)                                                                                      \
    QD_PTX_MOVE(X, b64)                                                                                      \
    QD_PTX_MOVE(X, u64)                                                                                      \
    QD_PTX_MOVE(X, s64)                                                                                      \
    QD_PTX_MOVE(X, f32)                                                                                      \
    X(cvta_to_global_u64, u64, u64, a)                                                                       \
    X(not_pred, pred, pred, !a)                                                                              \
    X(not_b16, b16, b16, ~a)                                                                                 \
    X(not_b32, b32, b32, ~a)                                                                                 \
    X(not_b64, b64, b64, ~a)                                                                                 \
    X(neg_s32, s32, s32, 0 - (uint64_t)a)                                                                    \
    X(neg_s64, s64, s64, 0 - (uint64_t)a)                                                                    \
    X(brev_b32, b32, b32, reverse_bits(a))                                                                   \
    X(bfind_shiftamt_u32, u32, u32, a ? (uint32_t)__builtin_clz(a) : ~0u)                                    \
    X(neg_f32, f32, f32, -a)                                                                                 \
    X(rcp_rn_f32, f32, f32, 1.0f / a)                                                                        \
    X(rsqrt_approx_f32, f32, f32, 1.0f / sqrtf(a))                                                           \
    X(ex2_approx_ftz_f32, f32, f32, qd_emu_exp2_approx(a))

/* Conversions: their source may lie in a wider register. */
#define QD_PTX_CONVERT_TO(X, type)                                                                           \
    X(cvt_##type##_u8, type, u8, a)                                                                          \
    X(cvt_##type##_s8, type, s8, a)                                                                          \
    X(cvt_##type##_u16, type, u16, a)                                                                        \
    X(cvt_##type##_s16, type, s16, a)                                                                        \
    X(cvt_##type##_u32, type, u32, a)                                                                        \
    X(cvt_##type##_s32, type, s32, a)                                                                        \
    X(cvt_##type##_u64, type, u64, a)                                                                        \
    X(cvt_##type##_s64, type, s64, a)
/* Saturating; NaN becomes 0. */
#define QD_PTX_CONVERT_ROUNDED(X, rounding, function)                                                        \
    X(cvt_##rounding##_s32_f32, s32, f32, saturated(function(a), -0x1p31, 0x1p31 - 1))                       \
    X(cvt_##rounding##_u32_f32, u32, f32, saturated(function(a), 0, 0x1p32 - 1))
#define QD_PTX_CONVERT(X)                                                                                    \
    QD_PTX_CONVERT_TO(X, u16)                                                                                \
    QD_PTX_CONVERT_TO(X, s16)                                                                                \
    QD_PTX_CONVERT_TO(X, u32)                                                                                \
    QD_PTX_CONVERT_TO(X, s32)                                                                                \
    QD_PTX_CONVERT_TO(X, u64)                                                                                \
    QD_PTX_CONVERT_TO(X, s64)                                                                                \
    QD_PTX_CONVERT_ROUNDED(X, rni, rintf)                                                                    \
    QD_PTX_CONVERT_ROUNDED(X, rzi, truncf)                                                                   \
    QD_PTX_CONVERT_ROUNDED(X, rmi, floorf)                                                                   \
    QD_PTX_CONVERT_ROUNDED(X, rpi, ceilf)                                                                    \
    X(cvt_rn_f32_s32, f32, s32, a)                                                                           \
    X(cvt_rn_f32_u32, f32, u32, a)                                                                           \
    X(cvt_rn_f32_s64, f32, s64, a)                                                                           \
    X(cvt_rn_f32_u64, f32, u64, a)

/* ---- two sources ---- */

/* In 64 bits without a sign, then truncated: nothing overflows. */
#define QD_PTX_INTEGER(X, type)                                                                              \
    X(add_##type, type, type, type, (uint64_t)a + (uint64_t)b)                                               \
    X(sub_##type, type, type, type, (uint64_t)a - (uint64_t)b)                                               \
    X(mul_lo_##type, type, type, type, (uint64_t)a *(uint64_t)b)                                             \
    X(min_##type, type, type, type, a < b ? a : b)                                                           \
    X(max_##type, type, type, type, a < b ? b : a)                                                           \
    QD_PTX_COMPARE(X, type)
#define QD_PTX_COMPARE(X, type)                                                                              \
    X(setp_eq_##type, pred, type, type, a == b)                                                              \
    X(setp_ne_##type, pred, type, type, a != b)                                                              \
    X(setp_lt_##type, pred, type, type, a < b)                                                               \
    X(setp_le_##type, pred, type, type, a <= b)                                                              \
    X(setp_gt_##type, pred, type, type, a > b)                                                               \
    X(setp_ge_##type, pred, type, type, a >= b)
#define QD_PTX_LOGIC(X, type)                                                                                \
    X(and_##type, type, type, type, a &b)                                                                    \
    X(or_##type, type, type, type, a | b)                                                                    \
    X(xor_##type, type, type, type, a ^ b)
/* A shift by the width or more shifts everything out. */
#define QD_PTX_SHIFT(X, bits)                                                                                \
    X(shl_b##bits, b##bits, b##bits, u32, b >= bits ? 0 : (uint64_t)a << b)                                  \
    X(shr_b##bits, b##bits, b##bits, u32, b >= bits ? 0 : (uint64_t)a >> b)                                  \
    X(shr_u##bits, u##bits, u##bits, u32, b >= bits ? 0 : (uint64_t)a >> b)                                  \
    X(shr_s##bits, s##bits, s##bits, u32, (int64_t)a >> (b >= bits ? bits - 1 : b))
#define QD_PTX_DIVIDE(X, bits)                                                                               \
    X(div_u##bits, u##bits, u##bits, u##bits, a / checked_divisor(b, SITE))                                  \
    X(rem_u##bits, u##bits, u##bits, u##bits, a % checked_divisor(b, SITE))                                  \
    X(div_s##bits, s##bits, s##bits, s##bits, signed_quotient(a, b, SITE))                                   \
    X(rem_s##bits, s##bits, s##bits, s##bits, b == -1 ? 0 : a - b * signed_quotient(a, b, SITE))
/* `u` says unordered: true when an operand is NaN; every other comparison is false then, `ne` too. */
#define QD_PTX_COMPARE_FLOAT(X)                                                                              \
    X(setp_eq_f32, pred, f32, f32, a == b)                                                                   \
    X(setp_ne_f32, pred, f32, f32, a<b || a> b)                                                              \
    X(setp_lt_f32, pred, f32, f32, a < b)                                                                    \
    X(setp_le_f32, pred, f32, f32, a <= b)                                                                   \
    X(setp_gt_f32, pred, f32, f32, a > b)                                                                    \
    X(setp_ge_f32, pred, f32, f32, a >= b)                                                                   \
    X(setp_equ_f32, pred, f32, f32, !(a < b || a > b))                                                       \
    X(setp_neu_f32, pred, f32, f32, a != b)                                                                  \
    X(setp_ltu_f32, pred, f32, f32, !(a >= b))                                                               \
    X(setp_leu_f32, pred, f32, f32, !(a > b))                                                                \
    X(setp_gtu_f32, pred, f32, f32, !(a <= b))                                                               \
    X(setp_geu_f32, pred, f32, f32, !(a < b))                                                                \
    X(setp_num_f32, pred, f32, f32, a == a && b == b)                                                        \
    X(setp_nan_f32, pred, f32, f32, a != a || b != b)
#define QD_PTX_BINARY(X)                                                                                     \
    QD_PTX_INTEGER(X, u16)                                                                                   \
    QD_PTX_INTEGER(X, s16)                                                                                   \
    QD_PTX_INTEGER(X, u32)                                                                                   \
    QD_PTX_INTEGER(X, s32)                                                                                   \
    QD_PTX_INTEGER(X, u64)                                                                                   \
    QD_PTX_INTEGER(X, s64)                                                                                   \
    X(setp_eq_b32, pred, b32, b32, a == b)                                                                   \
    X(setp_ne_b32, pred, b32, b32, a != b)                                                                   \
    QD_PTX_LOGIC(X, pred)                                                                                    \
    QD_PTX_LOGIC(X, b16)                                                                                     \
    QD_PTX_LOGIC(X, b32)                                                                                     \
    QD_PTX_LOGIC(X, b64)                                                                                     \
    QD_PTX_SHIFT(X, 16)                                                                                      \
    QD_PTX_SHIFT(X, 32)                                                                                      \
    QD_PTX_SHIFT(X, 64)                                                                                      \
    QD_PTX_DIVIDE(X, 32)                                                                                     \
    QD_PTX_DIVIDE(X, 64)                                                                                     \
    X(mul_wide_u16, u32, u16, u16, (uint64_t)a *b)                                                           \
    X(mul_wide_s16, s32, s16, s16, (int64_t)a *b)                                                            \
    X(mul_wide_u32, u64, u32, u32, (uint64_t)a *b)                                                           \
    X(mul_wide_s32, s64, s32, s32, (int64_t)a *b)                                                            \
    X(mul_hi_u32, u32, u32, u32, (uint64_t)a *b >> 32)                                                       \
    X(mul_hi_s32, s32, s32, s32, (int64_t)a *b >> 32)                                                        \
    X(add_f32, f32, f32, f32, a + b)                                                                         \
    X(add_rn_f32, f32, f32, f32, a + b)                                                                      \
    X(sub_f32, f32, f32, f32, a - b)                                                                         \
    X(sub_rn_f32, f32, f32, f32, a - b)                                                                      \
    X(mul_f32, f32, f32, f32, a *b)                                                                          \
    X(mul_rn_f32, f32, f32, f32, a *b)                                                                       \
    X(div_rn_f32, f32, f32, f32, a / b)                                                                      \
    X(min_f32, f32, f32, f32, smaller(a, b))                                                                 \
    X(max_f32, f32, f32, f32, -smaller(-a, -b))                                                              \
    QD_PTX_COMPARE_FLOAT(X)                                                                                  \
    X(cvt_rn_bf16x2_f32, b32, f32, f32, qd_emu_pack_bf16(b, a))

/* ---- three and four ---- */

#define QD_PTX_SELECT(X, type) X(selp_##type, type, type, type, pred, c ? a : b)
#define QD_PTX_TERNARY(X)                                                                                    \
    X(mad_lo_s32, s32, s32, s32, s32, (uint64_t)a *(uint64_t)b + (uint64_t)c)                                \
    X(fma_rn_f32, f32, f32, f32, f32, fmaf(a, b, c))                                                         \
    QD_PTX_SELECT(X, u16)                                                                                    \
    QD_PTX_SELECT(X, b16)                                                                                    \
    QD_PTX_SELECT(X, s32)                                                                                    \
    QD_PTX_SELECT(X, u32)                                                                                    \
    QD_PTX_SELECT(X, b32)                                                                                    \
    QD_PTX_SELECT(X, u64)                                                                                    \
    QD_PTX_SELECT(X, b64)                                                                                    \
    QD_PTX_SELECT(X, f32)
/* a's low d bits put over b's bits from c on. */
#define QD_PTX_QUATERNARY(X)                                                                                 \
    X(bfi_b32, b32, b32, b32, u32, u32, inserted(a, b, c, d, 32))                                            \
    X(bfi_b64, b64, b64, b64, u32, u32, inserted(a, b, c, d, 64))

/* ---- the others: X(op, name, operands); the executor has code for each op ----
 *
 * Operands: a type is a register, constant or special register, = before it: written; {type*n} that many
 * registers or, before an =, all of them written; [type] an address whose base is of that type (u32: in
 * shared memory); type|pred a pair; `label`;
 * `#` a number known when it is loaded; a number: itself. + after a type: the register may be wider. */
#define QD_PTX_OTHER(X)                                                                                      \
    X(PACK_16, "mov.b32", "=b32 {b16*2}")                                                                    \
    X(UNPACK_16, "mov.b32", "={b16*2} b32")                                                                  \
    X(PACK_32, "mov.b64", "=b64 {b32*2}")                                                                    \
    X(UNPACK_32, "mov.b64", "={b32*2} b64")                                                                  \
    X(BRANCH, "bra", "label")                                                                                \
    X(BRANCH_UNIFORM, "bra.uni", "label")                                                                    \
    X(RETURN, "ret", "")                                                                                     \
    X(BAR_SYNC_ALL, "bar.sync", "u32")                                                                       \
    X(BAR_SYNC, "bar.sync", "u32 u32")                                                                       \
    X(BAR_ARRIVE, "bar.arrive", "u32 u32")                                                                   \
    X(SYNCWARP, "bar.warp.sync", "b32")                                                                      \
    X(FENCE, "membar.gl", "")                                                                                \
    X(SHUFFLE_INDEX, "shfl.sync.idx.b32", "=b32|pred b32 b32 b32 b32")                                       \
    X(SHUFFLE_UP, "shfl.sync.up.b32", "=b32|pred b32 b32 b32 b32")                                           \
    X(SHUFFLE_DOWN, "shfl.sync.down.b32", "=b32|pred b32 b32 b32 b32")                                       \
    X(SHUFFLE_XOR, "shfl.sync.bfly.b32", "=b32|pred b32 b32 b32 b32")                                        \
    X(BALLOT, "vote.sync.ballot.b32", "=b32 pred b32")                                                       \
    X(VOTE_ANY, "vote.sync.any.pred", "=pred pred b32")                                                      \
    X(VOTE_ALL, "vote.sync.all.pred", "=pred pred b32")                                                      \
    X(LDMATRIX_1, "ldmatrix.sync.aligned.m8n8.x1.shared.b16", "={b32*1} [u32]")                              \
    X(LDMATRIX_2, "ldmatrix.sync.aligned.m8n8.x2.shared.b16", "={b32*2} [u32]")                              \
    X(LDMATRIX_4, "ldmatrix.sync.aligned.m8n8.x4.shared.b16", "={b32*4} [u32]")                              \
    X(LDMATRIX_4_TRANS, "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", "={b32*4} [u32]")                  \
    X(MMA, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "={f32*4} {b32*4} {b32*2} {f32*4}")        \
    X(COPY_ASYNC, "cp.async.cg.shared.global.L2::128B", "[u32] [u64] 16 u32")                                \
    X(COPY_COMMIT, "cp.async.commit_group", "")                                                              \
    X(COPY_WAIT, "cp.async.wait_group", "#")                                                                 \
    X(LOAD_WEIGHT, "ld.global.nc.L1::no_allocate.L2::128B.v4.u32", "={u32*4} [u64]")                         \
    X(LOAD_ACQUIRE, "ld.acquire.sys.global.u32", "=u32 [u64]")                                               \
    X(STORE_RELEASE, "st.release.sys.global.u32", "[u64] u32")                                               \
    X(ATOMIC_ADD_GLOBAL, "atom.global.add.u32", "=u32 [u64] u32")                                            \
    X(ATOMIC_ADD_SHARED, "atom.shared.add.u32", "=u32 [u32] u32")                                            \
    X(REDUCE_ADD_SHARED, "red.shared.add.u32", "[u32] u32")                                                  \
    X(ATOMIC_SWAP_GLOBAL, "atom.global.cas.b32", "=b32 [u64] b32 b32")                                       \
    X(ATOMIC_SWAP_SHARED, "atom.shared.cas.b32", "=b32 [u32] b32 b32")

#endif
