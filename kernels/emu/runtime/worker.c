#include "kernels/emu/runtime/internal.h"

#include <string.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "kernels/base/random.h"
#include "kernels/emu/mode.h"

/* In random schedules every fourth piece of work starts late by up to this: a caller that reuses memory
 * without having waited finds out. */
enum { LATE_ONE_IN = 4, LATE_MAX_NS = 200000 };

/* ---- which work may start ---- */

static bool is_before(const struct CUstream_st *stream, uint64_t order)
{
    return stream->first != NULL && stream->first->order < order;
}

/* The legacy stream and the blocking streams take turns in the order of issue; marks of a stream only end it.
 */
static bool is_its_turn(const struct qd_emu_device *device, const struct CUstream_st *stream)
{
    const struct qd_emu_work *work = stream->first;
    if (stream != &device->legacy)
        return !stream->is_blocking || work->kind == QD_EMU_WORK_MARK ||
               !is_before(&device->legacy, work->order);
    for (const struct CUstream_st *s = device->legacy.next; s != NULL; s = s->next)
        if (s->is_blocking && is_before(s, work->order)) return false;
    return true;
}

static bool can_start(const struct qd_emu_device *device, const struct CUstream_st *stream)
{
    const struct qd_emu_work *work = stream->first;
    if (work == NULL || stream->is_busy || !is_its_turn(device, stream)) return false;
    if (work->kind != QD_EMU_WORK_WAIT || device->has_failed) return true;
    return work->as.event.event->n_reached >= work->as.event.recording;
}

static uint32_t draw(struct qd_emu_device *device, uint64_t seed)
{
    return qd_philox(seed, (uint64_t)qd_emu_device_index(device), device->n_draws++).word[0];
}

/* The stream whose first work is next: in order of issue, or any that can. NULL when none can. */
static struct CUstream_st *choose_stream(struct qd_emu_device *device, const struct qd_emu_mode *mode)
{
    struct CUstream_st *chosen = NULL;
    uint32_t n = 0;
    for (struct CUstream_st *s = &device->legacy; s != NULL; s = s->next) {
        if (!can_start(device, s)) continue;
        n++;
        if (mode->schedule == QD_EMU_SCHEDULE_RANDOM ? draw(device, mode->seed) % n == 0
                                                     : chosen == NULL || is_before(s, chosen->first->order))
            chosen = s;
    }
    return chosen;
}

/* ---- doing it ---- */

static void copy_rows(const struct qd_emu_work *work)
{
    char *dst = work->as.copy.dst;
    const char *src = work->as.copy.src != NULL ? work->as.copy.src : (const char *)work->payload;
    for (size_t row = 0; row < work->as.copy.n_rows; row++)
        memcpy(dst + row * work->as.copy.dst_stride, src + row * work->as.copy.src_stride,
               work->as.copy.row_bytes);
}

/* Without the lock. 0, or -1 with a text. */
static int execute(const struct qd_emu_work *work, int device, char *err, size_t errlen)
{
    switch (work->kind) {
    case QD_EMU_WORK_KERNEL: return qd_emu_run_launch(work, device, err, errlen);
    case QD_EMU_WORK_COPY: copy_rows(work); break;
    case QD_EMU_WORK_FILL: memset(work->as.fill.dst, work->as.fill.value, work->as.fill.bytes); break;
    case QD_EMU_WORK_RECORD:
    case QD_EMU_WORK_WAIT:
    case QD_EMU_WORK_MARK: break;
    }
    return 0;
}

/* An event was reached: any GPU's work may have waited for it, and host threads. */
static void reach(struct CUevent_st *event, uint64_t recording)
{
    if (event->n_reached < recording) {
        event->n_reached = recording;
        event->time_ns = qd_clock_now_ns();
    }
    for (int d = 0; d < qd_emu_runtime.n_devices; d++)
        if (qd_emu_runtime.devices[d].n_threads > 0)
            pthread_cond_broadcast(&qd_emu_runtime.devices[d].has_work);
    pthread_cond_broadcast(&qd_emu_runtime.progress);
}

