/* Loading: chunks of rows, read or made up by several threads, converted to bf16, put in place in the arena.
 * Whoever brings the last rows of a weight has the device pack it while they are in the cache. Beyond the
 * arena only one chunk per thread is held.
 * Where the device has memory of its own there is no arena: every chunk goes from page-locked staging to the
 * stores of all ranks that want a part of it, and the thread reads the next into its other staging meanwhile.
 * Random matrices are drawn by the device itself. */
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

enum {
    CHUNK_BYTES = 1 << 20, /* stays in a core's cache until it is packed */
    STAGED_CHUNK_BYTES =
        4 << 20,           /* starting a copy costs microseconds, which are few beside 4 MiB at 25 GB/s */
    STAGED_CHUNK_ROWS = 8, /* a multiple: gate and up are placed in groups of so many */
    N_STAGING = 2,         /* of a thread: one is read into, one is copied from */
    MAX_THREADS = 64,
    PROGRESS_NS = 200000000
};

struct qd_model {
    struct qd_model_config config;
    int tp;
    struct qd_arrangement weights; /* of all ranks on the host; with stores only its shards */
    struct qd_arrangement *stores; /* [n_stores] one for each device and rank of a replica */
    int n_stores, *store_of_rank;  /* [dp * tp] */
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
    unsigned char *stored;    /* as in the file */
    qd_bf16 *rows[N_STAGING]; /* the second only with stores */
    uint64_t n_sent;          /* chunks to stores */
    int64_t read_ns;
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

/* Whether devices draw the tensor themselves. */
static bool is_filled(const struct loading *l, const struct qd_tensor_spec *spec)
{
    return l->model->n_stores > 0 && l->found == NULL && !qd_tensor_is_norm(spec->role);
}

static int64_t rows_of_chunk(const struct loading *l, int tensor)
{
    struct qd_tensor_spec spec = qd_model_tensor(&l->model->config, tensor);
    bool is_staged = l->model->n_stores > 0;
    if (is_filled(l, &spec)) return spec.rows;
    int64_t rows = (int64_t)((is_staged ? STAGED_CHUNK_BYTES : CHUNK_BYTES) / stored_row_bytes(l, tensor));
    int64_t least = is_staged ? STAGED_CHUNK_ROWS : 1;
    return rows > least ? rows - rows % least : least;
}

/* The next chunk that no thread has taken; false when there is none or a thread has failed. */
static bool take_chunk(struct loading *l, struct chunk *out)
{
    pthread_mutex_lock(&l->lock);
    bool more = l->status == QD_OK && l->next.tensor < l->n_tensors;
    if (more) {
        int tensor = l->next.tensor;
        int64_t left = qd_model_tensor(&l->model->config, tensor).rows - l->next.row;
        int64_t n_rows = rows_of_chunk(l, tensor);
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

static qd_status read_stored(struct loading *l, const struct qd_tensor *tensor, uint64_t offset, void *out,
                             size_t n_bytes, struct buffers *buffers, char *err, size_t errlen)
{
    int64_t begin_ns = qd_clock_now_ns();
    qd_status status =
        qd_checkpoint_read(&l->checkpoint.files[tensor->file], offset, out, n_bytes, err, errlen);
    buffers->read_ns += qd_clock_now_ns() - begin_ns;
    return status;
}

/* Reads and converts to bf16. */
static qd_status read_chunk(struct loading *l, const struct chunk *chunk, struct buffers *buffers,
                            qd_bf16 *rows, char *err, size_t errlen)
{
    const struct qd_tensor *tensor = l->found[chunk->tensor];
    size_t row_bytes = stored_row_bytes(l, chunk->tensor), n_bytes = (size_t)chunk->n_rows * row_bytes;
    size_t n = n_bytes / qd_dtype_bytes(tensor->dtype);
    uint64_t offset = tensor->begin + (uint64_t)chunk->row * row_bytes;
    if (tensor->dtype == QD_DTYPE_BF16)
        return read_stored(l, tensor, offset, rows, n_bytes, buffers, err, errlen);
    QD_TRY(read_stored(l, tensor, offset, buffers->stored, n_bytes, buffers, err, errlen));
    if (tensor->dtype == QD_DTYPE_F16)
        qd_convert_f16(buffers->stored, n, rows);
    else
        atomic_fetch_add(&l->n_overflowed, qd_convert_f32(buffers->stored, n, rows));
    return QD_OK;
}

/* The chunk's rows as bf16, from a file or made up. */
static qd_status bring_rows(struct loading *l, const struct chunk *chunk, const struct qd_tensor_spec *spec,
                            struct buffers *buffers, qd_bf16 *rows, char *err, size_t errlen)
{
    if (l->found != NULL) return read_chunk(l, chunk, buffers, rows, err, errlen);
    qd_dummy_fill(&l->model->config, spec, l->options->dummy_seed, chunk->row * spec->cols,
                  chunk->n_rows * spec->cols, rows);
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

static qd_status load_to_host(struct loading *l, const struct chunk *chunk, const struct qd_tensor_spec *spec,
                              struct buffers *buffers, char *err, size_t errlen)
{
    QD_TRY(bring_rows(l, chunk, spec, buffers, buffers->rows[0], err, errlen));
    qd_arrangement_put(&l->model->weights, spec, chunk->row, chunk->n_rows, buffers->rows[0]);
    return finish_rows(l, spec, chunk->n_rows, err, errlen);
}

/* A thread's staging has a lane in every store, and is filled anew when all of them are done with it. */
static qd_status load_to_stores(struct loading *l, const struct chunk *chunk,
                                const struct qd_tensor_spec *spec, struct buffers *buffers, char *err,
                                size_t errlen)
{
    const struct qd_model *model = l->model;
    const struct qd_store_ops *ops = l->options->ops->store;
    for (int i = 0; i < model->n_stores && is_filled(l, spec); i++)
        QD_TRY(qd_arrangement_fill(&model->stores[i], spec, l->options->dummy_seed, err, errlen));
    if (is_filled(l, spec)) return QD_OK;
    int turn = (int)(buffers->n_sent++ % N_STAGING), lane = (int)(buffers - l->buffers) * N_STAGING + turn;
    for (int i = 0; i < model->n_stores; i++) QD_TRY(ops->wait(model->stores[i].store, lane, err, errlen));
    QD_TRY(bring_rows(l, chunk, spec, buffers, buffers->rows[turn], err, errlen));
    for (int i = 0; i < model->n_stores; i++)
        QD_TRY(qd_arrangement_send(&model->stores[i], spec, chunk->row, chunk->n_rows, buffers->rows[turn],
                                   lane, err, errlen));
    return QD_OK;
}

static qd_status load_chunk(struct loading *l, const struct chunk *chunk, struct buffers *buffers, char *err,
                            size_t errlen)
{
    struct qd_tensor_spec spec = qd_model_tensor(&l->model->config, chunk->tensor);
    QD_TRY((l->model->n_stores > 0 ? load_to_stores : load_to_host)(l, chunk, &spec, buffers, err, errlen));
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
    bool packs = l->model->n_stores == 0;
    for (int i = 0; i < l->n_tensors; i++) {
        struct qd_tensor_spec spec = qd_model_tensor(&l->model->config, i);
        size_t row_bytes = stored_row_bytes(l, i);
        size_t n_rows = is_filled(l, &spec) ? 0 : (size_t)rows_of_chunk(l, i);
        int group = packs ? qd_arrangement_group(&l->model->weights, &spec) : -1;
        if (group >= 0) atomic_fetch_add(&l->rows_left[group], spec.rows);
        l->total_bytes += (uint64_t)spec.rows * row_bytes;
        if (n_rows > (size_t)spec.rows) n_rows = (size_t)spec.rows;
        if (n_rows * row_bytes > *max_chunk_bytes) *max_chunk_bytes = n_rows * row_bytes;
        if (n_rows * (size_t)spec.cols > *max_chunk_values) *max_chunk_values = n_rows * (size_t)spec.cols;
    }
}

static qd_status make_buffers(const struct loading *l, struct buffers *buffers, size_t max_bytes,
                              size_t max_values, char *err, size_t errlen)
{
    const struct qd_store_ops *store = l->options->ops->store;
    for (int i = 0; i < N_STAGING && store != NULL; i++) {
        void *staging;
        QD_TRY(store->alloc_staging(max_values * sizeof(qd_bf16), &staging, err, errlen));
        buffers->rows[i] = staging;
    }
    if (store == NULL) buffers->rows[0] = malloc(max_values * sizeof(qd_bf16));
    buffers->stored = malloc(max_bytes);
    if (buffers->rows[0] == NULL || buffers->stored == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "loading buffers of %zu bytes", max_bytes);
    return QD_OK;
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
    for (int i = 0; i < l->n_threads; i++)
        QD_TRY(make_buffers(l, &l->buffers[i], max_bytes, max_values, err, errlen));
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

/* Waits for the devices and adds up what they did. */
static qd_status finish_stores(struct loading *l, struct qd_load_stats *stats, char *err, size_t errlen)
{
    const struct qd_model *model = l->model;
    for (int i = 0; i < model->n_stores; i++) {
        const struct qd_arrangement *a = &model->stores[i];
        struct qd_store_stats store;
        QD_TRY(a->ops->store->finish(a->store, &store, err, errlen));
        int first = 0; /* store on the same device */
        while (model->stores[first].device != a->device) first++;
        stats->n_devices += first == i;
        stats->copied_bytes += store.copied_bytes;
        if (store.copy_ns > stats->copy_ns) stats->copy_ns = store.copy_ns;
    }
    return QD_OK;
}

static void release(struct loading *l)
{
    const struct qd_store_ops *store = l->options->ops->store;
    struct qd_store_stats stats;
    char why[QD_ERR_LEN];
    for (int i = 0; i < l->model->n_stores; i++) /* after a failure copies may still run */
        (void)store->finish(l->model->stores[i].store, &stats, why, sizeof why);
    for (int i = 0; l->buffers != NULL && i < l->n_threads; i++) {
        free(l->buffers[i].stored);
        for (int k = 0; k < N_STAGING; k++)
            (store != NULL ? store->free_staging : free)(l->buffers[i].rows[k]);
    }
    free(l->buffers);
    free(l->rows_left);
    free(l->found);
    qd_checkpoint_close(&l->checkpoint);
    pthread_mutex_destroy(&l->lock);
}

/* A store for each device and rank of a replica: replicas whose ranks are on one device share it. */
static qd_status make_stores(const struct loading *l, char *err, size_t errlen)
{
    struct qd_model *model = l->model;
    const struct qd_device_ops *ops = l->options->ops;
    int n_ranks = model->tp * (l->options->dp > 1 ? l->options->dp : 1), device;
    model->stores = calloc((size_t)n_ranks, sizeof *model->stores);
    model->store_of_rank = calloc((size_t)n_ranks, sizeof *model->store_of_rank);
    if (model->stores == NULL || model->store_of_rank == NULL)
        return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "table of stores");
    for (int rank = 0; rank < n_ranks; rank++) {
        int i = 0;
        QD_TRY(ops->store->device_of(rank, n_ranks, l->options->ranks_per_gpu, &device, err, errlen));
        while (i < model->n_stores &&
               (model->stores[i].device != device || model->stores[i].shards[0].rank != rank % model->tp))
            i++;
        model->store_of_rank[rank] = i;
        if (i < model->n_stores) continue;
        struct qd_arrangement *a = &model->stores[model->n_stores];
        a->config = &model->config;
        a->ops = ops;
        a->n_ranks = 1;
        a->device = device;
        a->shards[0] = model->weights.shards[rank % model->tp];
        qd_status status = qd_arrangement_init_store(a, l->n_threads * N_STAGING, err, errlen);
        if (status != QD_OK) qd_arrangement_free(a);
        if (status != QD_OK) return status;
        model->n_stores++;
    }
    return QD_OK;
}

static qd_status reserve(const struct loading *l, char *err, size_t errlen)
{
    return l->options->ops->store != NULL ? make_stores(l, err, errlen)
                                          : qd_arrangement_init(&l->model->weights, err, errlen);
}

static qd_status take_statistics(struct loading *l, int64_t start_ns, char *err, size_t errlen)
{
    struct qd_load_stats *stats = &l->model->stats;
    QD_TRY(finish_stores(l, stats, err, errlen));
    for (int i = 0; i < l->n_threads; i++) stats->read_ns += l->buffers[i].read_ns / l->n_threads;
    stats->file_bytes = l->found != NULL ? l->total_bytes : 0;
    stats->n_overflowed = l->n_overflowed;
    stats->duration_ns = qd_clock_now_ns() - start_ns;
    return QD_OK;
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
    QD_TRY_GOTO(reserve(&l, err, errlen), status, cleanup);
    QD_TRY_GOTO(prepare(&l, err, errlen), status, cleanup);
    QD_TRY_GOTO(run_team(&l, err, errlen), status, cleanup);
    QD_TRY_GOTO(take_statistics(&l, start_ns, err, errlen), status, cleanup);
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
    model->weights.n_ranks = model->tp = options->tp;
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
    for (int i = 0; i < model->n_stores; i++) qd_arrangement_free(&model->stores[i]);
    free(model->stores);
    free(model->store_of_rank);
    free(model);
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
    return model->tp;
}

const struct qd_rank_weights *qd_model_rank_weights(const qd_model_t *model, int rank)
{
    if (model->n_stores > 0) return &model->stores[model->store_of_rank[rank]].ranks[0];
    return model->weights.layers != NULL ? &model->weights.ranks[rank % model->tp] : NULL;
}

const struct qd_shard *qd_model_shard(const qd_model_t *model, int rank)
{
    return &model->weights.shards[rank];
}

struct qd_rope qd_model_get_rope(const qd_model_t *model)
{
    return model->rope;
}
