#include "kernels/base/size.h"
#include "kernels/cuda/host.h"

/* Batches are padded to 1, 2, 4 and multiples of 8. */
static int32_t padded_batch(int32_t n)
{
    return n <= 2 ? n : n <= 4 ? 4 : (int32_t)qd_round_up((size_t)n, 8);
}

static int graph_index(int32_t n_padded)
{
    return n_padded <= 2 ? n_padded - 1 : 2 + n_padded / 8;
}

int qd_cuda_graph_count(const struct qd_device_config *config)
{
    int32_t most =
        config->limits.max_seqs < QD_CUDA_MAX_GRAPH_BATCH ? config->limits.max_seqs : QD_CUDA_MAX_GRAPH_BATCH;
    return most > 0 ? graph_index(padded_batch(most)) + 1 : 0;
}

/* A step of decodes that all sample; whoever wants logits reads them between launches. */
static bool may_record(const struct qd_cuda *cuda, const struct qd_step *step)
{
    const struct qd_step_limits *limits = &cuda->config.limits;
    int32_t n = step->n_tokens;
    if (cuda->config.enforce_eager || n < 1 || n > QD_CUDA_MAX_GRAPH_BATCH) return false;
    if (step->n_seqs != n || step->n_logit_rows != n || (step->flags & QD_STEP_WANT_LOGITS) != 0)
        return false;
    int32_t padded = padded_batch(n);
    return padded <= limits->max_tokens && padded <= limits->max_seqs && padded <= limits->max_logit_rows;
}

void qd_cuda_graph_choose(struct qd_cuda *cuda, const struct qd_step *step, int32_t *n_padded)
{
    struct qd_cuda_graphs *graphs = &cuda->graphs;
    graphs->mode = QD_CUDA_EAGER;
    graphs->current = -1;
    *n_padded = step->n_tokens;
    if (!may_record(cuda, step)) return;
    /* The first run of a padded batch is not recorded, so that no kernel is loaded while the stream captures.
     */
    *n_padded = padded_batch(step->n_tokens);
    graphs->current = graph_index(*n_padded);
    if (graphs->of[graphs->current].exec != NULL)
        graphs->mode = QD_CUDA_REPLAY;
    else if (graphs->of[graphs->current].has_run)
        graphs->mode = QD_CUDA_RECORD;
}

qd_status qd_cuda_graph_begin(struct qd_cuda *cuda)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    if (cuda->graphs.mode != QD_CUDA_RECORD) return QD_OK;
    QD_TRY(QD_CUDA(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal)));
    cuda->graphs.recording = true;
    return QD_OK;
}

static qd_status end_recording(struct qd_cuda *cuda, cudaGraphExec_t *exec)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    cudaGraph_t graph = NULL;
    cuda->graphs.recording = false;
    QD_TRY(QD_CUDA(cudaStreamEndCapture(cuda->stream, &graph)));
    qd_status st = QD_CUDA(cudaGraphInstantiate(exec, graph, 0));
    cudaGraphDestroy(graph);
    return st;
}

qd_status qd_cuda_graph_end(struct qd_cuda *cuda)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    struct qd_cuda_graphs *graphs = &cuda->graphs;
    if (graphs->current >= 0) graphs->of[graphs->current].has_run = true;
    if (graphs->mode == QD_CUDA_EAGER) return QD_OK;
    cudaGraphExec_t *exec = &graphs->of[graphs->current].exec;
    if (graphs->mode == QD_CUDA_RECORD) QD_TRY(end_recording(cuda, exec));
    return QD_CUDA(cudaGraphLaunch(*exec, cuda->stream));
}

void qd_cuda_graph_free(struct qd_cuda *cuda)
{
    cudaGraph_t graph = NULL;
    if (cuda->graphs.recording && cudaStreamEndCapture(cuda->stream, &graph) == cudaSuccess && graph != NULL)
        cudaGraphDestroy(graph);
    for (int i = 0; i < QD_CUDA_N_GRAPHS; i++)
        if (cuda->graphs.of[i].exec != NULL) cudaGraphExecDestroy(cuda->graphs.of[i].exec);
    cuda->graphs = (struct qd_cuda_graphs){.current = -1};
}
