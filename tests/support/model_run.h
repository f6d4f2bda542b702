/* A model and one group of ranks that runs it, for tests of the forward pass. */
#ifndef QD_TESTS_SUPPORT_MODEL_RUN_H
#define QD_TESTS_SUPPORT_MODEL_RUN_H

#include "harness/engine/forward_once.h"
#include "models/model.h"

struct model_run {
    struct qd_program program;
    struct qd_step_limits limits;
    qd_group_t *group;
};

/* How to run. */
struct run_options {
    const char *isa; /* of the cpu device */
    int n_threads;   /* of all ranks together; 0: all cores */
    enum qd_numerics numerics;
    int32_t max_tokens, max_logit_rows, max_model_len;
    bool enforce_eager, batch_invariant, device_timing; /* as in qd_device_config */
    bool no_logits;                                     /* as in qd_program_options */
    int ranks_per_gpu;                                  /* as there */
    enum qd_collectives collectives;                    /* as there */
};

/* Loads DIR for `tp` ranks of the device; fails the running test when that does not work. */
qd_model_t *load_model(const char *dir, const struct qd_device_ops *ops, int tp);

/* The same of a preset, with made-up weights. */
qd_model_t *make_model(const char *preset, const struct qd_device_ops *ops, int tp);
/* The same where that many ranks share a GPU. */
qd_model_t *make_model_on(const char *preset, const struct qd_device_ops *ops, int tp, int ranks_per_gpu);

/* The program and what a group over it is opened with, for a model that was loaded for the same device. Fails
 * the running test. */
void model_run_configure(struct model_run *run, qd_model_t *model, const struct qd_device_ops *ops,
                         const struct run_options *options, struct qd_group_config *group);

/* Opens a group over a model that was loaded for the same device. Fails the running test. */
void model_run_open(struct model_run *run, qd_model_t *model, const struct qd_device_ops *ops,
                    const struct run_options *options);
void model_run_close(struct model_run *run);

/* Runs a sequence in chunks, calling `row` for every position from first_row on. Fails the running test. */
void model_run_forward(struct model_run *run, const struct qd_forward *forward);

/* All logits of all positions, [n_tokens][vocab], to be freed. */
float *model_run_logits(struct model_run *run, const int32_t *tokens, int32_t n_tokens, int32_t chunk,
                        int32_t vocab_size);

enum { MICRO_VOCAB = 515, MICRO_TOKENS = 37 };

/* All logits of MICRO_TOKENS made-up tokens under the preset micro, [MICRO_TOKENS][MICRO_VOCAB], in chunks of
 * 18; to be freed. Fails the running test unless the group's way of summing is `collectives` and its note
 * contains `note`; NULL: not looked at. */
float *micro_logits(const struct qd_device_ops *ops, int tp, const struct run_options *options,
                    const char *collectives, const char *note);

#endif
