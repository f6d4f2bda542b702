#include <math.h>
#include <stdlib.h>

#include "kernels/cuda/host.h"

enum { OPS_OF_LAYER = 10, OTHER_OPS = 16 }; /* more than the forward pass has */

int qd_cuda_timing_max_ops(const struct qd_device_config *config)
{
    return config->shape.n_layers * OPS_OF_LAYER + OTHER_OPS;
}

/* A step has two events (step.c), read when the host has waited for the second anyway. With device_timing
 * there are two more for each op, in graphs as nodes of their own: every replay records them anew. Where a
 * step runs op by op, the time between an op's events includes what the host takes to launch it when the GPU
 * has nothing else to do. */
qd_status qd_cuda_timing_init(struct qd_cuda *cuda, char *err, size_t errlen)
{
    struct qd_cuda_timing *timing = &cuda->timing;
    if (!cuda->config.device_timing) return QD_OK;
    int n = qd_cuda_timing_max_ops(&cuda->config);
    timing->ops = calloc((size_t)n, sizeof *timing->ops);
    if (timing->ops == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for the events of %d ops", n);
    timing->max_ops = n;
    for (int i = 0; i < n; i++) {
        QD_TRY(QD_CUDA(cudaEventCreateWithFlags(&timing->ops[i].begin, cudaEventDefault)));
        QD_TRY(QD_CUDA(cudaEventCreateWithFlags(&timing->ops[i].end, cudaEventDefault)));
    }
    return QD_OK;
}

static void destroy(cudaEvent_t event)
{
    if (event != NULL) cudaEventDestroy(event);
}

void qd_cuda_timing_free(struct qd_cuda *cuda)
{
    struct qd_cuda_timing *timing = &cuda->timing;
    for (int i = 0; i < timing->max_ops; i++) {
        destroy(timing->ops[i].begin);
        destroy(timing->ops[i].end);
    }
    free(timing->ops);
    *timing = (struct qd_cuda_timing){0};
}

bool qd_cuda_timing_is_on(const struct qd_cuda *cuda)
{
    return cuda->timing.max_ops > 0 && !cuda->timing.is_off;
}

void qd_cuda_timing_begin_step(struct qd_cuda *cuda)
{
    cuda->timing.n_ops = 0;
}

static qd_status record(struct qd_cuda *cuda, cudaEvent_t event)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    unsigned flags = cuda->graphs.mode == QD_CUDA_RECORD ? cudaEventRecordExternal : cudaEventRecordDefault;
    return QD_CUDA(cudaEventRecordWithFlags(event, cuda->stream, flags));
}

qd_status qd_cuda_timing_begin_op(struct qd_cuda *cuda, enum qd_segment segment)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    struct qd_cuda_timing *timing = &cuda->timing;
    if (!qd_cuda_timing_is_on(cuda) || cuda->graphs.mode == QD_CUDA_LOAD) return QD_OK;
    if (timing->n_ops == timing->max_ops)
        return qd_fail(QD_ERR_FULL, err, errlen, "a step of more than the %d ops that can be timed",
                       timing->max_ops);
    timing->ops[timing->n_ops].segment = segment;
    return record(cuda, timing->ops[timing->n_ops].begin);
}

qd_status qd_cuda_timing_end_op(struct qd_cuda *cuda)
{
    struct qd_cuda_timing *timing = &cuda->timing;
    if (!qd_cuda_timing_is_on(cuda) || cuda->graphs.mode == QD_CUDA_LOAD) return QD_OK;
    return record(cuda, timing->ops[timing->n_ops++].end);
}

void qd_cuda_timing_keep_recorded(struct qd_cuda *cuda)
{
    struct qd_cuda_timing *timing = &cuda->timing;
    if (!qd_cuda_timing_is_on(cuda)) return;
    for (int i = 0; i < timing->n_ops; i++) timing->ops[i].recorded_segment = timing->ops[i].segment;
    timing->n_recorded_ops = timing->n_ops;
}

static qd_status elapsed(cudaEvent_t begin, cudaEvent_t end, int64_t *ns, char *err, size_t errlen)
{
    float ms = 0;
    QD_TRY(QD_CUDA(cudaEventElapsedTime(&ms, begin, end)));
    *ns = llround((double)ms * 1e6);
    return QD_OK;
}

static qd_status add_ops(struct qd_cuda *cuda, const struct qd_cuda_step_slot *slot, char *err, size_t errlen)
{
    const struct qd_cuda_timing *timing = &cuda->timing;
    int64_t *segment_ns = cuda->stats.segment_ns, ns;
    cudaEvent_t before = slot->begin;
    bool is_replay = cuda->graphs.mode == QD_CUDA_REPLAY;
    int n = is_replay ? timing->n_recorded_ops : timing->n_ops;
    for (int i = 0; i < n; i++) {
        QD_TRY(elapsed(before, timing->ops[i].begin, &ns, err, errlen));
        segment_ns[QD_SEGMENT_GAP] += ns;
        QD_TRY(elapsed(timing->ops[i].begin, timing->ops[i].end, &ns, err, errlen));
        segment_ns[is_replay ? timing->ops[i].recorded_segment : timing->ops[i].segment] += ns;
        before = timing->ops[i].end;
    }
    QD_TRY(elapsed(before, slot->end, &ns, err, errlen));
    segment_ns[QD_SEGMENT_GAP] += ns;
    return QD_OK;
}

qd_status qd_cuda_timing_add_step(struct qd_cuda *cuda, struct qd_cuda_step_slot *slot, char *err,
                                  size_t errlen)
{
    QD_TRY(elapsed(slot->begin, slot->end, &slot->span_ns, err, errlen));
    cuda->stats.span_ns += slot->span_ns;
    if (!qd_cuda_timing_is_on(cuda)) return QD_OK;
    cuda->stats.n_timed_steps++;
    cuda->stats.timed_span_ns += slot->span_ns;
    return add_ops(cuda, slot, err, errlen);
}
