#include "models/arrange.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/size.h"

enum { ALIGNMENT = 64, GROUPS_OF_LAYER = 4 };

/* Laying out runs twice: without an arena it only counts. */
struct layout {
    struct qd_arrangement *a;
    bool counting, overflow;
    size_t n_bytes;
};

static void *take(struct layout *l, size_t n_bytes)
{
    if (!l->counting) {
        void *memory = qd_arena_take(&l->a->arena, n_bytes, ALIGNMENT);
        QD_ASSERT(memory != NULL);
        return memory;
    }
    size_t start = qd_round_up(l->n_bytes, ALIGNMENT);
    if (!qd_size_add(start, n_bytes, &l->n_bytes)) l->overflow = true;
    return NULL;
}

static qd_bf16 *take_norm(struct layout *l, int64_t n)
{
    return take(l, (size_t)n * sizeof(qd_bf16));
}

/* An empty weight has no data. */
static struct qd_weight take_weight(struct layout *l, int64_t n_rows, int64_t n_cols,
                                    enum qd_weight_layout layout)
{
    struct qd_weight weight = {NULL, n_rows, n_cols, layout};
    if (n_rows == 0) return weight;
    size_t n_bytes = l->a->ops->weight_bytes(n_rows, n_cols, layout);
    if (n_bytes == SIZE_MAX) l->overflow = true;
    weight.data = take(l, n_bytes);
    return weight;
}

/* Norms are the same on every rank: one copy. */
static void lay_out_norms(struct layout *l, int32_t layer)
{
    struct qd_arrangement *a = l->a;
    const struct qd_model_config *config = a->config;
    struct qd_layer_weights *first = &a->ranks[0].layers[layer];
    first->input_norm = take_norm(l, config->hidden_dim);
    first->q_norm = take_norm(l, config->head_dim);
    first->k_norm = take_norm(l, config->head_dim);
    first->post_norm = take_norm(l, config->hidden_dim);
    for (int rank = 1; rank < a->n_ranks; rank++) {
        struct qd_layer_weights *w = &a->ranks[rank].layers[layer];
        w->input_norm = first->input_norm;
        w->q_norm = first->q_norm;
        w->k_norm = first->k_norm;
        w->post_norm = first->post_norm;
    }
}

static void lay_out_layer(struct layout *l, int rank, int32_t layer)
{
    const struct qd_shard *shard = &l->a->shards[rank];
    struct qd_layer_weights *w = &l->a->ranks[rank].layers[layer];
    int64_t hidden = l->a->config->hidden_dim, hd = l->a->config->head_dim;
    int64_t q_dim = shard->n_heads * hd, kv_dim = shard->n_kv_heads * hd;
    w->qkv = take_weight(l, q_dim + 2 * kv_dim, hidden, QD_LAYOUT_PACKED);
    w->o = take_weight(l, hidden, q_dim, QD_LAYOUT_PACKED);
    w->gate_up = take_weight(l, 2 * shard->ffn_dim, hidden, QD_LAYOUT_PACKED);
    w->down = take_weight(l, hidden, shard->ffn_dim, QD_LAYOUT_PACKED);
}

/* Rows [vocab_begin, + vocab_count) of the packed embedding: vocab_begin is a multiple of 64, so no panel of
 * rows is cut. */
static struct qd_weight tied_head(const struct qd_arrangement *a, int rank)
{
    const struct qd_shard *shard = &a->shards[rank];
    struct qd_weight head = a->ranks[rank].embedding;
    size_t skip = a->ops->weight_bytes(shard->vocab_begin, head.n_cols, QD_LAYOUT_PACKED);
    bool empty = head.data == NULL || shard->vocab_count == 0;
    head.data = empty ? NULL : (const unsigned char *)head.data + skip;
    head.n_rows = shard->vocab_count;
    return head;
}

