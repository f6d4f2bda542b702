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
enum { ALIGN_BYTES = 16 };

/* Index of the first allocation whose address is above p. */
static size_t upper_index(uintptr_t p)
{
    size_t low = 0, high = qd_emu_runtime.n_allocations;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (qd_emu_runtime.allocations[middle].address > p)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct qd_emu_allocation *qd_emu_find_allocation(const void *p)
{
    size_t index = upper_index((uintptr_t)p);
    if (index == 0) return NULL;
    struct qd_emu_allocation *allocation = &qd_emu_runtime.allocations[index - 1];
    return (uintptr_t)p - allocation->address < allocation->bytes ? allocation : NULL;
}

size_t qd_emu_memory_limit(void)
{
    if (qd_emu_runtime.memory_bytes > 0) return qd_emu_runtime.memory_bytes;
    return (size_t)sysconf(_SC_PHYS_PAGES) / 2 * (size_t)sysconf(_SC_PAGESIZE);
}

static bool reserve_entry(void)
{
    struct qd_emu_runtime *runtime = &qd_emu_runtime;
    if (runtime->n_allocations < runtime->allocations_capacity) return true;
    size_t capacity = runtime->allocations_capacity == 0 ? 64 : 2 * runtime->allocations_capacity;
    struct qd_emu_allocation *grown = realloc(runtime->allocations, capacity * sizeof *grown);
    if (grown == NULL) return false;
    runtime->allocations = grown;
    runtime->allocations_capacity = capacity;
    return true;
}

/* Maps allocation.bytes in front of a guard page and enters it. */
static cudaError_t map_allocation(struct qd_emu_allocation allocation, void **p)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), mapping_bytes;
    if (!reserve_entry() || !qd_size_add(allocation.bytes, 2 * page, &mapping_bytes))
        return qd_emu_refuse(cudaErrorMemoryAllocation, "no memory for %zu bytes", allocation.bytes);
    size_t used_bytes = qd_round_up(allocation.bytes, page);
    mapping_bytes = used_bytes + page;
    char *mapping =
        mmap(NULL, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED || mprotect(mapping + used_bytes, page, PROT_NONE) != 0) {
        if (mapping != MAP_FAILED) munmap(mapping, mapping_bytes);
        return qd_emu_refuse(cudaErrorMemoryAllocation, "the machine maps no %zu bytes", mapping_bytes);
    }
    char *address = mapping + used_bytes - qd_round_up(allocation.bytes, ALIGN_BYTES);
    allocation.mapping = mapping;
    allocation.mapping_bytes = mapping_bytes;
    allocation.address = (uintptr_t)address;
    allocation.id = ++qd_emu_runtime.n_allocated;
    size_t index = upper_index(allocation.address);
    struct qd_emu_allocation *entry = &qd_emu_runtime.allocations[index];
    memmove(entry + 1, entry, (qd_emu_runtime.n_allocations - index) * sizeof *entry);
    *entry = allocation;
    qd_emu_runtime.n_allocations++;
    *p = address;
    return cudaSuccess;
}

/* What nobody wrote is NaN; under ASan what lies around cannot be touched to the byte. */
static void fill_and_poison(const struct qd_emu_allocation *allocation)
{
    char *mapping = allocation->mapping, *address = (char *)allocation->address;
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    memset(mapping, 0xff, allocation->mapping_bytes - guard);
    char *end = address + allocation->bytes;
    qd_emu_hide(mapping, (size_t)(address - mapping));
    qd_emu_hide(end, allocation->mapping_bytes - (size_t)(end - mapping));
}

static void unmap(struct qd_emu_allocation *allocation)
{
    struct qd_emu_runtime *runtime = &qd_emu_runtime;
    if (allocation->is_counted) {
        qd_emu_show(allocation->mapping, allocation->mapping_bytes);
        if (allocation->device >= 0) runtime->devices[allocation->device].used_bytes -= allocation->bytes;
    }
    munmap(allocation->mapping, allocation->mapping_bytes);
    size_t index = (size_t)(allocation - runtime->allocations);
    memmove(allocation, allocation + 1, (runtime->n_allocations - index - 1) * sizeof *allocation);
    runtime->n_allocations--;
    runtime->n_frees++;
}

