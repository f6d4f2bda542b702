#include "kernels/emu/runtime/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/base/size.h"
#include "kernels/emu/sanitize.h"

/* An allocation ends at a page that cannot be touched, so that the first element beyond it faults:
 *
 *     mapping      address              + bytes   guard page
 *     |  0xff ...  |  0xff ...              | <16 |  no access  |
 *
 * which costs CUDA's 256-byte alignment: addresses are multiples of 16, all that kernels may ask for here. */
enum { ALIGN_BYTES = 16, PAGE_BYTES = 4096 };

enum place { ON_GPU, ON_GPU_SPARSE, ON_HOST };

const struct qd_emu_allocation *qd_emu_find_allocation(const void *p)
{
    const struct qd_emu_allocation *a = qd_emu_runtime.allocations;
    while (a != NULL && (uintptr_t)p - (uintptr_t)a->address >= a->bytes) a = a->next;
    return a;
}

cudaError_t qd_emu_check_access(const struct qd_emu_device *device, const struct qd_emu_allocation *a,
                                const char *call, const char *what)
{
    if (a->device == NULL || a->device == device || device->peers[qd_emu_index(a->device)])
        return cudaSuccess;
    return qd_emu_refuse(cudaErrorPeerAccessNotEnabled,
                         "%s: %s points to memory of GPU %d, to which GPU %d has no access enabled", call,
                         what, qd_emu_index(a->device), qd_emu_index(device));
}

size_t qd_emu_memory_limit(void)
{
    if (qd_emu_runtime.gpus.memory_bytes > 0) return qd_emu_runtime.gpus.memory_bytes;
    return (size_t)sysconf(_SC_PHYS_PAGES) / 2 * PAGE_BYTES;
}

/* ---- allocating ---- */

/* Bytes in front of a guard page; NULL when the machine has none. */
static struct qd_emu_allocation *map(size_t bytes)
{
    size_t room = qd_round_up(bytes, PAGE_BYTES);
    struct qd_emu_allocation *a = calloc(1, sizeof *a);
    QD_ASSERT(a != NULL);
    a->bytes = bytes;
    a->mapping_bytes = room + PAGE_BYTES;
    a->mapping = bytes > SIZE_MAX / 2 ? MAP_FAILED
                                      : mmap(NULL, a->mapping_bytes, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (a->mapping != MAP_FAILED && mprotect(a->mapping + room, PAGE_BYTES, PROT_NONE) == 0) {
        a->address = a->mapping + room - qd_round_up(bytes, ALIGN_BYTES);
        return a;
    }
    if (a->mapping != MAP_FAILED) munmap(a->mapping, a->mapping_bytes);
    free(a);
    return NULL;
}

/* What nobody wrote is NaN; under ASan what lies around cannot be touched to the byte. */
static void fill_and_poison(const struct qd_emu_allocation *a)
{
    char *end = a->address + a->bytes;
    memset(a->mapping, 0xff, a->mapping_bytes - PAGE_BYTES);
    qd_emu_hide(a->mapping, (size_t)(a->address - a->mapping));
    qd_emu_hide(end, (size_t)(a->mapping + a->mapping_bytes - end));
}

static void unmap(struct qd_emu_allocation *a)
{
    struct qd_emu_allocation **link = &qd_emu_runtime.allocations;
    while (*link != a) link = &(*link)->next;
    *link = a->next;
    if (!a->is_sparse) qd_emu_show(a->mapping, a->mapping_bytes);
    if (a->device != NULL && !a->is_sparse) a->device->used_bytes -= a->bytes;
    munmap(a->mapping, a->mapping_bytes);
    free(a);
}

void qd_emu_free_all_memory(void)
{
    while (qd_emu_runtime.allocations != NULL) unmap(qd_emu_runtime.allocations);
}

static cudaError_t allocate(const char *call, enum place place, size_t bytes, void **p)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    *p = NULL;
    QD_EMU_TRY(qd_emu_current(&device));
    QD_EMU_TRY(qd_emu_forbid(qd_emu_own_capture, call));
    if (bytes == 0) return cudaSuccess;
    const size_t limit = qd_emu_memory_limit();
    if (place == ON_GPU && (bytes > limit || device->used_bytes > limit - bytes))
        return qd_emu_refuse(cudaErrorMemoryAllocation, "%zu bytes beside %zu of %zu on GPU %d", bytes,
                             device->used_bytes, limit, qd_emu_index(device));
    struct qd_emu_allocation *a = map(bytes);
    if (a == NULL) return qd_emu_refuse(cudaErrorMemoryAllocation, "no memory for %zu bytes", bytes);
    a->device = place == ON_HOST ? NULL : device;
    a->is_sparse = place == ON_GPU_SPARSE;
    a->next = qd_emu_runtime.allocations;
    qd_emu_runtime.allocations = a;
    if (!a->is_sparse) fill_and_poison(a);
    if (place == ON_GPU) device->used_bytes += bytes;
    *p = a->address;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    return allocate("cudaMalloc", ON_GPU, bytes, p);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return allocate("cudaMallocHost", ON_HOST, bytes, p);
}

