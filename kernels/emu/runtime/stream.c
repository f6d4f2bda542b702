#include "kernels/emu/runtime/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "kernels/base/random.h"
#include "kernels/emu/mode.h"

/* In random schedules every fourth piece of work starts late by up to this: a caller that reuses memory
 * without having waited finds out. */
enum { LATE_ONE_IN = 4, LATE_MAX_NS = 200000 };

struct CUevent_st {
    struct qd_emu_device *device;
    unsigned n_pending; /* recordings issued and not reached */
    bool has_timing, is_recorded;
    int64_t time_ns; /* when the latest recording was reached */
};

/* ---- queues ---- */

struct qd_emu_work *qd_emu_work_create(enum qd_emu_work_kind kind, size_t payload_bytes)
{
    struct qd_emu_work *work = calloc(1, sizeof *work + payload_bytes);
    QD_ASSERT(work != NULL);
    work->kind = kind;
    work->payload_bytes = payload_bytes;
    return work;
}

void qd_emu_drop_first(struct qd_emu_work **queue)
{
    struct qd_emu_work *work = *queue;
    *queue = work->next;
    free(work);
}

static bool is_before(const struct CUstream_st *stream, uint64_t order)
{
    return stream->work != NULL && stream->work->order < order;
}

/* Whether work is left that was issued before `order`: see qd_emu_wait_for. */
static bool has_work(const struct qd_emu_device *device, const struct CUstream_st *stream, uint64_t order)
{
    for (const struct CUstream_st *s = &device->legacy; s != NULL; s = s->next) {
        const bool counts = stream == NULL || s == stream || (stream == &device->legacy && s->is_blocking);
        if (counts && is_before(s, order)) return true;
    }
    return false;
}

cudaError_t qd_emu_wait_for(struct qd_emu_device *device, const struct CUstream_st *stream)
{
    const uint64_t next = device->n_issued + 1;
    while (has_work(device, stream, next)) pthread_cond_wait(&device->changed, &qd_emu_runtime.lock);
    return qd_emu_failure(device);
}

/* ---- the GPU's thread does the work ---- */

/* The legacy stream and the blocking streams take turns in the order of issue. */
static bool can_start(const struct CUstream_st *stream)
{
    const struct CUstream_st *legacy = &stream->device->legacy;
    if (stream->work == NULL || stream->is_busy) return false;
    const uint64_t order = stream->work->order;
    if (stream != legacy) return !stream->is_blocking || !is_before(legacy, order);
    return !has_work(stream->device, legacy, order);
}

static uint32_t draw(struct qd_emu_device *device, uint64_t seed)
{
    return qd_philox(seed, (uint64_t)qd_emu_index(device), device->n_draws++).word[0];
}

/* The stream whose first work is next: in order of issue, or any that can. NULL when none can. */
static struct CUstream_st *choose_stream(struct qd_emu_device *device, const struct qd_emu_mode *mode)
{
    struct CUstream_st *chosen = NULL;
    uint32_t n = 0;
    for (struct CUstream_st *s = &device->legacy; s != NULL; s = s->next) {
        if (!can_start(s)) continue;
        n++;
        if (mode->schedule == QD_EMU_SCHEDULE_RANDOM ? draw(device, mode->seed) % n == 0
                                                     : chosen == NULL || is_before(s, chosen->work->order))
            chosen = s;
    }
    return chosen;
}

/* Kernels and memory, without the lock. 0, or -1 with a text. */
static int execute(const struct qd_emu_work *work, char *err, size_t errlen)
{
    if (work->kind == QD_EMU_WORK_KERNEL) return qd_emu_run_launch(work, err, errlen);
    const struct qd_emu_transfer *t = &work->as.memory;
    for (size_t row = 0; row < t->n_rows; row++) {
        char *dst = (char *)t->dst + row * t->dst_stride;
        if (t->src == NULL)
            memset(dst, t->value, t->row_bytes);
        else
            memcpy(dst, (const char *)t->src + row * t->src_stride, t->row_bytes);
    }
    return 0;
}

