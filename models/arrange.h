/* The arranged weights of all ranks in one arena: where everything lies, rows put in their places, weights
 * packed by the device. Inside models/ only.
 */
#ifndef QD_MODELS_ARRANGE_H
#define QD_MODELS_ARRANGE_H

#include "kernels/base/arena.h"
#include "models/shard.h"
#include "models/weights.h"

struct qd_arrangement {
    const struct qd_model_config *config;
    const struct qd_device_ops *ops;
    int tp;
    struct qd_shard shards[QD_MAX_TP];
    struct qd_rank_weights ranks[QD_MAX_TP];
    struct qd_layer_weights *layers; /* [tp][n_layers], what ranks[].layers points into */
    struct qd_arena arena;           /* zeroed, so rows that pad a panel or a shard are zero: what ranks share,
                                      * then what each has alone */
    size_t rank_begin[QD_MAX_TP + 1]; /* byte offset in the arena of each rank's own part; [tp] is the end */
};

/* Reserves memory for every weight. config, ops, tp and shards are set by the caller, the rest is zeroed.
 * QD_ERR_DOES_NOT_FIT with the arithmetic when the machine has less memory than the weights need,
 * QD_ERR_NO_MEMORY. */
qd_status qd_arrangement_init(struct qd_arrangement *a, char *err, size_t errlen);
void qd_arrangement_free(struct qd_arrangement *a); /* harmless when zeroed */

/* Puts rows [row, row + n_rows) of a tensor, bf16 [n_rows][spec->cols], where each rank wants them. Distinct
 * rows may be put from different threads. */
void qd_arrangement_put(struct qd_arrangement *a, const struct qd_tensor_spec *spec, int64_t row,
                        int64_t n_rows, const qd_bf16 *rows);

/* Tensors that end up in one packed weight of a rank form a group; -1: the tensor is not packed. */
int qd_arrangement_n_groups(const struct qd_arrangement *a);
int qd_arrangement_group(const struct qd_arrangement *a, const struct qd_tensor_spec *spec);

/* As qd_model_place_weights (models/place.c). */
qd_status qd_arrangement_place(const struct qd_arrangement *a, int rank, struct qd_device device,
                               struct qd_rank_weights *out, char *err, size_t errlen);

/* Lets the device pack the weights of a group, of every rank, once all their rows are in place. */
qd_status qd_arrangement_pack(struct qd_arrangement *a, int group, char *err, size_t errlen);

#endif
