#include "kernels/base/clock.h"
#include "kernels/base/size.h"
#include "kernels/cuda/host.h"

enum {
    CHUNK_TOKENS = QD_KV_BLOCK_SIZE, /* of the chunk that the warm-up runs: one page */
    EVERY_8_UNTIL = 256, /* batches are padded to 1, 2, 4 and every eighth, then every sixteenth */
};

/* ---- which batches are recorded ---- */

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* The most decodes of a step: each has a page. */
static int32_t largest_batch(const struct qd_step_limits *limits)
{
    int32_t seqs = smaller(smaller(limits->max_seqs, limits->max_tokens), limits->max_blocks);
    return smaller(seqs, limits->max_logit_rows);
}

static int32_t next_size(int32_t size)
{
    if (size < 4) return 2 * size;
    if (size < EVERY_8_UNTIL) return size == 4 ? 8 : size + 8;
    return size + 16;
}

/* vLLM's capture sizes as far as decodes reach, and the largest batch itself: above its last size vLLM has
 * graphs between attentions, which this device has not. Returns their number. */
static int list_sizes(const struct qd_device_config *config, int32_t sizes[QD_CUDA_N_GRAPHS])
{
    int32_t largest = smaller(largest_batch(&config->limits), QD_CUDA_MAX_GRAPH_BATCH);
    int n = 0;
    if (config->enforce_eager || largest < 1) return 0;
    for (int32_t size = 1; size < largest; size = next_size(size)) sizes[n++] = size;
    sizes[n++] = largest;
    QD_ASSERT(n <= QD_CUDA_N_GRAPHS);
    return n;
}

int qd_cuda_graph_count(const struct qd_device_config *config)
{
    int32_t sizes[QD_CUDA_N_GRAPHS];
    return list_sizes(config, sizes);
}

void qd_cuda_graph_init(struct qd_cuda *cuda)
{
    struct qd_cuda_graphs *graphs = &cuda->graphs;
    int32_t sizes[QD_CUDA_N_GRAPHS];
    graphs->current = -1;
    graphs->n = list_sizes(&cuda->config, sizes);
    for (int i = 0; i < graphs->n; i++) graphs->of[i].size = sizes[i];
}

/* The least recorded batch that holds n decodes, or -1. */
static int find_graph(const struct qd_cuda_graphs *graphs, int32_t n)
{
    for (int i = 0; i < graphs->n; i++)
        if (graphs->of[i].size >= n) return i;
    return -1;
}

/* A step of decodes that all sample; whoever wants logits reads them between launches. */
static bool may_replay(const struct qd_step *step)
{
    int32_t n = step->n_tokens;
    return n > 0 && step->n_seqs == n && step->n_logit_rows == n && (step->flags & QD_STEP_WANT_LOGITS) == 0;
}

void qd_cuda_graph_choose(struct qd_cuda *cuda, const struct qd_step *step, int32_t *n_padded)
{
    struct qd_cuda_graphs *graphs = &cuda->graphs;
    *n_padded = step->n_tokens;
    graphs->current = may_replay(step) ? find_graph(graphs, step->n_tokens) : -1;
    graphs->mode = graphs->planned;
    graphs->planned = QD_CUDA_EAGER;
    if (graphs->current < 0) return;
    *n_padded = graphs->of[graphs->current].size;
    bool is_recorded = graphs->of[graphs->current].exec != NULL;
    if (graphs->mode == QD_CUDA_EAGER && is_recorded) graphs->mode = QD_CUDA_REPLAY;
}

/* ---- warm-up ---- */

/* n sequences of q_len tokens, all on the null page, which nothing is written to; no slot keeps what they
 * sample. */
static void make_idle_step(const struct qd_step_limits *limits, int32_t n, int32_t q_len,
                           struct qd_step *step)
{
    int32_t n_rows = smaller(n, limits->max_logit_rows);
    QD_ASSERT(qd_step_begin(step, limits, n * q_len, n, n, n_rows) == QD_OK);
    for (int32_t t = 0; t < n * q_len; t++) {
        qd_step_token_source(step)[t] = 0;
        qd_step_position(step)[t] = t % q_len;
        qd_step_slot_mapping(step)[t] = -1;
    }
    for (int32_t s = 0; s <= n; s++) {
        qd_step_cu_seqlens_q(step)[s] = s * q_len;
        qd_step_block_offset(step)[s] = s;
    }
    for (int32_t s = 0; s < n; s++) {
        qd_step_kv_len(step)[s] = q_len;
        qd_step_block_table(step)[s] = 0;
    }
    for (int32_t r = 0; r < n_rows; r++) {
        qd_step_logit_row(step)[r] = (r + 1) * q_len - 1;
        qd_step_sampling(step)[r] = (struct qd_sampling){.top_p = 1, .slot = -1};
    }
}

static uint64_t free_bytes(void)
{
    size_t bytes = 0, total;
    if (cudaMemGetInfo(&bytes, &total) != cudaSuccess) cudaGetLastError();
    return bytes;
}

/* How long recording took, and what it left of the GPU's memory; other processes may have taken some too. */
static void end_recordings(struct qd_cuda_graphs *graphs)
{
    if (graphs->n == 0) return;
    uint64_t left = free_bytes();
    graphs->capture_ns = qd_clock_now_ns() - graphs->capture_begin_ns;
    if (left < graphs->bytes_before) graphs->bytes = graphs->bytes_before - left;
}

