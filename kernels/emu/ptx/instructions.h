/* The PTX instructions that the front end knows, which are those that the kernels' PTX has: it makes the
 * decoder's table and the executor's cases. In names of the first lists `_` stands for `.`.
 *
 *     X(name, result, a, value)          types as in PTX; `value` is written in C with a, b, c of those
 *     X(name, result, a, b, value)       types, and is truncated to the result's
 *     X(name, result, a, b, c, value) */
#ifndef QD_KERNELS_EMU_PTX_INSTRUCTIONS_H
#define QD_KERNELS_EMU_PTX_INSTRUCTIONS_H

#define QD_PTX_MOVE(X, type) X(mov_##type, type, type, a)
#define QD_PTX_UNARY(X)                                                                                      \
    QD_PTX_MOVE(X, pred)                                                                                     \
    QD_PTX_MOVE(X, u16)                                                                                      \
    QD_PTX_MOVE(X, b32)                                                                                      \
    QD_PTX_MOVE(X, u32)                                                                                      \
    QD_PTX_MOVE(X, b64)                                                                                      \
    QD_PTX_MOVE(X, u64)                                                                                      \
    QD_PTX_MOVE(X, f32)                                                                                      \
    X(cvta_to_global_u64, u64, u64, a)                                                                       \
    X(cvt_u64_u32, u64, u32, a)                                                                              \
    X(cvt_s64_s32, s64, s32, a)                                                                              \
    X(cvt_u32_u64, u32, u64, a)                                                                              \
    X(cvt_rn_f32_s32, f32, s32, a)                                                                           \
    X(cvt_rzi_s32_f32, s32, f32, saturated(truncf(a), -0x1p31, 0x1p31 - 1))                                  \
    X(cvt_rzi_u32_f32, u32, f32, saturated(truncf(a), 0, 0x1p32 - 1))                                        \
    X(not_pred, pred, pred, !a)                                                                              \
    X(not_b32, b32, b32, ~a)                                                                                 \
    X(not_b64, b64, b64, ~a)                                                                                 \
    X(neg_s32, s32, s32, 0 - (uint64_t)a)                                                                    \
    X(brev_b32, b32, b32, reverse_bits(a))                                                                   \
    X(bfind_shiftamt_u32, u32, u32, a ? (uint32_t)__builtin_clz(a) : ~0u)                                    \
    X(neg_f32, f32, f32, -a)                                                                                 \
    X(rcp_rn_f32, f32, f32, 1.0f / a)                                                                        \
    X(rsqrt_approx_f32, f32, f32, 1.0f / sqrtf(a))                                                           \
    X(ex2_approx_ftz_f32, f32, f32, qd_emu_exp2_approx(a))

