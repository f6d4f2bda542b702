/* NCCL on emulated GPUs: the functions of kernels/cuda/nccl_functions.h over the emulated runtime. A
 * collective is a kernel on its stream, is captured and replayed as one, and meets its twins of the other
 * ranks when it runs.
 *
 * What it refuses, with rank and number of the call (counted as they run, from 1): calls that differ between
 * ranks in kind, count, type or operation, or in whether they were captured; a call on another stream than
 * the first; a rank that leaves while another waits for it; two ranks on one GPU. Real NCCL hangs, crashes or
 * sums nonsense for most of these. A sum goes round the ranks as in NCCL's ring, rounded at every hop. Calls
 * of a group begin at once. A rank that aborts frees its own kernels, nobody else's. */
#ifndef QD_KERNELS_EMU_NCCL_NCCL_H
#define QD_KERNELS_EMU_NCCL_NCCL_H

#include <stdbool.h>

#include "kernels/cuda/nccl_functions.h"

/* Whether there is an NCCL, as at first. Before anything uses a GPU. */
void qd_emu_nccl_set_present(bool is_present);
/* QD_ERR_NOT_FOUND when there is none. */
qd_status qd_emu_nccl(struct qd_nccl_functions *out, char *err, size_t errlen);

#endif
