/* The functions of NCCL that nccl.c calls, declared without nccl.h: X(result, member, symbol, arguments).
 * tests/kernels/library_real.c holds list, values and structure to nccl.h where that is installed;
 * `unique_id` is the name of a structure, ours or nccl.h's.
 */
#ifndef QD_KERNELS_CUDA_NCCL_FUNCTIONS_H
#define QD_KERNELS_CUDA_NCCL_FUNCTIONS_H

#include <stddef.h>

#include "kernels/library.h"

struct ncclComm; /* ncclComm_t is a pointer to it */
struct CUstream_st;

enum {
    QD_NCCL_SUCCESS = 0,
    QD_NCCL_UNHANDLED_CUDA_ERROR = 1,
    QD_NCCL_INVALID_ARGUMENT = 4,
    QD_NCCL_INVALID_USAGE = 5,
    QD_NCCL_IN_PROGRESS = 7,
    QD_NCCL_SUM = 0,
    QD_NCCL_UINT8 = 1,
    QD_NCCL_BF16 = 9,
    QD_NCCL_UNIQUE_ID_BYTES = 128,
};

struct qd_nccl_unique_id {
    char bytes[QD_NCCL_UNIQUE_ID_BYTES];
};

#define QD_NCCL_FUNCTIONS(X, unique_id)                                                                      \
    X(unsigned, get_version, ncclGetVersion, (int *))                                                        \
    X(unsigned, get_unique_id, ncclGetUniqueId, (unique_id *))                                               \
    X(unsigned, comm_init_rank, ncclCommInitRank, (struct ncclComm **, int, unique_id, int))                 \
    X(unsigned, comm_destroy, ncclCommDestroy, (struct ncclComm *))                                          \
    X(unsigned, comm_abort, ncclCommAbort, (struct ncclComm *))                                              \
    X(unsigned, get_async_error, ncclCommGetAsyncError, (struct ncclComm *, unsigned *))                     \
    X(const char *, error_string, ncclGetErrorString, (unsigned))                                            \
    X(const char *, last_error, ncclGetLastError, (struct ncclComm *))                                       \
    X(unsigned, all_reduce, ncclAllReduce,                                                                   \
      (const void *, void *, size_t, unsigned, unsigned, struct ncclComm *, struct CUstream_st *))           \
    X(unsigned, all_gather, ncclAllGather,                                                                   \
      (const void *, void *, size_t, unsigned, struct ncclComm *, struct CUstream_st *))                     \
    X(unsigned, group_start, ncclGroupStart, (void))                                                         \
    X(unsigned, group_end, ncclGroupEnd, (void))

struct qd_nccl_functions {
    QD_NCCL_FUNCTIONS(QD_LIBRARY_MEMBER, struct qd_nccl_unique_id)
};

#endif