int qd_emu_malloc_sparse(void **p, size_t bytes)
{
    return (int)allocate("qd_emu_malloc_sparse", ON_GPU_SPARSE, bytes, p);
}

/* Waits for the GPU that owns the memory, the current one for host memory; a GPU that failed still frees. */
static cudaError_t release(const char *call, void *p, bool is_host)
{
    QD_EMU_ENTER();
    if (p == NULL) return cudaSuccess;
    QD_EMU_TRY(qd_emu_forbid(qd_emu_own_capture, call));
    const struct qd_emu_allocation *a = qd_emu_find_allocation(p);
    if (a == NULL || a->address != (char *)p || (a->device == NULL) != is_host)
        return qd_emu_refuse(cudaErrorInvalidValue, "%s: %p %s", call, p,
                             a == NULL                 ? "was not allocated, or was freed"
                             : a->address != (char *)p ? "is inside an allocation"
                             : is_host                 ? "is device memory"
                                                       : "is host memory");
    struct qd_emu_device *device = a->device;
    cudaError_t failure = cudaSuccess;
    if (is_host) failure = qd_emu_current(&device);
    if (device != NULL) failure = qd_emu_wait_for(device, NULL);
    unmap((struct qd_emu_allocation *)a);
    return failure;
}

cudaError_t cudaFree(void *p)
{
    return release("cudaFree", p, false);
}

cudaError_t cudaFreeHost(void *p)
{
    return release("cudaFreeHost", p, true);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    QD_EMU_ENTER();
    struct qd_emu_device *device;
    QD_EMU_TRY(qd_emu_current(&device));
    *total_bytes = qd_emu_memory_limit();
    *free_bytes = *total_bytes > device->used_bytes ? *total_bytes - device->used_bytes : 0;
    return cudaSuccess;
}

/* ---- copies and fills ---- */

/* The allocation of one side of a copy, NULL for pageable host memory: it must hold all the rows, and the GPU
 * must reach it. */
static cudaError_t check_side(const struct CUstream_st *stream, const char *call, const char *name,
                              const void *p, const struct qd_emu_transfer *t, size_t stride,
                              const struct qd_emu_allocation **found)
{
    const struct qd_emu_allocation *a = *found = qd_emu_find_allocation(p);
    if (p == NULL) return qd_emu_refuse(cudaErrorInvalidValue, "%s: %s is NULL", call, name);
    if (a == NULL) return cudaSuccess;
    const size_t rest = a->bytes - (size_t)((const char *)p - a->address);
    const size_t bytes = (t->n_rows - 1) * stride + t->row_bytes;
    if (bytes > rest)
        return qd_emu_refuse(cudaErrorInvalidValue,
                             "%s: %s of %zu bytes ends %zu bytes beyond its allocation", call, name, bytes,
                             bytes - rest);
    return qd_emu_check_access(stream->device, a, call, name);
}