void qd_emu_free_all_memory(void)
{
    while (qd_emu_runtime.n_allocations > 0)
        unmap(&qd_emu_runtime.allocations[qd_emu_runtime.n_allocations - 1]);
    free(qd_emu_runtime.allocations);
    qd_emu_runtime.allocations = NULL;
    qd_emu_runtime.allocations_capacity = 0;
}

static cudaError_t allocate(const char *call, bool is_host, bool is_sparse, size_t bytes, void **p)
{
    struct qd_emu_device *device;
    *p = NULL;
    cudaError_t error = qd_emu_current(&device);
    if (error == cudaSuccess) error = qd_emu_forbid_in_capture(call);
    if (error != cudaSuccess || bytes == 0) return error;
    bool is_limited = !is_host && !is_sparse;
    if (is_limited && (bytes > qd_emu_memory_limit() || device->used_bytes > qd_emu_memory_limit() - bytes))
        return qd_emu_refuse(cudaErrorMemoryAllocation, "%zu bytes beside %zu of %zu on GPU %d", bytes,
                             device->used_bytes, qd_emu_memory_limit(), qd_emu_device_index(device));
    struct qd_emu_allocation allocation = {
        .bytes = bytes,
        .device = is_host ? -1 : qd_emu_device_index(device),
        .is_counted = !is_sparse,
    };
    error = map_allocation(allocation, p);
    if (error != cudaSuccess || is_sparse) return error;
    fill_and_poison(qd_emu_find_allocation(*p));
    if (!is_host) device->used_bytes += bytes;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    QD_EMU_ENTER();
    return allocate("cudaMalloc", false, false, bytes, p);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    QD_EMU_ENTER();
    return allocate("cudaMallocHost", true, false, bytes, p);
}

int qd_emu_malloc_sparse(void **p, size_t bytes)
{
    QD_EMU_ENTER();
    return (int)allocate("qd_emu_malloc_sparse", false, true, bytes, p);
}

/* The allocation that begins at p and is of the right kind; NULL with the refusal set. */
static struct qd_emu_allocation *find_own(const char *call, const void *p, bool is_host, cudaError_t *error)
{
    struct qd_emu_allocation *allocation = qd_emu_find_allocation(p);
    const char *why = NULL;
    if (allocation == NULL)
        why = "was not allocated, or was freed";
    else if (allocation->address != (uintptr_t)p)
        why = "is inside an allocation";
    else if ((allocation->device < 0) != is_host)
        why = is_host ? "is device memory" : "is host memory";
    if (why == NULL) return allocation;
    *error = qd_emu_refuse(cudaErrorInvalidValue, "%s: %p %s", call, p, why);
    return NULL;
}

/* Waits for the GPU that owns the memory, the current one for host memory; a GPU that failed still frees. */
static cudaError_t release(const char *call, void *p, bool is_host)
{
    if (p == NULL) return cudaSuccess;
    cudaError_t error = qd_emu_forbid_in_capture(call);
    if (error != cudaSuccess) return error;
    const struct qd_emu_allocation *allocation = find_own(call, p, is_host, &error);
    if (allocation == NULL) return error;
    struct qd_emu_device *device = NULL;
    cudaError_t failure = qd_emu_current(&device);
    if (!is_host) device = &qd_emu_runtime.devices[allocation->device];
    if (device != NULL) failure = qd_emu_wait_device(device);
    /* Others may have freed while this thread waited without the lock. */
    struct qd_emu_allocation *found = find_own(call, p, is_host, &error);
    if (found == NULL) return error;
    unmap(found);
    return failure;
}

cudaError_t cudaFree(void *p)
{
    QD_EMU_ENTER();
    return release("cudaFree", p, false);
}

cudaError_t cudaFreeHost(void *p)
{
    QD_EMU_ENTER();
    return release("cudaFreeHost", p, true);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    struct qd_emu_device *device;
    QD_EMU_ENTER();
    cudaError_t error = qd_emu_current(&device);
    if (error == cudaSuccess) {
        *total_bytes = qd_emu_memory_limit();
        *free_bytes = *total_bytes > device->used_bytes ? *total_bytes - device->used_bytes : 0;
    }
    return error;
}
