/* A checkpoint on disk: model.safetensors, or model.safetensors.index.json and its shards, opened and
 * validated against a model configuration before a byte of data is read.
 */
#ifndef QD_MODELS_CHECKPOINT_H
#define QD_MODELS_CHECKPOINT_H

#include "models/config.h"
#include "models/safetensors.h"

struct qd_checkpoint_file {
    char *path;
    int fd; /* of a regular file, links followed */
    uint64_t n_bytes;
};

struct qd_checkpoint {
    struct qd_checkpoint_file *files;
    int n_files;
    char *index_path;              /* NULL: one file without an index */
    struct qd_tensor_list tensors; /* sorted by name; tensor.file indexes files */
};

/* Opens the files of a folder (any shape qd_model_dir_resolve takes) and reads their headers. The index wins
 * over model.safetensors; files that it does not name are left alone. QD_ERR_NOT_FOUND, QD_ERR_INPUT,
 * QD_ERR_UNSUPPORTED, QD_ERR_TOO_LARGE, QD_ERR_IO; err names file, tensor and reason; nothing stays open. */
qd_status qd_checkpoint_open(const char *dir, struct qd_checkpoint *out, char *err, size_t errlen);
void qd_checkpoint_close(struct qd_checkpoint *checkpoint); /* harmless on a zeroed one */

/* Reads n bytes at offset, all of them or QD_ERR_IO; from any thread. */
qd_status qd_checkpoint_read(const struct qd_checkpoint_file *file, uint64_t offset, void *out, size_t n,
                             char *err, size_t errlen);

/* Finds the model's tensors: found[qd_model_n_tensors(config)], in the order of qd_model_tensor. Refuses
 * missing and unexpected tensors and wrong shapes. Accepted beside them: a stored lm_head.weight in a tied
 * model (its values are not used, as in Hugging Face) and rotary_emb.inv_freq. */
qd_status qd_checkpoint_match(const struct qd_checkpoint *checkpoint, const struct qd_model_config *config,
                              const struct qd_tensor **found, char *err, size_t errlen);

#endif
