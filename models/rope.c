/* Rotary frequencies, computed in fp32 step by step as Hugging Face does, so that angles agree bit for bit up
 * to the last digit of powf. */
#include <math.h>

#include "models/config.h"

/* The pair index whose wave turns `rotations` times in the original context. */
static double correction_dim(const struct qd_model_config *config, double rotations)
{
    const double pi = 3.14159265358979323846;
    double turns = (double)config->yarn.original_max_position_embeddings / (rotations * 2 * pi);
    return config->head_dim * log(turns) / (2 * log(config->rope_theta));
}

/* Blends interpolated and original frequencies: below `low` original, above `high` divided by the factor. */
static void blend_yarn(const struct qd_model_config *config, float *inv_freq, const float *pos_freq)
{
    double low = correction_dim(config, config->yarn.beta_fast);
    double high = correction_dim(config, config->yarn.beta_slow);
    if (config->yarn.truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, config->head_dim - 1);
    if (low == high) high += 0.001; /* as Hugging Face keeps the ramp finite */

    for (int i = 0; i < config->head_dim / 2; i++) {
        float interpolated = 1.0f / ((float)config->yarn.factor * pos_freq[i]);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);
        inv_freq[i] = interpolated * (1.0f - keep) + inv_freq[i] * keep;
    }
}

void qd_model_rope(const struct qd_model_config *config, float *inv_freq, float *attention_scaling)
{
    int n_pairs = config->head_dim / 2;
    float pos_freq[512];
    QD_ASSERT(n_pairs <= 512); /* reading a config checks it */
    for (int i = 0; i < n_pairs; i++) {
        pos_freq[i] = powf((float)config->rope_theta, (float)(2 * i) / (float)config->head_dim);
        inv_freq[i] = 1.0f / pos_freq[i];
    }
    if (config->yarn.enabled) blend_yarn(config, inv_freq, pos_freq);
    *attention_scaling = config->yarn.enabled ? (float)config->yarn.attention_factor : 1.0f;
}
