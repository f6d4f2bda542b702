/* The inside of the runtime: one process-wide state under one lock, as CUDA's API has no context argument.
 *
 *     stream.c    streams are queues of work; waiting          worker.c   threads of each GPU do the work
 *     capture.c   work of a capturing stream becomes a graph   graph.c    and back
 *     memory.c    allocations, and what an address belongs to  copy.c     copies and fills
 *     launch.c    kernels: registry, limits, arguments         event.c    device.c    error.c
 *
 * Everything but error.c's functions needs the lock; what the worker does to memory and kernels happens
 * without it.
 */
#ifndef QD_KERNELS_EMU_RUNTIME_INTERNAL_H
#define QD_KERNELS_EMU_RUNTIME_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/emu/devices.h"
#include "kernels/emu/emu.h"
#include "kernels/emu/shim/host_api.h"

enum {
    QD_EMU_MAX_ARGS = 64,
    QD_EMU_ARG_ALIGN = 16,          /* of each argument's copy */
    QD_EMU_MAX_STREAMS_AT_ONCE = 8, /* of a GPU whose kernels wait for each other */
};

/* ---- errors (error.c) ---- */

/* Makes `error` this thread's last error, with a text; returns it. */
cudaError_t qd_emu_refuse(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
void qd_emu_forget_errors(void); /* of the calling thread */

/* ---- handles: every stream, event, graph and executable graph that the caller owns ---- */

enum qd_emu_handle_kind { QD_EMU_STREAM, QD_EMU_EVENT, QD_EMU_GRAPH, QD_EMU_EXEC };

struct qd_emu_handle { /* the first member of what is handed out */
    struct qd_emu_handle *next;
    enum qd_emu_handle_kind kind;
    int device;
};

void qd_emu_handle_add(struct qd_emu_handle *handle, enum qd_emu_handle_kind kind, int device);
void qd_emu_handle_remove(struct qd_emu_handle *handle);
/* Whether a pointer from the caller is a live handle of this kind; never dereferences it. */
bool qd_emu_handle_is(const void *handle, enum qd_emu_handle_kind kind);

/* ---- work ---- */

enum qd_emu_work_kind {
    QD_EMU_WORK_KERNEL,
    QD_EMU_WORK_COPY,
    QD_EMU_WORK_FILL,
    QD_EMU_WORK_RECORD, /* of an event */
    QD_EMU_WORK_WAIT,   /* for an event */
    QD_EMU_WORK_MARK,   /* tells a waiting host thread that the stream came this far */
};

struct qd_emu_work {
    struct qd_emu_work *next;
    uint64_t order; /* among all work of the GPU, as issued */
    enum qd_emu_work_kind kind;
    union {
        struct {
            struct qd_emu_kernel *kernel;
            unsigned grid[3], block[3];
            size_t shared_bytes;
        } launch; /* arguments in the payload, each at a multiple of QD_EMU_ARG_ALIGN */
        struct {
            void *dst;
            const void *src; /* NULL: the payload */
            size_t n_rows, row_bytes, dst_stride, src_stride; /* one row: strides do not matter */
        } copy;
        struct {
            void *dst;
            int value;
            size_t bytes;
        } fill;
        struct {
            struct CUevent_st *event;
            uint64_t recording; /* which recording of the event */
        } event;
        unsigned *n_marks; /* the waiting thread's count, lowered when reached */
    } as;
    size_t payload_bytes;
    _Alignas(QD_EMU_ARG_ALIGN) unsigned char payload[];
};

/* Zeroed, with room behind it; NULL without memory. */
struct qd_emu_work *qd_emu_work_create(enum qd_emu_work_kind kind, size_t payload_bytes);
struct qd_emu_work *qd_emu_work_clone(const struct qd_emu_work *work);
void qd_emu_work_destroy(struct qd_emu_work *work);

/* ---- streams, events, graphs ---- */

struct CUstream_st {
    struct qd_emu_handle handle;
    struct CUstream_st *next;         /* of the same GPU */
    struct qd_emu_work *first, *last; /* first is being done, or waits */
    bool is_blocking;                 /* takes turns with the legacy stream */
    bool is_destroyed;                /* by the caller; freed when its work is done */
    bool is_busy;                     /* a thread does its first work */
    struct CUgraph_st *capture;       /* what the capture has so far; NULL when not capturing */
    bool is_capture_broken;
    uint64_t capture_id;
    enum cudaStreamCaptureMode capture_mode;
    pthread_t capture_thread;
};

struct CUevent_st {
    struct qd_emu_handle handle;
    unsigned n_users; /* its owner, work, and waiting threads; the last one frees it */
    bool has_timing;
    uint64_t captured_by; /* capture in which it was last recorded; 0: recorded for real */
    uint64_t n_recorded;  /* recordings issued */
    uint64_t n_reached;   /* the latest recording reached */
    int64_t time_ns;      /* of the latest */
};

/* An allocation that a graph uses; the id tells it from a later one at the same address. */
struct qd_emu_use {
    uintptr_t address;
    uint64_t id;
};

struct CUgraph_st { /* also what is executed: struct CUgraphExec_st has the same contents */
    struct qd_emu_handle handle;
    struct qd_emu_work *first, *last; /* in the order of capture */
    struct qd_emu_use *uses;          /* [n_uses] */
    size_t n_uses, uses_capacity;
};

struct CUgraphExec_st {
    struct CUgraph_st graph;
    uint64_t n_frees_checked; /* all uses were alive when the runtime had freed so many allocations */
};

/* ---- the state ---- */

struct qd_emu_device {
    bool is_stopping;
    int n_threads; /* started; the second when the first one's kernel waits for another stream, and so on */
    pthread_t threads[QD_EMU_MAX_STREAMS_AT_ONCE];
    int n_busy, n_spinning;  /* threads that do work; those whose kernel spins in vain */
    pthread_cond_t has_work; /* or an event that its work waits for was reached, or a kernel spins in vain */
    struct CUstream_st legacy; /* stream NULL; first of the list of streams */
    uint64_t n_issued;         /* order of the latest work */
    uint64_t n_draws;          /* random numbers drawn for schedules */
    size_t used_bytes;
    bool peers[QD_EMU_MAX_DEVICES]; /* whose memory it may access */
    bool has_failed, is_failure_known;
    char failure[QD_ERR_LEN];
};

struct qd_emu_allocation {
    uintptr_t address; /* what the caller has */
    size_t bytes;
    void *mapping;
    size_t mapping_bytes; /* with the guard page */
    uint64_t id;
    int device;      /* -1: host memory of cudaMallocHost */
    bool is_counted; /* against the GPU's memory */
};

struct qd_emu_kernel {
    struct qd_emu_kernel *next; /* in its bucket */
    const void *symbol;
    void (*call)(void *const *args, const void *kernel);
    char name[64];
    unsigned n_args;
    unsigned arg_sizes[QD_EMU_MAX_ARGS];     /* bytes */
    size_t shared_limit[QD_EMU_MAX_DEVICES]; /* dynamic, as set by cudaFuncSetAttribute; 0: the default */
    bool is_loaded[QD_EMU_MAX_DEVICES];      /* launched there, or asked for its attributes */
};

enum { QD_EMU_KERNEL_BUCKETS = 256 };

struct qd_emu_runtime {
    pthread_mutex_t lock;
    pthread_cond_t progress; /* a mark or an event was reached */
    int n_devices;
    size_t memory_bytes; /* of each GPU; 0: default */
    size_t shared_bytes; /* limit of a block; 0: default */
    bool lacks_peers, lacks_nccl;
    struct qd_emu_device devices[QD_EMU_MAX_DEVICES];
    struct qd_emu_handle *handles;
    struct qd_emu_allocation *allocations; /* [n_allocations], by address */
    size_t n_allocations, allocations_capacity;
    uint64_t n_allocated, n_frees, n_captures; /* ever */
    struct qd_emu_kernel *kernels[QD_EMU_KERNEL_BUCKETS];
};

extern struct qd_emu_runtime qd_emu_runtime;

/* ---- device.c ---- */

void qd_emu_lock(void);
void qd_emu_unlock(void);
static inline void qd_emu_leave(const bool *has_entered)
{
    (void)has_entered;
    qd_emu_unlock();
}
/* Holds the lock until the function returns. */
#define QD_EMU_ENTER()                                                                                       \
    __attribute__((cleanup(qd_emu_leave), unused)) bool qd_emu_has_entered_ = true;                          \
    qd_emu_lock()

/* The calling thread's current GPU, ready for work: its failure, once known, is the error of every call. */
cudaError_t qd_emu_current(struct qd_emu_device **device);
int qd_emu_device_index(const struct qd_emu_device *device);
/* The GPU's failure, from now on known; cudaSuccess when it has none. */
cudaError_t qd_emu_device_failure(struct qd_emu_device *device);
/* Shared memory that a block may have. */
size_t qd_emu_shared_limit(void);
bool qd_emu_can_access(const struct qd_emu_device *device, int owner);

/* ---- memory.c ---- */

/* The allocation that holds the byte at p; NULL when none does. Valid until the lock is released. */
struct qd_emu_allocation *qd_emu_find_allocation(const void *p);
size_t qd_emu_memory_limit(void);
void qd_emu_free_all_memory(void);

/* ---- stream.c, worker.c ---- */

/* The stream behind a handle; NULL and cudaStreamLegacy are the current GPU's legacy stream. */
cudaError_t qd_emu_find_stream(cudaStream_t handle, struct CUstream_st **stream);
/* The same for a call that issues work: refuses what captures and failures forbid. */
cudaError_t qd_emu_find_work_stream(cudaStream_t handle, const char *call, struct CUstream_st **stream);
struct qd_emu_device *qd_emu_stream_device(const struct CUstream_st *stream);
/* Appends the work to the stream or to its capture; owns it from now on, whatever it returns. */
cudaError_t qd_emu_issue(struct CUstream_st *stream, struct qd_emu_work *work);
/* Wait, without the lock, until all that was issued so far is done. */
cudaError_t qd_emu_wait_stream(struct CUstream_st *stream);
cudaError_t qd_emu_wait_device(struct qd_emu_device *device);
void qd_emu_stream_release(struct CUstream_st *stream);

/* There is new work: a thread that can do it. */
cudaError_t qd_emu_worker_start(struct qd_emu_device *device);
/* What a launch on the device is to be told (struct qd_emu_launch). */
void qd_emu_worker_spins(void *device, bool in_vain);

/* ---- event.c ---- */

void qd_emu_event_release(struct CUevent_st *event);
/* The work is the latest recording of its event from now on. */
void qd_emu_event_issue_recording(struct qd_emu_work *work);

/* ---- capture.c, graph.c ---- */

/* Refuses a call that CUDA prohibits during captures of this thread or, in global mode, of any; breaks them.
 */
cudaError_t qd_emu_forbid_in_capture(const char *call);
/* Refuses what a capturing stream itself cannot do; breaks the capture. */
cudaError_t qd_emu_forbid_on_capturing(struct CUstream_st *stream, const char *call);
/* Refuses work on the legacy stream of a GPU that a capture would depend on, and any by a capturing thread.
 */
cudaError_t qd_emu_forbid_legacy(struct qd_emu_device *device, const char *call);
/* Whether the calling thread captures and not in relaxed mode; breaks nothing. */
struct CUstream_st *qd_emu_own_capture(void);

struct CUgraph_st *qd_emu_graph_create(size_t bytes);
void qd_emu_graph_release(struct CUgraph_st *graph);
cudaError_t qd_emu_graph_append(struct CUgraph_st *graph, struct qd_emu_work *work);

/* ---- launch.c ---- */

/* The allocations that the arguments of a launch point into: calls `visit` for every word that is an address
 * in one. */
cudaError_t qd_emu_visit_arguments(const struct qd_emu_work *launch,
                                   cudaError_t (*visit)(void *context, const struct qd_emu_allocation *),
                                   void *context);
/* Runs a launch on the calling thread, without the lock. 0, or -1 with a text. */
int qd_emu_run_launch(const struct qd_emu_work *work, int device, char *err, size_t errlen);

#endif
