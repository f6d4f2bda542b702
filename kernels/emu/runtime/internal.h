/* The inside of the runtime: one process-wide state under one lock, as CUDA's API has no context argument.
 * Everything but the errors needs the lock; what the worker does to memory and kernels happens without it. */
#ifndef QD_KERNELS_EMU_RUNTIME_INTERNAL_H
#define QD_KERNELS_EMU_RUNTIME_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/emu/mode.h"
#include "kernels/emu/emu.h"
#include "kernels/emu/shim/cuda_runtime.h"

enum {
    QD_EMU_MAX_ARGS = 64,
    QD_EMU_ARG_ALIGN = 16,          /* of each argument's copy */
    QD_EMU_MAX_STREAMS_AT_ONCE = 8, /* of a GPU whose kernels wait for each other */
};

/* Returns from the current function when `call` fails. */
#define QD_EMU_TRY(call)                                                                                     \
    do {                                                                                                     \
        cudaError_t try_error_ = (call);                                                                     \
        if (try_error_ != cudaSuccess) return try_error_;                                                    \
    } while (0)

/* ---- work ---- */

enum qd_emu_work_kind {
    QD_EMU_WORK_KERNEL,
    QD_EMU_WORK_MEMORY, /* a copy or a fill */
    QD_EMU_WORK_RECORD, /* of an event */
};

struct qd_emu_transfer {
    void *dst;
    const void *src;  /* NULL: a fill */
    int value;        /* of a fill */
    size_t row_bytes; /* of each of n_rows, strides apart */
    size_t n_rows, dst_stride, src_stride;
};

struct qd_emu_work {
    struct qd_emu_work *next;
    uint64_t order; /* among all work of the GPU, as issued */
    enum qd_emu_work_kind kind;
    union {
        struct {
            struct qd_emu_kernel *kernel;
            struct qd_emu_launch shape; /* without its args, which are in the payload */
        } launch;
        struct qd_emu_transfer memory;
        struct CUevent_st *event;
    } as;
    size_t payload_bytes;
    _Alignas(QD_EMU_ARG_ALIGN) unsigned char payload[];
};

/* Zeroed, with room behind it. */
struct qd_emu_work *qd_emu_work_create(enum qd_emu_work_kind kind, size_t payload_bytes);
/* Frees the first work of a queue, which there must be. */
void qd_emu_drop_first(struct qd_emu_work **queue);

/* ---- handles ---- */

struct CUstream_st {
    struct CUstream_st *next; /* of the same GPU */
    struct qd_emu_device *device;
    struct qd_emu_work *work;   /* the first one is being done, or waits */
    bool is_blocking;           /* takes turns with the legacy stream */
    bool is_busy;               /* a thread does its first work */
    struct CUgraph_st *capture; /* what the capture has so far; NULL when not capturing */
    bool is_capture_broken;
};

struct CUgraph_st { /* and what CUgraphExec_st points to: a graph is not changed any more */
    struct qd_emu_device *device;
    struct qd_emu_work *work; /* in the order of capture */
    unsigned n_handles;
};

/* ---- the state ---- */

struct qd_emu_device {
    bool is_stopping;
    int n_threads; /* started; the second when the first one's kernel waits for another stream, and so on */
    pthread_t threads[QD_EMU_MAX_STREAMS_AT_ONCE];
    int n_busy, n_spinning;    /* threads that do work; those whose kernel spins in vain */
    pthread_cond_t changed;    /* work was issued, or done, or a kernel spins in vain */
    struct CUstream_st legacy; /* stream NULL; first of the list of streams */
    uint64_t n_issued;         /* order of the latest work */
    uint64_t n_draws;          /* random numbers drawn for schedules */
    size_t used_bytes;
    bool peers[QD_EMU_MAX_DEVICES]; /* whose memory it may access */
    bool has_failed;
    char failure[QD_ERR_LEN];
};

struct qd_emu_allocation {
    struct qd_emu_allocation *next;
    char *address; /* what the caller has */
    size_t bytes;
    char *mapping;
    size_t mapping_bytes;         /* with the guard page */
    struct qd_emu_device *device; /* NULL: host memory of cudaMallocHost */
    bool is_sparse;
};