/* Does the stream's first work; the lock is free meanwhile. After a failure only events still count. */
static void do_first(struct qd_emu_device *device, struct CUstream_st *stream, const struct qd_emu_mode *mode)
{
    const struct qd_emu_work *work = stream->work;
    device->n_busy++;
    stream->is_busy = true;
    if (work->kind == QD_EMU_WORK_RECORD) {
        work->as.event->time_ns = qd_clock_now_ns();
        work->as.event->n_pending--;
    } else if (!device->has_failed) {
        struct timespec late = {0};
        if (mode->schedule == QD_EMU_SCHEDULE_RANDOM && draw(device, mode->seed) % LATE_ONE_IN == 0)
            late.tv_nsec = draw(device, mode->seed) % LATE_MAX_NS;
        pthread_mutex_unlock(&qd_emu_runtime.lock);
        if (late.tv_nsec > 0) nanosleep(&late, NULL);
        char err[QD_ERR_LEN];
        const bool has_failed = execute(work, err, sizeof err) != 0;
        qd_emu_note_progress();
        pthread_mutex_lock(&qd_emu_runtime.lock);
        if (has_failed && !device->has_failed) snprintf(device->failure, sizeof device->failure, "%s", err);
        device->has_failed |= has_failed;
    }
    qd_emu_drop_first(&stream->work);
    stream->is_busy = false;
    device->n_busy--;
    pthread_cond_broadcast(&device->changed);
}

/* Kernels of one GPU run one after another, but for those that wait for one of another stream. */
static void *run_device(void *argument)
{
    struct qd_emu_device *device = argument;
    pthread_mutex_lock(&qd_emu_runtime.lock);
    while (!device->is_stopping || has_work(device, NULL, UINT64_MAX)) {
        const struct qd_emu_mode mode = qd_emu_get_mode();
        struct CUstream_st *stream = NULL;
        if (device->n_busy == device->n_spinning) stream = choose_stream(device, &mode);
        if (stream != NULL)
            do_first(device, stream, &mode);
        else
            pthread_cond_wait(&device->changed, &qd_emu_runtime.lock);
    }
    pthread_mutex_unlock(&qd_emu_runtime.lock);
    qd_emu_release_thread();
    return NULL;
}

/* At the GPU's first work, and when all threads do work that waits for other work. */
static void start_thread(struct qd_emu_device *device)
{
    const int n = device->n_threads;
    if (n > 0 && (device->n_busy < n || device->n_spinning < n || n == QD_EMU_MAX_STREAMS_AT_ONCE)) return;
    if (n == 0) QD_ASSERT(pthread_cond_init(&device->changed, NULL) == 0);
    QD_ASSERT(pthread_create(&device->threads[n], NULL, run_device, device) == 0);
    device->n_threads++;
}

/* A kernel spins in vain: another stream's work may be what it waits for, or it is a livelock. */
void qd_emu_device_spins(void *argument, bool in_vain)
{
    struct qd_emu_device *device = argument;
    const struct qd_emu_mode mode = qd_emu_get_mode();
    QD_EMU_ENTER();
    device->n_spinning += in_vain ? 1 : -1;
    if (!in_vain) return;
    if (choose_stream(device, &mode) != NULL) start_thread(device);
    pthread_cond_broadcast(&device->changed);
}

void qd_emu_issue(struct CUstream_st *stream, struct qd_emu_work *work)
{
    struct qd_emu_device *device = stream->device;
    struct qd_emu_work **end = stream->capture != NULL ? &stream->capture->work : &stream->work;
    while (*end != NULL) end = &(*end)->next;
    *end = work;
    if (stream->capture != NULL) return;
    start_thread(device);
    if (work->kind == QD_EMU_WORK_RECORD) {
        work->as.event->is_recorded = true;
        work->as.event->n_pending++;
    }
    work->order = ++device->n_issued;
    pthread_cond_broadcast(&device->changed);
}

/* ---- streams ---- */

cudaError_t qd_emu_find_stream(cudaStream_t handle, const char *call, struct CUstream_st **stream)
{
    *stream = handle;
    if (handle == NULL) {
        struct qd_emu_device *device;
        QD_EMU_TRY(qd_emu_current(&device));
        QD_EMU_TRY(qd_emu_forbid(qd_emu_own_capture, call));
        for (struct CUstream_st *s = device->legacy.next; s != NULL; s = s->next)
            if (s->is_blocking) QD_EMU_TRY(qd_emu_forbid(s, call)); /* the legacy stream waits for it */
        *stream = &device->legacy;
        return cudaSuccess;
    }
    if (handle->is_capture_broken)
        return qd_emu_refuse(cudaErrorStreamCaptureInvalidated, "%s in a capture that was broken before",
                             call);
    return qd_emu_failure(handle->device);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned flags)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    QD_EMU_TRY(qd_emu_current(&device));
    struct CUstream_st *stream = calloc(1, sizeof *stream);
    QD_ASSERT(stream != NULL);
    stream->device = device;
    stream->is_blocking = flags == cudaStreamDefault;
    stream->next = device->legacy.next;
    device->legacy.next = stream;
    *handle = stream;
    return cudaSuccess;
}

