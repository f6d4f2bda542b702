/* How blocks of one kernel meet on several GPUs: block b of every rank with block b of all others.
 *
 * Residency: a block waits without giving up its SM, so every block of the launch must be able to run at once
 * on every rank. A kernel that meets launches at most QD_CUDA_PEER_BLOCKS blocks (looping over its work), the
 * same grid on all ranks, meets equally often in each block on all ranks, and is the only one of its ranks
 * that runs.
 */
#ifndef QD_KERNELS_CUDA_PEERS_CUH
#define QD_KERNELS_CUDA_PEERS_CUH

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ptx.cuh"

/* Waits until block `block` of every rank has come here. What any thread of these blocks wrote to global
 * memory before is visible to all of their threads after. Called by all threads of a one-dimensional block of
 * at least QD_CUDA_MAX_RANKS; block < QD_CUDA_PEER_BLOCKS. With one rank nothing happens: not even a block
 * barrier.
 *
 *     flags of rank r: [block][who has come], each a count of meetings; only `who` writes it
 *
 * The count lives in device memory, so that a captured launch can be replayed; a peer may be one meeting
 * ahead. */
__device__ __forceinline__ void peers_meet(const struct qd_cuda_peers &peers, int block)
{
    if (peers.n_ranks == 1) return;
    __syncthreads(); /* what other threads wrote comes before this thread's release */
    const uint32_t epoch = peers.epoch[block] + 1;
    const int peer = static_cast<int>(threadIdx.x);
    if (peer < peers.n_ranks && peer != peers.rank) {
        const int slots = block * QD_CUDA_MAX_RANKS;
        ptx::store_release_sys(peers.flags[peer] + slots + peers.rank, epoch);
        /* Counts wrap around: the sign of the difference says which is ahead. */
        const uint32_t *come = peers.flags[peers.rank] + slots + peer;
        while (static_cast<int32_t>(ptx::load_acquire_sys(come) - epoch) < 0) {
        }
    }
    __syncthreads(); /* every thread has read the count, and what one acquired all may read */
    if (threadIdx.x == 0) peers.epoch[block] = epoch;
}

#endif
