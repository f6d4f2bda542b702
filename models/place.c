/* Weights where a device reads them. One with memory of its own gets two copies of what the arena holds: the
 * part that the ranks share and the rank's own, so that every pointer moves by one of two distances. */
#include <stdlib.h>
#include <string.h>

#include "models/arrange.h"

/* A rank's parts of the arena and where their copies are. */
struct move {
    const struct qd_arrangement *a;
    int rank;
    unsigned char *shared, *own; /* in the device */
};

static const void *moved(const struct move *move, const void *data)
{
    if (data == NULL) return NULL;
    size_t offset = (size_t)((const unsigned char *)data - move->a->arena.base);
    size_t own_begin = move->a->rank_begin[move->rank];
    return offset < move->a->rank_begin[0] ? move->shared + offset : move->own + (offset - own_begin);
}

static void move_layer(const struct move *move, struct qd_layer_weights *w)
{
    w->input_norm = moved(move, w->input_norm);
    w->qkv.data = moved(move, w->qkv.data);
    w->q_norm = moved(move, w->q_norm);
    w->k_norm = moved(move, w->k_norm);
    w->o.data = moved(move, w->o.data);
    w->post_norm = moved(move, w->post_norm);
    w->gate_up.data = moved(move, w->gate_up.data);
    w->down.data = moved(move, w->down.data);
}

static qd_status copy_part(struct qd_device device, const struct qd_arrangement *a, size_t begin, size_t end,
                           unsigned char **out, char *err, size_t errlen)
{
    void *data;
    if (end > a->arena.used) end = a->arena.used; /* the last part's padding was never taken */
    QD_TRY(qd_device_alloc(device, end - begin, &data, err, errlen));
    *out = data;
    return qd_device_upload(device, data, a->arena.base + begin, end - begin, err, errlen);
}

static qd_status copy_to_device(const struct qd_arrangement *a, int rank, struct qd_device device,
                                struct qd_rank_weights *w, char *err, size_t errlen)
{
    struct move move = {.a = a, .rank = rank};
    QD_TRY(copy_part(device, a, 0, a->rank_begin[0], &move.shared, err, errlen));
    QD_TRY(copy_part(device, a, a->rank_begin[rank], a->rank_begin[rank + 1], &move.own, err, errlen));
    w->embedding.data = moved(&move, w->embedding.data);
    w->final_norm = moved(&move, w->final_norm);
    w->lm_head.data = moved(&move, w->lm_head.data);
    for (int32_t layer = 0; layer < a->config->n_layers; layer++) move_layer(&move, &w->layers[layer]);
    return QD_OK;
}

qd_status qd_arrangement_place(const struct qd_arrangement *a, int rank, struct qd_device device,
                               struct qd_rank_weights *out, char *err, size_t errlen)
{
    size_t n_layers = (size_t)a->config->n_layers;
    *out = a->ranks[rank];
    out->layers = calloc(n_layers, sizeof *out->layers);
    if (out->layers == NULL) return qd_fail(QD_ERR_NO_MEMORY, err, errlen, "table of layers");
    memcpy(out->layers, a->ranks[rank].layers, n_layers * sizeof *out->layers);
    return qd_device_has_copies(device.ops) ? copy_to_device(a, rank, device, out, err, errlen) : QD_OK;
}

void qd_rank_weights_free(struct qd_rank_weights *weights)
{
    free(weights->layers);
    *weights = (struct qd_rank_weights){0};
}
