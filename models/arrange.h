/* Arranged weights: where everything lies, rows put in their places, weights packed by the device. Those of
 * all ranks in one arena of the host or, for a device with memory of its own, those of one rank in a store
 * there. Inside models/ only.
 */
#ifndef QD_MODELS_ARRANGE_H
#define QD_MODELS_ARRANGE_H

#include "kernels/base/arena.h"
#include "models/shard.h"
#include "models/weights.h"

struct qd_arrangement {
    const struct qd_model_config *config;
    const struct qd_device_ops *ops;
    int n_ranks; /* held here: all, or one in a store */
    struct qd_shard shards[QD_MAX_TP];
    struct qd_rank_weights ranks[QD_MAX_TP];
    struct qd_layer_weights *layers; /* [n_ranks][n_layers], what ranks[].layers points into */
    struct qd_arena arena; /* zeroed, so rows that pad a panel or a shard are zero; or the store's memory */
    void *store;           /* NULL: on the host */
    int device;            /* that the store is on */
};

/* Reserves memory for every weight on the host. config, ops, n_ranks and shards are set by the caller, the
 * rest is zeroed. QD_ERR_DOES_NOT_FIT with the arithmetic when the machine has less memory than the weights
 * need, QD_ERR_NO_MEMORY. */
qd_status qd_arrangement_init(struct qd_arrangement *a, char *err, size_t errlen);

/* The same for one rank in a store on `device`, which is set too, filled through n_lanes. */
qd_status qd_arrangement_init_store(struct qd_arrangement *a, int n_lanes, char *err,
                                    size_t errlen);
void qd_arrangement_free(struct qd_arrangement *a); /* harmless when zeroed */

/* Puts rows [row, row + n_rows) of a tensor, bf16 [n_rows][spec->cols], where each rank wants them. Distinct
 * rows may be put from different threads. */
void qd_arrangement_put(struct qd_arrangement *a, const struct qd_tensor_spec *spec, int64_t row,
                        int64_t n_rows, const qd_bf16 *rows);

/* Tensors that end up in one packed weight of a rank form a group; -1: the tensor is not packed. */
int qd_arrangement_n_groups(const struct qd_arrangement *a);
int qd_arrangement_group(const struct qd_arrangement *a, const struct qd_tensor_spec *spec);

/* The arranged weight that a tensor goes to on a rank. */
qd_bf16 *qd_arrangement_destination(const struct qd_arrangement *a, const struct qd_tensor_spec *spec,
                                    int rank);

/* As qd_arrangement_put into a store: starts copies from `rows`, which is staging of the lane, and returns.
 */
qd_status qd_arrangement_send(const struct qd_arrangement *a, const struct qd_tensor_spec *spec, int64_t row,
                              int64_t n_rows, const qd_bf16 *rows, int lane, char *err, size_t errlen);

/* Has the device of a store draw the whole tensor, which is no norm, as qd_dummy_fill does (models/dummy.h).
 */
qd_status qd_arrangement_fill(const struct qd_arrangement *a, const struct qd_tensor_spec *spec,
                              uint64_t seed, char *err, size_t errlen);

/* Lets the device pack the weights of a group, of every rank, once all their rows are in place. */
qd_status qd_arrangement_pack(struct qd_arrangement *a, int group, char *err, size_t errlen);

#endif
