/* Loading: chunks of rows, read or made up by several threads, converted to bf16, put in place in the arena.
 * Whoever brings the last rows of a weight has the device pack it while they are in the cache. Beyond the
 * arena only one chunk per thread is held. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/team.h"
#include "models/arrange.h"
#include "models/checkpoint.h"
#include "models/convert.h"
#include "models/dummy.h"
#include "models/model.h"

enum { CHUNK_BYTES = 1 << 20, MAX_THREADS = 64, PROGRESS_NS = 200000000 };

struct qd_model {
    struct qd_model_config config;
    struct qd_arrangement weights;
    struct qd_rope rope;
    struct qd_load_stats stats;
    float inv_freq[]; /* [head_dim/2] */
};

/* Rows of one tensor, small enough for a thread's buffers. */
struct chunk {
    int tensor;
    int64_t row, n_rows;
};

struct buffers {
    unsigned char *stored; /* as in the file */
    qd_bf16 *rows;
};

struct loading {
    const struct qd_model_options *options;
    struct qd_model *model;
    struct qd_checkpoint checkpoint;
    const struct qd_tensor **found; /* [n_tensors] in the checkpoint; NULL: dummy weights */
    int n_tensors;
    _Atomic int64_t *rows_left; /* [groups] rows still to come before packing */
    struct buffers *buffers;    /* [threads] */
    int n_threads;
    _Atomic uint64_t done_bytes, n_overflowed;
    uint64_t total_bytes;
    int64_t last_progress_ns; /* member 0 only */

    pthread_mutex_t lock; /* guards what follows */
    struct chunk next;    /* tensor and row; n_rows unused */
    qd_status status;     /* the first failure */
    char err[QD_ERR_LEN];
};

static size_t stored_row_bytes(const struct loading *l, int tensor)
{
    struct qd_tensor_spec spec = qd_model_tensor(&l->model->config, tensor);
    size_t element = l->found != NULL ? qd_dtype_bytes(l->found[tensor]->dtype) : sizeof(qd_bf16);
    return (size_t)spec.cols * element;
}

static int64_t rows_of_chunk(size_t row_bytes)
{
    int64_t rows = (int64_t)(CHUNK_BYTES / row_bytes);
    return rows > 0 ? rows : 1;
}

/* The next chunk that no thread has taken; false when there is none or a thread has failed. */
static bool take_chunk(struct loading *l, struct chunk *out)
{
    pthread_mutex_lock(&l->lock);
    bool more = l->status == QD_OK && l->next.tensor < l->n_tensors;
    if (more) {
        int tensor = l->next.tensor;
        int64_t left = qd_model_tensor(&l->model->config, tensor).rows - l->next.row;
        int64_t n_rows = rows_of_chunk(stored_row_bytes(l, tensor));
        *out = (struct chunk){tensor, l->next.row, n_rows < left ? n_rows : left};
        l->next.row += out->n_rows;
        if (out->n_rows == left) l->next = (struct chunk){.tensor = tensor + 1};
    }
    pthread_mutex_unlock(&l->lock);
    return more;
}

static void fail(struct loading *l, qd_status status, const char *why)
{
    pthread_mutex_lock(&l->lock);
    if (l->status == QD_OK) l->status = qd_fail(status, l->err, sizeof l->err, "%s", why);
    pthread_mutex_unlock(&l->lock);
}

/* Reads and converts; *rows points at the bf16 values afterwards. */
static qd_status read_chunk(struct loading *l, const struct chunk *chunk, struct buffers *buffers,
                            const qd_bf16 **rows, char *err, size_t errlen)
{
    const struct qd_tensor *tensor = l->found[chunk->tensor];
    size_t row_bytes = stored_row_bytes(l, chunk->tensor), n_bytes = (size_t)chunk->n_rows * row_bytes;
    size_t n = n_bytes / qd_dtype_bytes(tensor->dtype);
    uint64_t offset = tensor->begin + (uint64_t)chunk->row * row_bytes;
    *rows = buffers->rows;
    if (tensor->dtype == QD_DTYPE_BF16)
        return qd_checkpoint_read(&l->checkpoint.files[tensor->file], offset, buffers->rows, n_bytes, err,
                                  errlen);
    QD_TRY(qd_checkpoint_read(&l->checkpoint.files[tensor->file], offset, buffers->stored, n_bytes, err,
                              errlen));
    if (tensor->dtype == QD_DTYPE_F16)
        qd_convert_f16(buffers->stored, n, buffers->rows);
    else
        atomic_fetch_add(&l->n_overflowed, qd_convert_f32(buffers->stored, n, buffers->rows));
    return QD_OK;
}

