#include "kernels/emu/runtime/internal.h"

#include <stdlib.h>

void qd_emu_event_release(struct CUevent_st *event)
{
    if (--event->n_users == 0) free(event);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    cudaError_t error = qd_emu_current(&device);
    if (error != cudaSuccess) return error;
    if ((flags & ~(unsigned)(cudaEventBlockingSync | cudaEventDisableTiming)) != 0)
        return qd_emu_refuse(cudaErrorInvalidValue, "an event with flags %#x", flags);
    struct CUevent_st *event = calloc(1, sizeof *event);
    if (event == NULL) return qd_emu_refuse(cudaErrorMemoryAllocation, "no host memory for an event");
    qd_emu_handle_add(&event->handle, QD_EMU_EVENT, qd_emu_device_index(device));
    event->n_users = 1;
    event->has_timing = (flags & cudaEventDisableTiming) == 0;
    *handle = event;
    return cudaSuccess;
}

static cudaError_t check_event(cudaEvent_t event)
{
    if (!qd_emu_handle_is(event, QD_EMU_EVENT))
        return qd_emu_refuse(cudaErrorInvalidResourceHandle, "%p is no event", (void *)event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    QD_EMU_ENTER();
    cudaError_t error = check_event(event);
    if (error == cudaSuccess) {
        qd_emu_handle_remove(&event->handle);
        qd_emu_event_release(event);
    }
    return error;
}

void qd_emu_event_issue_recording(struct qd_emu_work *work)
{
    work->as.event.recording = ++work->as.event.event->n_recorded;
    work->as.event.event->captured_by = 0;
}

/* An external recording in a capture is a part of the graph: every launch records the event. */
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned flags)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    cudaError_t error = qd_emu_find_work_stream(handle, "cudaEventRecord", &stream);
    if (error == cudaSuccess) error = check_event(event);
    if (error != cudaSuccess) return error;
    if ((flags & ~(unsigned)cudaEventRecordExternal) != 0)
        return qd_emu_refuse(cudaErrorInvalidValue, "cudaEventRecordWithFlags with flags %#x", flags);
    if (event->handle.device != stream->handle.device)
        return qd_emu_refuse(cudaErrorInvalidResourceHandle,
                             "an event of GPU %d recorded on a stream of GPU %d", event->handle.device,
                             stream->handle.device);
    if (stream->capture != NULL && flags != cudaEventRecordExternal) {
        /* orders the capture, and replays leave it alone */
        event->captured_by = stream->capture_id;
        return cudaSuccess;
    }
    struct qd_emu_work *work = qd_emu_work_create(QD_EMU_WORK_RECORD, 0);
    if (work != NULL) {
        work->as.event.event = event;
        event->n_users++;
        if (stream->capture == NULL) qd_emu_event_issue_recording(work);
    }
    return qd_emu_issue(stream, work);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

/* What asking for an event needs. */
static cudaError_t check_askable(cudaEvent_t event, const char *call)
{
    cudaError_t error = check_event(event);
    if (error == cudaSuccess) error = qd_emu_forbid_in_capture(call);
    if (error == cudaSuccess && event->captured_by != 0)
        error = qd_emu_refuse(cudaErrorCapturedEvent, "%s: the event was last recorded in a capture", call);
    return error;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    QD_EMU_ENTER();
    cudaError_t error = check_askable(event, "cudaEventQuery");
    if (error == cudaSuccess && event->n_reached < event->n_recorded)
        error = qd_emu_refuse(cudaErrorNotReady, "the event was not reached");
    if (error == cudaSuccess) error = qd_emu_device_failure(&qd_emu_runtime.devices[event->handle.device]);
    return error;
}

static cudaError_t wait_for(cudaEvent_t event)
{
    struct qd_emu_device *device = &qd_emu_runtime.devices[event->handle.device];
    uint64_t recording = event->n_recorded;
    event->n_users++; /* another thread may destroy it meanwhile */
    while (event->n_reached < recording) pthread_cond_wait(&qd_emu_runtime.progress, &qd_emu_runtime.lock);
    qd_emu_event_release(event);
    return qd_emu_device_failure(device);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    QD_EMU_ENTER();
    cudaError_t error = check_askable(event, "cudaEventSynchronize");
    return error == cudaSuccess ? wait_for(event) : error;
}

static cudaError_t check_time(cudaEvent_t event)
{
    cudaError_t error = check_askable(event, "cudaEventElapsedTime");
    if (error != cudaSuccess) return error;
    if (!event->has_timing || event->n_recorded == 0)
        return qd_emu_refuse(cudaErrorInvalidResourceHandle, "the event %s",
                             event->has_timing ? "was never recorded" : "takes no time");
    if (event->n_reached < event->n_recorded)
        return qd_emu_refuse(cudaErrorNotReady, "the event was not reached");
    return cudaSuccess;
}

/* On the machine's clock: what the emulation took, which says nothing of a GPU. */
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    QD_EMU_ENTER();
    cudaError_t error = check_time(start);
    if (error == cudaSuccess) error = check_time(end);
    if (error == cudaSuccess && start->handle.device != end->handle.device)
        error = qd_emu_refuse(cudaErrorInvalidResourceHandle, "events of GPU %d and GPU %d",
                              start->handle.device, end->handle.device);
    if (error == cudaSuccess) *ms = (float)((double)(end->time_ns - start->time_ns) * 1e-6);
    return error;
}
