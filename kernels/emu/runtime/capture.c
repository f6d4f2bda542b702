#include "kernels/emu/runtime/internal.h"

#include <stdlib.h>

/* The capturing stream after `stream` (NULL: the first), which is of GPU *device; NULL when there is none. */
static struct CUstream_st *next_capturing(int *device, struct CUstream_st *stream)
{
    for (; *device < qd_emu_runtime.n_devices; ++*device, stream = NULL) {
        stream = stream == NULL ? qd_emu_runtime.devices[*device].legacy.next : stream->next;
        while (stream != NULL && stream->capture == NULL) stream = stream->next;
        if (stream != NULL) return stream;
    }
    return NULL;
}

static bool is_of_this_thread(const struct CUstream_st *stream)
{
    return pthread_equal(stream->capture_thread, pthread_self()) != 0;
}

struct CUstream_st *qd_emu_own_capture(void)
{
    int device = 0;
    struct CUstream_st *stream = NULL;
    while ((stream = next_capturing(&device, stream)) != NULL)
        if (stream->capture_mode != cudaStreamCaptureModeRelaxed && is_of_this_thread(stream)) return stream;
    return NULL;
}

cudaError_t qd_emu_forbid_on_capturing(struct CUstream_st *stream, const char *call)
{
    stream->is_capture_broken = true;
    return qd_emu_refuse(cudaErrorStreamCaptureUnsupported, "%s during the capture of a stream of GPU %d",
                         call, stream->handle.device);
}

cudaError_t qd_emu_forbid_in_capture(const char *call)
{
    cudaError_t error = cudaSuccess;
    int device = 0;
    struct CUstream_st *stream = NULL;
    while ((stream = next_capturing(&device, stream)) != NULL)
        if (stream->capture_mode == cudaStreamCaptureModeGlobal ||
            (stream->capture_mode == cudaStreamCaptureModeThreadLocal && is_of_this_thread(stream)))
            error = qd_emu_forbid_on_capturing(stream, call);
    return error;
}

cudaError_t qd_emu_forbid_legacy(struct qd_emu_device *device, const char *call)
{
    cudaError_t error = cudaSuccess;
    for (struct CUstream_st *s = device->legacy.next; s != NULL; s = s->next) {
        if (s->capture == NULL || !s->is_blocking) continue;
        s->is_capture_broken = true;
        error = qd_emu_refuse(cudaErrorStreamCaptureImplicit,
                              "%s on the legacy stream would wait for a blocking stream that captures", call);
    }
    if (error != cudaSuccess) return error;
    struct CUstream_st *own = qd_emu_own_capture();
    return own != NULL ? qd_emu_forbid_on_capturing(own, call) : cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    cudaError_t error = qd_emu_find_stream(handle, &stream);
    if (error != cudaSuccess) return error;
    if (stream == &qd_emu_stream_device(stream)->legacy)
        return qd_emu_refuse(cudaErrorStreamCaptureUnsupported, "the legacy stream cannot capture");
    if (mode != cudaStreamCaptureModeGlobal && mode != cudaStreamCaptureModeThreadLocal &&
        mode != cudaStreamCaptureModeRelaxed)
        return qd_emu_refuse(cudaErrorInvalidValue, "capture mode %d", (int)mode);
    if (stream->capture != NULL) return qd_emu_refuse(cudaErrorIllegalState, "the stream already captures");
    stream->capture = qd_emu_graph_create(sizeof *stream->capture);
    if (stream->capture == NULL)
        return qd_emu_refuse(cudaErrorMemoryAllocation, "no host memory for a graph");
    stream->capture->handle.device = stream->handle.device;
    stream->capture_id = ++qd_emu_runtime.n_captures;
    stream->capture_mode = mode;
    stream->capture_thread = pthread_self();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    QD_EMU_ENTER();
    *graph = NULL;
    if (!qd_emu_handle_is(stream, QD_EMU_STREAM) || stream->capture == NULL)
        return qd_emu_refuse(cudaErrorIllegalState, "the stream does not capture");
    if (stream->capture_mode != cudaStreamCaptureModeRelaxed && !is_of_this_thread(stream)) {
        stream->is_capture_broken = true;
        return qd_emu_refuse(cudaErrorStreamCaptureWrongThread, "another thread began this capture");
    }
    struct CUgraph_st *captured = stream->capture;
    bool is_broken = stream->is_capture_broken;
    stream->capture = NULL;
    stream->is_capture_broken = false;
    if (is_broken) {
        qd_emu_graph_release(captured);
        return qd_emu_refuse(cudaErrorStreamCaptureInvalidated, "the capture was broken by a call before");
    }
    struct qd_emu_device *device = qd_emu_stream_device(stream);
    if (device->is_failure_known) {
        qd_emu_graph_release(captured);
        return qd_emu_device_failure(device);
    }
    qd_emu_handle_add(&captured->handle, QD_EMU_GRAPH, stream->handle.device);
    *graph = captured;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status)
{
    struct CUstream_st *stream;
    QD_EMU_ENTER();
    cudaError_t error = qd_emu_find_stream(handle, &stream);
    if (error == cudaSuccess)
        *status = stream->is_capture_broken ? cudaStreamCaptureStatusInvalidated
                  : stream->capture != NULL ? cudaStreamCaptureStatusActive
                                            : cudaStreamCaptureStatusNone;
    return error;
}
