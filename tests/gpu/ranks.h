/* What ranks need to meet: flags and counts in each rank's memory. */
#ifndef QD_TESTS_GPU_RANKS_H
#define QD_TESTS_GPU_RANKS_H

#include "kernels/cuda/kernels.h"
#include "tests/gpu/runner.h"

/* Uses n ranks; `start` meetings lie behind them. */
static inline void ranks_open(struct qd_cuda_peers *peers, int n, uint32_t start)
{
    enum { N_FLAGS = QD_CUDA_PEER_BLOCKS * QD_CUDA_MAX_RANKS };
    uint32_t counts[N_FLAGS], *flags[QD_CUDA_MAX_RANKS] = {NULL};
    gpu_use_ranks(n, QD_CUDA_PEER_BLOCKS);
    for (int i = 0; i < N_FLAGS; i++) counts[i] = start;
    for (int rank = 0; rank < n; rank++) {
        gpu_set_rank(rank);
        flags[rank] = gpu_upload(counts, sizeof counts);
        peers[rank] = (struct qd_cuda_peers){.rank = rank, .n_ranks = n, .n_blocks = QD_CUDA_PEER_BLOCKS};
        peers[rank].epoch = gpu_upload(counts, QD_CUDA_PEER_BLOCKS * sizeof *counts);
    }
    for (int rank = 0; rank < n; rank++) memcpy(peers[rank].flags, flags, sizeof flags);
}

/* Ends the test unless each of the first n_blocks blocks of every rank has met `expected` times in all. */
static inline void ranks_expect_meetings(const struct qd_cuda_peers *peers, int n, int n_blocks,
                                         uint32_t expected)
{
    uint32_t epoch[QD_CUDA_PEER_BLOCKS];
    for (int rank = 0; rank < n; rank++) {
        gpu_download(epoch, peers[rank].epoch, sizeof epoch);
        for (int block = 0; block < n_blocks; block++)
            GPU_EXPECT(epoch[block] == expected, "rank %d block %d: %u meetings, not %u", rank, block,
                       epoch[block], expected);
    }
}

/* Pieces of `bytes` for a two-shot launch on every rank; what is behind them is guarded. */
static inline struct qd_cuda_pieces ranks_new_pieces(int n, size_t bytes)
{
    struct qd_cuda_pieces pieces = {{NULL}};
    for (int rank = 0; rank < n; rank++) {
        gpu_set_rank(rank);
        pieces.of_rank[rank] = gpu_alloc(bytes);
    }
    return pieces;
}

#endif
