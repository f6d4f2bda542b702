#include "kernels/emu_nccl/nccl.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/bf16.h"
#include "kernels/emu/mode.h"
#include "kernels/emu/emu.h"
#include "kernels/emu/shim/cuda_runtime.h"

enum { MAX_RANKS = QD_EMU_MAX_DEVICES, VERSION = 22809 };
enum kind { ALL_REDUCE, ALL_GATHER, N_KINDS };

static const char *const kind_names[N_KINDS] = {"nccl_all_reduce", "nccl_all_gather"};

/* What the ranks must agree on, and where this rank's memory is. */
struct call {
    uint64_t kind, type, op, is_captured, count; /* whole words: a launch's arguments have no padding */
    const void *in;
    void *out;
};

struct ncclComm {
    struct world *world;
    int rank, device;
    cudaStream_t stream;   /* of the first call */
    uint32_t n_calls;      /* issued */
    uint32_t n_run;        /* by this rank's kernels */
    unsigned char *result; /* of the call that runs */
    _Atomic bool is_aborted;
};

/* The ranks of one unique id. */
struct world {
    struct world *next;
    uint64_t id;
    int n_ranks, n_joined, n_left;
    bool has_twins; /* two ranks on one GPU */
    struct ncclComm comms[MAX_RANKS];
    _Atomic bool has_left[MAX_RANKS];
    struct call calls[MAX_RANKS]; /* those that run */
    uint32_t n_begun[MAX_RANKS],
        n_read[MAX_RANKS]; /* calls whose memory others may read, and have been read */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the list and of who has joined */
static pthread_cond_t joined = PTHREAD_COND_INITIALIZER;
static struct world *worlds;
static uint64_t n_ids;
static bool is_absent;
static _Thread_local char last_error[QD_ERR_LEN];

__attribute__((format(printf, 2, 3))) static unsigned refuse(unsigned result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return result;
}

/* ---- a collective as it runs: a kernel of one thread on each rank ---- */

#define HERE ((struct qd_emu_site){__FILE__, __LINE__})

static void describe(const struct call *call, char *text, size_t len)
{
    snprintf(text, len, "%s%s of %llu, type %llu, operation %llu", kind_names[call->kind],
             call->is_captured ? " (captured)" : "", (unsigned long long)call->count,
             (unsigned long long)call->type, (unsigned long long)call->op);
}

static void check_agreement(const struct ncclComm *comm, uint32_t number)
{
    const struct call *mine = &comm->world->calls[comm->rank];
    for (int r = 0; r < comm->world->n_ranks; r++) {
        const struct call *other = &comm->world->calls[r];
        char a[128], b[128];
        if (other->kind == mine->kind && other->type == mine->type && other->op == mine->op &&
            other->count == mine->count && other->is_captured == mine->is_captured)
            continue;
        describe(mine, a, sizeof a);
        describe(other, b, sizeof b);
        qd_emu_fail(HERE, "NCCL: call %u of rank %d is %s, that of rank %d is %s", number, comm->rank, a, r,
                    b);
    }
}

/* Until every rank's count has come to `number`; false when this rank was told to give up. */
static bool wait_for_all(const struct ncclComm *comm, const uint32_t *counts, uint32_t number)
{
    for (int r = 0; r < comm->world->n_ranks; r++)
        for (;;) {
            bool has_left = atomic_load(&comm->world->has_left[r]);
            uint32_t count = qd_emu_load_acquire(&counts[r], HERE);
            if (count >= number) break;
            if (atomic_load(&comm->is_aborted)) return false;
            if (has_left)
                qd_emu_fail(HERE, "NCCL: call %u of rank %d waits for rank %d, which left after %u calls",
                            number, comm->rank, r, count);
        }
    return true;
}

/* As a ring does it: part p of the sum begins at rank p + 1 and is rounded at every hop. */
static void reduce(const struct world *world, size_t count, qd_bf16 *out)
{
    size_t n = (size_t)world->n_ranks;
    for (size_t i = 0; i < count; i++) {
        size_t part = i * n / count;
        qd_bf16 sum = ((const qd_bf16 *)world->calls[(part + 1) % n].in)[i];
        for (size_t hop = 2; hop <= n; hop++) {
            qd_bf16 term = ((const qd_bf16 *)world->calls[(part + hop) % n].in)[i];
            sum = qd_bf16_from_f32(qd_bf16_to_f32(sum) + qd_bf16_to_f32(term));
        }
        out[i] = sum;
    }
}

static size_t type_bytes(uint64_t type)
{
    return type == QD_NCCL_BF16 ? sizeof(qd_bf16) : 1;
}

/* Nobody's memory changes before all have read it: results are made apart. */
static void run(struct ncclComm *comm, const struct call *call)
{
    struct world *world = comm->world;
    uint32_t number = ++comm->n_run;
    world->calls[comm->rank] = *call;
    qd_emu_store_release(&world->n_begun[comm->rank], number);
    if (!wait_for_all(comm, world->n_begun, number)) return;
    check_agreement(comm, number);
    size_t bytes = call->count * type_bytes(call->type), n_ranks = (size_t)world->n_ranks;
    size_t result_bytes = call->kind == ALL_GATHER ? bytes * n_ranks : bytes;
    free(comm->result);
    comm->result = malloc(result_bytes + 1);
    if (comm->result == NULL) qd_emu_fail(HERE, "no memory for %zu bytes of a collective", result_bytes);
    if (call->kind == ALL_REDUCE) reduce(world, call->count, (qd_bf16 *)comm->result);
    for (size_t r = 0; r < n_ranks && call->kind == ALL_GATHER; r++)
        memcpy(comm->result + r * bytes, world->calls[r].in, bytes);
    qd_emu_store_release(&world->n_read[comm->rank], number);
    if (wait_for_all(comm, world->n_read, number)) memcpy(call->out, comm->result, result_bytes);
}

struct launch {
    struct ncclComm *comm;
    struct call call;
};

static void run_launch(void *const *args, const void *kernel)
{
    (void)kernel;
    const struct launch *launch = args[0];
    if (launch->comm != NULL) run(launch->comm, &launch->call);
}

/* ---- issuing ---- */

static unsigned check_call(const struct ncclComm *comm, const struct call *call, cudaStream_t stream)
{
    if (atomic_load(&comm->is_aborted))
        return refuse(QD_NCCL_INVALID_USAGE, "rank %d was aborted", comm->rank);
    if (call->in == NULL || call->out == NULL)
        return refuse(QD_NCCL_INVALID_ARGUMENT, "call %u of rank %d: no memory", comm->n_calls + 1,
                      comm->rank);
    if (call->op != QD_NCCL_SUM || call->type != (call->kind == ALL_REDUCE ? QD_NCCL_BF16 : QD_NCCL_UINT8))
        return refuse(QD_NCCL_INVALID_ARGUMENT,
                      "call %u of rank %d: type %llu, operation %llu are not emulated", comm->n_calls + 1,
                      comm->rank, (unsigned long long)call->type, (unsigned long long)call->op);
    if (comm->stream != NULL && comm->stream != stream)
        return refuse(QD_NCCL_INVALID_USAGE, "call %u of rank %d is on another stream than those before",
                      comm->n_calls + 1, comm->rank);
    return QD_NCCL_SUCCESS;
}

static unsigned issue(struct ncclComm *comm, struct call call, cudaStream_t stream)
{
    if (comm == NULL) return refuse(QD_NCCL_INVALID_ARGUMENT, "no communicator");
    unsigned result = check_call(comm, &call, stream);
    if (result != QD_NCCL_SUCCESS) return result;
    enum cudaStreamCaptureStatus status;
    cudaError_t error = cudaStreamIsCapturing(stream, &status);
    call.is_captured = status == cudaStreamCaptureStatusActive;
    struct launch launch = {comm, call};
    void *args[] = {&launch};
    const dim3 one = {1, 1, 1};
    if (error == cudaSuccess) error = cudaLaunchKernel(kind_names[call.kind], one, one, args, 0, stream);
    if (error != cudaSuccess) return refuse(QD_NCCL_UNHANDLED_CUDA_ERROR, "%s", cudaGetErrorString(error));
    comm->stream = stream;
    comm->n_calls++;
    return QD_NCCL_SUCCESS;
}

static unsigned all_reduce(const void *in, void *out, size_t count, unsigned type, unsigned op,
                           struct ncclComm *comm, cudaStream_t stream)
{
    return issue(comm, (struct call){ALL_REDUCE, type, op, 0, count, in, out}, stream);
}

static unsigned all_gather(const void *in, void *out, size_t count, unsigned type, struct ncclComm *comm,
                           cudaStream_t stream)
{
    return issue(comm, (struct call){ALL_GATHER, type, QD_NCCL_SUM, 0, count, in, out}, stream);
}

/* One rank a thread: whatever is in a group may as well begin at once. */
static unsigned group(void)
{
    return QD_NCCL_SUCCESS;
}

/* ---- joining and leaving ---- */

static unsigned get_version(int *version)
{
    *version = VERSION;
    return QD_NCCL_SUCCESS;
}

static unsigned get_unique_id(struct qd_nccl_unique_id *out)
{
    pthread_mutex_lock(&lock);
    uint64_t id = ++n_ids;
    pthread_mutex_unlock(&lock);
    memset(out, 0, sizeof *out);
    memcpy(out->bytes, &id, sizeof id);
    return QD_NCCL_SUCCESS;
}

/* With the lock held; made by the first rank that comes. NULL without memory. */
static struct world *find_world(uint64_t id, int n_ranks)
{
    struct world *world = worlds;
    while (world != NULL && world->id != id) world = world->next;
    if (world != NULL || (world = calloc(1, sizeof *world)) == NULL) return world;
    world->id = id;
    world->n_ranks = n_ranks;
    world->next = worlds;
    worlds = world;
    return world;
}

/* Runs the kernels once, with nothing to do, so that this GPU has loaded them: the first call may be
 * captured. */
static cudaError_t load_kernels(void)
{
    static const unsigned sizes[] = {sizeof(struct launch)};
    const dim3 one = {1, 1, 1};
    struct launch nothing = {0};
    void *args[] = {&nothing};
    cudaStream_t stream;
    cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (error != cudaSuccess) return error;
    for (int kind = 0; kind < N_KINDS && error == cudaSuccess; kind++) {
        qd_emu_register_kernel(kind_names[kind], kind_names[kind], run_launch, sizes, 1);
        error = cudaLaunchKernel(kind_names[kind], one, one, args, 0, stream);
    }
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
    return error;
}

/* With the lock held. */
static void join(struct world *world, int rank, int device)
{
    struct ncclComm *comm = &world->comms[rank];
    for (int r = 0; r < world->n_ranks; r++)
        if (world->comms[r].world != NULL && world->comms[r].device == device) world->has_twins = true;
    comm->world = world;
    comm->rank = rank;
    comm->device = device;
    world->n_joined++;
    pthread_cond_broadcast(&joined);
    while (world->n_joined < world->n_ranks) pthread_cond_wait(&joined, &lock);
}

/* The last rank that leaves takes the world along. */
static void leave(struct ncclComm *comm)
{
    struct world *world = comm->world, **link = &worlds;
    if (comm->stream != NULL) cudaStreamSynchronize(comm->stream); /* no kernel of it runs any more */
    cudaGetLastError();
    pthread_mutex_lock(&lock);
    atomic_store(&world->has_left[comm->rank], true);
    qd_emu_note_progress();
    free(comm->result);
    comm->result = NULL;
    if (++world->n_left == world->n_ranks) {
        while (*link != world) link = &(*link)->next;
        *link = world->next;
        free(world);
    }
    pthread_mutex_unlock(&lock);
}

static unsigned comm_init_rank(struct ncclComm **out, int n_ranks, struct qd_nccl_unique_id unique_id,
                               int rank)
{
    int device;
    uint64_t id;
    memcpy(&id, unique_id.bytes, sizeof id);
    *out = NULL;
    if (n_ranks < 1 || n_ranks > MAX_RANKS || rank < 0 || rank >= n_ranks)
        return refuse(QD_NCCL_INVALID_ARGUMENT, "rank %d of %d", rank, n_ranks);
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = load_kernels();
    if (error != cudaSuccess) return refuse(QD_NCCL_UNHANDLED_CUDA_ERROR, "%s", cudaGetErrorString(error));
    pthread_mutex_lock(&lock);
    struct world *world = find_world(id, n_ranks);
    bool is_wrong = world == NULL || world->n_ranks != n_ranks || world->comms[rank].world != NULL;
    if (!is_wrong) join(world, rank, device);
    pthread_mutex_unlock(&lock);
    if (is_wrong)
        return refuse(QD_NCCL_INVALID_USAGE, "rank %d of %d is not the one that the others wait for", rank,
                      n_ranks);
    *out = &world->comms[rank];
    if (!world->has_twins) return QD_NCCL_SUCCESS;
    leave(*out);
    *out = NULL;
    return refuse(QD_NCCL_INVALID_USAGE, "rank %d shares GPU %d with another one", rank, device);
}

static unsigned comm_destroy(struct ncclComm *comm)
{
    leave(comm);
    return QD_NCCL_SUCCESS;
}

static unsigned comm_abort(struct ncclComm *comm)
{
    atomic_store(&comm->is_aborted, true);
    leave(comm);
    return QD_NCCL_SUCCESS;
}

/* ---- errors ---- */

/* A failed kernel is told by the GPU's next call. */
static unsigned get_async_error(struct ncclComm *comm, unsigned *result)
{
    (void)comm;
    *result = QD_NCCL_SUCCESS;
    return QD_NCCL_SUCCESS;
}

static const char *error_string(unsigned result)
{
    return result == QD_NCCL_UNHANDLED_CUDA_ERROR ? "unhandled cuda error"
           : result == QD_NCCL_INVALID_ARGUMENT   ? "invalid argument"
                                                  : "invalid usage";
}

static const char *get_last_error(struct ncclComm *comm)
{
    (void)comm;
    return last_error;
}

void qd_emu_nccl_set_present(bool is_present)
{
    is_absent = !is_present;
}

qd_status qd_emu_nccl(struct qd_nccl_functions *out, char *err, size_t errlen)
{
    if (is_absent)
        return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "NCCL is not here: these GPUs are emulated without it");
    *out = (struct qd_nccl_functions){
        .get_version = get_version,
        .get_unique_id = get_unique_id,
        .comm_init_rank = comm_init_rank,
        .comm_destroy = comm_destroy,
        .comm_abort = comm_abort,
        .get_async_error = get_async_error,
        .error_string = error_string,
        .last_error = get_last_error,
        .all_reduce = all_reduce,
        .all_gather = all_gather,
        .group_start = group,
        .group_end = group,
    };
    return QD_OK;
}
