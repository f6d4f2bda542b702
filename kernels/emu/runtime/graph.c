#include "kernels/emu/runtime/internal.h"

#include <stdlib.h>
#include <string.h>

_Thread_local struct CUstream_st *qd_emu_own_capture;

/* ---- capturing ---- */

cudaError_t qd_emu_forbid(struct CUstream_st *capturing, const char *call)
{
    if (capturing == NULL || capturing->capture == NULL) return cudaSuccess;
    capturing->is_capture_broken = true;
    return qd_emu_refuse(cudaErrorStreamCaptureUnsupported, "%s during the capture of a stream of GPU %d",
                         call, qd_emu_index(capturing->device));
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    QD_EMU_ENTER();
    if (stream == NULL)
        return qd_emu_refuse(cudaErrorStreamCaptureUnsupported, "the legacy stream cannot capture");
    QD_EMU_TRY(qd_emu_failure(stream->device));
    QD_ASSERT(mode == cudaStreamCaptureModeThreadLocal);
    if (stream->capture != NULL || qd_emu_own_capture != NULL)
        return qd_emu_refuse(cudaErrorIllegalState, "the %s already captures",
                             stream->capture != NULL ? "stream" : "thread");
    stream->capture = calloc(1, sizeof *stream->capture);
    QD_ASSERT(stream->capture != NULL);
    stream->capture->device = stream->device;
    stream->capture->n_handles = 1;
    qd_emu_own_capture = stream;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    QD_EMU_ENTER();
    *status = stream->capture == NULL ? cudaStreamCaptureStatusNone : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    QD_EMU_ENTER();
    struct CUgraph_st *captured = stream->capture;
    *graph = NULL;
    if (captured == NULL) return qd_emu_refuse(cudaErrorIllegalState, "the stream does not capture");
    if (stream != qd_emu_own_capture) {
        stream->is_capture_broken = true;
        return qd_emu_refuse(cudaErrorStreamCaptureWrongThread, "another thread began this capture");
    }
    cudaError_t error = qd_emu_failure(stream->device);
    if (stream->is_capture_broken)
        error = qd_emu_refuse(cudaErrorStreamCaptureInvalidated, "the capture was broken by a call before");
    stream->capture = NULL;
    qd_emu_own_capture = NULL;
    stream->is_capture_broken = false;
    if (error == cudaSuccess)
        *graph = captured;
    else
        qd_emu_graph_release(captured);
    return error;
}

/* ---- graphs ---- */

void qd_emu_graph_release(struct CUgraph_st *graph)
{
    if (graph == NULL || --graph->n_handles > 0) return;
    while (graph->work != NULL) qd_emu_drop_first(&graph->work);
    free(graph);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    QD_EMU_ENTER();
    QD_ASSERT(flags == 0);
    graph->n_handles++;
    *exec = (cudaGraphExec_t)graph;
    return cudaSuccess;
}

/* What uploading and launching need, and the stream behind `handle`. */
static cudaError_t check_launch(const struct CUgraph_st *graph, cudaStream_t handle, const char *call,
                                struct CUstream_st **stream)
{
    QD_EMU_TRY(qd_emu_find_stream(handle, call, stream));
    QD_EMU_TRY(qd_emu_forbid(*stream, call));
    if (graph->device == (*stream)->device) return cudaSuccess;
    return qd_emu_refuse(cudaErrorInvalidValue, "a graph of GPU %d on a stream of GPU %d",
                         qd_emu_index(graph->device), qd_emu_index((*stream)->device));
}

/* Nothing has to be brought anywhere. */
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t handle)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    return check_launch((const struct CUgraph_st *)exec, handle, "cudaGraphUpload", &stream);
}

/* Issues a copy of each piece of work, so that other streams' work can come between. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle)
{
    QD_EMU_ENTER();
    const struct CUgraph_st *graph = (const struct CUgraph_st *)exec;
    struct CUstream_st *stream;
    QD_EMU_TRY(check_launch(graph, handle, "cudaGraphLaunch", &stream));
    for (const struct qd_emu_work *w = graph->work; w != NULL; w = w->next) {
        struct qd_emu_work *clone = qd_emu_work_create(w->kind, w->payload_bytes);
        memcpy(clone, w, sizeof *w + w->payload_bytes);
        clone->next = NULL;
        qd_emu_issue(stream, clone);
    }
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    QD_EMU_ENTER();
    qd_emu_graph_release(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return cudaGraphDestroy((cudaGraph_t)exec);
}
