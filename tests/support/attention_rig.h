/* One attention layer on a device and on the specification side by side: the same tokens go through
 * qk_norm_rope_kv and attention of both. A token's q, k and v depend on its sequence and position only, so
 * that any chunking of a prompt sees the same numbers. */
#ifndef QD_TESTS_SUPPORT_ATTENTION_RIG_H
#define QD_TESTS_SUPPORT_ATTENTION_RIG_H

#include "tests/support/devices.h"
#include "tests/support/steps.h"

struct heads {
    int32_t n_heads, n_kv_heads, head_dim;
};

struct attention_rig {
    struct heads heads;
    struct qd_device device;
    enum qd_numerics numerics;
    struct page_deal deal;
    struct qd_kv_layer kv, ref_kv; /* the unused rows of both stay NaN */
    qd_bf16 *q_weight, *k_weight;  /* [hd] */
    float *inv_freq;               /* [hd/2] */
    struct qd_rope rope;
};

struct attention_rig attention_rig_init(const struct qd_device_ops *ops, struct setting setting,
                                        struct heads heads, int32_t n_seqs, int32_t max_len);
void attention_rig_free(struct attention_rig *rig);

/* Elements of q and of the output of one token. */
size_t attention_rig_width(const struct attention_rig *rig);

/* Runs one step on the device: q and out are [T][width], for the caller to free. */
void attention_rig_run(struct attention_rig *rig, const struct chunk *chunks, int32_t n_chunks, qd_bf16 **q,
                       qd_bf16 **out);
/* The same on the specification. out may be NULL: keys and values are stored only. */
void attention_rig_run_ref(struct attention_rig *rig, const struct chunk *chunks, int32_t n_chunks,
                           qd_bf16 **q, qd_bf16 **out);

/* [T][(Hq + 2 Hkv) * hd], for the caller to free */
qd_bf16 *attention_rig_qkv(const struct attention_rig *rig, const struct chunk *chunks, int32_t n_chunks);

#endif
