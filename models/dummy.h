/* Random weights of any shape, without files. A value depends only on (seed, tensor, index in the whole
 * tensor), so that every tensor-parallel size sees the same model.
 */
#ifndef QD_MODELS_DUMMY_H
#define QD_MODELS_DUMMY_H

#include "kernels/base/bf16.h"
#include "models/tensors.h"

/* out[n] = elements [first, first + n) of the tensor in row-major order, bf16: uniform with mean 0 and
 * standard deviation 1/sqrt(cols) (embedding: 0.02 when tied, else 1), norms 1. Eight draws of 16 bits share
 * one Philox block with key = seed and counter = (role and layer, index / 8). */
void qd_dummy_fill(const struct qd_model_config *config, const struct qd_tensor_spec *spec, uint64_t seed,
                   int64_t first, int64_t n, qd_bf16 *out);

/* Where a tensor that is no norm has its values from: eight of them are qd_draw_bf16(seed, stream, index / 8,
 * width) (kernels/base/random.h), which a device's store makes itself. */
struct qd_dummy_draw {
    uint64_t stream;
    float width;
};
struct qd_dummy_draw qd_dummy_draw(const struct qd_model_config *config, const struct qd_tensor_spec *spec);

#endif
