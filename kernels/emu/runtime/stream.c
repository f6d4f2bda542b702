#include "kernels/emu/runtime/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- work ---- */

struct qd_emu_work *qd_emu_work_create(enum qd_emu_work_kind kind, size_t payload_bytes)
{
    struct qd_emu_work *work = calloc(1, sizeof *work + payload_bytes);
    if (work == NULL) return NULL;
    work->kind = kind;
    work->payload_bytes = payload_bytes;
    return work;
}

struct qd_emu_work *qd_emu_work_clone(const struct qd_emu_work *work)
{
    struct qd_emu_work *clone = malloc(sizeof *work + work->payload_bytes);
    if (clone == NULL) return NULL;
    memcpy(clone, work, sizeof *work + work->payload_bytes);
    clone->next = NULL;
    if (clone->kind == QD_EMU_WORK_RECORD) clone->as.event.event->n_users++;
    return clone;
}

void qd_emu_work_destroy(struct qd_emu_work *work)
{
    if (work == NULL) return;
    if (work->kind == QD_EMU_WORK_RECORD || work->kind == QD_EMU_WORK_WAIT)
        qd_emu_event_release(work->as.event.event);
    free(work);
}

/* ---- finding ---- */

struct qd_emu_device *qd_emu_stream_device(const struct CUstream_st *stream)
{
    return &qd_emu_runtime.devices[stream->handle.device];
}

cudaError_t qd_emu_find_stream(cudaStream_t handle, struct CUstream_st **stream)
{
    if (handle == NULL || handle == cudaStreamLegacy) {
        struct qd_emu_device *device;
        cudaError_t error = qd_emu_current(&device);
        if (error == cudaSuccess) *stream = &device->legacy;
        return error;
    }
    if (!qd_emu_handle_is(handle, QD_EMU_STREAM))
        return qd_emu_refuse(cudaErrorInvalidResourceHandle, "%p is no stream", (void *)handle);
    *stream = handle;
    struct qd_emu_device *device = qd_emu_stream_device(handle);
    return device->is_failure_known ? qd_emu_device_failure(device) : cudaSuccess;
}

cudaError_t qd_emu_find_work_stream(cudaStream_t handle, const char *call, struct CUstream_st **stream)
{
    cudaError_t error = qd_emu_find_stream(handle, stream);
    if (error != cudaSuccess) return error;
    if ((*stream)->is_capture_broken)
        return qd_emu_refuse(cudaErrorStreamCaptureInvalidated, "%s in a capture that was broken before",
                             call);
    struct qd_emu_device *device = qd_emu_stream_device(*stream);
    return *stream == &device->legacy ? qd_emu_forbid_legacy(device, call) : cudaSuccess;
}

/* ---- issuing and waiting ---- */

static cudaError_t enqueue(struct CUstream_st *stream, struct qd_emu_work *work)
{
    struct qd_emu_device *device = qd_emu_stream_device(stream);
    cudaError_t error = qd_emu_worker_start(device);
    if (error != cudaSuccess) {
        qd_emu_work_destroy(work);
        return error;
    }
    work->order = ++device->n_issued;
    if (stream->first == NULL)
        stream->first = work;
    else
        stream->last->next = work;
    stream->last = work;
    pthread_cond_broadcast(&device->has_work);
    return cudaSuccess;
}

cudaError_t qd_emu_issue(struct CUstream_st *stream, struct qd_emu_work *work)
{
    if (work == NULL) return qd_emu_refuse(cudaErrorMemoryAllocation, "no host memory for work of a stream");
    return stream->capture != NULL ? qd_emu_graph_append(stream->capture, work) : enqueue(stream, work);
}

/* Nothing is left that a synchronisation of the stream waits for; the legacy stream's covers blocking
 * streams. */
static bool is_idle(const struct CUstream_st *stream)
{
    if (stream->first != NULL) return false;
    struct qd_emu_device *device = qd_emu_stream_device(stream);
    if (stream != &device->legacy) return true;
    for (const struct CUstream_st *s = device->legacy.next; s != NULL; s = s->next)
        if (s->is_blocking && s->first != NULL) return false;
    return true;
}

static cudaError_t add_mark(struct CUstream_st *stream, unsigned *n_marks)
{
    if (is_idle(stream)) return cudaSuccess;
    struct qd_emu_work *work = qd_emu_work_create(QD_EMU_WORK_MARK, 0);
    if (work == NULL) return qd_emu_refuse(cudaErrorMemoryAllocation, "no host memory to wait for a stream");
    work->as.n_marks = n_marks;
    ++*n_marks;
    return enqueue(stream, work); /* the stream has work, so its worker runs: this cannot fail */
}

static void wait_for_marks(const unsigned *n_marks)
{
    while (*n_marks > 0) pthread_cond_wait(&qd_emu_runtime.progress, &qd_emu_runtime.lock);
}