static void finish_first(struct CUstream_st *stream)
{
    struct qd_emu_work *work = stream->first;
    if (work->kind == QD_EMU_WORK_RECORD) reach(work->as.event.event, work->as.event.recording);
    if (work->kind == QD_EMU_WORK_MARK && --*work->as.n_marks == 0)
        pthread_cond_broadcast(&qd_emu_runtime.progress);
    stream->first = work->next;
    stream->is_busy = false;
    qd_emu_work_destroy(work);
    if (stream->first == NULL && stream->is_destroyed) qd_emu_stream_release(stream);
}

/* Does the stream's first work; the lock is free meanwhile. After a failure only events and marks still
 * count. */
static void do_first(struct qd_emu_device *device, struct CUstream_st *stream, const struct qd_emu_mode *mode)
{
    const struct qd_emu_work *work = stream->first;
    char failure[QD_ERR_LEN] = "";
    int status = 0;
    if (!device->has_failed && work->kind <= QD_EMU_WORK_FILL) {
        struct timespec late = {0};
        if (mode->schedule == QD_EMU_SCHEDULE_RANDOM && draw(device, mode->seed) % LATE_ONE_IN == 0)
            late.tv_nsec = draw(device, mode->seed) % LATE_MAX_NS;
        qd_emu_unlock();
        if (late.tv_nsec > 0) nanosleep(&late, NULL);
        status = execute(work, qd_emu_device_index(device), failure, sizeof failure);
        qd_emu_note_progress();
        qd_emu_lock();
    }
    if (status != 0) {
        device->has_failed = true;
        memcpy(device->failure, failure, sizeof failure);
    }
    finish_first(stream);
}

static bool has_startable(const struct qd_emu_device *device)
{
    for (const struct CUstream_st *s = &device->legacy; s != NULL; s = s->next)
        if (can_start(device, s)) return true;
    return false;
}

static bool has_work(const struct qd_emu_device *device)
{
    for (const struct CUstream_st *s = &device->legacy; s != NULL; s = s->next)
        if (s->first != NULL) return true;
    return false;
}

/* Kernels of one GPU run one after another, but for those that wait for one of another stream. */
static void *run(void *argument)
{
    struct qd_emu_device *device = argument;
    qd_emu_lock();
    while (!device->is_stopping || has_work(device)) {
        struct qd_emu_mode mode = qd_emu_get_mode();
        struct CUstream_st *stream = NULL;
        if (device->n_busy == device->n_spinning) stream = choose_stream(device, &mode);
        if (stream == NULL) {
            pthread_cond_wait(&device->has_work, &qd_emu_runtime.lock);
            continue;
        }
        device->n_busy++;
        stream->is_busy = true;
        do_first(device, stream, &mode);
        device->n_busy--;
        if (device->n_threads > 1) pthread_cond_broadcast(&device->has_work);
    }
    qd_emu_unlock();
    qd_emu_release_thread();
    return NULL;
}

/* A kernel spins in vain: another stream's work may be what it waits for. */
void qd_emu_worker_spins(void *argument, bool in_vain)
{
    struct qd_emu_device *device = argument;
    QD_EMU_ENTER();
    device->n_spinning += in_vain ? 1 : -1;
    if (!in_vain) return;
    if (has_startable(device))
        (void)qd_emu_worker_start(device); /* or it stays a livelock, which is reported */
    pthread_cond_broadcast(&device->has_work);
}

/* At the GPU's first work, and when all threads do work that waits for other work. */
cudaError_t qd_emu_worker_start(struct qd_emu_device *device)
{
    int n = device->n_threads;
    if (n > 0 && (device->n_busy < n || device->n_spinning < n || n == QD_EMU_MAX_STREAMS_AT_ONCE))
        return cudaSuccess;
    if (n == 0 && pthread_cond_init(&device->has_work, NULL) != 0)
        return qd_emu_refuse(cudaErrorOperatingSystem, "no condition variable for GPU %d",
                             qd_emu_device_index(device));
    if (pthread_create(&device->threads[n], NULL, run, device) != 0) {
        if (n == 0) pthread_cond_destroy(&device->has_work);
        return qd_emu_refuse(cudaErrorOperatingSystem, "no thread for GPU %d", qd_emu_device_index(device));
    }
    device->n_threads++;
    return cudaSuccess;
}