static void lay_out(struct layout *l)
{
    struct qd_arrangement *a = l->a;
    const struct qd_model_config *config = a->config;
    bool tied = config->tie_word_embeddings;
    struct qd_weight embedding =
        take_weight(l, config->vocab_size, config->hidden_dim, tied ? QD_LAYOUT_PACKED : QD_LAYOUT_ROWS);
    qd_bf16 *final_norm = take_norm(l, config->hidden_dim);
    for (int rank = 0; rank < a->n_ranks; rank++)
        a->ranks[rank].layers = a->layers + (size_t)rank * (size_t)config->n_layers;
    for (int32_t layer = 0; layer < config->n_layers; layer++)
        lay_out_norms(l, layer);
    for (int rank = 0; rank < a->n_ranks; rank++) {
        struct qd_rank_weights *weights = &a->ranks[rank];
        weights->embedding = embedding;
        weights->final_norm = final_norm;
        weights->lm_head =
            tied ? tied_head(a, rank)
                 : take_weight(l, a->shards[rank].vocab_count, config->hidden_dim, QD_LAYOUT_PACKED);
        for (int32_t layer = 0; layer < config->n_layers; layer++)
            lay_out_layer(l, rank, layer);
    }
}

/* The bytes of it all, and its table of layers. */
static qd_status count(struct qd_arrangement *a, size_t *n_bytes, char *err, size_t errlen)
{
    a->layers = calloc((size_t)a->n_ranks * (size_t)a->config->n_layers, sizeof *a->layers);
    if (a->layers == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "table of layers");
    struct layout counted = {.a = a, .counting = true};
    lay_out(&counted);
    if (counted.overflow)
        return qd_fail(QD_ERR_TOO_LARGE, err, errlen, "%s: the weights' size overflows", a->config->name);
    *n_bytes = counted.n_bytes;
    return QD_OK;
}

qd_status qd_arrangement_init(struct qd_arrangement *a, char *err, size_t errlen)
{
    size_t n_bytes;
    QD_TRY(count(a, &n_bytes, err, errlen));
    /* Pages are backed when they are written, so asking for more than there is would end in a kill. */
    double has = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if ((double)n_bytes > has)
        return qd_fail(QD_ERR_DOES_NOT_FIT, err, errlen,
                       "%s: weights of %zu bytes (%.1f GiB) do not fit in this machine's %.1f GiB",
                       a->config->name, n_bytes, (double)n_bytes / 0x1p30, has / 0x1p30);
    QD_TRY(qd_arena_init(&a->arena, n_bytes, err, errlen));
    struct layout placed = {.a = a};
    lay_out(&placed);
    return QD_OK;
}

qd_status qd_arrangement_init_store(struct qd_arrangement *a, int n_lanes, char *err,
                                    size_t errlen)
{
    size_t n_bytes;
    void *data;
    char why[QD_ERR_LEN] = "";
    QD_ASSERT(a->n_ranks == 1);
    QD_TRY(count(a, &n_bytes, err, errlen));
    qd_status status = a->ops->store->open(a->device, n_bytes, n_lanes, &a->store, &data, why, sizeof why);
    if (status != QD_OK)
        return qd_fail(status, err, errlen, "%s: weights of rank %d: %s", a->config->name, a->shards[0].rank,
                       why);
    a->arena = (struct qd_arena){.base = data, .capacity = n_bytes};
    struct layout placed = {.a = a};
    lay_out(&placed);
    return QD_OK;
}

void qd_arrangement_free(struct qd_arrangement *a)
{
    if (a->store != NULL)
        a->ops->store->close(a->store);
    else
        qd_arena_free(&a->arena);
    a->store = NULL;
    a->arena = (struct qd_arena){0};
    free(a->layers);
    a->layers = NULL;
}

/* Tensors that all ranks share are put once. */
static bool is_shared(enum qd_tensor_role role)
{
    return role == QD_TENSOR_EMBEDDING || qd_tensor_is_norm(role);
}

/* Its const is for readers; the loader writes once. */
qd_bf16 *qd_arrangement_destination(const struct qd_arrangement *a, const struct qd_tensor_spec *spec,
                                    int rank)
{
    const struct qd_rank_weights *w = &a->ranks[rank];
    const struct qd_layer_weights *layer = spec->layer >= 0 ? &w->layers[spec->layer] : NULL;
    const void *data = NULL;
    switch (spec->role) {
    case QD_TENSOR_EMBEDDING: data = w->embedding.data; break;
    case QD_TENSOR_LM_HEAD: data = w->lm_head.data; break;
    case QD_TENSOR_FINAL_NORM: data = w->final_norm; break;
    case QD_TENSOR_INPUT_NORM: data = layer->input_norm; break;
    case QD_TENSOR_Q:
    case QD_TENSOR_K:
    case QD_TENSOR_V: data = layer->qkv.data; break;
    case QD_TENSOR_Q_NORM: data = layer->q_norm; break;
    case QD_TENSOR_K_NORM: data = layer->k_norm; break;
    case QD_TENSOR_O: data = layer->o.data; break;
    case QD_TENSOR_POST_NORM: data = layer->post_norm; break;
    case QD_TENSOR_GATE:
    case QD_TENSOR_UP: data = layer->gate_up.data; break;
    case QD_TENSOR_DOWN: data = layer->down.data; break;
    case QD_N_TENSOR_ROLES: break;
    }
    return (qd_bf16 *)(uintptr_t)data;
}

