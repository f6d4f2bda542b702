/* NCCL on emulated GPUs: the functions of kernels/cuda/nccl_functions.h over the emulated runtime. A
 * collective is a kernel on its stream, is captured and replayed as one, and meets its twins of the other
 * ranks when it runs.
 *
 * What it refuses, with rank and number of the call (counted as they run, from 1): calls that differ between
 * ranks in kind, count, type or operation, or in whether they were captured; a call on another stream than
 * the first; a rank that leaves while another waits for it; two ranks on one GPU; memory that overlaps. Real
 * NCCL hangs, crashes or sums nonsense for most of these. A sum goes round the ranks as in NCCL's ring,
 * rounded at every hop. Groups are only checked for balance. A rank that aborts frees its own kernels, nobody
 * else's.
 */
#ifndef QD_KERNELS_EMU_NCCL_H
#define QD_KERNELS_EMU_NCCL_H

#include "kernels/cuda/nccl_functions.h"

#ifdef __cplusplus
extern "C" {
#endif

/* QD_ERR_NOT_FOUND when qd_emu_set_links took it away. */
qd_status qd_emu_nccl(struct qd_nccl_functions *out, char *err, size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