/* Packs the tensor's group when these were its last rows. */
static qd_status finish_rows(struct loading *l, const struct qd_tensor_spec *spec, int64_t n_rows, char *err,
                             size_t errlen)
{
    struct qd_arrangement *weights = &l->model->weights;
    int group = qd_arrangement_group(weights, spec);
    if (group < 0) return QD_OK;
    bool last = atomic_fetch_sub(&l->rows_left[group], n_rows) == n_rows;
    return last ? qd_arrangement_pack(weights, group, err, errlen) : QD_OK;
}

static qd_status load_chunk(struct loading *l, const struct chunk *chunk, struct buffers *buffers, char *err,
                            size_t errlen)
{
    struct qd_tensor_spec spec = qd_model_tensor(&l->model->config, chunk->tensor);
    const qd_bf16 *rows = buffers->rows;
    if (l->found != NULL)
        QD_TRY(read_chunk(l, chunk, buffers, &rows, err, errlen));
    else
        qd_dummy_fill(&l->model->config, &spec, l->options->dummy_seed, chunk->row * spec.cols,
                      chunk->n_rows * spec.cols, buffers->rows);
    qd_arrangement_put(&l->model->weights, &spec, chunk->row, chunk->n_rows, rows);
    QD_TRY(finish_rows(l, &spec, chunk->n_rows, err, errlen));
    atomic_fetch_add(&l->done_bytes, (uint64_t)chunk->n_rows * stored_row_bytes(l, chunk->tensor));
    return QD_OK;
}

static void report(struct loading *l, bool at_end)
{
    int64_t now = qd_clock_now_ns();
    if (l->options->progress == NULL || (!at_end && now - l->last_progress_ns < PROGRESS_NS)) return;
    l->last_progress_ns = now;
    l->options->progress(l->options->progress_arg, atomic_load(&l->done_bytes), l->total_bytes);
}

static void load_chunks(void *arg, int member, int n_members)
{
    struct loading *l = arg;
    struct chunk chunk;
    char why[QD_ERR_LEN];
    (void)n_members;
    while (take_chunk(l, &chunk)) {
        qd_status status = load_chunk(l, &chunk, &l->buffers[member], why, sizeof why);
        if (status != QD_OK) fail(l, status, why);
        if (member == 0) report(l, false);
    }
}

/* Totals over the tensors: bytes to come, rows a group waits for, the largest chunk. */
static void count_work(struct loading *l, size_t *max_chunk_bytes, size_t *max_chunk_values)
{
    for (int i = 0; i < l->n_tensors; i++) {
        struct qd_tensor_spec spec = qd_model_tensor(&l->model->config, i);
        size_t row_bytes = stored_row_bytes(l, i);
        size_t n_rows = (size_t)rows_of_chunk(row_bytes);
        int group = qd_arrangement_group(&l->model->weights, &spec);
        if (group >= 0) atomic_fetch_add(&l->rows_left[group], spec.rows);
        l->total_bytes += (uint64_t)spec.rows * row_bytes;
        if (n_rows * row_bytes > *max_chunk_bytes) *max_chunk_bytes = n_rows * row_bytes;
        if (n_rows * (size_t)spec.cols > *max_chunk_values) *max_chunk_values = n_rows * (size_t)spec.cols;
    }
}

static qd_status prepare(struct loading *l, char *err, size_t errlen)
{
    size_t max_bytes = 0, max_values = 0;
    int n_groups = qd_arrangement_n_groups(&l->model->weights);
    l->rows_left = calloc((size_t)n_groups, sizeof *l->rows_left);
    l->buffers = calloc((size_t)l->n_threads, sizeof *l->buffers);
    if (l->rows_left == NULL || l->buffers == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "loading tables");
    count_work(l, &max_bytes, &max_values);
    for (int i = 0; i < l->n_threads; i++) {
        l->buffers[i].rows = malloc(max_values * sizeof(qd_bf16));
        l->buffers[i].stored = malloc(max_bytes);
        if (l->buffers[i].rows == NULL || l->buffers[i].stored == NULL)
            return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "loading buffers of %zu bytes", max_bytes);
    }
    return QD_OK;
}

/* Opens the checkpoint and finds every tensor in it, before memory is reserved. */
static qd_status find_tensors(struct loading *l, char *err, size_t errlen)
{
    l->n_tensors = qd_model_n_tensors(&l->model->config);
    if (l->options->load_format == QD_LOAD_DUMMY) return QD_OK;
    QD_TRY(qd_checkpoint_open(l->options->dir, &l->checkpoint, err, errlen));
    l->found = calloc((size_t)l->n_tensors, sizeof *l->found);
    if (l->found == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "tensor table");
    return qd_checkpoint_match(&l->checkpoint, &l->model->config, l->found, err, errlen);
}

static qd_status run_team(struct loading *l, char *err, size_t errlen)
{
    const struct qd_team_config config = {.n_members = l->n_threads, .label = "load"};
    qd_team_t *team;
    QD_TRY(qd_team_create(&config, &team, err, errlen));
    qd_team_run(team, load_chunks, l);
    qd_team_destroy(team);
    if (l->status != QD_OK) return qd_fail(l->status, err, errlen, "%s", l->err);
    report(l, true);
    return QD_OK;
}

