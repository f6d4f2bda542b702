/* What one rank of a case computes with: operands on the host, as kernels/ref takes them, and their copies in
 * the device's memory, which are rotated while timing so that no cache holds the next call's. */
#ifndef QD_HARNESS_OPS_OPERANDS_H
#define QD_HARNESS_OPS_OPERANDS_H

#include "harness/ops/case.h"

enum qd_op_operand_name {
    QD_OP_A = 0, /* activations in: x, a, gate_up, qkv, q, logits, partial */
    QD_OP_W,     /* weight: table, matrix, norm weight (of q) */
    QD_OP_W2,    /* norm weight of k */
    QD_OP_IO,    /* read and written: residual, the data of an all-reduce */
    QD_OP_OUT,   /* written */
    QD_OP_POOL,  /* KV pages of one layer; no host copy, as only the device's own ops read them */
    QD_OP_RIVAL, /* written by another library: the product of a projection, [M][N]; where the device has a
                    rival */
    QD_OP_N_OPERANDS,
};

/* Bytes beside every written operand that must stay as they were. */
enum { QD_OP_GUARD_BYTES = 256 };

struct qd_op_operand {
    size_t bytes;           /* of one copy in the device; 0: the op has no such operand */
    size_t host_bytes;      /* of the same values on the host */
    int64_t n_rows, n_cols; /* a matrix that the device packs; else 0 */
    unsigned char *host;    /* [host_bytes] what is uploaded: inputs, or poison */
    unsigned char *device;  /* the first copy, between guards */
    size_t stride;          /* bytes from one copy to the next */
};

struct qd_op_operands {
    struct qd_op_operand of[QD_OP_N_OPERANDS];
    int n_copies;
    unsigned char *staging; /* [staging_bytes] a packed weight or a guarded output on its way */
    size_t staging_bytes;
};

/* Device bytes of one copy of everything that the case's op touches; QD_ERR_TOO_LARGE when it cannot be
 * counted. */
qd_status qd_op_operand_bytes(const struct qd_op_case *c, const struct qd_device_ops *ops, size_t *bytes,
                              char *err, size_t errlen);

/* Allocates on both sides. QD_ERR_NO_MEMORY, QD_ERR_TOO_LARGE or what the device says. */
qd_status qd_op_operands_init(const struct qd_op_case *c, struct qd_device device, int n_copies,
                              struct qd_op_operands *out, char *err, size_t errlen);
void qd_op_operands_free(struct qd_op_operands *operands); /* the host's part; the rest is the device's */

/* Random inputs of rank `rank` on the host; what is only written is poison (0xff). The inputs of another rank
 * can be made as well, to compute what collectives should give. */
void qd_op_operands_fill(const struct qd_op_case *c, int rank, uint64_t seed,
                         struct qd_op_operands *operands);

/* All of it, and poison in the guards and in the pool, to the device: every copy. */
qd_status qd_op_operands_upload(struct qd_device device, struct qd_op_operands *operands, char *err,
                                size_t errlen);

/* Host bytes into memory of the device, of whichever kind it is. */
qd_status qd_op_put(struct qd_device device, void *data, const void *host, size_t bytes, char *err,
                    size_t errlen);

static inline void *qd_op_at(const struct qd_op_operands *operands, enum qd_op_operand_name name, int copy)
{
    return operands->of[name].device + (size_t)copy * operands->of[name].stride;
}

/* Values uniform in [base - scale, base + scale), n of them; `stream` tells operands and ranks apart. */
void qd_op_random_bf16(qd_bf16 *out, size_t n, float base, float scale, uint64_t seed, uint64_t stream);
void qd_op_random_f32(float *out, size_t n, float scale, uint64_t seed, uint64_t stream);

#endif
