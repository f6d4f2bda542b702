/* What the machine gives one thread at best, with the vectors of this instruction set: the two loops that
 * kernels/cpu/host/probe.c times. */
#include "kernels/cpu/kernels.h"

/* DRAM gives a core most when several streams are open. */
enum { STREAMS = 8, LINE_BYTES = 64, LINE_FLOATS = LINE_BYTES / 4 };

float QD_CPU_FN(qd_cpu_probe_read)(const float *data, size_t n_floats, size_t ahead_bytes)
{
    size_t lines = n_floats / STREAMS / LINE_FLOATS, stream;
    /* an odd number, so that the streams do not meet in the same sets of a cache */
    lines -= lines > 0 && lines % 2 == 0;
    stream = lines * LINE_FLOATS;
    vf sum[STREAMS];
    VF_UNROLL
    for (int s = 0; s < STREAMS; s++) sum[s] = vf_zero();
    for (size_t i = 0; i < stream; i += LINE_FLOATS) {
        VF_UNROLL
        for (int s = 0; s < STREAMS; s++) {
            const float *line = data + (size_t)s * stream + i;
            __builtin_prefetch((const unsigned char *)line + ahead_bytes);
            sum[s] = vf_add(sum[s], vf_add(vf_load(line), vf_load(line + VF_LANES)));
        }
    }
    VF_UNROLL
    for (int s = 1; s < STREAMS; s++) sum[0] = vf_add(sum[0], sum[s]);
    return vf_sum(sum[0]);
}

int64_t QD_CPU_FN(qd_cpu_probe_fma)(int64_t n_rounds, float *result)
{
    vf acc[VF_ACCUMULATORS], x = vf_set1(0.5f), y = vf_set1(1.0f);
    VF_UNROLL
    for (int i = 0; i < VF_ACCUMULATORS; i++) acc[i] = vf_set1((float)i);
    for (int64_t round = 0; round < n_rounds; round++) {
        VF_UNROLL
        for (int i = 0; i < VF_ACCUMULATORS; i++) acc[i] = vf_fma(acc[i], x, y);
    }
    VF_UNROLL
    for (int i = 1; i < VF_ACCUMULATORS; i++) acc[0] = vf_add(acc[0], acc[i]);
    *result = vf_sum(acc[0]);
    return n_rounds * VF_ACCUMULATORS * VF_LANES * 2;
}
