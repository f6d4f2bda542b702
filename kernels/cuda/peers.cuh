/* How blocks of one kernel meet on several GPUs: block b of every rank with block b of all others.
 *
 * Residency: a block waits without giving up its SM, so every block of the launch must be able to run at once
 * on every rank. A kernel that meets launches at most peers.n_blocks blocks (looping over its work), the same
 * grid on all ranks, and meets equally often in each block on all ranks. Of each rank one kernel runs at a
 * time; N ranks that share a GPU launch at most its SMs / N blocks each, so that there is an SM for every
 * block that waits, whatever else runs and ends.
 */
#ifndef QD_KERNELS_CUDA_PEERS_CUH
#define QD_KERNELS_CUDA_PEERS_CUH

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

/* Turns of a wait (a few 0.1 us each) between looks at the host's memory (1 to 2 us, over PCIe): one that is
 * met in time never looks. */
constexpr uint32_t PEERS_LOOK_EVERY = 256;

/* Waits until the count at `come` has reached `epoch`; false when a rank has failed instead. */
__device__ __forceinline__ bool peers_wait(const struct qd_cuda_peers &peers, const uint32_t *come,
                                           uint32_t epoch)
{
    uint32_t turns = 0;
    /* Counts wrap around: the sign of the difference says which is ahead. */
    while (static_cast<int32_t>(ptx::load_acquire_sys(come) - epoch) < 0) {
        if (++turns % PEERS_LOOK_EVERY == 0 && peers.abandoned != nullptr &&
            ptx::load_acquire_sys(peers.abandoned) != 0)
            return false;
    }
    return true;
}

/* Waits until block `block` of every rank has come here. What any thread of these blocks wrote to global
 * memory before is visible to all of their threads after. Called by all threads of a one-dimensional block of
 * at least QD_CUDA_MAX_RANKS; block < QD_CUDA_PEER_BLOCKS. With one rank nothing happens: not even a block
 * barrier. False, for all threads of the block, when a rank has failed (peers.abandoned): the kernel shall
 * end, what the others have is not known, and the host takes no result of this step.
 *
 *     flags of rank r: [block][who has come], each a count of meetings; only `who` writes it
 *
 * The count lives in device memory, so that a captured launch can be replayed; a peer may be one meeting
 * ahead. */
__device__ __forceinline__ bool peers_meet(const struct qd_cuda_peers &peers, int block)
{
    QD_SHARED(uint32_t, gave_up, [2]); /* by parity of the count: the last meeting's may still be read */
    if (peers.n_ranks == 1) return true;
    const int peer = static_cast<int>(threadIdx.x);
    if (peer == 0) gave_up[(peers.epoch[block] + 1) % 2] = 0;
    __syncthreads(); /* what other threads wrote comes before this thread's release */
    const uint32_t epoch = peers.epoch[block] + 1;
    if (peer < peers.n_ranks && peer != peers.rank) {
        const int slots = block * QD_CUDA_MAX_RANKS;
        ptx::store_release_sys(peers.flags[peer] + slots + peers.rank, epoch);
        if (!peers_wait(peers, peers.flags[peers.rank] + slots + peer, epoch)) gave_up[epoch % 2] = 1;
    }
    __syncthreads(); /* every thread has read the count, and what one acquired all may read */
    if (threadIdx.x == 0) peers.epoch[block] = epoch;
    return gave_up[epoch % 2] == 0;
}

/* QD_ERR_UNSUPPORTED with the reason, or QD_OK. */
inline qd_status peers_check(const char *name, const struct qd_cuda_peers &peers, char *err, size_t errlen)
{
    if (peers.n_ranks < 1 || peers.n_ranks > QD_CUDA_MAX_RANKS || peers.rank < 0 ||
        peers.rank >= peers.n_ranks)
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: rank %d of %d, not of 1 .. %d", name, peers.rank,
                       peers.n_ranks, QD_CUDA_MAX_RANKS);
    if (peers.n_ranks > 1 && (peers.n_blocks < 1 || peers.n_blocks > QD_CUDA_PEER_BLOCKS))
        return qd_fail(QD_ERR_UNSUPPORTED, err, errlen, "%s: %d blocks that wait, not 1 .. %d", name,
                       peers.n_blocks, QD_CUDA_PEER_BLOCKS);
    return QD_OK;
}

/* Blocks of a launch over n pieces of work, of which each block can take any number. */
inline dim3 peers_grid(const struct qd_cuda_peers &peers, int64_t n)
{
    const int64_t most = peers.n_ranks > 1 ? peers.n_blocks : QD_CUDA_PEER_BLOCKS;
    return dim3(static_cast<unsigned>(n < most ? n : most));
}

#endif
