/* What one call of a case's op does on emulated GPUs, by the emulator's counters. */
#ifndef QD_HARNESS_OPS_COUNT_H
#define QD_HARNESS_OPS_COUNT_H

#include "harness/ops/session.h"

/* Of all ranks together. Of what kernels load and store in plain C++ the emulator sees nothing unless it runs
 * their PTX. */
struct qd_op_counters {
    uint64_t launches, blocks;
    uint64_t mma, ldmatrix;    /* m16n8k16 products and loads of operands, one a warp */
    uint64_t loaded_bytes;     /* of global memory */
    uint64_t async_copy_bytes; /* of these: by cp.async */
    uint64_t shared_wavefronts,
        shared_conflicts; /* accesses of shared memory; those that bank conflicts added */
    uint64_t barriers;
};

/* Of an open session on `emu`. The counters are the process's: nothing else may run on emulated GPUs
 * meanwhile. */
qd_status qd_op_count(qd_op_session_t *session, struct qd_op_counters *out, char *err, size_t errlen);

#endif
