#include "kernels/emu/runtime/internal.h"

#include <stdlib.h>
#include <string.h>

/* `bytes`: of struct CUgraph_st or of a structure that begins with it. */
struct CUgraph_st *qd_emu_graph_create(size_t bytes)
{
    return calloc(1, bytes);
}

void qd_emu_graph_release(struct CUgraph_st *graph)
{
    if (graph == NULL) return;
    while (graph->first != NULL) {
        struct qd_emu_work *work = graph->first;
        graph->first = work->next;
        qd_emu_work_destroy(work);
    }
    free(graph->uses);
    free(graph);
}

/* ---- the allocations that a graph uses ---- */

static cudaError_t add_use(void *context, const struct qd_emu_allocation *allocation)
{
    struct CUgraph_st *graph = context;
    if (allocation == NULL) return cudaSuccess; /* pageable memory: a copy keeps its own */
    if (graph->n_uses == graph->uses_capacity) {
        size_t capacity = graph->uses_capacity == 0 ? 64 : 2 * graph->uses_capacity;
        struct qd_emu_use *grown = realloc(graph->uses, capacity * sizeof *grown);
        if (grown == NULL) return qd_emu_refuse(cudaErrorMemoryAllocation, "no host memory for a graph");
        graph->uses = grown;
        graph->uses_capacity = capacity;
    }
    graph->uses[graph->n_uses++] = (struct qd_emu_use){allocation->address, allocation->id};
    return cudaSuccess;
}

static cudaError_t add_uses(struct CUgraph_st *graph, const struct qd_emu_work *work)
{
    switch (work->kind) {
    case QD_EMU_WORK_KERNEL: return qd_emu_visit_arguments(work, add_use, graph);
    case QD_EMU_WORK_FILL: return add_use(graph, qd_emu_find_allocation(work->as.fill.dst));
    case QD_EMU_WORK_COPY: {
        cudaError_t error = add_use(graph, qd_emu_find_allocation(work->as.copy.dst));
        if (error != cudaSuccess) return error;
        return add_use(graph, qd_emu_find_allocation(work->as.copy.src));
    }
    case QD_EMU_WORK_RECORD:
    case QD_EMU_WORK_WAIT:
    case QD_EMU_WORK_MARK: break;
    }
    return cudaSuccess;
}

static cudaError_t check_uses(struct CUgraphExec_st *exec)
{
    if (exec->n_frees_checked == qd_emu_runtime.n_frees) return cudaSuccess;
    for (size_t i = 0; i < exec->graph.n_uses; i++) {
        const struct qd_emu_use *use = &exec->graph.uses[i];
        const struct qd_emu_allocation *found = qd_emu_find_allocation((const void *)use->address);
        if (found == NULL || found->id != use->id)
            return qd_emu_refuse(cudaErrorInvalidValue, "the graph uses memory at %#zx that was freed",
                                 (size_t)use->address);
    }
    exec->n_frees_checked = qd_emu_runtime.n_frees;
    return cudaSuccess;
}

/* ---- building and launching ---- */

static void append(struct CUgraph_st *graph, struct qd_emu_work *work)
{
    if (graph->first == NULL)
        graph->first = work;
    else
        graph->last->next = work;
    graph->last = work;
}

cudaError_t qd_emu_graph_append(struct CUgraph_st *graph, struct qd_emu_work *work)
{
    append(graph, work);
    return add_uses(graph, work);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *handle, cudaGraph_t graph, unsigned long long flags)
{
    QD_EMU_ENTER();
    *handle = NULL;
    if (!qd_emu_handle_is(graph, QD_EMU_GRAPH))
        return qd_emu_refuse(cudaErrorInvalidResourceHandle, "%p is no graph", (void *)graph);
    if (flags != 0)
        return qd_emu_refuse(cudaErrorInvalidValue, "cudaGraphInstantiate with flags %#llx", flags);
    struct CUgraphExec_st *exec = (struct CUgraphExec_st *)qd_emu_graph_create(sizeof *exec);
    cudaError_t error = cudaSuccess;
    for (const struct qd_emu_work *w = graph->first; exec != NULL && w != NULL && error == cudaSuccess;
         w = w->next) {
        struct qd_emu_work *clone = qd_emu_work_clone(w);
        error = clone == NULL ? cudaErrorMemoryAllocation : cudaSuccess;
        if (clone != NULL) append(&exec->graph, clone);
    }
    struct qd_emu_use *uses = malloc((graph->n_uses + 1) * sizeof *uses);
    if (exec == NULL || uses == NULL || error != cudaSuccess) {
        if (exec != NULL) qd_emu_graph_release(&exec->graph);
        free(uses);
        return qd_emu_refuse(cudaErrorMemoryAllocation, "no host memory for an executable graph");
    }
    if (graph->n_uses > 0) memcpy(uses, graph->uses, graph->n_uses * sizeof *uses);
    exec->graph.uses = uses;
    exec->graph.n_uses = graph->n_uses;
    exec->n_frees_checked = UINT64_MAX; /* not yet */
    qd_emu_handle_add(&exec->graph.handle, QD_EMU_EXEC, graph->handle.device);
    *handle = exec;
    return cudaSuccess;
}

/* What uploading and launching need, and the stream behind `handle`. */
static cudaError_t check_launch(cudaGraphExec_t exec, cudaStream_t handle, const char *call,
                                struct CUstream_st **stream)
{
    cudaError_t error = qd_emu_find_work_stream(handle, call, stream);
    if (error != cudaSuccess) return error;
    if (!qd_emu_handle_is(exec, QD_EMU_EXEC))
        return qd_emu_refuse(cudaErrorInvalidResourceHandle, "%p is no executable graph", (void *)exec);
    if ((*stream)->capture != NULL) return qd_emu_forbid_on_capturing(*stream, call);
    if (exec->graph.handle.device != (*stream)->handle.device)
        return qd_emu_refuse(cudaErrorInvalidValue, "a graph of GPU %d on a stream of GPU %d",
                             exec->graph.handle.device, (*stream)->handle.device);
    return check_uses(exec);
}

/* Nothing has to be brought anywhere. */
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t handle)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    return check_launch(exec, handle, "cudaGraphUpload", &stream);
}

/* Issues a copy of each piece of work, so that other streams' work can come between. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle)
{
    QD_EMU_ENTER();
    struct CUstream_st *stream;
    cudaError_t error = check_launch(exec, handle, "cudaGraphLaunch", &stream);
    if (error != cudaSuccess) return error;
    for (const struct qd_emu_work *w = exec->graph.first; w != NULL && error == cudaSuccess; w = w->next) {
        struct qd_emu_work *work = qd_emu_work_clone(w);
        if (work != NULL && work->kind == QD_EMU_WORK_RECORD) qd_emu_event_issue_recording(work);
        error = qd_emu_issue(stream, work);
    }
    return error;
}

static cudaError_t destroy(void *handle, enum qd_emu_handle_kind kind)
{
    if (!qd_emu_handle_is(handle, kind))
        return qd_emu_refuse(cudaErrorInvalidResourceHandle, "%p is no %s to destroy", handle,
                             kind == QD_EMU_GRAPH ? "graph" : "executable graph");
    qd_emu_handle_remove(handle);
    qd_emu_graph_release(handle);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    QD_EMU_ENTER();
    return destroy(graph, QD_EMU_GRAPH);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    QD_EMU_ENTER();
    return destroy(exec, QD_EMU_EXEC);
}
