#include "kernels/emu/runtime/internal.h"

#include <string.h>

#include "kernels/base/size.h"

/* One side of a copy, or what is filled. */
struct side {
    const void *p;
    const struct qd_emu_allocation *allocation; /* NULL: pageable host memory */
    bool is_device;
};

static cudaError_t find_side(const char *call, const char *name, const void *p, size_t bytes,
                             struct side *side)
{
    const struct qd_emu_allocation *allocation = qd_emu_find_allocation(p);
    *side = (struct side){p, allocation, allocation != NULL && allocation->device >= 0};
    if (p == NULL) return qd_emu_refuse(cudaErrorInvalidValue, "%s: %s is NULL", call, name);
    if (allocation == NULL) return cudaSuccess;
    size_t rest = allocation->bytes - (size_t)((uintptr_t)p - allocation->address);
    if (bytes > rest)
        return qd_emu_refuse(cudaErrorInvalidValue,
                             "%s: %s of %zu bytes ends %zu bytes beyond its allocation", call, name, bytes,
                             bytes - rest);
    return cudaSuccess;
}

/* The GPU that does it must reach the memory. */
static cudaError_t check_reach(const char *call, const char *name, const struct side *side,
                               const struct CUstream_st *stream)
{
    if (!side->is_device || qd_emu_can_access(qd_emu_stream_device(stream), side->allocation->device))
        return cudaSuccess;
    return qd_emu_refuse(cudaErrorPeerAccessNotEnabled,
                         "%s: %s is memory of GPU %d, to which GPU %d has no access enabled", call, name,
                         side->allocation->device, stream->handle.device);
}

static cudaError_t check_kind(const char *call, enum cudaMemcpyKind kind, const struct side *dst,
                              const struct side *src)
{
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return qd_emu_refuse(cudaErrorInvalidMemcpyDirection, "%s: direction %d", call, (int)kind);
    if (kind == cudaMemcpyDefault) return cudaSuccess;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (dst->is_device == to_device && src->is_device == from_device) return cudaSuccess;
    const struct side *wrong = dst->is_device != to_device ? dst : src;
    return qd_emu_refuse(cudaErrorInvalidValue, "%s: %s %p is %s memory, against the direction", call,
                         wrong == dst ? "destination" : "source", wrong->p,
                         wrong->is_device ? "device" : "host");
}

/* n_rows of row_bytes each, strides apart; for one row strides do not matter. */
struct extent {
    size_t n_rows, row_bytes, dst_stride, src_stride;
};

/* Bytes from the first to the last of a side. */
static size_t span(const struct extent *e, size_t stride)
{
    return (e->n_rows - 1) * stride + e->row_bytes;
}

static cudaError_t check_copy(const char *call, const struct CUstream_st *stream, const struct extent *extent,
                              enum cudaMemcpyKind kind, struct side *dst, struct side *src)
{
    cudaError_t error = find_side(call, "destination", dst->p, span(extent, extent->dst_stride), dst);
    if (error == cudaSuccess)
        error = find_side(call, "source", src->p, span(extent, extent->src_stride), src);
    if (error == cudaSuccess) error = check_kind(call, kind, dst, src);
    if (error == cudaSuccess) error = check_reach(call, "destination", dst, stream);
    if (error == cudaSuccess) error = check_reach(call, "source", src, stream);
    return error;
}

/* Staged: the source is read before the call returns. */
static cudaError_t issue_copy(struct CUstream_st *stream, const struct side *dst, const struct side *src,
                              const struct extent *extent, bool is_staged)
{
    size_t staged_bytes = is_staged ? span(extent, extent->src_stride) : 0;
    struct qd_emu_work *work = qd_emu_work_create(QD_EMU_WORK_COPY, staged_bytes);
    if (work != NULL) {
        work->as.copy.dst = (void *)dst->p;
        work->as.copy.src = is_staged ? NULL : src->p;
        work->as.copy.n_rows = extent->n_rows;
        work->as.copy.row_bytes = extent->row_bytes;
        work->as.copy.dst_stride = extent->dst_stride;
        work->as.copy.src_stride = extent->src_stride;
        if (is_staged) memcpy(work->payload, src->p, staged_bytes);
    }
    return qd_emu_issue(stream, work);
}

