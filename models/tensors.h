/* The tensors of a Qwen3ForCausalLM checkpoint: roles, Hugging Face names and shapes, in one list that the
 * loader, the dummy weights and the checks against a file all walk.
 */
#ifndef QD_MODELS_TENSORS_H
#define QD_MODELS_TENSORS_H

#include "models/config.h"

enum qd_tensor_role {
    QD_TENSOR_EMBEDDING = 0, /* [V][H] */
    QD_TENSOR_LM_HEAD,       /* [V][H], absent when tied */
    QD_TENSOR_FINAL_NORM,    /* [H] */
    QD_TENSOR_INPUT_NORM,    /* [H]; this and all below once a layer */
    QD_TENSOR_Q,             /* [Hq*hd][H] */
    QD_TENSOR_K,             /* [Hkv*hd][H] */
    QD_TENSOR_V,             /* [Hkv*hd][H] */
    QD_TENSOR_Q_NORM,        /* [hd] */
    QD_TENSOR_K_NORM,        /* [hd] */
    QD_TENSOR_O,             /* [H][Hq*hd] */
    QD_TENSOR_POST_NORM,     /* [H] */
    QD_TENSOR_GATE,          /* [I][H] */
    QD_TENSOR_UP,            /* [I][H] */
    QD_TENSOR_DOWN,          /* [H][I] */
    QD_N_TENSOR_ROLES,
};

struct qd_tensor_spec {
    enum qd_tensor_role role;
    int32_t layer;      /* -1 outside the layers */
    int64_t rows, cols; /* a norm is one row */
};

enum { QD_TENSOR_NAME_LEN = 96 };

/* Tensors the model consists of, largest single ones first. */
int qd_model_n_tensors(const struct qd_model_config *config);
struct qd_tensor_spec qd_model_tensor(const struct qd_model_config *config, int index);

/* The name that Hugging Face gives it, e.g. "model.layers.3.mlp.up_proj.weight". */
void qd_tensor_name(const struct qd_tensor_spec *spec, char name[QD_TENSOR_NAME_LEN]);

/* True for the vectors of RMSNorm, which a file stores with one dimension. */
bool qd_tensor_is_norm(enum qd_tensor_role role);

#endif