static void release(struct loading *l)
{
    for (int i = 0; l->buffers != NULL && i < l->n_threads; i++) {
        free(l->buffers[i].stored);
        free(l->buffers[i].rows);
    }
    free(l->buffers);
    free(l->rows_left);
    free(l->found);
    qd_checkpoint_close(&l->checkpoint);
    pthread_mutex_destroy(&l->lock);
}

static qd_status load_weights(const struct qd_model_options *options, struct qd_model *model, char *err,
                              size_t errlen)
{
    int64_t start_ns = qd_clock_now_ns();
    int n_threads = options->n_threads < 1 ? 1 : options->n_threads;
    struct loading l = {.options = options,
                        .model = model,
                        .n_threads = n_threads > MAX_THREADS ? MAX_THREADS : n_threads,
                        .last_progress_ns = start_ns};
    pthread_mutex_init(&l.lock, NULL);
    qd_status status;
    QD_TRY_GOTO(find_tensors(&l, err, errlen), status, cleanup);
    QD_TRY_GOTO(qd_arrangement_init(&model->weights, err, errlen), status, cleanup);
    QD_TRY_GOTO(prepare(&l, err, errlen), status, cleanup);
    QD_TRY_GOTO(run_team(&l, err, errlen), status, cleanup);
    model->stats.file_bytes = l.found != NULL ? l.total_bytes : 0;
    model->stats.n_overflowed = l.n_overflowed;
    model->stats.duration_ns = qd_clock_now_ns() - start_ns;
cleanup:
    release(&l);
    return status;
}

static qd_status read_model_config(const struct qd_model_options *options, struct qd_model_config *out,
                                   char *err, size_t errlen)
{
    if (options->dir != NULL) return qd_model_config_read(options->dir, out, err, errlen);
    if (options->config == NULL)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen, "neither a model directory nor a configuration");
    if (options->load_format != QD_LOAD_DUMMY && options->ops->executes)
        return qd_fail(QD_ERR_ARGUMENT, err, errlen,
                       "%s: no model directory, so only dummy weights can be had", options->config->name);
    *out = *options->config;
    return QD_OK;
}

static qd_status make_shards(const struct qd_model_options *options, struct qd_model *model, char *err,
                             size_t errlen)
{
    model->weights.config = &model->config;
    model->weights.ops = options->ops;
    model->weights.tp = options->tp;
    QD_TRY(qd_shard_make(&model->config, options->tp, 0, &model->weights.shards[0], err, errlen));
    for (int rank = 1; rank < options->tp; rank++)
        QD_TRY(qd_shard_make(&model->config, options->tp, rank, &model->weights.shards[rank], err, errlen));
    return QD_OK;
}

qd_status qd_model_load(const struct qd_model_options *options, qd_model_t **out, char *err, size_t errlen)
{
    struct qd_model_config config;
    *out = NULL;
    QD_TRY(read_model_config(options, &config, err, errlen));
    size_t n_pairs = (size_t)config.head_dim / 2;
    struct qd_model *model = calloc(1, sizeof *model + n_pairs * sizeof model->inv_freq[0]);
    if (model == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "%s: model", config.name);
    model->config = config;
    model->rope.inv_freq = model->inv_freq;
    qd_model_rope(&config, model->inv_freq, &model->rope.attention_scaling);

    qd_status status = make_shards(options, model, err, errlen);
    if (status == QD_OK && options->ops->executes) status = load_weights(options, model, err, errlen);
    if (status != QD_OK) {
        qd_model_free(model);
        return status;
    }
    *out = model;
    return QD_OK;
}

void qd_model_free(qd_model_t *model)
{
    if (model == NULL) return;
    qd_arrangement_free(&model->weights);
    free(model);
}

void qd_model_drop_weights(qd_model_t *model)
{
    qd_arrangement_free(&model->weights);
}

qd_status qd_model_place_weights(const qd_model_t *model, int rank, struct qd_device device,
                                 struct qd_rank_weights *out, char *err, size_t errlen)
{
    return qd_arrangement_place(&model->weights, rank, device, out, err, errlen);
}

const struct qd_model_config *qd_model_get_config(const qd_model_t *model)
{
    return &model->config;
}

struct qd_load_stats qd_model_load_stats(const qd_model_t *model)
{
    return model->stats;
}

int qd_model_get_tp(const qd_model_t *model)
{
    return model->weights.tp;
}

const struct qd_rank_weights *qd_model_rank_weights(const qd_model_t *model, int rank)
{
    return model->weights.layers != NULL ? &model->weights.ranks[rank] : NULL;
}

const struct qd_shard *qd_model_shard(const qd_model_t *model, int rank)
{
    return &model->weights.shards[rank];
}

struct qd_rope qd_model_get_rope(const qd_model_t *model)
{
    return model->rope;
}
