/* The workload that the options of `run` describe. */
#ifndef QD_HARNESS_CLI_RUN_WORKLOAD_H
#define QD_HARNESS_CLI_RUN_WORKLOAD_H

#include "harness/cli/options.h"
#include "harness/workload/workload.h"
#include "models/config.h"

/* Whether prompts are texts. Random prompts use the tokenizer only to leave out special ids, where there is
 * one. */
bool qd_run_workload_needs_tokenizer(const struct qd_options *options);

/* Builds it; tokenizer NULL: random ids are drawn from the whole vocabulary. */
qd_status qd_run_workload_build(const struct qd_options *options, const struct qd_model_config *config,
                                const qd_tokenizer_t *tokenizer, struct qd_workload *out, char *err,
                                size_t errlen);

/* How `workload` is handed over under these options, and what results call it: burst, closed, poisson, gamma,
 * constant, ramp, trace or waves. */
struct qd_run_pacing {
    const char *kind;
    enum qd_pacing pacing;
};
struct qd_run_pacing qd_run_workload_pacing(const struct qd_options *options,
                                            const struct qd_workload *workload);

/* --num-warmups requests of the lengths of the run's first ones, with ids of another stream. */
qd_status qd_run_workload_warmup(const struct qd_options *options, const struct qd_model_config *config,
                                 const struct qd_workload *run, struct qd_workload *out, char *err,
                                 size_t errlen);

#endif
