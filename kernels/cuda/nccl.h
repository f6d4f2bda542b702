/* NCCL for the ranks of one replica: one communicator a rank, used by the rank's own thread and on one
 * stream. The library is opened when it is wanted (kernels/library.h); on emulated GPUs kernels/emu_nccl/nccl.h
 * takes its place.
 *
 * NCCL sums bf16 in an order of its own and may round at every hop: all ranks get the same bits, but other
 * ones than from the kernels of this project, and other ones for other sizes. Whatever compares bits uses
 * those kernels.
 */
#ifndef QD_KERNELS_CUDA_NCCL_H
#define QD_KERNELS_CUDA_NCCL_H

#include <limits.h>

#include "kernels/base/bf16.h"
#include "kernels/bootstrap.h"
#include "kernels/cuda/nccl_functions.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qd_nccl {
    struct qd_nccl_functions call;
    int version;           /* 22809 for 2.28.9 */
    char path[PATH_MAX];   /* the file that was opened */
    struct ncclComm *comm; /* NULL: not open */
    int world;             /* ranks that joined */
};

/* Finds the library; *nccl is zeroed first. QD_ERR_NOT_FOUND: it is not installed; QD_ERR_ENVIRONMENT: it is,
 * but it cannot be loaded, lacks a function or is older than 2.10, which first knew bf16. */
qd_status qd_nccl_load(struct qd_nccl *nccl, char *err, size_t errlen);

/* Joins this rank, on the current GPU, with the others of the bootstrap. Collective; every rank has loaded
 * it. NCCL refuses two ranks on one GPU. */
qd_status qd_nccl_open(struct qd_nccl *nccl, const struct qd_bootstrap *bootstrap, char *err, size_t errlen);

/* out [n] = sum over ranks of in [n], on the stream; may be captured. out == in, or apart. Collective. */
qd_status qd_nccl_all_reduce(struct qd_nccl *nccl, const qd_bf16 *in, qd_bf16 *out, int64_t n,
                             struct CUstream_st *stream, char *err, size_t errlen);

/* out [n_rows][world][row_bytes] = in [n_rows][row_bytes] of every rank, in rank order: one gathering a row,
 * as one group. On the stream; may be captured. Collective. */
qd_status qd_nccl_all_gather(struct qd_nccl *nccl, const void *in, int64_t n_rows, size_t row_bytes,
                             void *out, struct CUstream_st *stream, char *err, size_t errlen);

/* What went wrong meanwhile, in a kernel of NCCL's or a thread of its own: QD_ERR_ENVIRONMENT with its words.
 */
qd_status qd_nccl_check(struct qd_nccl *nccl, char *err, size_t errlen);

/* Ends kernels that wait for other ranks, then closes. After it only close is allowed. */
void qd_nccl_abort(struct qd_nccl *nccl);

/* After the graphs that captured its work. Accepts what is not open. */
void qd_nccl_close(struct qd_nccl *nccl);

#ifdef __cplusplus
}
#endif

#endif