static void issue(struct CUstream_st *stream, const struct qd_emu_transfer *t)
{
    struct qd_emu_work *work = qd_emu_work_create(QD_EMU_WORK_MEMORY, 0);
    work->as.memory = *t;
    qd_emu_issue(stream, work);
}

static cudaError_t copy(const char *call, struct qd_emu_transfer t, enum cudaMemcpyKind kind,
                        cudaStream_t handle, bool is_async)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    const struct qd_emu_allocation *to, *from;
    QD_EMU_TRY(qd_emu_find_stream(handle, call, &stream));
    if (t.n_rows == 0 || t.row_bytes == 0) return cudaSuccess;
    QD_EMU_TRY(check_side(stream, call, "destination", t.dst, &t, t.dst_stride, &to));
    QD_EMU_TRY(check_side(stream, call, "source", t.src, &t, t.src_stride, &from));
    const bool to_device = to != NULL && to->device != NULL,
               from_device = from != NULL && from->device != NULL;
    if (kind != cudaMemcpyDefault &&
        (to_device != (kind != cudaMemcpyDeviceToHost) || from_device != (kind != cudaMemcpyHostToDevice)))
        return qd_emu_refuse(cudaErrorInvalidValue, "%s: direction %d from %s to %s memory", call, (int)kind,
                             from_device ? "device" : "host", to_device ? "device" : "host");
    if (to == NULL || from == NULL) QD_EMU_TRY(qd_emu_forbid(stream, "a copy of pageable host memory"));
    /* Pageable memory is done with on return, and a copy within or between GPUs waits for nothing. */
    const bool must_wait = to == NULL || from == NULL || (!is_async && !(to_device && from_device));
    issue(stream, &t);
    return must_wait ? qd_emu_wait_for(stream->device, stream) : cudaSuccess;
}

static struct qd_emu_transfer one_row(void *dst, const void *src, size_t bytes)
{
    return (struct qd_emu_transfer){.dst = dst, .src = src, .row_bytes = bytes, .n_rows = 1};
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    return copy("cudaMemcpy", one_row(dst, src, bytes), kind, NULL, false);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    return copy("cudaMemcpyAsync", one_row(dst, src, bytes), kind, stream, true);
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    size_t bytes;
    if (width > dst_pitch || width > src_pitch)
        return qd_emu_refuse(cudaErrorInvalidPitchValue,
                             "cudaMemcpy2DAsync: rows of %zu bytes, %zu and %zu apart", width, dst_pitch,
                             src_pitch);
    if (!qd_size_mul(height, dst_pitch > src_pitch ? dst_pitch : src_pitch, &bytes))
        return qd_emu_refuse(cudaErrorInvalidValue, "cudaMemcpy2DAsync: %zu rows overflow", height);
    const struct qd_emu_transfer t = {dst, src, 0, width, height, dst_pitch, src_pitch};
    return copy("cudaMemcpy2DAsync", t, kind, stream, true);
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t handle)
{
    static const char call[] = "cudaMemset";
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    const struct qd_emu_allocation *a;
    struct qd_emu_transfer t = one_row(dst, NULL, bytes);
    t.value = value;
    QD_EMU_TRY(qd_emu_find_stream(handle, call, &stream));
    if (bytes == 0) return cudaSuccess;
    QD_EMU_TRY(check_side(stream, call, "destination", dst, &t, 0, &a));
    if (a == NULL) return qd_emu_refuse(cudaErrorInvalidValue, "%s: %p is not memory of a GPU", call, dst);
    issue(stream, &t);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *dst, int value, size_t bytes)
{
    return cudaMemsetAsync(dst, value, bytes, NULL);
}
