/* What drivers and NCCL take of a GPU beside what this device asks for. Own collectives take nothing more:
 * their buffers are part of the working memory (memory.c). */
#include "kernels/cuda/host.h"

/* NCCL keeps buffers of three protocols for each channel and each rank that it receives from (src/init.cc,
 * computeBuffSizes; src/include/device.h; of the documented NCCL_BUFFSIZE, NCCL_LL_BUFFSIZE,
 * NCCL_LL128_BUFFSIZE the defaults: the variables are not looked at). A ring receives from one neighbour, a
 * tree, which is a chain within a machine, from the other as well. How many channels there are NCCL decides
 * by the links: this is MAXCHANNELS, which newer versions have raised to 64. Where it multicasts over
 * NVSwitches (NVLS) it keeps more than this, and where ranks do not reach each other less: the buffers are
 * the host's then. */
enum {
    CHANNELS = 32,
    NEIGHBOURS = 2,
    STEPS = 8,
    SIMPLE_BYTES = 4 << 20,
    LL_BYTES = STEPS * 512 * 8 * 16,     /* threads, lines of each, bytes of one */
    LL128_BYTES = STEPS * 640 * 120 * 8, /* threads, elements of each, bytes of one */
};

/* What the driver keeps of a recorded kernel: nobody documents it. At this a step of 8B takes 4.4 MiB, and
 * vLLM's logs tell of hundreds of MiB for 67 graphs of larger pieces. What was taken is measured when the
 * graphs have been recorded, and is printed beside. */
enum { NODE_BYTES = 12 << 10 };

static size_t nccl_bytes(int tp)
{
    size_t neighbours = tp > NEIGHBOURS ? NEIGHBOURS : (size_t)tp - 1;
    return neighbours * CHANNELS * ((size_t)SIMPLE_BYTES + LL_BYTES + LL128_BYTES);
}

/* As far as it can be known before anything is open: with `auto` where there is an NCCL, also if the own
 * collectives will serve every message. */
static bool may_open_nccl(const struct qd_device_config *config, int tp)
{
    char why[QD_ERR_LEN];
    struct qd_nccl nccl;
    if (tp == 1 || !qd_cuda_collectives_allow_nccl(config)) return false;
    if (config->collectives == QD_COLLECTIVES_OWN) return false;
    return config->collectives == QD_COLLECTIVES_NCCL || qd_nccl_load(&nccl, why, sizeof why) == QD_OK;
}

void qd_cuda_reserve(const struct qd_device_config *config, int tp, struct qd_device_reserve *out)
{
    size_t nodes = (size_t)qd_cuda_timing_max_ops(config) * (config->device_timing ? 3 : 1); /* events too */
    out->graph_bytes = (size_t)qd_cuda_graph_count(config) * nodes * NODE_BYTES;
    out->collective_bytes = may_open_nccl(config, tp) ? nccl_bytes(tp) : 0;
}
