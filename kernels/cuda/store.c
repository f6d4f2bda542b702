/* Stores of weights (kernels/store.h). A store has one stream, so that copies of all lanes use the link one
 * after another, and two events a lane: the second tells that its staging may be filled anew, both how long
 * the link was busy with it. */
#include <pthread.h>
#include <stdlib.h>

#include "kernels/base/size.h"
#include "kernels/cuda/host.h"

struct lane {
    cudaEvent_t begin, end; /* around the copy that was started last */
    bool is_busy;           /* it was not waited for */
};

struct store {
    int gpu;
    void *data;
    cudaStream_t stream;
    pthread_mutex_t lock; /* guards the stream's order of begin, copy, end; and the statistics */
    struct qd_store_stats stats;
    int n_lanes;
    struct lane lanes[];
};

static qd_status store_device_of(int global_rank, int n_ranks, int ranks_per_gpu, int *device, char *err,
                                 size_t errlen)
{
    return qd_cuda_gpu_of_rank(global_rank, n_ranks, ranks_per_gpu, device, err, errlen);
}

static qd_status open_store(struct store *s, size_t bytes, char *err, size_t errlen)
{
    QD_TRY(QD_CUDA(cudaSetDevice(s->gpu)));
    QD_TRY(QD_CUDA(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking)));
    for (int i = 0; i < s->n_lanes; i++) {
        QD_TRY(QD_CUDA(cudaEventCreateWithFlags(&s->lanes[i].begin, cudaEventDefault)));
        QD_TRY(QD_CUDA(cudaEventCreateWithFlags(&s->lanes[i].end, cudaEventBlockingSync)));
    }
    return qd_cuda_allocate_zeroed(s->stream, bytes, &s->data, err, errlen);
}

static void store_close(void *store)
{
    struct store *s = store;
    if (s == NULL) return;
    cudaSetDevice(s->gpu);
    if (s->stream != NULL) cudaStreamSynchronize(s->stream);
    for (int i = 0; i < s->n_lanes; i++) {
        if (s->lanes[i].begin != NULL) cudaEventDestroy(s->lanes[i].begin);
        if (s->lanes[i].end != NULL) cudaEventDestroy(s->lanes[i].end);
    }
    cudaFree(s->data);
    if (s->stream != NULL) cudaStreamDestroy(s->stream);
    cudaGetLastError(); /* what failed before has been reported */
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static qd_status store_open(int device, size_t bytes, int n_lanes, void **store, void **data, char *err,
                            size_t errlen)
{
    *store = *data = NULL;
    struct store *s = calloc(1, sizeof *s + (size_t)n_lanes * sizeof s->lanes[0]);
    if (s == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "no memory for a store of weights");
    s->gpu = device;
    s->n_lanes = n_lanes;
    pthread_mutex_init(&s->lock, NULL);
    qd_status st = open_store(s, bytes, err, errlen);
    if (st != QD_OK) {
        store_close(s);
        return st;
    }
    *store = s;
    *data = s->data;
    return QD_OK;
}

static qd_status store_alloc_staging(size_t bytes, void **out, char *err, size_t errlen)
{
    return qd_cuda_allocate_host(bytes, out, err, errlen);
}

static void store_free_staging(void *staging)
{
    cudaFreeHost(staging);
}

static qd_status start_copy(struct store *s, struct lane *lane, const struct qd_store_copy *c, char *err,
                            size_t errlen)
{
    bool has_gaps = c->to_stride != c->row_bytes || c->from_stride != c->row_bytes;
    QD_TRY(QD_CUDA(cudaEventRecord(lane->begin, s->stream)));
    if (has_gaps)
        QD_TRY(QD_CUDA(cudaMemcpy2DAsync(c->to, c->to_stride, c->from, c->from_stride, c->row_bytes,
                                         c->n_rows, cudaMemcpyHostToDevice, s->stream)));
    else
        QD_TRY(QD_CUDA(
            cudaMemcpyAsync(c->to, c->from, c->n_rows * c->row_bytes, cudaMemcpyHostToDevice, s->stream)));
    s->stats.copied_bytes += c->n_rows * c->row_bytes;
    return QD_CUDA(cudaEventRecord(lane->end, s->stream));
}

static qd_status store_copy(void *store, int lane, const struct qd_store_copy *copy, char *err, size_t errlen)
{
    struct store *s = store;
    QD_ASSERT(lane >= 0 && lane < s->n_lanes && !s->lanes[lane].is_busy);
    QD_TRY(QD_CUDA(cudaSetDevice(s->gpu)));
    pthread_mutex_lock(&s->lock);
    qd_status st = start_copy(s, &s->lanes[lane], copy, err, errlen);
    pthread_mutex_unlock(&s->lock);
    s->lanes[lane].is_busy = st == QD_OK;
    return st;
}

static qd_status store_wait(void *store, int lane, char *err, size_t errlen)
{
    struct store *s = store;
    struct lane *l = &s->lanes[lane];
    float ms;
    if (!l->is_busy) return QD_OK;
    l->is_busy = false;
    QD_TRY(QD_CUDA(cudaSetDevice(s->gpu)));
    QD_TRY(QD_CUDA(cudaEventSynchronize(l->end)));
    QD_TRY(QD_CUDA(cudaEventElapsedTime(&ms, l->begin, l->end)));
    pthread_mutex_lock(&s->lock);
    s->stats.copy_ns += (int64_t)((double)ms * 1e6);
    pthread_mutex_unlock(&s->lock);
    return QD_OK;
}

static qd_status store_fill(void *store, const struct qd_store_fill *fill, char *err, size_t errlen)
{
    struct store *s = store;
    QD_TRY(QD_CUDA(cudaSetDevice(s->gpu)));
    return qd_cuda_fill_uniform(fill, s->stream, err, errlen);
}

static qd_status store_finish(void *store, struct qd_store_stats *stats, char *err, size_t errlen)
{
    struct store *s = store;
    QD_TRY(QD_CUDA(cudaSetDevice(s->gpu)));
    for (int lane = 0; lane < s->n_lanes; lane++) QD_TRY(store_wait(s, lane, err, errlen));
    QD_TRY(QD_CUDA(cudaStreamSynchronize(s->stream)));
    *stats = s->stats;
    return QD_OK;
}

const struct qd_store_ops qd_cuda_store_ops = {
    .device_of = store_device_of,
    .open = store_open,
    .close = store_close,
    .row_stride = qd_cuda_row_stride,
    .alloc_staging = store_alloc_staging,
    .free_staging = store_free_staging,
    .copy = store_copy,
    .wait = store_wait,
    .fill = store_fill,
    .finish = store_finish,
};