struct qd_emu_kernel {
    struct qd_emu_kernel *next;
    const void *symbol;
    void (*call)(void *const *args, const void *kernel);
    char name[64];
    unsigned n_args;
    unsigned arg_sizes[QD_EMU_MAX_ARGS];      /* bytes */
    size_t arg_places[QD_EMU_MAX_ARGS];       /* in the payload, */
    size_t args_bytes;                        /* which has so many bytes */
    size_t dynamic_limit[QD_EMU_MAX_DEVICES]; /* as set by cudaFuncSetAttribute; 0: the default */
    bool is_loaded[QD_EMU_MAX_DEVICES];       /* was launched there */
};

struct qd_emu_runtime {
    pthread_mutex_t lock;
    struct qd_emu_gpus gpus; /* n and shared_bytes are never 0 */
    struct qd_emu_device devices[QD_EMU_MAX_DEVICES];
    struct qd_emu_allocation *allocations;
    struct qd_emu_kernel *kernels;
};

extern struct qd_emu_runtime qd_emu_runtime;

static inline void qd_emu_leave(pthread_mutex_t *const *lock)
{
    pthread_mutex_unlock(*lock);
}
/* Holds the lock until the function returns. */
#define QD_EMU_ENTER()                                                                                       \
    __attribute__((cleanup(qd_emu_leave))) pthread_mutex_t *const entered_ = &qd_emu_runtime.lock;           \
    pthread_mutex_lock(entered_)

/* ---- device.c ---- */

/* Makes `error` this thread's last error, with a text; returns it. */
cudaError_t qd_emu_refuse(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The calling thread's current GPU, ready for work: its failure is the error of every call. */
cudaError_t qd_emu_current(struct qd_emu_device **device);
int qd_emu_index(const struct qd_emu_device *device);
/* The GPU's failure; cudaSuccess when it has none. */
cudaError_t qd_emu_failure(const struct qd_emu_device *device);

/* ---- memory.c ---- */

/* The allocation that holds the byte at p; NULL when none does. */
const struct qd_emu_allocation *qd_emu_find_allocation(const void *p);
/* Whether the GPU may touch the memory; `what` points to it. */
cudaError_t qd_emu_check_access(const struct qd_emu_device *device, const struct qd_emu_allocation *a,
                                const char *call, const char *what);
size_t qd_emu_memory_limit(void);
void qd_emu_free_all_memory(void);

/* ---- stream.c ---- */

/* The stream behind a handle, NULL being the current GPU's legacy stream; refuses what captures and failures
 * forbid. */
cudaError_t qd_emu_find_stream(cudaStream_t handle, const char *call, struct CUstream_st **stream);
/* Appends the work to the stream or to its capture; owns it from now on. */
void qd_emu_issue(struct CUstream_st *stream, struct qd_emu_work *work);
/* What a launch on the GPU is to be told (struct qd_emu_launch). */
void qd_emu_device_spins(void *device, bool in_vain);
/* Waits, without the lock, until all that was issued so far is done: to the stream, with the legacy one to
 * all that it waits for, with NULL to the GPU. Its failure, if it has one. */
cudaError_t qd_emu_wait_for(struct qd_emu_device *device, const struct CUstream_st *stream);
void qd_emu_stream_release(struct CUstream_st *stream);

/* ---- graph.c ---- */

/* The stream that the calling thread captures; NULL when it does not. */
extern _Thread_local struct CUstream_st *qd_emu_own_capture;
/* Refuses a call while the stream (may be NULL) captures, and breaks the capture. */
cudaError_t qd_emu_forbid(struct CUstream_st *capturing, const char *call);
void qd_emu_graph_release(struct CUgraph_st *graph);

/* ---- launch.c ---- */

/* Runs a launch on the calling thread, without the lock. 0, or -1 with a text. */
int qd_emu_run_launch(const struct qd_emu_work *work, char *err, size_t errlen);
/* The limits that were set for kernels count no longer, and no GPU has loaded any. */
void qd_emu_forget_kernels(void);

#endif
