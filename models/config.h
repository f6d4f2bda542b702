/* The model's hyper-parameters: config.json of Qwen3ForCausalLM, in both spellings in use.
 *
 * A field that changes the computation in a way qdyno does not implement is refused by name; unknown keys are
 * accepted.
 */
#ifndef QD_MODELS_CONFIG_H
#define QD_MODELS_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum { QD_MAX_EOS = 16, QD_MAX_TP = 8 };

struct qd_model_config {
    char name[128];          /* last path component, or the preset's name */
    int64_t hidden_dim;      /* H */
    int64_t ffn_dim;         /* I */
    int64_t vocab_size;      /* V */
    int32_t n_layers;
    int32_t n_heads;         /* query heads */
    int32_t n_kv_heads;      /* divides n_heads */
    int32_t head_dim;        /* even */
    double rms_norm_eps;
    double rope_theta;
    bool tie_word_embeddings;
    int64_t max_position_embeddings; /* as the file says */
    int64_t max_context;             /* usable positions: with YaRN factor * original, else as above */
    struct {
        bool enabled;
        double factor;
        int64_t original_max_position_embeddings;
        double beta_fast, beta_slow; /* 32 and 1 unless given */
        double attention_factor;     /* 0.1 * ln(factor) + 1 unless given or made from mscale */
        bool truncate;               /* the ramp runs between whole pair indices; true unless given */
    } yarn;
    int32_t n_eos;                /* from config.json, replaced by generation_config.json's list if any */
    int32_t eos_ids[QD_MAX_EOS];
};

/* Reads config.json from memory; `path` only names it in errors. Errors as below. */
qd_status qd_model_config_parse(const char *text, size_t len, const char *path, struct qd_model_config *out,
                                char *err, size_t errlen);

/* Reads DIR/config.json and, if present, DIR/generation_config.json (eos list only).
 * DIR may be any folder that qd_model_dir_resolve takes. Errors name file, field and reason: QD_ERR_INPUT,
 * QD_ERR_UNSUPPORTED, QD_ERR_NOT_FOUND. */
qd_status qd_model_config_read(const char *dir, struct qd_model_config *out, char *err, size_t errlen);

/* A preset by name: "0.6B" (or "Qwen3-0.6B"), "1.7B", "4B", "8B", "14B", "32B", "micro"; the JSON files of
 * models/presets, compiled in. QD_ERR_NOT_FOUND lists the names. */
qd_status qd_model_config_preset(const char *name, struct qd_model_config *out, char *err, size_t errlen);

/* Full name of preset i ("Qwen3-0.6B"), by rising size; NULL beyond the last. */
const char *qd_model_preset_name(int i);

/* Parameters of the model as Hugging Face counts them: a tied head counts once. */
int64_t qd_model_n_params(const struct qd_model_config *config);

/* inv_freq[i] = theta^(-2i/head_dim), in fp32 as Hugging Face computes it; with YaRN blended with
 * inv_freq[i]/factor along the ramp between the pairs that turn beta_fast and beta_slow times in the original
 * context. inv_freq: [head_dim/2]; *attention_scaling: what cos and sin carry, 1 without YaRN.
 * Source: Hugging Face transformers, modeling_rope_utils, _compute_yarn_parameters. */
void qd_model_rope(const struct qd_model_config *config, float *inv_freq, float *attention_scaling);

#endif