cudaError_t qd_emu_wait_stream(struct CUstream_st *stream)
{
    struct qd_emu_device *device = qd_emu_stream_device(stream);
    unsigned n_marks = 0;
    cudaError_t error = add_mark(stream, &n_marks);
    wait_for_marks(&n_marks);
    return error != cudaSuccess ? error : qd_emu_device_failure(device);
}

cudaError_t qd_emu_wait_device(struct qd_emu_device *device)
{
    unsigned n_marks = 0;
    cudaError_t error = cudaSuccess;
    for (struct CUstream_st *s = &device->legacy; s != NULL && error == cudaSuccess; s = s->next)
        if (s->first != NULL) error = add_mark(s, &n_marks);
    wait_for_marks(&n_marks);
    return error != cudaSuccess ? error : qd_emu_device_failure(device);
}

/* ---- the API ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned flags)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    cudaError_t error = qd_emu_current(&device);
    if (error != cudaSuccess) return error;
    if ((flags & ~(unsigned)cudaStreamNonBlocking) != 0)
        return qd_emu_refuse(cudaErrorInvalidValue, "a stream with flags %#x", flags);
    struct CUstream_st *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return qd_emu_refuse(cudaErrorMemoryAllocation, "no host memory for a stream");
    qd_emu_handle_add(&stream->handle, QD_EMU_STREAM, qd_emu_device_index(device));
    stream->is_blocking = (flags & cudaStreamNonBlocking) == 0;
    stream->next = device->legacy.next;
    device->legacy.next = stream;
    *handle = stream;
    return cudaSuccess;
}

void qd_emu_stream_release(struct CUstream_st *stream)
{
    struct CUstream_st **link = &qd_emu_stream_device(stream)->legacy.next;
    while (*link != stream) link = &(*link)->next;
    *link = stream->next;
    qd_emu_graph_release(stream->capture);
    free(stream);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    QD_EMU_ENTER();
    if (!qd_emu_handle_is(handle, QD_EMU_STREAM))
        return qd_emu_refuse(cudaErrorInvalidResourceHandle, "%p is no stream to destroy", (void *)handle);
    if (handle->capture != NULL) return qd_emu_forbid_on_capturing(handle, "cudaStreamDestroy");
    struct qd_emu_device *device = qd_emu_stream_device(handle);
    qd_emu_handle_remove(&handle->handle);
    handle->is_destroyed = true;
    if (handle->first == NULL) qd_emu_stream_release(handle);
    return device->is_failure_known ? qd_emu_device_failure(device) : cudaSuccess;
}

/* What synchronising or querying a stream needs: not capturing, and not called by a thread that captures. */
static cudaError_t find_synchronisable(cudaStream_t handle, const char *call, struct CUstream_st **stream)
{
    cudaError_t error = qd_emu_find_work_stream(handle, call, stream);
    if (error != cudaSuccess) return error;
    if ((*stream)->capture != NULL) return qd_emu_forbid_on_capturing(*stream, call);
    struct CUstream_st *capturing = qd_emu_own_capture();
    return capturing != NULL ? qd_emu_forbid_on_capturing(capturing, call) : cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    struct CUstream_st *stream;
    QD_EMU_ENTER();
    cudaError_t error = find_synchronisable(handle, "cudaStreamSynchronize", &stream);
    return error == cudaSuccess ? qd_emu_wait_stream(stream) : error;
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    struct CUstream_st *stream;
    QD_EMU_ENTER();
    cudaError_t error = find_synchronisable(handle, "cudaStreamQuery", &stream);
    if (error == cudaSuccess && !is_idle(stream))
        error = qd_emu_refuse(cudaErrorNotReady, "the stream has work to do");
    if (error == cudaSuccess) error = qd_emu_device_failure(qd_emu_stream_device(stream));
    return error;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    cudaError_t error = qd_emu_find_work_stream(handle, "cudaStreamWaitEvent", &stream);
    if (error != cudaSuccess) return error;
    if (!qd_emu_handle_is(event, QD_EMU_EVENT))
        return qd_emu_refuse(cudaErrorInvalidResourceHandle, "%p is no event", (void *)event);
    if (flags != 0) return qd_emu_refuse(cudaErrorInvalidValue, "cudaStreamWaitEvent with flags %u", flags);
    if (stream->capture != NULL) {
        if (event->captured_by == stream->capture_id) return cudaSuccess; /* its own past */
        stream->is_capture_broken = true;
        return qd_emu_refuse(cudaErrorStreamCaptureIsolation,
                             "a capturing stream waits for an event from outside of its capture");
    }
    if (event->captured_by != 0)
        return qd_emu_refuse(cudaErrorCapturedEvent, "a stream waits for an event of a capture");
    if (event->n_reached >= event->n_recorded) return cudaSuccess;
    struct qd_emu_work *work = qd_emu_work_create(QD_EMU_WORK_WAIT, 0);
    if (work != NULL) {
        work->as.event.event = event;
        work->as.event.recording = event->n_recorded;
        event->n_users++;
    }
    return qd_emu_issue(stream, work);
}