static void destroy(cudaGraphExec_t *exec)
{
    if (*exec != NULL) cudaGraphExecDestroy(*exec);
    *exec = NULL;
}

static void end_warm_up(struct qd_cuda *cuda)
{
    struct qd_cuda_graphs *graphs = &cuda->graphs;
    cuda->stats = (struct qd_device_stats){
        .n_graphs = graphs->n, .capture_ns = graphs->capture_ns, .graph_bytes = graphs->bytes};
    qd_cuda_overhead_end(cuda, &cuda->stats.timing_cost);
    destroy(&graphs->plain);
}

/* Loads every kernel that will be recorded: CUDA loads one when it is first launched, which may neither
 * happen in a recording nor while ranks wait for each other. Then a chunk and a batch of decodes run, and the
 * graphs are recorded, the largest first; nothing runs meanwhile, so no rank can wait for one that is busy
 * recording. Last come the steps that show what timing costs, if it is on. */
bool qd_cuda_graph_warm_up_step(void *ctx, int index, struct qd_step *step)
{
    struct qd_cuda *cuda = ctx;
    struct qd_cuda_graphs *graphs = &cuda->graphs;
    const struct qd_step_limits *limits = &cuda->config.limits;
    enum { CHUNK_AT = 0, DECODES_AT, N_RUNS };
    int32_t n = graphs->n, batch = n > 0 ? graphs->of[n - 1].size : 1, q_len = 1;
    if (largest_batch(limits) < 1 && index == 0) return false;
    if (index < n) {
        graphs->planned = QD_CUDA_LOAD;
        batch = graphs->of[n - 1 - index].size;
    } else if (index - n < N_RUNS) {
        graphs->planned = QD_CUDA_EAGER;
        if (index - n == CHUNK_AT) {
            batch = 1;
            q_len = smaller(smaller(CHUNK_TOKENS, limits->max_tokens), cuda->config.max_model_len);
        }
    } else if (index - n - N_RUNS < n) {
        graphs->planned = QD_CUDA_RECORD;
        batch = graphs->of[n - 1 - (index - n - N_RUNS)].size;
        if (index - n == N_RUNS) {
            graphs->capture_begin_ns = qd_clock_now_ns();
            graphs->bytes_before = free_bytes();
        }
    } else {
        int more = index - n - N_RUNS - n;
        if (more == 0) end_recordings(graphs);
        batch = 1;
        if (!qd_cuda_overhead_step(cuda, more)) {
            end_warm_up(cuda);
            return false;
        }
    }
    make_idle_step(limits, batch, q_len, step);
    return true;
}

/* ---- recording and replaying ---- */

qd_status qd_cuda_graph_begin(struct qd_cuda *cuda)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    if (cuda->graphs.mode != QD_CUDA_RECORD) return QD_OK;
    QD_TRY(QD_CUDA(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal)));
    cuda->graphs.recording = true;
    return QD_OK;
}

/* The upload now, so that the first replay does not wait for it. */
static qd_status end_recording(struct qd_cuda *cuda, cudaGraphExec_t *exec)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    cudaGraph_t graph = NULL;
    cuda->graphs.recording = false;
    qd_cuda_timing_keep_recorded(cuda);
    QD_TRY(QD_CUDA(cudaStreamEndCapture(cuda->stream, &graph)));
    qd_status st = QD_CUDA(cudaGraphInstantiate(exec, graph, 0));
    cudaGraphDestroy(graph);
    return st == QD_OK ? QD_CUDA(cudaGraphUpload(*exec, cuda->stream)) : st;
}

/* Of a step that is recorded or replayed. */
static cudaGraphExec_t *current_graph(struct qd_cuda *cuda)
{
    return cuda->timing.is_off ? &cuda->graphs.plain : &cuda->graphs.of[cuda->graphs.current].exec;
}

qd_status qd_cuda_graph_end(struct qd_cuda *cuda)
{
    char *err = cuda->text;
    const size_t errlen = sizeof cuda->text;
    struct qd_cuda_graphs *graphs = &cuda->graphs;
    switch (graphs->mode) {
    case QD_CUDA_EAGER:
    case QD_CUDA_LOAD: return QD_OK;
    case QD_CUDA_RECORD: return end_recording(cuda, current_graph(cuda));
    case QD_CUDA_REPLAY: return QD_CUDA(cudaGraphLaunch(*current_graph(cuda), cuda->stream));
    }
    return qd_fail(QD_ERR_INTERNAL, err, errlen, "mode %d of a step", (int)graphs->mode);
}

void qd_cuda_graph_free(struct qd_cuda *cuda)
{
    cudaGraph_t graph = NULL;
    if (cuda->graphs.recording && cudaStreamEndCapture(cuda->stream, &graph) == cudaSuccess && graph != NULL)
        cudaGraphDestroy(graph);
    for (int i = 0; i < cuda->graphs.n; i++) destroy(&cuda->graphs.of[i].exec);
    destroy(&cuda->graphs.plain);
    cuda->graphs = (struct qd_cuda_graphs){.current = -1};
}
