#include "models/dummy.h"

#include <math.h>

#include "kernels/base/random.h"

static double standard_deviation(const struct qd_model_config *config, const struct qd_tensor_spec *spec)
{
    if (spec->role == QD_TENSOR_EMBEDDING) return config->tie_word_embeddings ? 0.02 : 1.0;
    return 1.0 / sqrt((double)spec->cols);
}

struct qd_dummy_draw qd_dummy_draw(const struct qd_model_config *config, const struct qd_tensor_spec *spec)
{
    /* A uniform variable of standard deviation 1 is sqrt(12) wide. */
    return (struct qd_dummy_draw){
        .stream = (uint64_t)(spec->layer + 1) * QD_N_TENSOR_ROLES + (uint64_t)spec->role,
        .width = (float)(sqrt(12.0) * standard_deviation(config, spec)),
    };
}

void qd_dummy_fill(const struct qd_model_config *config, const struct qd_tensor_spec *spec, uint64_t seed,
                   int64_t first, int64_t n, qd_bf16 *out)
{
    if (qd_tensor_is_norm(spec->role)) {
        for (int64_t i = 0; i < n; i++)
            out[i] = qd_bf16_from_f32(1.0f);
        return;
    }
    struct qd_dummy_draw draw = qd_dummy_draw(config, spec);
    for (int64_t i = first; i < first + n;) {
        qd_bf16 edge[QD_DRAWS];
        int64_t skip = i % QD_DRAWS, left = first + n - i;
        bool whole = skip == 0 && left >= QD_DRAWS;
        qd_draw_bf16(seed, draw.stream, (uint64_t)(i / QD_DRAWS), draw.width,
                     whole ? out + (i - first) : edge);
        int64_t take = QD_DRAWS - skip < left ? QD_DRAWS - skip : left;
        for (int64_t k = 0; !whole && k < take; k++)
            out[i - first + k] = edge[skip + k];
        i += take;
    }
}
