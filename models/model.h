/* A loaded model: configuration and arranged weights of every tensor-parallel rank, shared read-only by all
 * replicas of the process, and the forward pass as a program for a group of ranks.
 */
#ifndef QD_MODELS_MODEL_H
#define QD_MODELS_MODEL_H

#include "kernels/group.h"
#include "models/config.h"
#include "models/shard.h"

typedef struct qd_model qd_model_t;

enum qd_load_format { QD_LOAD_AUTO = 0, QD_LOAD_DUMMY = 1 };

struct qd_model_options {
    const char *dir;     /* model directory (HF files, snapshot or models--* folder); NULL: use config */
    const struct qd_model_config *config; /* with dummy weights and no directory */
    enum qd_load_format load_format;
    uint64_t dummy_seed;
    const struct qd_device_ops *ops; /* arranges the weights; one that does not execute loads nothing */
    int tp;
    int dp;        /* replicas, where the device has memory of its own; 0: one */
    int ranks_per_gpu; /* there, as in qd_device_config */
    int n_threads; /* readers */
    /* Called from one thread a few times per second; NULL: silent. */
    void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_arg;
};

struct qd_load_stats {
    uint64_t file_bytes;   /* read, each once */
    int64_t duration_ns;   /* load and arrange */
    int64_t read_ns;       /* of it, a reader waited for files, on average */
    uint64_t copied_bytes; /* to memory of devices, all together */
    int64_t copy_ns;       /* the busiest store was busy with that */
    int n_devices;         /* with memory of their own */
    uint64_t n_overflowed; /* finite values that became infinite in bf16 */
};

/* Reads config.json, validates every tensor, loads. Errors name file, tensor and reason; nothing is left. */
qd_status qd_model_load(const struct qd_model_options *options, qd_model_t **out, char *err, size_t errlen);
void qd_model_free(qd_model_t *model); /* accepts NULL; after all groups closed */

int qd_model_get_tp(const qd_model_t *model);
const struct qd_model_config *qd_model_get_config(const qd_model_t *model);
struct qd_load_stats qd_model_load_stats(const qd_model_t *model);

/* The KV pool of one replica: pages per rank (all layers). */
struct qd_program_options {
    int first_rank; /* global index of the replica's rank 0 */
    int32_t n_kv_blocks;
    struct qd_step_limits limits;
    enum qd_numerics numerics;
    bool no_logits; /* no step wants them: no memory for them is taken */
};

/* The forward pass over `model`; options are copied. The program borrows the model; free `program.user` with
 * qd_model_program_free after its group has closed. */
qd_status qd_model_program(qd_model_t *model, const struct qd_program_options *options,
                           struct qd_program *out, char *err, size_t errlen);
void qd_model_program_free(struct qd_program *program);

#endif