/* In 64 bits without a sign, then truncated: nothing overflows. */
#define QD_PTX_INTEGER(X, type)                                                                              \
    X(add_##type, type, type, type, (uint64_t)a + (uint64_t)b)                                               \
    X(sub_##type, type, type, type, (uint64_t)a - (uint64_t)b)                                               \
    X(mul_lo_##type, type, type, type, (uint64_t)a *(uint64_t)b)                                             \
    X(min_##type, type, type, type, a < b ? a : b)                                                           \
    X(max_##type, type, type, type, a < b ? b : a)                                                           \
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
#define QD_PTX_SHIFT_AND_DIVIDE(X, bits)                                                                     \
    X(shl_b##bits, b##bits, b##bits, u32, b >= bits ? 0 : (uint64_t)a << b)                                  \
    X(shr_u##bits, u##bits, u##bits, u32, b >= bits ? 0 : (uint64_t)a >> b)                                  \
    X(shr_s##bits, s##bits, s##bits, u32, (int64_t)a >> (b >= bits ? bits - 1 : b))                          \
    X(div_u##bits, u##bits, u##bits, u##bits, a / checked_divisor(b, SITE))                                  \
    X(rem_u##bits, u##bits, u##bits, u##bits, a % checked_divisor(b, SITE))                                  \
    X(div_s##bits, s##bits, s##bits, s##bits, signed_quotient(a, b, SITE))                                   \
    X(rem_s##bits, s##bits, s##bits, s##bits, b == -1 ? 0 : a - b * signed_quotient(a, b, SITE))
/* With `u` a comparison of floats is true when an operand is NaN, without it false. */
#define QD_PTX_BINARY(X)                                                                                     \
    QD_PTX_INTEGER(X, u32)                                                                                   \
    QD_PTX_INTEGER(X, s32)                                                                                   \
    QD_PTX_INTEGER(X, u64)                                                                                   \
    QD_PTX_INTEGER(X, s64)                                                                                   \
    X(setp_eq_s16, pred, s16, s16, a == b)                                                                   \
    X(setp_ne_s16, pred, s16, s16, a != b)                                                                   \
    X(setp_eq_b32, pred, b32, b32, a == b)                                                                   \
    QD_PTX_LOGIC(X, pred)                                                                                    \
    QD_PTX_LOGIC(X, b32)                                                                                     \
    QD_PTX_LOGIC(X, b64)                                                                                     \
    QD_PTX_SHIFT_AND_DIVIDE(X, 32)                                                                           \
    QD_PTX_SHIFT_AND_DIVIDE(X, 64)                                                                           \
    X(mul_wide_u32, u64, u32, u32, (uint64_t)a *b)                                                           \
    X(mul_wide_s32, s64, s32, s32, (int64_t)a *b)                                                            \
    X(add_f32, f32, f32, f32, a + b)                                                                         \
    X(add_rn_f32, f32, f32, f32, a + b)                                                                      \
    X(sub_f32, f32, f32, f32, a - b)                                                                         \
    X(sub_rn_f32, f32, f32, f32, a - b)                                                                      \
    X(mul_f32, f32, f32, f32, a *b)                                                                          \
    X(mul_rn_f32, f32, f32, f32, a *b)                                                                       \
    X(div_rn_f32, f32, f32, f32, a / b)                                                                      \
    X(min_f32, f32, f32, f32, smaller(a, b))                                                                 \
    X(max_f32, f32, f32, f32, -smaller(-a, -b))                                                              \
    X(setp_eq_f32, pred, f32, f32, a == b)                                                                   \
    X(setp_ge_f32, pred, f32, f32, a >= b)                                                                   \
    X(setp_ltu_f32, pred, f32, f32, !(a >= b))                                                               \
    X(setp_leu_f32, pred, f32, f32, !(a > b))                                                                \
    X(setp_nan_f32, pred, f32, f32, a != a || b != b)                                                        \
    X(cvt_rn_bf16x2_f32, b32, f32, f32, qd_emu_pack_bf16(b, a))

#define QD_PTX_SELECT(X, type) X(selp_##type, type, type, type, pred, c ? a : b)
#define QD_PTX_TERNARY(X)                                                                                    \
    X(mad_lo_s32, s32, s32, s32, s32, (uint64_t)a *(uint64_t)b + (uint64_t)c)                                \
    X(fma_rn_f32, f32, f32, f32, f32, fmaf(a, b, c))                                                         \
    QD_PTX_SELECT(X, u16)                                                                                    \
    QD_PTX_SELECT(X, b32)                                                                                    \
    QD_PTX_SELECT(X, u32)                                                                                    \
    QD_PTX_SELECT(X, b64)                                                                                    \
    QD_PTX_SELECT(X, f32)

/* The others: X(op, opcode, operands); the executor has code for each op. Operands are written as in PTX,
 * with a type for each register, constant, or special register. In brackets it is an address's (u32: in
 * shared memory), and an offset may follow. Those before `=`, which stands for a comma, are written. `number`
 * is one known when it is loaded. */
#define QD_PTX_FOUR(type) "{" type "," type "," type "," type "}"
#define QD_PTX_OTHER(X)                                                                                      \
    X(PACK_16, "mov.b32", "b32={b16,b16}")                                                                   \
    X(PACK_32, "mov.b64", "b64={b32,b32}")                                                                   \
    X(UNPACK_32, "mov.b64", "{b32,b32}=b64")                                                                 \
    X(INSERT_32, "bfi.b32", "b32=b32,b32,u32,u32")                                                           \
    X(INSERT_64, "bfi.b64", "b64=b64,b64,u32,u32")                                                           \
    X(BRANCH, "bra", "label")                                                                                \
    X(BRANCH_UNIFORM, "bra.uni", "label")                                                                    \
    X(RETURN, "ret", "")                                                                                     \
    X(BAR_SYNC_ALL, "bar.sync", "u32")                                                                       \
    X(BAR_SYNC, "bar.sync", "u32,u32")                                                                       \
    X(BAR_ARRIVE, "bar.arrive", "u32,u32")                                                                   \
    X(SYNCWARP, "bar.warp.sync", "b32")                                                                      \
    X(FENCE, "membar.gl", "")                                                                                \
    X(SHUFFLE_INDEX, "shfl.sync.idx.b32", "b32|pred=b32,b32,b32,b32")                                        \
    X(SHUFFLE_UP, "shfl.sync.up.b32", "b32|pred=b32,b32,b32,b32")                                            \
    X(SHUFFLE_XOR, "shfl.sync.bfly.b32", "b32|pred=b32,b32,b32,b32")                                         \
    X(BALLOT, "vote.sync.ballot.b32", "b32=pred,b32")                                                        \
    X(LDMATRIX_1, "ldmatrix.sync.aligned.m8n8.x1.shared.b16", "{b32}=[u32]")                                 \
    X(LDMATRIX_2, "ldmatrix.sync.aligned.m8n8.x2.shared.b16", "{b32,b32}=[u32]")                             \
    X(LDMATRIX_4, "ldmatrix.sync.aligned.m8n8.x4.shared.b16", QD_PTX_FOUR("b32") "=[u32]")                   \
    X(LDMATRIX_4_TRANS, "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", QD_PTX_FOUR("b32") "=[u32]")       \
    X(MMA, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",                                            \
      QD_PTX_FOUR("f32") "=" QD_PTX_FOUR("b32") ",{b32,b32}," QD_PTX_FOUR("f32"))                            \
    X(COPY_ASYNC, "cp.async.cg.shared.global.L2::128B", "[u32],[u64],16,u32")                                \
    X(COPY_COMMIT, "cp.async.commit_group", "")                                                              \
    X(COPY_WAIT, "cp.async.wait_group", "number")                                                            \
    X(LOAD_WEIGHT, "ld.global.nc.L1::no_allocate.L2::128B.v4.u32", QD_PTX_FOUR("u32") "=[u64]")              \
    X(LOAD_ACQUIRE, "ld.acquire.sys.global.u32", "u32=[u64]")                                                \
    X(STORE_RELEASE, "st.release.sys.global.u32", "[u64]=u32")                                               \
    X(ATOMIC_ADD_GLOBAL, "atom.global.add.u32", "u32=[u64],u32")                                             \
    X(ATOMIC_ADD_SHARED, "atom.shared.add.u32", "u32=[u32],u32")                                             \
    X(REDUCE_ADD_SHARED, "red.shared.add.u32", "[u32]=u32")

/* Plain loads and stores; the register may be wider than the element. */
#define QD_PTX_LOAD(X, space, base, type)                                                                    \
    X(LOAD, "ld." space "." type, type "=[" base "]")                                                        \
    X(LOAD, "ld." space ".v2." type, "{" type "," type "}=[" base "]")                                       \
    X(LOAD, "ld." space ".v4." type, QD_PTX_FOUR(type) "=[" base "]")
#define QD_PTX_STORE(X, space, base, type)                                                                   \
    X(STORE, "st." space "." type, "[" base "]=" type)                                                       \
    X(STORE, "st." space ".v2." type, "[" base "]={" type "," type "}")                                      \
    X(STORE, "st." space ".v4." type, "[" base "]=" QD_PTX_FOUR(type))
#define QD_PTX_TYPES(access, X, space, base)                                                                 \
    access(X, space, base, "u8") access(X, space, base, "u16") access(X, space, base, "u32")                 \
        access(X, space, base, "s32") access(X, space, base, "u64") access(X, space, base, "f32")
#define QD_PTX_ACCESS(X)                                                                                     \
    QD_PTX_TYPES(QD_PTX_LOAD, X, "global", "u64")                                                            \
    QD_PTX_TYPES(QD_PTX_LOAD, X, "volatile.global", "u64")                                                   \
    QD_PTX_TYPES(QD_PTX_LOAD, X, "shared", "u32")                                                            \
    QD_PTX_TYPES(QD_PTX_LOAD, X, "param", "u64")                                                             \
    QD_PTX_TYPES(QD_PTX_STORE, X, "global", "u64")                                                           \
    QD_PTX_TYPES(QD_PTX_STORE, X, "volatile.global", "u64")                                                  \
    QD_PTX_TYPES(QD_PTX_STORE, X, "shared", "u32")

#endif
