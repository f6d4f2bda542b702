#include "models/tensors.h"

#include <stdio.h>

enum { N_LAYER_ROLES = QD_N_TENSOR_ROLES - QD_TENSOR_INPUT_NORM };

static const char *const NAMES[QD_N_TENSOR_ROLES] = {
    [QD_TENSOR_EMBEDDING] = "model.embed_tokens.weight",
    [QD_TENSOR_LM_HEAD] = "lm_head.weight",
    [QD_TENSOR_FINAL_NORM] = "model.norm.weight",
    [QD_TENSOR_INPUT_NORM] = "input_layernorm.weight",
    [QD_TENSOR_Q] = "self_attn.q_proj.weight",
    [QD_TENSOR_K] = "self_attn.k_proj.weight",
    [QD_TENSOR_V] = "self_attn.v_proj.weight",
    [QD_TENSOR_Q_NORM] = "self_attn.q_norm.weight",
    [QD_TENSOR_K_NORM] = "self_attn.k_norm.weight",
    [QD_TENSOR_O] = "self_attn.o_proj.weight",
    [QD_TENSOR_POST_NORM] = "post_attention_layernorm.weight",
    [QD_TENSOR_GATE] = "mlp.gate_proj.weight",
    [QD_TENSOR_UP] = "mlp.up_proj.weight",
    [QD_TENSOR_DOWN] = "mlp.down_proj.weight",
};

bool qd_tensor_is_norm(enum qd_tensor_role role)
{
    return role == QD_TENSOR_FINAL_NORM || role == QD_TENSOR_INPUT_NORM || role == QD_TENSOR_POST_NORM ||
           role == QD_TENSOR_Q_NORM || role == QD_TENSOR_K_NORM;
}

static void set_shape(const struct qd_model_config *config, struct qd_tensor_spec *spec)
{
    int64_t hidden = config->hidden_dim, ffn = config->ffn_dim, head = config->head_dim;
    int64_t q_rows = config->n_heads * head, kv_rows = config->n_kv_heads * head;
    int64_t rows = 1, cols = hidden;
    switch (spec->role) {
    case QD_TENSOR_EMBEDDING:
    case QD_TENSOR_LM_HEAD: rows = config->vocab_size; break;
    case QD_TENSOR_Q: rows = q_rows; break;
    case QD_TENSOR_K:
    case QD_TENSOR_V: rows = kv_rows; break;
    case QD_TENSOR_Q_NORM:
    case QD_TENSOR_K_NORM: cols = head; break;
    case QD_TENSOR_O: rows = hidden, cols = q_rows; break;
    case QD_TENSOR_GATE:
    case QD_TENSOR_UP: rows = ffn; break;
    case QD_TENSOR_DOWN: rows = hidden, cols = ffn; break;
    case QD_TENSOR_FINAL_NORM:
    case QD_TENSOR_INPUT_NORM:
    case QD_TENSOR_POST_NORM:
    case QD_N_TENSOR_ROLES: break;
    }
    spec->rows = rows;
    spec->cols = cols;
}

int qd_model_n_tensors(const struct qd_model_config *config)
{
    return (config->tie_word_embeddings ? 2 : 3) + config->n_layers * N_LAYER_ROLES;
}

struct qd_tensor_spec qd_model_tensor(const struct qd_model_config *config, int index)
{
    struct qd_tensor_spec spec = {.layer = -1};
    int n_global = config->tie_word_embeddings ? 2 : 3;
    if (index < n_global) {
        bool skips_head = config->tie_word_embeddings && index > 0;
        spec.role = (enum qd_tensor_role)(index + (skips_head ? 1 : 0));
    } else {
        spec.layer = (index - n_global) / N_LAYER_ROLES;
        spec.role = (enum qd_tensor_role)(QD_TENSOR_INPUT_NORM + (index - n_global) % N_LAYER_ROLES);
    }
    set_shape(config, &spec);
    return spec;
}

void qd_tensor_name(const struct qd_tensor_spec *spec, char name[QD_TENSOR_NAME_LEN])
{
    if (spec->layer < 0)
        snprintf(name, QD_TENSOR_NAME_LEN, "%s", NAMES[spec->role]);
    else
        snprintf(name, QD_TENSOR_NAME_LEN, "model.layers.%d.%s", spec->layer, NAMES[spec->role]);
}

int64_t qd_model_n_params(const struct qd_model_config *config)
{
    int64_t total = 0;
    for (int i = 0; i < qd_model_n_tensors(config); i++) {
        struct qd_tensor_spec spec = qd_model_tensor(config, i);
        total += spec.rows * spec.cols;
    }
    return total;
}