static cudaError_t copy(const char *call, void *dst_address, const void *src_address, struct extent extent,
                        enum cudaMemcpyKind kind, cudaStream_t handle, bool is_async)
{
    struct CUstream_st *stream;
    struct side dst = {.p = dst_address}, src = {.p = src_address};
    cudaError_t error = is_async ? cudaSuccess : qd_emu_forbid_in_capture(call);
    if (error == cudaSuccess) error = qd_emu_find_work_stream(handle, call, &stream);
    if (error != cudaSuccess || extent.n_rows == 0 || extent.row_bytes == 0) return error;
    error = check_copy(call, stream, &extent, kind, &dst, &src);
    if (error != cudaSuccess) return error;
    bool is_pageable = dst.allocation == NULL || src.allocation == NULL;
    if (is_pageable && stream->capture != NULL)
        return qd_emu_forbid_on_capturing(stream, "a copy of pageable host memory");
    /* As in CUDA: pageable memory is done with on return, and a copy within or between GPUs waits for
     * nothing. */
    bool must_wait = dst.allocation == NULL || (!is_async && !(dst.is_device && src.is_device));
    error = issue_copy(stream, &dst, &src, &extent, src.allocation == NULL && !must_wait);
    return error == cudaSuccess && must_wait ? qd_emu_wait_stream(stream) : error;
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    QD_EMU_ENTER();
    return copy("cudaMemcpy", dst, src, (struct extent){1, bytes, 0, 0}, kind, NULL, false);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    QD_EMU_ENTER();
    return copy("cudaMemcpyAsync", dst, src, (struct extent){1, bytes, 0, 0}, kind, stream, true);
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    QD_EMU_ENTER();
    if (width > dst_pitch || width > src_pitch)
        return qd_emu_refuse(cudaErrorInvalidPitchValue,
                             "cudaMemcpy2DAsync: rows of %zu bytes, %zu and %zu apart", width, dst_pitch,
                             src_pitch);
    size_t bytes;
    if (!qd_size_mul(height, dst_pitch > src_pitch ? dst_pitch : src_pitch, &bytes))
        return qd_emu_refuse(cudaErrorInvalidValue, "cudaMemcpy2DAsync: %zu rows overflow", height);
    return copy("cudaMemcpy2DAsync", dst, src, (struct extent){height, width, dst_pitch, src_pitch}, kind,
                stream, true);
}

static cudaError_t fill(const char *call, void *dst_address, int value, size_t bytes, cudaStream_t handle,
                        bool is_async)
{
    struct CUstream_st *stream;
    struct side dst;
    cudaError_t error = is_async ? cudaSuccess : qd_emu_forbid_in_capture(call);
    if (error == cudaSuccess) error = qd_emu_find_work_stream(handle, call, &stream);
    if (error != cudaSuccess || bytes == 0) return error;
    error = find_side(call, "destination", dst_address, bytes, &dst);
    if (error == cudaSuccess && dst.allocation == NULL)
        error = qd_emu_refuse(cudaErrorInvalidValue, "%s: %p is not memory of a GPU", call, dst_address);
    if (error == cudaSuccess) error = check_reach(call, "destination", &dst, stream);
    if (error != cudaSuccess) return error;
    struct qd_emu_work *work = qd_emu_work_create(QD_EMU_WORK_FILL, 0);
    if (work != NULL) {
        work->as.fill.dst = dst_address;
        work->as.fill.value = value;
        work->as.fill.bytes = bytes;
    }
    return qd_emu_issue(stream, work);
}

cudaError_t cudaMemset(void *dst, int value, size_t bytes)
{
    QD_EMU_ENTER();
    return fill("cudaMemset", dst, value, bytes, NULL, false);
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    QD_EMU_ENTER();
    return fill("cudaMemsetAsync", dst, value, bytes, stream, true);
}