static void put_slice(const struct qd_slice *slice, qd_bf16 *to, int64_t row, int64_t n_rows,
                      const qd_bf16 *rows, int64_t n_cols)
{
    int64_t begin = row > slice->row_begin ? row : slice->row_begin;
    int64_t end = row + n_rows, slice_end = slice->row_begin + slice->n_rows;
    if (end > slice_end) end = slice_end;
    for (int64_t i = begin; i < end; i++)
        memcpy(to + qd_slice_dst_row(slice, i - slice->row_begin) * slice->n_cols,
               rows + (i - row) * n_cols + slice->col_begin, (size_t)slice->n_cols * sizeof *to);
}

void qd_arrangement_put(struct qd_arrangement *a, const struct qd_tensor_spec *spec, int64_t row,
                        int64_t n_rows, const qd_bf16 *rows)
{
    int n_copies = is_shared(spec->role) ? 1 : a->n_ranks;
    for (int rank = 0; rank < n_copies; rank++) {
        struct qd_slice slice = qd_shard_slice(a->config, &a->shards[rank], spec);
        put_slice(&slice, qd_arrangement_destination(a, spec, rank), row, n_rows, rows, spec->cols);
    }
}

int qd_arrangement_n_groups(const struct qd_arrangement *a)
{
    return 1 + GROUPS_OF_LAYER * a->config->n_layers;
}

/* Group 0 is the head: the embedding when tied, else lm_head. Then qkv, o, gate_up, down of each layer. */
int qd_arrangement_group(const struct qd_arrangement *a, const struct qd_tensor_spec *spec)
{
    int first = 1 + GROUPS_OF_LAYER * spec->layer;
    switch (spec->role) {
    case QD_TENSOR_EMBEDDING: return a->config->tie_word_embeddings ? 0 : -1;
    case QD_TENSOR_LM_HEAD: return 0;
    case QD_TENSOR_Q:
    case QD_TENSOR_K:
    case QD_TENSOR_V: return first;
    case QD_TENSOR_O: return first + 1;
    case QD_TENSOR_GATE:
    case QD_TENSOR_UP: return first + 2;
    case QD_TENSOR_DOWN: return first + 3;
    case QD_TENSOR_FINAL_NORM:
    case QD_TENSOR_INPUT_NORM:
    case QD_TENSOR_Q_NORM:
    case QD_TENSOR_K_NORM:
    case QD_TENSOR_POST_NORM:
    case QD_N_TENSOR_ROLES: break;
    }
    return -1;
}

static const struct qd_weight *weight_of_group(const struct qd_arrangement *a, int group, int rank)
{
    const struct qd_rank_weights *w = &a->ranks[rank];
    if (group == 0) return a->config->tie_word_embeddings ? &w->embedding : &w->lm_head;
    const struct qd_layer_weights *layer = &w->layers[(group - 1) / GROUPS_OF_LAYER];
    const struct qd_weight *const weights[GROUPS_OF_LAYER] = {&layer->qkv, &layer->o, &layer->gate_up,
                                                              &layer->down};
    return weights[(group - 1) % GROUPS_OF_LAYER];
}

qd_status qd_arrangement_pack(struct qd_arrangement *a, int group, char *err, size_t errlen)
{
    bool shared = group == 0 && a->config->tie_word_embeddings;
    for (int rank = 0; rank < (shared ? 1 : a->n_ranks); rank++) {
        const struct qd_weight *weight = weight_of_group(a, group, rank);
        if (weight->data == NULL) continue;
        QD_TRY(a->ops->pack_weight((void *)(uintptr_t)weight->data, weight->n_rows, weight->n_cols, err,
                                   errlen));
    }
    return QD_OK;
}
