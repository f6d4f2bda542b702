/* A random Qwen3 written as files, and the arranged weights read back element by element. */
#ifndef QD_TESTS_SUPPORT_RANDOM_MODEL_H
#define QD_TESTS_SUPPORT_RANDOM_MODEL_H

#include "kernels/device.h"
#include "models/tensors.h"

struct model_files {
    const char *dtype;     /* "BF16", "F16", "F32" */
    int n_shards;          /* 0: one model.safetensors, no index */
    const char *skip;      /* a tensor left out of the files and of the index */
    const char *rename;    /* a tensor stored under another name ... */
    const char *renamed;   /* ... this one */
    const char *extra;     /* one more tensor [3] of that name; NULL: none */
    bool drop_prefix;      /* names without "model." */
    bool store_tied_head;  /* lm_head.weight beside a tied embedding, with other values */
};

/* A small valid configuration. */
struct qd_model_config small_config(bool tied);

/* Element i of the model's tensor `index`: a small multiple of 1/64, exact in bf16, F16 and F32; distinct
 * tensors and places differ. */
float random_weight(int tensor, int64_t i);

/* Writes DIR/config.json. */
void write_config(const char *dir, const struct qd_model_config *config);
/* Writes config.json and the tensors. */
void write_model(const char *dir, const struct qd_model_config *config, const struct model_files *files);

/* A device that only arranges: rows stay rows, packed weights are panels of 16 rows, [K][16] each. */
extern const struct qd_device_ops panel_ops;

/* Element of a weight that panel_ops arranged. */
qd_bf16 weight_at(const struct qd_weight *weight, int64_t row, int64_t col);

#endif
