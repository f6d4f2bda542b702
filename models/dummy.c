#include "models/dummy.h"

#include <math.h>

#include "kernels/base/random.h"

enum { DRAWS = 8 }; /* of a block */

static double standard_deviation(const struct qd_model_config *config, const struct qd_tensor_spec *spec)
{
    if (spec->role == QD_TENSOR_EMBEDDING) return config->tie_word_embeddings ? 0.02 : 1.0;
    return 1.0 / sqrt((double)spec->cols);
}

/* The 16-bit draw w stands for (w + 1/2) / 2^16 - 1/2, uniform in (-1/2, 1/2); `width` stretches it. */
static void draw_block(uint64_t seed, uint64_t tensor, uint64_t index, float width, qd_bf16 out[DRAWS])
{
    struct qd_philox_block block = qd_philox(seed, tensor, index);
    float values[DRAWS];
    for (int i = 0; i < DRAWS; i++) {
        int32_t draw = (int32_t)(block.word[i / 2] >> (i % 2 * 16) & 0xffffu);
        values[i] = ((float)draw - 32767.5f) * 0x1p-16f * width;
    }
    for (int i = 0; i < DRAWS; i++)
        out[i] = qd_bf16_from_f32(values[i]);
}

void qd_dummy_fill(const struct qd_model_config *config, const struct qd_tensor_spec *spec, uint64_t seed,
                   int64_t first, int64_t n, qd_bf16 *out)
{
    if (qd_tensor_is_norm(spec->role)) {
        for (int64_t i = 0; i < n; i++)
            out[i] = qd_bf16_from_f32(1.0f);
        return;
    }
    /* A uniform variable of standard deviation 1 is sqrt(12) wide. */
    float width = (float)(sqrt(12.0) * standard_deviation(config, spec));
    uint64_t tensor = (uint64_t)(spec->layer + 1) * QD_N_TENSOR_ROLES + (uint64_t)spec->role;
    for (int64_t i = first; i < first + n;) {
        qd_bf16 edge[DRAWS];
        int64_t skip = i % DRAWS, left = first + n - i;
        bool whole = skip == 0 && left >= DRAWS;
        draw_block(seed, tensor, (uint64_t)(i / DRAWS), width, whole ? out + (i - first) : edge);
        int64_t take = DRAWS - skip < left ? DRAWS - skip : left;
        for (int64_t k = 0; !whole && k < take; k++)
            out[i - first + k] = edge[skip + k];
        i += take;
    }
}
