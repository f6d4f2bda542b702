/* Any bytes as config.json; what is accepted must be usable: frequencies, parameters, every tensor-parallel
 * plan. */
#include <math.h>
#include <stdint.h>

#include "models/config.h"
#include "models/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[QD_ERR_LEN];
    struct qd_model_config config;
    if (qd_model_config_parse((const char *)data, size, "file", &config, err, sizeof err) != QD_OK) return 0;
    float inv_freq[512], scaling;
    qd_model_rope(&config, inv_freq, &scaling);
    for (int i = 0; i < config.head_dim / 2; i++)
        QD_ASSERT(isfinite(inv_freq[i]));
    QD_ASSERT(isfinite(scaling) && qd_model_n_params(&config) > 0);
    for (int tp = 1; tp <= QD_MAX_TP; tp++) {
        int64_t n_ids = 0;
        struct qd_shard shard;
        int rank = 0;
        for (; rank < tp && qd_shard_make(&config, tp, rank, &shard, err, sizeof err) == QD_OK; rank++)
            n_ids += shard.vocab_count;
        QD_ASSERT(rank == 0 || n_ids == config.vocab_size);
    }
    return 0;
}