void qd_emu_stream_release(struct CUstream_st *stream)
{
    struct CUstream_st **link = &stream->device->legacy.next;
    while (*link != stream) link = &(*link)->next;
    *link = stream->next;
    qd_emu_graph_release(stream->capture);
    free(stream);
}

/* Waits for the stream's work, for which CUDA waits behind the caller's back. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    QD_EMU_ENTER();
    QD_EMU_TRY(qd_emu_forbid(stream, "cudaStreamDestroy"));
    const cudaError_t failure = qd_emu_wait_for(stream->device, stream);
    qd_emu_stream_release(stream);
    return failure;
}

/* What synchronising or querying a stream needs: not capturing, and not called by a thread that captures. */
static cudaError_t find_synchronisable(cudaStream_t handle, const char *call, struct CUstream_st **stream)
{
    QD_EMU_TRY(qd_emu_find_stream(handle, call, stream));
    QD_EMU_TRY(qd_emu_forbid(*stream, call));
    return qd_emu_forbid(qd_emu_own_capture, call);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    QD_EMU_TRY(find_synchronisable(handle, "cudaStreamSynchronize", &stream));
    return qd_emu_wait_for(stream->device, stream);
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    QD_EMU_TRY(find_synchronisable(handle, "cudaStreamQuery", &stream));
    if (has_work(stream->device, stream, UINT64_MAX))
        return qd_emu_refuse(cudaErrorNotReady, "the stream has work to do");
    return qd_emu_failure(stream->device);
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    QD_EMU_TRY(qd_emu_current(&device));
    struct CUevent_st *event = calloc(1, sizeof *event);
    QD_ASSERT(event != NULL);
    event->device = device;
    event->has_timing = (flags & cudaEventDisableTiming) == 0;
    *handle = event;
    return cudaSuccess;
}

/* An external recording in a capture is a part of the graph: every launch records the event. */
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned flags)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    QD_EMU_TRY(qd_emu_find_stream(handle, "cudaEventRecord", &stream));
    if (flags != cudaEventRecordExternal) QD_EMU_TRY(qd_emu_forbid(stream, "cudaEventRecord"));
    if (flags > cudaEventRecordExternal)
        return qd_emu_refuse(cudaErrorInvalidValue, "cudaEventRecordWithFlags with flags %#x", flags);
    if (event->device != stream->device)
        return qd_emu_refuse(cudaErrorInvalidResourceHandle,
                             "an event of GPU %d recorded on a stream of GPU %d", qd_emu_index(event->device),
                             qd_emu_index(stream->device));
    struct qd_emu_work *work = qd_emu_work_create(QD_EMU_WORK_RECORD, 0);
    work->as.event = event;
    qd_emu_issue(stream, work);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

static cudaError_t check_reached(const struct CUevent_st *event)
{
    return event->n_pending == 0 ? cudaSuccess
                                 : qd_emu_refuse(cudaErrorNotReady, "the event was not reached");
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    QD_EMU_ENTER();
    QD_EMU_TRY(qd_emu_forbid(qd_emu_own_capture, "cudaEventQuery"));
    QD_EMU_TRY(check_reached(event));
    return qd_emu_failure(event->device);
}

static cudaError_t wait_until_reached(const struct CUevent_st *event)
{
    while (event->n_pending > 0) pthread_cond_wait(&event->device->changed, &qd_emu_runtime.lock);
    return qd_emu_failure(event->device);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    QD_EMU_ENTER();
    QD_EMU_TRY(qd_emu_forbid(qd_emu_own_capture, "cudaEventSynchronize"));
    return wait_until_reached(event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    QD_EMU_ENTER();
    const cudaError_t failure = wait_until_reached(event);
    free(event);
    return failure;
}

static cudaError_t check_time(const struct CUevent_st *event)
{
    if (!event->has_timing || !event->is_recorded)
        return qd_emu_refuse(cudaErrorInvalidResourceHandle, "the event %s",
                             event->has_timing ? "was never recorded" : "takes no time");
    return check_reached(event);
}

/* On the machine's clock: what the emulation took, which says nothing of a GPU. */
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    QD_EMU_ENTER();
    QD_EMU_TRY(qd_emu_forbid(qd_emu_own_capture, "cudaEventElapsedTime"));
    QD_EMU_TRY(check_time(start));
    QD_EMU_TRY(check_time(end));
    *ms = (float)((double)(end->time_ns - start->time_ns) * 1e-6);
    return cudaSuccess;
}
