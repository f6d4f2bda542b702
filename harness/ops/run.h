/* One call of a case's op on a device. */
#ifndef QD_HARNESS_OPS_RUN_H
#define QD_HARNESS_OPS_RUN_H

#include "harness/ops/operands.h"
#include "harness/ops/step.h"

/* Of RMSNorm, and the rotary embedding, of every case. */
#define QD_OP_EPS 1e-6f

/* One rank at work on a case. */
struct qd_op_rank {
    struct qd_op_case c;
    int rank;
    struct qd_device device;
    struct qd_op_operands operands;
    float *inv_freq;           /* [hd/2] */
    struct qd_step *fill_step; /* room for the limits */
    void *fill_rows, *fill_q;  /* device: qkv [max_tokens][...] and q of a step that fills the pool */
    qd_bf16 *fill_host;        /* [max_tokens][(Hq + 2*Hkv)*hd] */
    struct qd_partial partial; /* what the last projection left */
};

qd_status qd_op_rank_init(const struct qd_op_case *c, int rank, struct qd_device device, int n_copies,
                          struct qd_op_rank *out, char *err, size_t errlen);
void qd_op_rank_free(struct qd_op_rank *r);

struct qd_rope qd_op_rope(const struct qd_op_rank *r);
/* k and v heads of one position: row[2*Hkv*hd], k first. */
void qd_op_kv_row(const struct qd_op_case *c, uint64_t seed, int32_t seq, int32_t position, qd_bf16 *row);
struct qd_kv_layer qd_op_kv_layer(const struct qd_op_rank *r, int copy);

/* Keys and values of every position that the case's step sees or is, in every copy of the pool, by steps of
 * qk_norm_rope_kv: only the device knows how its pages are arranged. */
qd_status qd_op_fill_pool(struct qd_op_rank *r, uint64_t seed, char *err, size_t errlen);

/* plan and begin_step; *launched is what the op gets. */
qd_status qd_op_begin(struct qd_op_rank *r, const struct qd_step *step, const struct qd_step **launched,
                      char *err, size_t errlen);
/* The op itself, on one copy of its operands. `ids` is where sample() leaves them. */
qd_status qd_op_call(struct qd_op_rank *r, const struct qd_step *launched, int copy, int32_t *ids);
/* The end of the step, waited for. */
static inline qd_status qd_op_end(struct qd_op_rank *r, int32_t *ids)
{
    qd_status st = qd_device_end_step(r->device);
    return st == QD_OK ? qd_device_finish_step(r->device, ids) : st;
}

#endif
